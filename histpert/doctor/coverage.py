"""Which perturbations have an embedding that a study may use, and how folds come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from histpert.embeddings import EmbeddingOptions, GeneEmbeddings, match_perturbations
from histpert.embeddings.fold_files import FoldFiles
from histpert.embeddings.learned import learned_from_of
from histpert.errors import InputError
from histpert.screens import assign_folds, assign_pair_folds

__all__ = ["Coverage", "FoldSizes"]


@dataclass(frozen=True)
class FoldSizes:
    """Perturbations that the folds of a cross-validation hold out.

    Attributes:
        folds: Their number.
        fewest: In the smallest.
        most: In the largest.
        trained_on: Perturbations, without those that the largest holds out.
    """

    folds: int
    fewest: int
    most: int
    trained_on: int

    @staticmethod
    def of(perturbations: Sequence[str], n_folds: int, seed: int, pairs: bool = False) -> FoldSizes:
        """Those that studies draw.

        Raises:
            InputError: Fewer perturbations than folds.
        """
        assign = assign_pair_folds if pairs else assign_folds
        sizes = np.bincount(assign(perturbations, n_folds, seed), minlength=n_folds)[:n_folds]
        return FoldSizes(n_folds, int(sizes.min()), int(sizes.max()), len(perturbations) - int(sizes.max()))


@dataclass(frozen=True)
class Coverage:
    """Embeddings of a screen's perturbations.

    Attributes:
        name: Of the embeddings.
        vectors: Those of the perturbations that have one, by name.
        missing: Perturbations without one.
        learned_from: Perturbations that the embeddings say they have learned from.
        unusable: Why studies refuse them, in a line; empty where they take them.
        notes: What was renamed, what stands for several perturbations, likely names of those that are missing.
    """

    name: str
    vectors: GeneEmbeddings
    missing: tuple[str, ...]
    learned_from: tuple[str, ...]
    unusable: str
    notes: tuple[str, ...]

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Those with an embedding, in the order of the screen."""
        return self.vectors.genes

    @property
    def features(self) -> Float[np.ndarray, "perturbation feature"]:
        """Their vectors."""
        return self.vectors.vectors

    @staticmethod
    def of(
        paths: Sequence[Path], options: EmbeddingOptions, perturbations: Sequence[str], n_folds: int, seed: int
    ) -> Coverage:
        """Look the perturbations up, as studies do.

        Args:
            paths: Files of embeddings; with `{fold}` in it, one for each fold.
            options: Tables of names.
            perturbations: Of the screen.
            n_folds: Folds of the cross-validation.
            seed: Of the folds.

        Raises:
            InputError: A file cannot be read.
        """
        files = FoldFiles(paths, options, range(n_folds))
        found = match_perturbations(files.first(), perturbations, options.aliases)
        names = found.embeddings.genes
        learned = sorted(
            {name for fold in files.folds for file in dict.fromkeys(files.of(fold)) for name in learned_from_of(file)}
        )
        unusable = ""
        if len(names) >= n_folds:
            try:
                files.check_unseen(names, assign_folds(names, n_folds, seed))
                if any(map(files.is_by_fold, paths)):
                    files.vectors(names)
            except InputError as error:
                unusable = str(error)
        notes = (*found.embeddings.notes, *found.notes)
        return Coverage(found.embeddings.name, found.embeddings, found.missing, tuple(learned), unusable, notes)
