"""Result tables: their columns, and how they are written and read. No torch here: analysis reads them anywhere.

`trials.parquet` has a row per (configuration, fold), `perturbations.parquet` a row per (trial, held-out perturbation).
A file is written beside its place and renamed into it, so that a reader sees the old table or the new one.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from histpert.errors import InputError
from histpert.metric_columns import MASS_FLOOR, METRICS, Metric

__all__ = [
    "CLASS_SCHEMA",
    "CONFIGURATION_SCHEMA",
    "COSINE_SCHEMA",
    "DEPENDENCY_SCHEMA",
    "MAP_SCHEMA",
    "MASS_FLOOR",
    "METRICS",
    "PERTURBATION_SCHEMA",
    "PRETRAINING_SCHEMA",
    "PROPERTY_SCHEMA",
    "RANDOM",
    "SCREEN_SCHEMAS",
    "TRIAL_SCHEMA",
    "Metric",
    "read_table",
    "without_nan",
    "write_atomically",
    "write_json",
    "write_table",
    "written_atomically",
]


_METRIC_FIELDS = [(name, pa.float64()) for name in METRICS]

TRIAL_SCHEMA = pa.schema(
    [
        ("trial_id", pa.string()),
        ("study", pa.string()),
        ("screen", pa.string()),
        ("embeddings", pa.string()),
        ("method", pa.string()),
        ("n_bins", pa.int32()),
        ("weight_ce", pa.float64()),
        ("weight_wass", pa.float64()),
        ("weight_mse", pa.float64()),
        ("hidden", pa.list_(pa.int32())),
        ("dropout", pa.float64()),
        ("learning_rate", pa.float64()),
        ("weight_decay", pa.float64()),
        ("batch_size", pa.int32()),
        ("epochs", pa.int32()),
        ("control_smoothing", pa.float64()),
        ("output_scale", pa.float64()),
        ("nll_floor", pa.float64()),
        ("flow", pa.string()),
        ("variant", pa.string()),
        ("fold", pa.int32()),
        ("n_folds", pa.int32()),
        ("seed", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("train_seconds", pa.float64()),
        ("peak_memory_mb", pa.float64()),
        ("n_parameters", pa.int64()),
        ("device", pa.string()),
        ("n_threads", pa.int32()),
        ("n_perturbations", pa.int32()),
        ("n_absent", pa.int32()),
        ("n_genes", pa.int32()),
        ("n_genes_constant", pa.int32()),
        ("n_genes_undefined", pa.float64()),
        ("n_pearson_undefined", pa.int32()),
        ("n_de_undefined", pa.int32()),
        ("out_of_range_fraction", pa.float64()),
        *_METRIC_FIELDS,
    ]
)
"""`variant` names the one choice in which a run differs from the defaults of its study; empty for a run that differs
in none. `flow` has the settings of CellTARNet, as JSON. `status` is ok, failed or oom. `n_genes_constant` do not vary
in training; `n_genes_undefined` is the average number of genes per held-out perturbation whose cells do not vary, so
that they have no skewness or kurtosis. Of the held-out perturbations, `n_absent` counts those of which nothing is
predicted, `n_pearson_undefined` those whose predicted or observed shifts do not vary over 20 top genes,
`n_de_undefined` those with fewer than 3 significant genes, or whose predicted log fold changes do not vary over them.
"""

PERTURBATION_SCHEMA = pa.schema(
    [
        ("trial_id", pa.string()),
        ("screen", pa.string()),
        ("method", pa.string()),
        ("n_bins", pa.int32()),
        ("variant", pa.string()),
        ("fold", pa.int32()),
        ("perturbation", pa.string()),
        ("n_cells", pa.int32()),
        ("n_genes_undefined", pa.int32()),
        ("out_of_range_fraction", pa.float64()),
        ("n_significant", pa.int32()),
        ("reliability_mean", pa.float64()),
        ("reliability_var", pa.float64()),
        ("reliability_skew", pa.float64()),
        ("reliability_kurt", pa.float64()),
        *_METRIC_FIELDS,
    ]
)
"""`n_significant` is the number of genes whose observed mean differs from control (Welch's test, Benjamini-Hochberg at
5%). `reliability_*` is the share of the variance over genes of a statistic's difference from control that is not
sampling noise; null where noise is all of it, or where no bootstrap replicates were asked for. All are of the observed
cells, the same for every method.
"""

CONFIGURATION_SCHEMA = pa.schema(
    [
        ("number", pa.int32()),
        ("n_bins", pa.int32()),
        ("weights", pa.string()),
        ("n_layers", pa.int32()),
        ("width", pa.int32()),
        ("dropout", pa.float64()),
        ("learning_rate", pa.float64()),
        ("weight_decay", pa.float64()),
        ("n_folds", pa.int32()),
        ("error", pa.string()),
        ("train_seconds", pa.float64()),
        *_METRIC_FIELDS,
    ]
)
"""A row per configuration that a search tried; metrics are averages over the `n_folds` folds of its own
cross-validation that were scored. `weights` are those of cross-entropy, Wasserstein-1 and squared error of the mean."""

PRETRAINING_SCHEMA = pa.schema(
    [
        ("fold", pa.int32()),
        ("epoch", pa.int32()),
        ("training_loss", pa.float64()),
        ("validation_loss", pa.float64()),
        ("validation_accuracy", pa.float64()),
        ("marginal_loss", pa.float64()),
        ("marginal_accuracy", pa.float64()),
        ("test_loss", pa.float64()),
        ("test_accuracy", pa.float64()),
        ("test_marginal_loss", pa.float64()),
        ("n_training", pa.int32()),
        ("n_genes", pa.int32()),
        ("n_parameters", pa.int64()),
        ("seconds", pa.float64()),
        ("tokens_per_second", pa.float64()),
    ]
)
"""A row per epoch of a training of PerturBERT; `fold` is -1 where nothing is held out. Losses are mean cross-entropies
of masked responses, in nats, accuracies the share of them whose bin is found; `marginal_*` are of the frequencies of
each gene's bins in training. `test_*` stand in the last epoch."""

