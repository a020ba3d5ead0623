"""One page of a study, or of several: the question, the answer with its interval, figures, tables, and what made them.

`python analysis/report.py OUT...` writes `report.html` into a study's folder (results/bin_sweep), or into a results
folder, of all studies in it. The page needs nothing else: no network, no other file.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.output import draw_again
from analysis.report_studies import QUESTIONS, ReportStudy, is_study, read_report_study
from analysis.report_tables import MOST_ROWS
from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.results import write_atomically

__all__ = ["main", "report_of_study", "write_report"]

PAGE = "report.html"
_HOME = Path(__file__).parent


def write_report(given: Sequence[Path], out: Path | None = None) -> Path:
    """Write one page of studies.

    Args:
        given: Folders of studies, or results folders, of which all studies are taken.
        out: The file; by default `report.html` in the folder given, or in the one that all given ones are in.

    Returns:
        The file written.

    Raises:
        InputError: A folder holds no study, a file in it is damaged, or the page cannot be written.
    """
    given = list(dict.fromkeys(absolute(folder).resolve() for folder in given))
    if not given:
        raise InputError("no folder is given: name a study's folder, such as results/bin_sweep, or a results folder")
    studies = [
        read_report_study(folder) for folder in dict.fromkeys(one for each in given for one in _studies_in(each))
    ]
    home = given[0] if len(given) == 1 else Path(os.path.commonpath([folder.parent for folder in given]))
    path = home / PAGE if out is None else absolute(out, "--out")
    if path.is_dir():
        path /= PAGE
    text = _page(studies, home)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): name another file with --out") from error
    return path


def report_of_study(folder: Path) -> Path | None:
    """Write the page of a study that has just ended, and name it; what keeps it from being drawn is said, no more."""
    try:
        page = write_report([folder])
    except Exception as error:  # the study's results stand, whatever the page is
        why = " ".join(f"{type(error).__name__}: {error}".split())
        print(
            f"error: the report could not be written ({why}); to try again: python -m analysis.report {folder}",
            file=sys.stderr,
        )
        return None
    print(f"report: {page}", flush=True)  # before what a study may still say on standard error
    return page


def _studies_in(folder: Path) -> list[Path]:
    """The folder itself where it is a study's, else the studies in it, in the order of a page."""
    if is_study(folder):
        return [folder]
    try:
        found = [path for path in folder.iterdir() if path.is_dir() and is_study(path)]
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): give the folder of a study") from error
    if not found:
        raise InputError(
            f"{folder} holds no study.json, nor a folder that does: give the folder of a study that has ended"
        )
    order = list(QUESTIONS)
    return sorted(found, key=lambda path: (order.index(path.name) if path.name in order else len(order), path.name))


def _page(studies: Sequence[ReportStudy], home: Path) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HOME),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, script = ((_HOME / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return environment.get_template("report.html.jinja").render(
        studies=[(f"study-{number}", study, _label(study, home)) for number, study in enumerate(studies, start=1)],
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        most_rows=MOST_ROWS,
        title=studies[0].question if len(studies) == 1 else f"{len(studies)} studies in {home.name or home}",
    )


def _label(study: ReportStudy, home: Path) -> str:
    """What tells a study from others on its page."""
    within = study.folder.relative_to(home) if study.folder.is_relative_to(home) else study.folder
    return str(within) if str(within) != "." else study.name


def _hash(text: str) -> str:
    """As a content security policy names what it lets run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@dataclass(frozen=True)
class Options:
    """Write one page of a study, or of several."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Study folders (results/bin_sweep), or results folders, of which all studies are taken."""
    out: Path | None = None
    """The file to write; by default report.html in the folder given, or in the one that all given ones are in."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""
    return draw_again("report", Options, arguments, lambda given: [write_report(given.folders, given.out)])


if __name__ == "__main__":
    sys.exit(main())
