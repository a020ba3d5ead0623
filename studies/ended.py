"""How a study ends: what came out is named, its report is written, and what has no result is told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.options import Outcome

__all__ = ["Study"]

SHOWN = {".md": "table", ".png": "figure"}
"""Files to name at the end of a study; their other formats lie beside them."""

FIGURES = (".png", ".svg")


@dataclass(frozen=True)
class Study:
    """A study that has ended.

    Attributes:
        folder: Where its tables are.
        n_trials: Trials asked for; none where it has no trials.
        unfinished: Per trial that has no result, the reason.
        tables: Names of its tables.
    """

    folder: Path
    n_trials: int
    unfinished: tuple[str, ...]
    tables: tuple[str, ...] = ("trials.parquet", "perturbations.parquet")

    @property
    def has_results(self) -> bool:
        """Whether any trial has a result to draw."""
        return len(self.unfinished) < self.n_trials

    def report(self, written: Sequence[Path], **more: Any) -> Outcome:
        """Say what came out, of the files that were written, and how to go on.

        Args:
            written: Figures and tables.
            more: What else came out, for programs.
        """
        results = [self.folder / name for name in self.tables]
        if results:
            print(f"results: {', '.join(map(str, results))}")
        for path in written:
            if path.suffix in SHOWN:
                print(f"{SHOWN[path.suffix]}: {path}")
        page = _write_report(self.folder)
        if self.unfinished:
            print(
                f"error: {len(self.unfinished)} of {self.n_trials} trials have no result; "
                f"the first: {self.unfinished[0]}\n"
                "Run the same command again: it trains only what is missing.",
                file=sys.stderr,
            )
        figures = [path for path in written if path.suffix in FIGURES]
        told = {
            "study": self.folder.name,
            "folder": self.folder,
            "status": "unfinished" if self.unfinished else "ok",
            "n_trials": self.n_trials,
            "unfinished": self.unfinished,
            "results": results,
            "figures": figures,
            "tables": [path for path in written if path not in figures],
            "report": page,
            **more,
        }
        return Outcome(1 if self.unfinished else 0, told)


def _write_report(folder: Path) -> Path | None:
    """The one page of the study, from the tables and figures that are there by now."""
    from analysis.report import report_of_study  # noqa: PLC0415 (needed once, in the driver alone)

    return report_of_study(folder)
