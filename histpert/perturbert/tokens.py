"""Signatures as tokens: which bin each gene's response falls into, of which signature, in which cell line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from histpert.errors import InputError
from histpert.perturbert.corpus import Corpus
from histpert.perturbert.settings import N_BINS, Split

__all__ = ["ABSENT", "MASK", "UNCHANGED", "Parts", "Tokens", "bins_of", "fit_edges", "split_corpus", "tokenize"]

UNCHANGED = N_BINS // 2
"""The bin between those of the 8 kinds of down and of up."""
MASK = N_BINS
"""The token in the place of a response that is masked."""
ABSENT = 255
"""A gene that was not measured: it has no token."""

_FITTED_ON = 4096
_ROWS_AT_ONCE = 4096


class Parts(NamedTuple):
    """Signatures of a corpus: which to train on, to validate on while training, and to test on."""

    training: Int[np.ndarray, "row"]
    validation: Int[np.ndarray, "row"]
    test: Int[np.ndarray, "row"]


def split_corpus(corpus: Corpus, rows: Int[np.ndarray, "row"], by: Split, share: float, seed: int) -> Parts:
    """Split signatures into training, validation and test.

    Args:
        corpus: All signatures.
        rows: Those to split.
        by: `row` draws signatures; `perturbation` and `cell_line` hold out all signatures of those drawn.
        share: Of the rows, perturbations or cell lines for validation, and again for test; at least one each.
        seed: Of the draw.

    Raises:
        InputError: There are fewer than three to draw from.
    """
    labels = {"perturbation": corpus.perturbations, "cell_line": corpus.cell_lines}
    units, unit = (rows, np.arange(len(rows))) if by == "row" else np.unique(labels[by][rows], return_inverse=True)
    if len(units) < 3:
        what = {"row": "signatures", "perturbation": "perturbations", "cell_line": "cell lines"}[by]
        raise InputError(
            f"--split {by}: the corpus has {len(units)} {what}, and training, validation and test need one each; "
            "split otherwise, or give more signatures"
        )
    order = np.random.default_rng([seed, 3]).permutation(len(units))
    n_out = min(max(1, round(share * len(units))), (len(units) - 1) // 2)
    part_of_unit = np.zeros(len(units), int)
    part_of_unit[order[:n_out]], part_of_unit[order[n_out : 2 * n_out]] = 1, 2
    return Parts(*(rows[part_of_unit[unit] == part] for part in range(3)))


def fit_edges(
    corpus: Corpus, training: Int[np.ndarray, "row"], unchanged: float, seed: int
) -> Float[np.ndarray, "edge"]:
    """Edges between the 17 bins, rising.

    What lies within `unchanged` standard errors of 0 is one bin. Below and above it are eight each, of equally many
    values of the training signatures (of 4,096 of them, drawn, where there are more).

    Raises:
        InputError: No value lies beyond `unchanged` on one side.
    """
    if len(training) > _FITTED_ON:
        training = np.sort(np.random.default_rng([seed, 4]).choice(training, _FITTED_ON, replace=False))
    z = corpus.z(training)
    sides = []
    for sign in (-1, 1):
        beyond = (sign * z)[sign * z > unchanged]
        if not len(beyond):
            way = "below" if sign < 0 else "above"
            raise InputError(
                f"no response of the training signatures lies {way} {sign * unchanged:g} standard errors: lower "
                "--unchanged, or give signatures of genes going both ways"
            )
        sides.append(np.quantile(beyond.astype(np.float64), np.arange(1, UNCHANGED) / UNCHANGED))
    down, up = sides
    return np.concatenate([-down[::-1], [-unchanged, unchanged], up])


def bins_of(z: Float[np.ndarray, "*any"], edges: Float[np.ndarray, "edge"]) -> UInt8[np.ndarray, "*any"]:
    """The bin of each value, 0 for the most down-regulated; a value on an edge is in the bin nearer to unchanged."""
    up = np.searchsorted(edges[UNCHANGED:], z, side="left")
    down = UNCHANGED - np.searchsorted(edges[:UNCHANGED], z, side="right")
    bins = np.where(z > 0, UNCHANGED + up, UNCHANGED - down)
    return np.where(np.isnan(z), ABSENT, bins).astype(np.uint8)


@dataclass(frozen=True)
class Tokens:
    """Tokens of signatures.

    Attributes:
        responses: A bin per signature and gene, `ABSENT` where it was not measured.
        cell_lines: The number of each signature's cell line; as many as there are lines for one not trained on.
        lines: Names of the cell lines that are trained on.
    """

    responses: UInt8[np.ndarray, "signature gene"]
    cell_lines: Int[np.ndarray, "signature"]
    lines: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.responses)


def tokenize(
    corpus: Corpus, rows: Int[np.ndarray, "row"], edges: Float[np.ndarray, "edge"], lines: tuple[str, ...]
) -> Tokens:
    """Tokens of these signatures; cell lines that are none of `lines` are unknown."""
    responses = np.empty((len(rows), len(corpus.genes)), np.uint8)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        some = slice(first, first + _ROWS_AT_ONCE)
        responses[some] = bins_of(corpus.z(rows[some]), edges)
    number = {line: place for place, line in enumerate(lines)}
    known = np.array([number.get(line, len(lines)) for line in corpus.cell_lines[rows]], np.int64)
    return Tokens(responses, known, lines)
