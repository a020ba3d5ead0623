"""What was found, in words."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from histpert.doctor.examination import Examined
from histpert.doctor.facts import ScreenFacts
from histpert.doctor.machine import Machine
from histpert.doctor.outlook import Outlook
from histpert.screens.opened import FEW_CELLS
from histpert.wording import some

__all__ = ["duration", "print_report"]

WIDTH = 100
"""Of text where there is no terminal, and the most in one."""


def print_report(found: Examined, command: str) -> None:
    """Print it; plain text where nobody looks at a terminal."""
    console = Console(highlight=False, width=WIDTH)
    if console.is_terminal:
        console = Console(highlight=False, width=min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))
    with console.capture() as captured:
        for part in (*_parts(found), _verdict(found)):
            console.print(part)
    for line in captured.get().splitlines():
        print(line.rstrip())
    print(f"Next: {command}")  # which is to be copied, and not wrapped


def _parts(found: Examined) -> Iterator[RenderableType]:
    if found.facts is not None:
        yield from _section("What the file holds", _facts(found.facts))
        doubts: list[RenderableType] = []
        for doubt in found.doubts:
            doubts += [Text(f"- {doubt.what}"), Padding(Text(doubt.means), (0, 0, 0, 4))]
            doubts.append(Padding(Text(f"what to do: {doubt.do}", style="cyan"), (0, 0, 0, 4)))
        yield from _section("What is wrong or doubtful", Group(*doubts) if doubts else Text("nothing that shows"))
    if found.coverage is not None:
        yield from _section("Embeddings", _embeddings(found))
    if found.folds is not None:
        yield from _section("Folds", _folds(found))
    if found.outlook is not None:
        yield from _section("What studies take here", _here(found.outlook))
        if found.outlook.gpu is not None:
            yield from _section(f"What they would take with a GPU, {found.outlook.gpu.name}", _there(found.outlook))


def _section(title: str, content: RenderableType) -> Iterator[RenderableType]:
    yield Text(title, style="bold")
    yield Padding(content, (0, 0, 1, 2))


def _grid(rows: dict[str, str]) -> Table:
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(Text(name), Text(value))
    return grid


def _facts(facts: ScreenFacts) -> Table:
    controls = " or ".join(map(repr, facts.control_labels))
    cells = f"{facts.n_cells:,} of {facts.n_cells_in_file:,} are used, {facts.n_control:,} of them control"
    genes = f"{facts.n_genes:,}"
    if facts.n_genes < facts.n_genes_in_file:
        genes += f" of {facts.n_genes_in_file:,}: those seen in more control cells than --min-control-detection"
    least, median, most = facts.cells_per_perturbation
    combinations = f"{facts.n_combinations:,}; of {facts.n_known_pairs:,} pairs both genes were perturbed alone too"
    few = [f"{name} ({n_cells})" for name, n_cells in facts.few_cells.items()]
    rows = {
        "file": facts.file,
        "values": f"{facts.matrix}: {facts.values}",
        "labels": f"column {facts.perturbation_column!r} of obs, control {controls}",
        "cells": cells,
        "left out": "; ".join(f"{n:,} cells {why}" for why, n in facts.left_out.items()) or "none",
        "genes": genes,
        "perturbations": f"{facts.n_perturbations:,}, of {least:,} to {most:,} cells each (median {median:,.0f})",
        f"fewer than {FEW_CELLS} cells": some(few, 20) if few else "none",
        "combinations": combinations if facts.n_combinations else "none",
        "zeros": f"{facts.zeros:.1%} of cells x genes",
    }
    if facts.library_size is not None:
        low, median, high = (f"{value:,.0f}" for value in asdict(facts.library_size).values())
        rows["counts per cell"] = f"median {median}, 5% to 95% {low} to {high}, in this file"
    return _grid(rows)


def _embeddings(found: Examined) -> Table:
    coverage = found.coverage
    assert coverage is not None
    n_found, n_missing = len(coverage.perturbations), len(coverage.missing)
    rows = {
        "file": f"{coverage.name}, {coverage.features.shape[1]:,} features",
        "found": f"{n_found:,} of {n_found + n_missing:,} perturbations",
    }
    if coverage.missing:
        rows["missing"] = some(coverage.missing, 50) + ": studies leave them out"
    if coverage.learned_from:
        rows["learned from"] = f"{len(coverage.learned_from):,} perturbations, by its own account"
    rows |= {f"note {number}": note for number, note in enumerate(coverage.notes, start=1)}
    if coverage.missing and not any("-> " in note for note in coverage.notes):
        rows["try"] = "--aliases with the complete set of HGNC finds genes under earlier names"
    return _grid(rows)


def _folds(found: Examined) -> Table:
    rows = {}
    for name, folds in (("of perturbations", found.folds), ("of pairs", found.pair_folds)):
        if folds is not None:
            sizes = f"{folds.fewest}" if folds.fewest == folds.most else f"{folds.fewest} to {folds.most}"
            rows[name] = f"{folds.folds}, each holds out {sizes} and trains on the other {folds.trained_on:,} or so"
    return _grid(rows)


def _here(outlook: Outlook) -> Group:
    table = Table(box=None, pad_edge=False)
    for name in ("study", ">trials", ">at once", ">time", ">memory", ">disk", "fits"):
        table.add_column(name.removeprefix(">"), justify="right" if name[0] == ">" else "left", no_wrap=True)
    for each in outlook.here:
        lacks = each.lacks(outlook.machine)
        fits = f"no, too little {lacks}" if lacks else "yes"
        if not lacks and outlook.wants_fewer(each):
            fits = f"with --max-concurrent-trials {each.n_at_once}"
        sizes = decimal(each.memory_bytes), decimal(each.disk_bytes)
        table.add_row(each.study, f"{each.n_trials:,}", str(each.n_at_once), duration(each.seconds), *sizes, fits)
    lines = [Text(f"{_machine(outlook.machine)}; default settings, by trials of a few steps on this machine")]
    lines += [Text(f"{each.study}: {each.left_out}") for each in outlook.here if each.left_out]
    return Group(table, *lines)


def _machine(machine: Machine) -> str:
    gpu = f", {machine.gpu} of {decimal(machine.gpu_bytes)}" if machine.gpu else ", no GPU"
    free = f"{decimal(machine.memory_bytes)} of memory and {decimal(machine.disk_bytes)} of disk free"
    return f"{machine.cores} cores{gpu}, {free}"


def _there(outlook: Outlook) -> Group:
    table = Table(box=None, pad_edge=False)
    for name in ("study", ">GPU memory of a trial", "fits", ">at once", ">time at best"):
        table.add_column(name.removeprefix(">"), justify="right" if name[0] == ">" else "left", no_wrap=True)
    for each in outlook.there:
        fits = "yes" if each.fits else "not for sure"
        row = decimal(each.trial_bytes), fits, str(each.n_at_once), duration(each.seconds)
        table.add_row(each.study, *row)
    said = (
        "computed from its data sheet and shapes, not measured: steps as fast as its bandwidth and arithmetic allow, "
        "all else as measured on this machine's CPU"
    )
    return Group(table, Text(said))


def _verdict(found: Examined) -> Text:
    """What matters most, last."""
    if found.reasons:
        return Text("A study cannot run: ", style="bold red") + Text("; ".join(found.reasons))
    return Text("A study can run.", style="bold green")


def duration(seconds: float) -> str:
    """As `40 s`, `12 min`, `3.5 h` or `2.1 days`."""
    for unit, size, least in (("days", 86_400, 172_800), ("h", 3_600, 5_400), ("min", 60, 90)):
        if seconds >= least:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 and unit != "min" else f"{value:,.0f} {unit}"
    return f"{seconds:.0f} s"
