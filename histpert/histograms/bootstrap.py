"""Bootstrap replicates of moments: what sampling the cells anew would do to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

__all__ = ["Resampling"]


@dataclass(frozen=True)
class Resampling:
    """Sums of powers over cells of a group that are drawn from it with replacement, as many as it has.

    The draws follow from the cells themselves, so that they are the same wherever and in whatever order groups are
    resampled.

    Attributes:
        n_replicates: How often each group is drawn.
    """

    n_replicates: int

    def __call__(self, cells: sp.csr_matrix) -> Float[np.ndarray, "power replicate gene"]:
        """Sums of x, x^2, x^3 and x^4 over the cells drawn.

        Args:
            cells: Cells x genes of one group, CSR without duplicate entries.
        """
        n_cells, n_genes = cells.shape  # pyright: ignore[reportGeneralTypeIssues]
        sums = np.zeros((n_genes, 4, self.n_replicates))
        if n_cells:
            _add_rows(cells.data, cells.indices, cells.indptr.astype(np.int64), self.weights(cells), sums)
        return np.ascontiguousarray(sums.transpose(1, 2, 0))

    def weights(self, cells: sp.csr_matrix) -> Float[np.ndarray, "cell replicate"]:
        """How often each cell is drawn in each replicate."""
        n_cells = cells.indptr.size - 1
        digest = hashlib.sha256(np.ascontiguousarray(cells.indptr, dtype=np.int64).data)
        digest.update(np.ascontiguousarray(cells.data).data)
        random = np.random.default_rng(int.from_bytes(digest.digest(), "little"))
        drawn = random.multinomial(n_cells, np.full(n_cells, 1 / n_cells), size=self.n_replicates)
        return np.ascontiguousarray(drawn.T, dtype=np.float64)


@numba.njit(nogil=True, cache=True)
@no_type_check  # numba compiles it: it cannot be wrapped
def _add_rows(data, indices, indptr, weights, sums):
    for cell in range(len(indptr) - 1):
        weight = weights[cell]
        for place in range(indptr[cell], indptr[cell + 1]):
            value = np.float64(data[place])
            of_gene = sums[indices[place]]
            power = value
            for k in range(4):
                for replicate in range(len(weight)):
                    of_gene[k, replicate] += weight[replicate] * power
                power *= value
