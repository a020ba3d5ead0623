"""Files of predictions: what a trial predicted of its held-out perturbations, beside what was observed. No torch here.

`predictions/<trial_id>.arrow` in a study's folder has a row per group of cells and gene, control first, then the
held-out perturbations; genes are in the same order in each group. `observed` and `predicted` are lists of bin masses.
Of control, `observed` is the cells and `predicted` the method's own view of them, from which its shifts count. Any
reader of Arrow or Feather opens it: `pandas.read_feather`, `polars.read_ipc`, R's `arrow::read_feather`.

A row takes 8 bytes a bin, 4 where no masses are predicted, and 44 beside them: 120 perturbations x 5,000 genes in 15
bins are 73 MB of masses in a file of 99 MB. It is not compressed, and mapped when it is read.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Float64, Int

from histpert.errors import InputError
from histpert.results import written_atomically

__all__ = ["CONTROL", "SavedPredictions", "read_predictions", "write_predictions"]

CONTROL = "control"
"""What the rows of control cells are called."""

FORMAT = 1


@dataclass(frozen=True, eq=False)
class SavedPredictions:
    """What one trial predicted of its held-out perturbations, and what was observed of them.

    Means are of log-normalized expression; those of cells are not those of their binned masses. Bin `b` of a gene lies
    between `lower + b * width` and `lower + (b + 1) * width`.

    Attributes:
        trial_id: As in `trials.parquet`.
        method: Name of the method.
        screen: Name of the screen.
        fold: The fold whose perturbations were held out.
        n_bins: Bins per gene.
        control_smoothing: Uniform mass that the method mixes into control.
        perturbations: Those held out.
        genes: Of the screen.
        n_cells: Cells of each perturbation.
        n_control: Control cells.
        lower: Left edge of each gene's first bin.
        width: Width of each gene's bins.
        constant: Genes that do not vary in training, which the likelihood leaves out.
        observed: Bin masses of the cells; those beyond the range are in the edge bins.
        control: The same of control cells.
        observed_mean: Mean of the cells.
        control_mean: The same of control cells.
        predicted_mean: Predicted means.
        predicted_control_mean: Mean of the method's own view of control: predicted shifts are from there.
        predicted: Predicted bin masses; None for a method that predicts means.
        predicted_control: The method's own view of control, bin masses; None for a method that predicts means.
    """

    trial_id: str
    method: str
    screen: str
    fold: int
    n_bins: int
    control_smoothing: float
    perturbations: tuple[str, ...]
    genes: tuple[str, ...]
    n_cells: Int[np.ndarray, "perturbation"]
    n_control: int
    lower: Float64[np.ndarray, "gene"]
    width: Float64[np.ndarray, "gene"]
    constant: Bool[np.ndarray, "gene"]
    observed: Float32[np.ndarray, "perturbation gene bin"]
    control: Float32[np.ndarray, "gene bin"]
    observed_mean: Float64[np.ndarray, "perturbation gene"]
    control_mean: Float64[np.ndarray, "gene"]
    predicted_mean: Float64[np.ndarray, "perturbation gene"]
    predicted_control_mean: Float64[np.ndarray, "gene"]
    predicted: Float32[np.ndarray, "perturbation gene bin"] | None = None
    predicted_control: Float32[np.ndarray, "gene bin"] | None = None


_ABOUT = ("trial_id", "method", "screen", "fold", "n_bins", "control_smoothing")
"""What the metadata say."""


def write_predictions(path: Path, saved: SavedPredictions) -> None:
    """Write a file of predictions, atomically.

    Raises:
        OSError: It cannot be written.
    """
    about = {name: getattr(saved, name) for name in _ABOUT}
    about |= {"format": FORMAT, "crc32": _checksum(saved)}
    table = pa.table(_columns(saved)).replace_schema_metadata({"histpert": json.dumps(about)})
    with written_atomically(path) as beside, pa.ipc.new_file(str(beside), table.schema) as writer:
        writer.write_table(table)


def read_predictions(path: Path) -> SavedPredictions:
    """Map a file of predictions. Its arrays are views that cannot be written.

    Raises:
        InputError: It is missing, not whole, or of another format.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        about = json.loads((table.schema.metadata or {})[b"histpert"])
        if about["format"] != FORMAT:
            raise InputError(
                f"{path} is of format {about['format']}, this version reads format {FORMAT}: run the study again"
            )
        saved = _from_table(table, about)
        if _checksum(saved) == about["crc32"]:
            return saved
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run the study again with --save-predictions") from None
    except InputError:
        raise
    except Exception:  # pyarrow raises many kinds for a file that is damaged
        pass
    raise InputError(f"{path} is damaged: delete it and run the study again with --save-predictions")


