"""What a likelihood needs of cells, exactly, without going over them: zeros, sums of the rest, and a few one by one.

Cells near zero are kept one by one, since a spike there makes their density no power of their value; so are cells
beyond the range of a fold that holds them out, which count as at its end.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["CellRows", "Cells"]


class Cells(NamedTuple):
    """Cells of some perturbations, gene by gene, in shares of a perturbation's cells.

    Attributes:
        zeros: Cells whose value is 0.
        rest: Cells that are neither 0 nor apart.
        mean: Mean of the rest, 0 where there are none.
        variance: Their variance, over their number.
        row: Perturbation of each cell apart.
        gene: Its gene.
        value: Its value; beyond the range, the end of it.
        weight: Its share, one over its perturbation's cells.
    """

    zeros: Float[Tensor, "perturbation gene"]
    rest: Float[Tensor, "perturbation gene"]
    mean: Float[Tensor, "perturbation gene"]
    variance: Float[Tensor, "perturbation gene"]
    row: Int[Tensor, "apart"]
    gene: Int[Tensor, "apart"]
    value: Float[Tensor, "apart"]
    weight: Float[Tensor, "apart"]


@runtime_checkable
class CellRows(Protocol):
    """The cells of perturbations, worked out for those that are asked for."""

    def __len__(self) -> int:
        """Number of perturbations."""
        ...

    def __getitem__(self, numbers: Int[Tensor, "batch"], /) -> Cells:
        """Cells of the perturbations of these numbers."""
        ...
