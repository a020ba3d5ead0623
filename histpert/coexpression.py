"""Which genes vary together: what is kept of their correlations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

__all__ = ["Coexpression"]


class Coexpression(NamedTuple):
    """The most correlated genes of each gene, itself first, then by falling absolute correlation."""

    neighbor: Int[np.ndarray, "*fold gene neighbor"]
    correlation: Float[np.ndarray, "*fold gene neighbor"]
    """Pearson's over cells; 0 with a gene that does not vary."""
