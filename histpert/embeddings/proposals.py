"""Likely names of genes that were not found: shown to the user, never used."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from histpert.wording import some

__all__ = ["propose"]

_CUTOFF = 0.85
"""Likeness of the closest spelling: one letter more or less in a name of six."""
_SPELLED = 200
"""Missing genes whose closest spelling is looked for: each takes a hundredth of a second or more."""

# Spreadsheets turn these into dates, for which the families were renamed: old prefix, new prefix, month.
_RENAMED = (("MARCH", "MARCHF", 3), ("MARC", "MTARC", 3), ("SEPT", "SEPTIN", 9), ("DEC", "DELEC", 12))
_MONTHS = {"JAN": 1, "FEB": 2, "MAR": 3, "APR": 4, "MAY": 5, "JUN": 6}
_MONTHS |= {"JUL": 7, "AUG": 8, "SEP": 9, "OCT": 10, "NOV": 11, "DEC": 12}
_NEW_PREFIX = {old: new for old, new, _ in _RENAMED} | {new: new for _, new, _ in _RENAMED}
_NUMBERED = re.compile(rf"({'|'.join(sorted(_NEW_PREFIX, key=len, reverse=True))})0?(\d{{1,2}})")
_DAY_MONTH = re.compile(r"(\d{1,2})[-/ .]([A-Z]{3})(?:[-/ .]\d{2,4})?")
_MONTH_DAY = re.compile(r"([A-Z]{3})[-/ .](\d{1,2})")
_ISO = re.compile(r"\d{4}-(\d{2})-(\d{2})(?:[ T].*)?")


def propose(missing: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """A note of likely names, where there are any.

    Args:
        missing: Names that were not found.
        known: Names that there are.
    """
    by_form: dict[str, list[str]] = {}
    for name in known:
        for form in _forms(name):
            by_form.setdefault(form, []).append(name)
    spelling = _Spelling(known) if missing else None
    proposals = []
    for gene in missing:
        likely = dict.fromkeys(name for form in _forms(gene) for name in by_form.get(form, ()))
        if not likely and spelling is not None:
            likely = dict.fromkeys(spelling.closest(gene))
        if likely:
            proposals.append(f"{gene} -> {' or '.join(likely)}")
    if not proposals:
        return ()
    return (f"likely names of missing genes, not used: {some(proposals, 20)}",)


def _forms(name: str) -> tuple[str, ...]:
    """What a name may have been before case, spaces, a version or a spreadsheet changed it; alike names share one."""
    upper = name.strip().upper()
    plain = re.sub(r"[^A-Z0-9]", "", upper)
    versionless = re.sub(r"[^A-Z0-9]", "", re.sub(r"\.\d+$", "", upper))
    numbered = _NUMBERED.fullmatch(plain)
    renamed = [f"{_NEW_PREFIX[numbered[1]]}{int(numbered[2])}"] if numbered else []
    return tuple(dict.fromkeys([plain, versionless, *renamed, *_from_date(upper)]))


def _from_date(upper: str) -> list[str]:
    """New symbols of the genes that a spreadsheet may have turned into this date: 1-MAR is MARCHF1 or MTARC1."""
    month, day = 0, 0
    if match := _DAY_MONTH.fullmatch(upper):
        month, day = _MONTHS.get(match[2], 0), int(match[1])
    elif match := _MONTH_DAY.fullmatch(upper):
        month, day = _MONTHS.get(match[1], 0), int(match[2])
    elif match := _ISO.fullmatch(upper):
        month, day = int(match[1]), int(match[2])
    return [f"{new}{day}" for _, new, its_month in _RENAMED if its_month == month]


class _Spelling:
    """The closest spelling among names with the same digits: other digits are another gene of the family."""

    def __init__(self, known: Sequence[str]):
        self._by_digits: dict[str, list[str]] = {}
        self._left = _SPELLED
        for name in known:
            self._by_digits.setdefault(_digits(name), []).append(name)

    def closest(self, gene: str) -> list[str]:
        """The closest name, where there is one that is close."""
        if self._left == 0:
            return []
        self._left -= 1
        alike = [name for name in self._by_digits.get(_digits(gene), ()) if abs(len(name) - len(gene)) <= 2]
        return difflib.get_close_matches(gene, alike, n=1, cutoff=_CUTOFF)


def _digits(name: str) -> str:
    return re.sub(r"\D", "", name)