def _columns(saved: SavedPredictions) -> dict[str, pa.Array]:
    """Control first, so that a column is an array of groups x genes, after which the file is not copied to be read."""
    n_groups, n_genes = 1 + len(saved.perturbations), len(saved.genes)
    columns = {
        "perturbation": _labels(np.repeat(np.arange(n_groups), n_genes), (CONTROL, *saved.perturbations)),
        "gene": _labels(np.tile(np.arange(n_genes), n_groups), saved.genes),
        "n_cells": pa.array(np.repeat([saved.n_control, *saved.n_cells], n_genes), pa.int32()),
        **{name: pa.array(np.tile(getattr(saved, name), n_groups)) for name in ("lower", "width", "constant")},
        "observed_mean": _stacked(saved.control_mean, saved.observed_mean),
        "predicted_mean": _stacked(saved.predicted_control_mean, saved.predicted_mean),
        "observed": pa.FixedSizeListArray.from_arrays(_stacked(saved.control, saved.observed), saved.n_bins),
    }
    if saved.predicted is not None and saved.predicted_control is not None:
        predicted = _stacked(saved.predicted_control, saved.predicted)
        columns["predicted"] = pa.FixedSizeListArray.from_arrays(predicted, saved.n_bins)
    return columns


def _labels(numbers: np.ndarray, names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), pa.array(names, pa.string()))


def _stacked(of_control: np.ndarray, of_perturbations: np.ndarray) -> pa.Array:
    return pa.array(np.concatenate([of_control[None], of_perturbations]).reshape(-1))


def _from_table(table: pa.Table, about: dict[str, Any]) -> SavedPredictions:
    table.validate()
    (control, *perturbations), genes = (_names(table, name) for name in ("perturbation", "gene"))
    if control != CONTROL:
        raise ValueError(control)
    shape = 1 + len(perturbations), len(genes)
    numbers = {name: _array(table, name, shape) for name in table.schema.names[2:]}
    return SavedPredictions(
        **{name: about[name] for name in _ABOUT},
        perturbations=tuple(perturbations),
        genes=tuple(genes),
        n_cells=numbers["n_cells"][1:, 0],
        n_control=int(numbers["n_cells"][0, 0]),
        **{name: numbers[name][0] for name in ("lower", "width", "constant")},
        observed=numbers["observed"][1:],
        control=numbers["observed"][0],
        observed_mean=numbers["observed_mean"][1:],
        control_mean=numbers["observed_mean"][0],
        predicted_mean=numbers["predicted_mean"][1:],
        predicted_control_mean=numbers["predicted_mean"][0],
        predicted=numbers["predicted"][1:] if "predicted" in numbers else None,
        predicted_control=numbers["predicted"][0] if "predicted" in numbers else None,
    )


def _names(table: pa.Table, column: str) -> list[str]:
    names = cast("pa.DictionaryArray", table[column].chunk(0)).dictionary
    names.validate(full=True)  # offsets that lead out of the file would end the process
    return names.to_pylist()


def _array(table: pa.Table, column: str, shape: tuple[int, ...]) -> np.ndarray:
    (values,) = cast("Any", table[column].chunks)
    if isinstance(values, pa.FixedSizeListArray):
        shape, values = (*shape, values.type.list_size), values.values
    return values.to_numpy(zero_copy_only=not pa.types.is_boolean(values.type)).reshape(shape)


def _checksum(saved: SavedPredictions) -> int:
    """Of all that is saved, so that what is read is what was written."""
    found = 0
    for field in fields(saved):
        value = getattr(saved, field.name)
        if isinstance(value, np.ndarray):
            kind = np.int32 if field.name == "n_cells" else value.dtype
            found = zlib.crc32(np.ascontiguousarray(value, dtype=kind).reshape(-1).view(np.uint8).data, found)
        else:
            found = zlib.crc32(json.dumps(value).encode(), found)
    return found
