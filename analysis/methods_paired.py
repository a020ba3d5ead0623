"""Every method against MLP+Hist, perturbation by perturbation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.averages import TARGETS
from analysis.methods_tables import SUBJECT, kind_of, label_of, method_rank
from analysis.paired import compared, holm
from analysis.tables import DASH, PrintedTable, decimals, heading_of, interval
from histpert.results import METRICS

__all__ = ["COMPARED", "paired_comparisons", "printed_comparisons"]

COMPARED = (
    *("rmae_mean", "rmae_var", "rmae_skew", "rmae_kurt", "nll", "crps", "energy_distance", "w1"),
    *("pearson_top20", "pearson_delta_split", "de_spearman", "pds", "mse_corrected"),
)
"""Metrics on which methods are compared."""

_CAPTION = (
    "Differences are method less MLP+Hist over the held-out perturbations where both are defined. Intervals are"
    " Student's 95%: over perturbations, which does not know that those of a fold share a trained model and is"
    " therefore too narrow; and over differences of fold means, which are few and whose training perturbations overlap."
    " Better, worse: both intervals lie on that side of zero; tie: one of them holds zero."
)


def paired_comparisons(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row per targets, metric and other method.

    Args:
        parts: Per part of the targets, rows of `perturbations.parquet` of one screen.

    Returns:
        Columns `difference`, `low`, `high`, `n` (over perturbations), `fold_low`, `fold_high`, `n_folds`, `p`
        (Wilcoxon's signed-rank test), `p_holm` (corrected for the number of methods, floors included; what is no method
        has none) and `verdict` on the method: better, worse or tie.
    """
    tables = [
        _on_metric(rows, metric).assign(targets=name, metric=metric)
        for name, rows in parts.items()
        for metric in COMPARED
    ]
    table = pd.concat(tables, ignore_index=True)
    first = ["targets", "metric", "method"]
    return table[[*first, *(name for name in table if name not in first)]]


def _on_metric(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    by_method = {str(method): part for method, part in rows.groupby("method")}
    methods = sorted(by_method.keys() - {SUBJECT}, key=method_rank)
    pairs = [compared(by_method[method], by_method[SUBJECT], metric) for method in methods]
    is_method = [kind_of(method) != "reference" for method in methods]
    p = np.array([pair.p for pair in pairs])
    columns = {
        "method": methods,
        "kind": [kind_of(method) for method in methods],
        "difference": [pair.perturbations.mean for pair in pairs],
        **{name: [getattr(pair.perturbations, name) for pair in pairs] for name in ("low", "high", "n")},
        **{f"fold_{name}": [getattr(pair.folds, name) for pair in pairs] for name in ("low", "high")},
        "n_folds": [pair.folds.n for pair in pairs],
        "p": p,
        "p_holm": holm(np.where(is_method, p, np.nan)),
        "verdict": [pair.verdict(METRICS[metric].higher_is_better) for pair in pairs],
    }
    return pd.DataFrame(columns)


def printed_comparisons(pairs: pd.DataFrame, apart: Sequence[str], note: str) -> list[PrintedTable]:
    """For each part of the targets all verdicts at a glance, then a table per metric."""
    tables = []
    for targets, part in pairs.groupby("targets", sort=False):
        named = f" ({', '.join(apart)})" if targets == "apart" else ""
        subject = f"against {SUBJECT}, {TARGETS[str(targets)]}{named}"
        tables.append(_verdicts(part, f"Methods {subject}. {_CAPTION}{note}"))
        for metric, rows in part.groupby("metric", sort=False):
            if rows["n"].any():
                tables.append(_details(rows, f"{METRICS[str(metric)].label}: methods {subject}. {_CAPTION}{note}"))
    return tables


def _verdicts(part: pd.DataFrame, caption: str) -> PrintedTable:
    cells = part.pivot(index="method", columns="metric", values="verdict").replace("", DASH)
    cells = cells.loc[sorted(cells.index, key=method_rank), list(part["metric"].unique())]
    rows = [(label_of(str(method)), *row) for method, row in zip(cells.index, cells.to_numpy(), strict=True)]
    return PrintedTable(("Method", *(heading_of(name) for name in cells.columns)), rows, caption)


def _details(rows: pd.DataFrame, caption: str) -> PrintedTable:
    digits = decimals(rows["difference"])
    cells = [
        (
            label_of(row["method"]),
            interval(row["difference"], row["low"], row["high"], digits),
            _bounds(row["fold_low"], row["fold_high"], digits) if row["n_folds"] > 1 else DASH,
            _p(row["p"]),
            _p(row["p_holm"]),
            row["verdict"] or DASH,
            str(row["n"]),
        )
        for row in rows.to_dict("records")
    ]
    headings = ("Method", "Difference (95%)", "95% over folds", "p", "p (Holm)", "Verdict", "Perturbations")
    return PrintedTable(headings, cells, caption)


def _bounds(low: float, high: float, digits: int) -> str:
    return f"({low:+.{digits}f}, {high:+.{digits}f})"


def _p(value: float) -> str:
    return DASH if pd.isna(value) else "<0.0001" if value < 0.0001 else f"{value:.4f}"
