"""How a table is printed: csv with every number, markdown and LaTeX to read. All tables take this one path."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histpert.results import METRICS, write_atomically

__all__ = [
    "DASH",
    "SHORT",
    "TIE",
    "PrintedTable",
    "best_of",
    "decimals",
    "heading_of",
    "in_bold",
    "interval",
    "means",
    "write_tables",
]

DASH = "\u2013"
"""What is not defined, or was not run."""

TIE = "\u2020"
"""Not distinguishable from the best."""

SHORT = {
    "nll": "NLL",
    "rmae_mean": "RMAE mean",
    "rmae_var": "RMAE var.",
    "rmae_skew": "RMAE skew.",
    "rmae_kurt": "RMAE kurt.",
    "pearson_top20": "Pearson 20",
    "pearson_top50": "Pearson 50",
    "pearson_top100": "Pearson 100",
    "pearson_delta": "Pearson delta",
    "pearson_delta_split": "Pearson split",
    "pearson_delta_hat": "Pearson delta-hat",
    "de_spearman": "DE Spearman",
    "pds": "PDS",
    "mse_corrected": "MSE corr.",
    "crps": "CRPS",
    "energy_distance": "Energy dist.",
    "w1": "W1",
}
"""Headings of metrics, in columns."""

_PACKAGES = r"% needs \usepackage{adjustbox,booktabs,rotating}"
_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "\u2013": "--"}
_TEX |= {TIE: r"$^{\dagger}$", "\u2212": "$-$", "\u2191": r"$\uparrow$", "\u2193": r"$\downarrow$"}
_TEX |= {letter: f"\\{letter}" for letter in "&%$#_{}"}
_TEXT_WIDTH, _LETTER, _GAP = 506, 4, 4  # points: of two columns of text, a digit of scriptsize, a gap between columns


@dataclass(frozen=True)
class PrintedTable:
    """What a reader sees of a table; `**` around a cell sets it bold.

    Attributes:
        headings: One per column.
        rows: Cells.
        caption: Printed with it.
        groups: A heading above columns that stand beside each other and share it, one per column, empty for none.
        n_labels: Columns at the left that say what a row is.
        breaks: Numbers of rows above which a line is drawn.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    groups: Sequence[str] = ()
    n_labels: int = 1
    breaks: Collection[int] = ()

    def markdown(self) -> str:
        """With the caption below; groups are named in the headings, since markdown has no second line for them."""
        groups = self.groups or [""] * len(self.headings)
        headings = [f"{name} ({group})" if group else name for name, group in zip(self.headings, groups, strict=True)]
        header, *body = [
            "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in (headings, *self.rows)
        ]
        return "\n".join([header, "|" + " --- |" * len(headings), *body, "", self.caption, ""])

    def latex(self) -> str:
        """As a float over both columns of a page, on its side where it is wide, scaled down where it is wider still."""
        kind = "table*" if self._width() < _TEXT_WIDTH else "sidewaystable*"
        body = [" & ".join(map(_tex, row)) + r" \\" for row in self.rows]
        lines = [line for place, row in enumerate(body) for line in (*([r"\midrule"] * (place in self.breaks)), row)]
        alignment = "l" * self.n_labels + "c" * (len(self.headings) - self.n_labels)
        return "\n".join(
            [
                rf"\begin{{{kind}}}",
                r"\centering\scriptsize\setlength{\tabcolsep}{2pt}\setlength{\belowcaptionskip}{4pt}",
                rf"\caption{{{_tex(self.caption)}}}",
                r"\begin{adjustbox}{max width=\linewidth}",
                rf"\begin{{tabular}}{{{alignment}}}",
                r"\toprule",
                *self._spanning_headings(),
                *(" & ".join(map(_heading, self.headings)) + r" \\", r"\midrule"),
                *lines,
                *(r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}", rf"\end{{{kind}}}", ""),
            ]
        )

    def _width(self) -> int:
        """About how wide the LaTeX table is, in points."""
        headings = [max(_lines(heading), key=len) for heading in self.headings]
        columns = zip(headings, *self.rows, strict=True)
        letters = [max(len(cell.strip("*").replace(" ± ", "±")) for cell in column) for column in columns]
        return _LETTER * sum(letters) + _GAP * len(letters)

    def _spanning_headings(self) -> list[str]:
        """A line of group headings over a rule each, none where there are no groups."""
        if not any(self.groups):
            return []
        starts = [place for place, name in enumerate(self.groups) if not place or name != self.groups[place - 1]]
        ends = [*starts[1:], len(self.groups)]
        cells = [
            rf"\multicolumn{{{end - start}}}{{c}}{{{_tex(self.groups[start])}}}"
            for start, end in zip(starts, ends, strict=True)
        ]
        rules = [
            rf"\cmidrule(lr){{{start + 1}-{end}}}"
            for start, end in zip(starts, ends, strict=True)
            if self.groups[start]
        ]
        return [" & ".join(cells) + r" \\", "".join(rules)]


