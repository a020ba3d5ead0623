"""Embeddings from pickles, without running anything that a pickle asks for.

A pickle is a program: it names functions, and loading it calls them. Here it may name the few that numbers in plain
containers need, by exact module and name, and for each it gets a stand-in of ours, which checks what it is called with
and has nothing else to reach or to alter. Not even numpy's own functions are called: with a made-up dtype, they take
bytes of the file for addresses in memory.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from histpert.embeddings.rows import Rows, gene_names, stacked
from histpert.errors import InputError
from histpert.wording import reason

__all__ = ["read_pickle"]

_NUMBERS = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])


def read_pickle(path: Path) -> Rows:
    """A dictionary from gene name to a list or array of numbers.

    Raises:
        InputError: The file asks for anything but plain containers and arrays of numbers, or holds something else than
            such a dictionary.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(path, file).load()
    except InputError:
        raise
    except Exception as error:  # damaged pickles raise nearly every kind
        raise InputError(f"{path} cannot be read as a pickle: {reason(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {_kind(content)}: it needs a dictionary from gene name to vector")
    for name, vector in content.items():
        if not isinstance(name, str):
            raise InputError(f"{path}: {_short(name)} is a {_kind(name)}, where the dictionary needs gene names")
        if not isinstance(vector, list | tuple | _Array):
            raise InputError(f"{path}: gene {name!r} has a {_kind(vector)}, where it needs a list of numbers")
    genes = gene_names(path, content)
    return Rows(genes, stacked(path, genes, map(_plain, content.values())))


def _kind(value: object) -> str:
    return "numpy array" if isinstance(value, _Array) else type(value).__name__


def _short(value: object) -> str:
    """A value in a message; not a container, as a few bytes make tuples of tuples that nobody can print."""
    return repr(str(value)[:40]) if isinstance(value, str | float) or value in range(-999, 1000) else "an object"


def _plain(vector: Any) -> Any:
    return vector.values if isinstance(vector, _Array) else vector


class _Unpickler(pickle.Unpickler):
    def __init__(self, path: Path, file: Any):
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Callable:
        """The stand-in for an admitted pair of names; InputError for any other."""
        # by the exact pair: a dotted name would walk from an admitted module to whatever it imports
        if (module, name) not in _ADMITTED:
            raise InputError(
                f"{self._path} asks to load {f'{module}.{name}'[:100]!r}, which a file of embeddings never needs: "
                f"it was not opened further; where you trust it, write its vectors as .npz or .parquet"
            )
        return _ADMITTED[module, name]

    def persistent_load(self, pid: object) -> object:
        """Nothing outside the file is loaded."""
        raise pickle.UnpicklingError(f"it refers to an object outside the file: {_short(pid)}")


class _Admitted:
    """A function that a pickle may call. Without attributes that the pickle could set, for this or a later file."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any):
        raise pickle.UnpicklingError("it gives a state to a function")


class _Dtype:
    """What stands for a numpy dtype while a pickle is read: plain numbers, of either byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: str):
        if not isinstance(code, str) or code not in _NUMBERS:
            raise pickle.UnpicklingError(f"it holds an array of type {_short(code)}, where vectors need numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any):
        _, order, *parts = state
        if order not in ("<", ">", "=", "|") or any(part is not None for part in parts[:3]):
            raise pickle.UnpicklingError("it holds an array that is not of plain numbers")
        self.dtype = self.dtype.newbyteorder(order)

    def array(self, raw: Any) -> np.ndarray:
        """Numbers from bytes, in the byte order of this machine."""
        if not isinstance(raw, bytes | bytearray):
            raise pickle.UnpicklingError(f"it holds an array made of a {type(raw).__name__}")
        return np.frombuffer(raw, self.dtype).astype(self.dtype.newbyteorder("="))


class _Array:
    """What stands for a numpy array while a pickle is read."""

    __slots__ = ("values",)

    def __init__(self, values: np.ndarray | None = None):
        self.values = np.zeros(0) if values is None else values

    def __setstate__(self, state: Any):
        _, shape, dtype, fortran, raw = state
        self.values = _of_kind(dtype).array(raw).reshape(shape, order="F" if fortran else "C")


def _of_kind(dtype: Any) -> _Dtype:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError(f"it holds an array whose type is a {type(dtype).__name__}")
    return dtype


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    values: Any = _of_kind(dtype).array(raw)
    if order == "K" and axes is not None:
        return _Array(values.reshape(shape).transpose(axes))
    return _Array(values.reshape(shape, order=order))


def _scalar(dtype: Any, raw: Any) -> Any:
    return _of_kind(dtype).array(raw).item()


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {_short(encoding)}")
    return text.encode("latin1")


def _never(*_: Any) -> Any:
    raise pickle.UnpicklingError("it makes an array in an unknown way")


_ADMITTED: dict[tuple[str, str], Callable] = {
    ("_codecs", "encode"): _Admitted(_encode),
    ("collections", "OrderedDict"): _Admitted(dict),
    ("numpy", "dtype"): _Admitted(lambda code, *_: _Dtype(code)),
    ("numpy", "ndarray"): _Admitted(_never),  # an argument of _reconstruct only
}
for _core in ("numpy.core", "numpy._core"):  # before numpy 2, and since
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _Admitted(lambda *_: _Array())
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _Admitted(_scalar)
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _Admitted(_from_buffer)
