"""What the paper of the histogram model prints: other screens, other embeddings, set beside ours and never mixed in.

`published_tables.csv` holds Tables 1 to 4 of Ramakrishnan et al., "Modeling Gene Expression Distributional Shifts for
Unseen Genetic Perturbations", as printed: `table`, `screen_or_task` (the Replogle cell lines), `method`, `metric`,
`value` and `spread` (standard deviation over folds, where printed). Its errata stand: the same quantity is 0.879 and
0.876, 0.863 and 0.859 (Tables 1, 2), 0.653 and 0.651 (Tables 2, 4); RPE1 has no GP row.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

__all__ = ["published_gene_table", "published_pairs", "published_table", "published_weights"]

_FILE = Path(__file__).with_name("published_tables.csv")
_FILE_OF_GENES = Path(__file__).with_name("published_genes.csv")
_FILE_OF_PAIRS = Path(__file__).with_name("published_pairs.csv")
_OURS = {"train_minutes_per_fold": "train_minutes", "gpu_memory_mb": "peak_memory_mb"}
_WEIGHTS = re.compile(r"weights ce=([\d.]+) wass=([\d.]+) mse=([\d.]+)$")


def published_table(number: int) -> pd.DataFrame:
    """One of Tables 1 to 3, under our names: columns `screen`, `method`, `metric`, `value`, `spread`."""
    rows = _read(number)
    return rows.assign(method=rows["method"].str.removesuffix(" (LLM)"), metric=rows["metric"].replace(_OURS))


def published_weights() -> pd.Series:
    """Table 4: Pearson correlation over the top 20 genes by weights (cross-entropy, Wasserstein-1, squared error).

    In printing order; two of the fifteen triples are not there.
    """
    rows = _read(4)
    weights = rows["method"].str.extract(_WEIGHTS).astype(float)
    return pd.Series(rows["value"].to_numpy(float), pd.MultiIndex.from_frame(weights))


def published_pairs() -> pd.DataFrame:
    """Table 1 of CellTARNet's paper, `CellTARNet` where it prints `Ours`: `method`, `metric`, `value`."""
    return pd.read_csv(_FILE_OF_PAIRS)[["method", "metric", "value"]].replace({"method": {"Ours": "CellTARNet"}})


def published_gene_table(number: int) -> pd.DataFrame:
    """Table 2 (gene dependency) or 9 (gene properties, of which Table 1 is a part) of PerturBERT's paper.

    Returns:
        Columns `task`, `method`, `metric`, `value` and `spread`, the standard error. Tasks are spelled as in Table 1:
        what Table 9 calls N1 network is its NI network.
    """
    rows = pd.read_csv(_FILE_OF_GENES).replace({"task": {"N1 network": "NI network"}})
    return rows.loc[rows["table"] == number].drop(columns="table").reset_index(drop=True)


def _read(number: int) -> pd.DataFrame:
    rows = pd.read_csv(_FILE).rename(columns={"screen_or_task": "screen"})
    return rows.loc[rows["table"] == number, ["screen", "method", "metric", "value", "spread"]].reset_index(drop=True)
