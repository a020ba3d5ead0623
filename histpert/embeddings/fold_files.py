"""Embeddings of which each fold has files of its own, such as those that have not learned from what it holds out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from histpert.embeddings.gene_embeddings import GeneEmbeddings
from histpert.embeddings.learned import learned_from_of, telling_of
from histpert.embeddings.matching import match_perturbations
from histpert.embeddings.options import EmbeddingOptions
from histpert.embeddings.reading import read_embeddings
from histpert.errors import InputError
from histpert.wording import some

__all__ = ["FOLD", "FoldFiles"]

FOLD = "{fold}"
"""In a path: there is a file for each fold."""


@dataclass(frozen=True)
class FoldFiles:
    """Files of embeddings that are joined, some of them by fold.

    Attributes:
        paths: With `FOLD` in those of which there is one for each fold.
        names: Tables of names.
        folds: Those that are run.
    """

    paths: Sequence[Path]
    names: EmbeddingOptions
    folds: Sequence[int]

    @staticmethod
    def is_by_fold(path: Path) -> bool:
        """Whether there is a file for each fold."""
        return FOLD in str(path)

    def of(self, fold: int) -> list[Path]:
        """The files of a fold."""
        return [Path(str(path).replace(FOLD, str(fold))) for path in self.paths]

    def first(self) -> GeneEmbeddings:
        """Those of the first fold."""
        return read_embeddings(self.of(next(iter(self.folds), 0)), self.names)  # folds that cannot be are told later

    def vectors(self, perturbations: Sequence[str]) -> dict[int, Float[np.ndarray, "perturbation feature"]]:
        """The vectors of perturbations in each fold.

        Raises:
            InputError: A fold's file cannot be read, lacks a perturbation, or has another number of features.
        """
        found: dict[int, Float[np.ndarray, "perturbation feature"]] = {}
        for fold in self.folds:
            matched = match_perturbations(read_embeddings(self.of(fold), self.names), perturbations, self.names.aliases)
            files = ", ".join(str(file) for file in self.of(fold) if file not in self.paths)
            if matched.missing:
                raise InputError(
                    f"{files}: no embedding of {some(matched.missing)}, which other folds have: take the same genes"
                )
            found[fold] = matched.embeddings.vectors
            if found[fold].shape[1] != found[self.folds[0]].shape[1]:
                width, other = (found[one].shape[1] for one in (fold, self.folds[0]))
                raise InputError(f"{files}: {width} features, and files of other folds have {other}: write all alike")
        return found

    def check_unseen(self, perturbations: Sequence[str], folds: Int[np.ndarray, "perturbation"]) -> None:
        """See that none has learned from signatures of what its fold holds out, as far as the files say.

        Args:
            perturbations: Of the screen.
            folds: The fold that holds out each.

        Raises:
            InputError: One has.
        """
        for fold in self.folds:
            held_out = [name for name, its in zip(perturbations, folds.tolist(), strict=True) if its == fold]
            for file in self.of(fold):
                if seen := telling_of(held_out, sorted(learned_from_of(file))):
                    raise InputError(
                        f"{file} has learned from signatures of {some(seen)}, which fold {fold} holds out: write a "
                        f"file for each fold, studies/pretrain.py --folds-file, and name them with {FOLD} in the path"
                    )
