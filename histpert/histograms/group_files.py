"""Arrow files with a row per group of cells, larger than memory: made of zeros first, then filled row by row."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from histpert.results import written_atomically

__all__ = ["Column", "WriteRow", "group_file"]

SMALLEST_HOLE = 2**20

WriteRow = Callable[[int, Mapping[str, np.ndarray]], None]
"""Writes the arrays of one group, by column; from any thread."""


class Column(NamedTuple):
    """What each row of a column holds."""

    dtype: type[np.number]
    shape: tuple[int, ...]
    """Of the array in a row: lists, or lists of lists."""


@contextmanager
def group_file(
    path: Path, labels: Mapping[str, pa.Array], columns: Mapping[str, Column], about: Mapping[str, Any]
) -> Iterator[WriteRow]:
    """Make an Arrow file, and rename it into place when all rows are written; on failure nothing changes.

    Args:
        path: The file.
        labels: Columns that are known, a value per group.
        columns: Those whose rows are to be written; one without values is left out.
        about: What else a reader should find inside, as JSON in the schema's metadata.
    """
    columns = {name: column for name, column in columns.items() if 0 not in column.shape}
    with written_atomically(path) as beside:
        _write_zeros(beside, labels, columns, about)
        first = _offsets(beside, list(columns))
        with beside.open("r+b", buffering=0) as file:

            def write(group: int, arrays: Mapping[str, np.ndarray]) -> None:
                for name, offset in first.items():
                    content = np.ascontiguousarray(arrays[name], dtype=columns[name].dtype).reshape(-1).data
                    if os.pwrite(file.fileno(), content, offset + group * content.nbytes) < content.nbytes:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            yield write


def _write_zeros(
    path: Path, labels: Mapping[str, pa.Array], columns: Mapping[str, Column], about: Mapping[str, Any]
) -> None:
    n_groups = len(next(iter(labels.values())))
    arrays = dict(labels)
    for name, (dtype, shape) in columns.items():
        array = pa.array(np.zeros(n_groups * int(np.prod(shape)), dtype=dtype))
        for length in reversed(shape):
            array = pa.FixedSizeListArray.from_arrays(array, length)
        arrays[name] = array
    table = pa.table(arrays).replace_schema_metadata({"histpert": json.dumps(about)})
    with _WithHoles(io.FileIO(path, "w")) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


class _WithHoles(io.BufferedWriter):
    """A file that passes over long runs of zeros: they read as such, and cost nothing until they are filled."""

    def write(self, content: Any, /) -> int:
        view = memoryview(content)
        if view.nbytes < SMALLEST_HOLE or np.frombuffer(view, dtype=np.uint8).any():
            return super().write(view)
        self.seek(view.nbytes, os.SEEK_CUR)
        return view.nbytes


def _offsets(path: Path, columns: list[str]) -> dict[str, int]:
    """Where in the file the values of each column start."""
    offsets = {}
    with pa.memory_map(str(path)) as mapped:
        start, table = mapped.read_buffer().address, pa.ipc.open_file(mapped).read_all()
        for name in columns:
            values: Any = table[name].chunk(0)
            while isinstance(values, pa.FixedSizeListArray):
                values = values.values
            offsets[name] = values.buffers()[1].address - start
    return offsets
