"""What a page says of each study: question and answer, figures, tables, what failed, and what made it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis import report_answers, report_genes
from analysis.reading import read_study
from analysis.report_bins import bin_sweep
from analysis.report_figures import ReportFigure, report_figures
from analysis.report_record import Record, facts_of, failed_rows, made_by_rows, part_of, settings_rows
from analysis.report_tables import ReportTable, report_table
from histpert.errors import InputError
from histpert.results import read_table

__all__ = ["QUESTIONS", "ReportStudy", "is_study", "read_report_study"]


class Question(NamedTuple):
    """What a study asks, and the function that answers from its folder and record."""

    text: str
    answer: Callable[[Path, Record], list[str]]


QUESTIONS: Mapping[str, Question] = {
    "bin_sweep": Question(
        "How many histogram bins are enough to predict the response to an unseen perturbation?", bin_sweep
    ),
    "methods": Question("Which method predicts the response to unseen perturbations best?", report_answers.methods),
    "loss_weights": Question("Which loss weights are best?", report_answers.loss_weights),
    "open_choices": Question("Does it matter how one chooses what the paper leaves open?", report_answers.choices),
    "combinations": Question("Which method predicts pairs of perturbations best?", report_answers.combinations),
    "embedding_sources": Question(
        "Which gene embeddings tell most about unseen perturbations?", report_answers.embedding_sources
    ),
    "search": Question("Are there better settings than the given ones?", report_answers.search),
    "pretrain": Question("How well are masked responses of perturbation signatures found out?", report_genes.pretrain),
    "gene_properties": Question("What do gene embeddings tell about genes?", report_genes.gene_properties),
    "dependency": Question("Which gene embeddings predict gene dependency?", report_genes.dependency),
    "resources": Question(
        "What does training cost, and how far is a step from what the device can do?", report_genes.resources
    ),
    "compare_screens": Question("Does one screen look like the other?", report_genes.compare_screens),
}
"""By study, in the order of a page."""

_RERUN_NEEDS = "settings"
_PARTS = ("settings", "folds", "inputs", "versions")  # of a record, each with names and values
_SCREENS = "compare_screens"  # leaves no record: it trains nothing


@dataclass(frozen=True)
class ReportStudy:
    """A study of a page.

    Attributes:
        name: Of the study.
        folder: Where it is.
        question: In a line.
        answer: In sentences, what matters most first.
        facts: What it is of, and how many trials ended: short phrases.
        figures: Of `figures/`.
        tables: Of `tables/`.
        failed: What failed: how it differs from other trials, and the reason.
        settings: Names and values.
        made_by: Fingerprints of data, and versions of code.
        notes: What was guessed when the screen was read.
        rerun: The command that runs it again; empty where its record does not suffice.
    """

    name: str
    folder: Path
    question: str
    answer: Sequence[str]
    facts: Sequence[str]
    figures: Sequence[ReportFigure]
    tables: Sequence[ReportTable]
    failed: Sequence[tuple[str, str]]
    settings: Sequence[tuple[str, str]]
    made_by: Sequence[tuple[str, str]]
    notes: Sequence[str]
    rerun: str


def is_study(folder: Path) -> bool:
    """Whether a folder is one that a study leaves."""
    return (folder / "study.json").is_file() or (folder / "gene_pairs.parquet").is_file()


def read_report_study(folder: Path) -> ReportStudy:
    """Read a study's folder.

    Raises:
        InputError: A file in it is damaged, or its tables do not belong together.
    """
    record = _record(folder)
    name = record["study"]
    asked = QUESTIONS.get(name)
    trials = _checked_trials(folder)
    return ReportStudy(
        name=name,
        folder=folder,
        question=asked.text if asked else f"Study {name}",
        figures=list(report_figures(folder)),
        tables=[report_table(path) for path in sorted((folder / "tables").glob("*.csv"))],
        answer=_answer(asked, folder, record, trials),
        facts=list(facts_of(record, trials)),
        failed=list(failed_rows(folder, trials)),
        settings=list(settings_rows(record.get("settings", {}))),
        made_by=list(made_by_rows(record)),
        notes=part_of(record, "screen").get("notes", []),
        rerun=shlex.join(["python", "studies/rerun.py", str(folder / "study.json")]) if _RERUN_NEEDS in record else "",
    )


def _record(folder: Path) -> Record:
    path = folder / "study.json"
    if not path.exists():
        return {"study": _SCREENS}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record["study"], str) and all(isinstance(record.get(part, {}), dict) for part in _PARTS):
            return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as the record of a study ({error}): run the study again") from error
    raise InputError(f"{path} is not the record of a study: run the study again")


def _checked_trials(folder: Path) -> pd.DataFrame | None:
    """Its trials, where it has any, once their tables are known to be whole and to agree."""
    if not (folder / "trials.parquet").exists():
        return None
    trials = read_table(folder / "trials.parquet").to_pandas()
    if lacking := {"status", "error"} - set(trials.columns):
        raise InputError(f"{folder / 'trials.parquet'} has no column {', '.join(sorted(lacking))}: run the study again")
    if (folder / "scores.parquet").exists():
        read_table(folder / "scores.parquet")
    elif (trials["status"] == "ok").any():
        read_study(folder)
    return trials


def _answer(asked: Question | None, folder: Path, record: Record, trials: pd.DataFrame | None) -> list[str]:
    """The study's answer, or why there is none."""
    n_ok = None if trials is None else int((trials["status"] == "ok").sum())
    if n_ok == 0:
        return ["No trial has finished, so there is no answer yet: run the same command again."]
    if asked is None:
        return ["This version knows no question of a study of this name; its tables follow."]
    try:
        return asked.answer(folder, record) or ["Nothing that was measured answers it; the tables follow."]
    except InputError as error:
        return [f"No answer: {error}."]
    except KeyError as error:
        raise InputError(f"the tables in {folder} lack {error}: run the study again with this version") from error
