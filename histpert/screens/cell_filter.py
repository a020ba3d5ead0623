"""Keeping cells by an expression on columns of `obs`, which may compare and calculate, and do nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pandas as pd

from histpert.errors import InputError
from histpert.wording import every, reason

__all__ = ["filtered_cells"]

METHODS = ("isin", "isna", "notna", "between", "abs", "contains", "startswith", "endswith", "match", "lower", "upper")
"""What may be called; those of words after `.str`."""

_ALLOWED = (
    *(ast.Expression, ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.Compare, ast.cmpop, ast.Name, ast.Load),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr, ast.BitXor),
    *(ast.Constant, ast.List, ast.Tuple, ast.Call, ast.Attribute, ast.keyword),
)


def filtered_cells(obs: pd.DataFrame, expression: str | None, path: Path) -> np.ndarray:
    """Row numbers of the cells that the filter keeps; all of them by default.

    pandas would run any function that an expression names: only comparisons, arithmetic and `METHODS` are let through.

    Raises:
        InputError: The expression is invalid, does more than that, is not true or false per cell, or keeps no cell.
    """
    if expression is None:
        return np.arange(len(obs))
    _check(expression)
    try:
        passes = obs.eval(expression, engine="python", local_dict={}, global_dict={})
    except Exception as error:  # pandas passes on whatever the expression raises
        raise InputError(
            f"--cell-filter {expression!r}: {reason(error)}; columns of obs in {path}: {every(obs)}"
        ) from error
    if not (isinstance(passes, pd.Series) and pd.api.types.is_bool_dtype(passes) and len(passes) == len(obs)):
        raise InputError(
            f"--cell-filter {expression!r} is not true or false per cell: write a comparison, as in 'n_umi > 500'"
        )
    kept = np.flatnonzero(passes.fillna(False))
    if not len(kept):
        raise InputError(f"--cell-filter {expression!r} keeps none of the {len(obs):,} cells of {path}; loosen it")
    return kept


def _check(expression: str) -> None:
    try:
        tree = ast.parse(re.sub(r"`[^`]*`", "quoted", expression).strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f'--cell-filter {expression!r} is no expression ({reason(error)}): write a comparison, as in "n_umi > 500"'
        ) from error
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
        known = isinstance(node, ast.Attribute) and node.attr in (*METHODS, "str")
        if (
            not isinstance(node, _ALLOWED)
            or (isinstance(node, ast.Call) and not called)
            or (isinstance(node, ast.Attribute) and not known)
        ):
            raise InputError(
                f"--cell-filter {expression!r} may compare and calculate with columns, and call {', '.join(METHODS)}; "
                f"not {ast.unparse(node)!r}"
            )
