"""What training costs, beside what the device can do and what the paper prints (its Table 3)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.output import output_folders
from analysis.published import published_table
from analysis.tables import DASH, PrintedTable, write_tables

__all__ = ["draw_resources", "with_floor"]

_HEADINGS = (
    *("Method", "Bins", "Seconds per fold", "Steps/s", "Memory (MB)", "Parameters"),
    *("MB moved per step", "Floor (ms)", "Step (ms)", "Step / floor", "K562, A40 (s)", "RPE1, A40 (s)"),
)


def with_floor(measured: pd.DataFrame) -> pd.DataFrame:
    """With `floor_ms`, a step's bytes over bandwidth or its operations over their rate, whichever is longer, and more.

    Args:
        measured: A row per method and number of bins, as `studies/resources.py` measures them.

    Returns:
        Also `step_ms`, `ratio`, and `published_<screen>_seconds` per fold.
    """
    by_bytes = measured["bytes_per_step"] / measured["bytes_per_second"]
    by_operations = measured["operations_per_step"] / measured["operations_per_second"]
    floor, step = 1000 * pd.concat([by_bytes, by_operations], axis=1).max(axis=1), 1000 / measured["steps_per_second"]
    table = measured.assign(floor_ms=floor, step_ms=step, ratio=step / floor)
    printed = published_table(3)
    printed = printed[printed["metric"] == "train_minutes"]
    for screen, rows in printed.groupby("screen"):
        minutes = rows.set_index("method")["value"].astype(float)
        table[f"published_{screen}_seconds"] = table["method"].map(60 * minutes)
    return table


def draw_resources(measured: pd.DataFrame, out: Path) -> list[Path]:
    """Write `tables/resources.*` into `out`; returns their paths.

    Args:
        measured: As `with_floor` takes it.
        out: A study's folder.

    Raises:
        InputError: `out` cannot be written.
    """
    table = with_floor(measured)
    with output_folders(out) as (_, tables):
        return write_tables(tables / "resources", table, [_printed(table)])


def _printed(table: pd.DataFrame) -> PrintedTable:
    first = table.iloc[0]
    formats = {
        "method": "{}",
        "n_bins": "{:.0f}",
        "seconds_per_fold": "{:,.1f}",
        "steps_per_second": "{:,.1f}",
        "peak_memory_mb": "{:,.0f}",
        "n_parameters": "{:,.0f}",
        "bytes_per_step": "{:,.0f}",
        "floor_ms": "{:,.2f}",
        "step_ms": "{:,.2f}",
        "ratio": "{:.2f}",
        "published_K562_seconds": "{:,.0f}",
        "published_RPE1_seconds": "{:,.0f}",
    }
    shown = table.assign(bytes_per_step=table["bytes_per_step"] / 1e6)
    columns = [shown[name].map(form.format).where(shown[name].notna(), DASH) for name, form in formats.items()]
    caption = (
        f"{first['screen']}, {first['n_perturbations']:,} training perturbations x {first['n_genes']:,} genes; each"
        f" method alone on {first['device']}, which copies {first['bytes_per_second'] / 1e9:,.0f} GB/s and multiplies"
        f" float32 matrices at {first['operations_per_second'] / 1e9:,.0f} GFLOP/s. Seconds per fold: of all epochs,"
        " at the speed of those timed, without start and compilation. Memory: its peak, of the process on a CPU, of"
        " its allocations on a GPU. Floor: bytes over bandwidth or operations over their rate, whichever is longer."
        " Last columns: what the paper prints for its screens and an NVIDIA A40."
    )
    return PrintedTable(_HEADINGS, list(zip(*columns, strict=True)), caption)