def write_tables(path_without_suffix: Path, numbers: pd.DataFrame, printed: Sequence[PrintedTable]) -> list[Path]:
    """Write `<path>.csv` with the numbers, `.md` and `.tex` to read, each atomically; return their paths."""
    texts = {
        "csv": numbers.to_csv(index=False),
        "md": "\n".join(table.markdown() for table in printed),
        "tex": "\n".join([_PACKAGES, *(table.latex() for table in printed)]),
    }
    paths = []
    for kind, text in texts.items():
        paths.append(path_without_suffix.with_name(f"{path_without_suffix.name}.{kind}"))
        write_atomically(paths[-1], lambda beside, text=text: beside.write_text(text, encoding="utf-8"))
    return paths


def heading_of(metric: str) -> str:
    """A metric's short name, with an arrow that says which way is better."""
    arrow = "\u2191" if METRICS[metric].higher_is_better else "\u2193"
    return f"{SHORT.get(metric, metric)} {arrow}"


def decimals(values: pd.Series) -> int:
    """Digits after the point that show three figures of a typical value, and never fewer than three."""
    size = values.abs()[values != 0].median()
    return 3 if not np.isfinite(size) else int(np.clip(2 - np.floor(np.log10(size)), 3, 7))


def means(mean: pd.Series, deviation: pd.Series, digits: int | None = None) -> pd.Series:
    """Cells `mean ± deviation`; the mean alone where there is no deviation, a dash where there is no mean."""
    digits = decimals(mean) if digits is None else digits
    spread = deviation.map(lambda sd: "" if pd.isna(sd) else f" ± {sd:,.{digits}f}")
    return (mean.map(f"{{:,.{digits}f}}".format) + spread).where(mean.notna(), DASH)


def interval(mean: float, low: float, high: float, digits: int) -> str:
    """A difference and the interval around it; where one value leaves the interval open, the difference alone."""
    if not np.isfinite(mean):
        return DASH
    if not np.isfinite([low, high]).all():
        return f"{mean:+.{digits}f}"
    return f"{mean:+.{digits}f} ({low:+.{digits}f}, {high:+.{digits}f})"


def best_of(metric: str, values: pd.Series, groups: Sequence[object] | pd.Series | None = None) -> pd.Series:
    """Which values are best as printed, in each group; none where there is no other to be better than."""
    score = values.round(decimals(values)) * (-1 if METRICS[metric].higher_is_better else 1)
    rivals = score.groupby(pd.Series(0, values.index) if groups is None else groups)
    return score.eq(rivals.transform("min")) & (rivals.transform("count") > 1)


def in_bold(cells: pd.Series, which: pd.Series) -> pd.Series:
    """The cells, those of `which` in bold."""
    return cells.where(~which, "**" + cells + "**")


def _lines(heading: str) -> list[str]:
    """A metric's name, which is wider than its numbers, in two lines; any other heading in one."""
    return heading.split(" ", 1) if heading.count(" ") > 1 and heading[-1] in "\u2191\u2193" else [heading]


def _heading(text: str) -> str:
    lines = [_tex(line) for line in _lines(text)]
    return lines[0] if len(lines) == 1 else rf"\shortstack{{{lines[0]}\\{lines[1]}}}"


def _tex(text: str) -> str:
    if text.startswith("**"):
        return rf"\textbf{{{_tex(text.strip('*'))}}}"
    text = re.sub(r"(?<=\d) ± (?=\d)", "±", text)  # spaces there would not fit the page
    text = re.sub(r"(?<![\w-])-(?=\d)", "\u2212", text)
    return "".join(_TEX.get(letter, letter) for letter in text)