RANDOM = "Random"
"""The source of embeddings that tells nothing: a vector of normal numbers for each gene."""

PROPERTY_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("task", pa.string()),
        ("form", pa.string()),
        ("split", pa.string()),
        ("fold", pa.int32()),
        ("n_train", pa.int64()),
        ("n_test", pa.int64()),
        ("roc_auc", pa.float64()),
        ("accuracy", pa.float64()),
        ("precision", pa.float64()),
        ("recall", pa.float64()),
    ]
)
"""A row per source of gene embeddings, task and fold. `form` and `split` are of tasks of pairs: how two genes' vectors
become one, and whether test pairs share genes with training pairs; empty for tasks of labels."""

_CLASS = (("source", pa.string()), ("task", pa.string()), ("gene_class", pa.string()))

CLASS_SCHEMA = pa.schema(
    [
        *_CLASS,
        ("n_genes", pa.int32()),
        ("n_others", pa.int32()),
        ("within", pa.float64()),
        ("between", pa.float64()),
        ("p", pa.float64()),
    ]
)
"""Mean cosines of a class of genes, of pairs in it and of pairs with one other gene, about the mean of all genes of the
task; `p` is that of their difference by permutation."""

MAP_SCHEMA = pa.schema(
    [*_CLASS, ("gene", pa.string()), ("is_member", pa.bool_()), ("x", pa.float64()), ("y", pa.float64())]
)
"""Where UMAP puts each gene of a task."""

COSINE_SCHEMA = pa.schema([*_CLASS, ("gene_a", pa.string()), ("gene_b", pa.string()), ("cosine", pa.float64())])
"""Cosines of some genes of a class, which come first, and of some others."""

DEPENDENCY_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("split", pa.string()),
        ("seed", pa.int32()),
        ("replicate", pa.int32()),
        ("n_train", pa.int64()),
        ("n_test", pa.int64()),
        ("n_trees", pa.int32()),
        ("n_genes_constant", pa.int32()),
        ("rmse", pa.float64()),
        ("mae", pa.float64()),
        ("r2", pa.float64()),
        ("r_within_gene", pa.float64()),
    ]
)
"""A row per fit of gene dependency and bootstrap sample of the lines that are held out, and of the genes where those
are; `replicate` 0 is what was held out itself. Errors are in effects, `r_within_gene` is the mean over genes of the
correlation across lines, in which `n_genes_constant` of which the same is predicted in all lines count as 0."""

SCREEN_SCHEMAS: Mapping[str, pa.Schema] = {
    "genes": pa.schema(
        [
            ("screen", pa.string()),
            ("gene", pa.string()),
            ("zeros", pa.float64()),
            ("mean", pa.float64()),
            ("variance", pa.float64()),
            ("skewness", pa.float64()),
            ("kurtosis", pa.float64()),
        ]
    ),
    "perturbations": pa.schema(
        [
            ("screen", pa.string()),
            ("perturbation", pa.string()),
            ("n_cells", pa.int32()),
            ("n_significant", pa.int32()),
            ("shift", pa.float64()),
        ]
    ),
    "gene_pairs": pa.schema(
        [
            ("screen", pa.string()),
            ("gene_a", pa.string()),
            ("gene_b", pa.string()),
            ("correlation", pa.float64()),
        ]
    ),
}
"""Tables that describe screens: control cells gene by gene, perturbations, and pairs of genes in control cells."""


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A file beside `path` to fill, which is renamed into place at the end; on failure nothing changes."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then rename it into place; on failure nothing changes."""
    with written_atomically(path) as beside:
        write(beside)


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Write `content` as JSON, atomically; NaN becomes null, a path its text. One line takes half the time and room."""
    text = json.dumps(without_nan(content), indent=indent, allow_nan=False) + "\n"
    write_atomically(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def without_nan(value: Any) -> Any:
    """The same for JSON: NaN is null, a path its text, a tuple a list."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write rows as parquet, atomically. A column that a row lacks is null; one unknown to `schema` is an error."""
    rows = list(rows)
    unknown = sorted({name for row in rows for name in row} - set(schema.names))
    if unknown:
        raise KeyError(f"columns not in the schema of {path.name}: {', '.join(unknown)}")
    table = pa.Table.from_pylist(without_nan(rows), schema=schema)
    write_atomically(path, lambda beside: pq.write_table(table, beside))


def read_table(path: Path) -> pa.Table:
    """Read one result table.

    Raises:
        InputError: The file is missing or is not parquet.
    """
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: give a folder that holds it") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} cannot be read as parquet ({str(error).splitlines()[0]}): run the study again"
        ) from None
