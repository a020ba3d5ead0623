"""How well masked responses are found out, epoch by epoch, beside what the genes' frequencies alone tell.

`python -m analysis.pretrain FOLDER [--out DIR]` draws it from the result tables of `studies/pretrain.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.output import draw_folder_again, output_folders
from analysis.tables import DASH, PrintedTable, write_tables
from histpert.errors import InputError
from histpert.plots import Curve, CurveStyle, curve_panels, save_figure
from histpert.plots.style import COLORS
from histpert.results import read_table

__all__ = ["draw_pretrain", "main", "summarize_pretrain"]

_CAPTION = (
    "Cross-entropy of masked responses in nats, on signatures held out for validation and test, after the last epoch;"
    " marginal: of the frequencies of each gene's bins in the training signatures."
)
_STYLES = {
    "training": CurveStyle("#999999", line="--", thin=True),
    "validation": CurveStyle(COLORS[0]),
    "marginal frequencies": CurveStyle(COLORS[4], line=":", thin=True),
}
_TICKS = 6


def draw_pretrain(folder: Path, out: Path) -> list[Path]:
    """Write `figures/pretraining.*` and `tables/pretraining.*` into `out`; returns their paths.

    Raises:
        InputError: The folder holds no training, or `out` cannot be written.
    """
    rows = read_table(folder / "scores.parquet").to_pandas()
    if rows.empty:
        raise InputError(f"{folder} holds no training that has ended: run the study again")
    table = summarize_pretrain(rows)
    with output_folders(out) as (figures, tables):
        return [*save_figure(_figure(rows), figures / "pretraining"), *_write(table, tables)]


def summarize_pretrain(rows: pd.DataFrame) -> pd.DataFrame:
    """The last epoch of each training, with what it saves of the cross-entropy of marginal frequencies, as a share."""
    last = rows.sort_values("epoch").groupby("fold").tail(1).sort_values("fold", ignore_index=True)
    seconds = rows.groupby("fold")["seconds"].sum()
    return last.assign(
        validation_gain=1 - last["validation_loss"] / last["marginal_loss"],
        test_gain=1 - last["test_loss"] / last["test_marginal_loss"],
        train_seconds=last["fold"].map(seconds),
    )


def _write(table: pd.DataFrame, tables: Path) -> list[Path]:
    columns = {
        "Fold": table["fold"].map(lambda fold: DASH if fold < 0 else str(fold)),
        "Signatures": table["n_training"].map("{:,}".format),
        "Genes": table["n_genes"].map("{:,}".format),
        "Parameters": table["n_parameters"].map("{:,}".format),
        "Validation": table["validation_loss"].map("{:.4f}".format),
        "Marginal": table["marginal_loss"].map("{:.4f}".format),
        "Less": table["validation_gain"].map("{:.1%}".format),
        "Test": table["test_loss"].map("{:.4f}".format),
        "Less in test": table["test_gain"].map("{:.1%}".format),
        "Accuracy": table["validation_accuracy"].map("{:.3f}".format),
        "Marginal accuracy": table["marginal_accuracy"].map("{:.3f}".format),
        "Seconds": table["train_seconds"].map("{:,.0f}".format),
        "Tokens/s": table["tokens_per_second"].map("{:,.0f}".format),
    }
    rows = list(zip(*columns.values(), strict=True))
    return write_tables(tables / "pretraining", table, [PrintedTable(list(columns), rows, _CAPTION)])


def _figure(rows: pd.DataFrame):
    """A panel of losses and one of accuracies; over several trainings, means with a band of a deviation."""
    shown = {
        "Cross-entropy, nats": {
            "training": "training_loss",
            "validation": "validation_loss",
            "marginal frequencies": "marginal_loss",
        },
        "Masked responses found": {"validation": "validation_accuracy", "marginal frequencies": "marginal_accuracy"},
    }
    panels = {title: [_curve(rows, column, name) for name, column in of.items()] for title, of in shown.items()}
    return curve_panels(panels, "Epoch", key_below=_STYLES)


def _curve(rows: pd.DataFrame, column: str, name: str) -> Curve:
    by_epoch = rows.groupby("epoch")[column]
    mean, deviation = by_epoch.mean(), by_epoch.std()
    return Curve(mean.index.to_numpy(float) + 1, mean.to_numpy(), deviation.to_numpy(), name, _STYLES[name])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""
    return draw_folder_again(
        "pretrain", "Draw the losses of trainings again, from their result tables.", arguments, draw_pretrain
    )


if __name__ == "__main__":
    sys.exit(main())
