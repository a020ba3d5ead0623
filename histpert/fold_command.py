"""`histpert folds SCREEN`: the folds of a screen as a file, for methods that run elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from histpert.command_line import absolute
from histpert.embeddings import EmbeddingOptions, match_perturbations, read_embeddings
from histpert.errors import InputError
from histpert.screens import ReadOptions, assign_cluster_folds, assign_folds, assign_pair_folds, open_screen
from histpert.screens.fold_files import fold_fingerprint, write_fold_file
from histpert.study_defaults import FOLDS
from histpert.words import Words

__all__ = ["Folds"]


@dataclass(frozen=True)
class Folds:
    """Write the folds of a screen, a row per perturbation: those that studies draw from the same options."""

    screen: tyro.conf.Positional[Path]
    """An .h5ad or .zarr, a 10x .h5 or matrix.mtx."""
    out: Path = Path("folds.csv")
    """The file to write; `--folds-file` of every study reads it."""
    folds: int = FOLDS
    """Folds of the cross-validation over perturbations."""
    seed: int = 0
    """The same seed and perturbations give the same folds."""
    embeddings: tuple[Path, ...] = ()
    """Gene embeddings: perturbations without one are left out, as studies leave them out."""
    hold_out: Literal["random", "clusters", "pairs"] = "random"
    """What a fold holds out: perturbations drawn at random; whole clusters of embeddings; or pairs of genes that were
    perturbed alone too, as `studies/combinations.py` does, in which all other perturbations are trained on."""
    names: EmbeddingOptions = field(default_factory=EmbeddingOptions)
    read: ReadOptions = field(default_factory=ReadOptions)
    words: Words = field(default_factory=Words)

    def run(self) -> int:
        """Write the file, and say what is in it."""
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must be 0 or more")
        if self.hold_out == "clusters" and not self.embeddings:
            raise InputError("--hold-out clusters needs --embeddings")
        with self.words.said() as outcome:
            outcome.update(self._written())
        return 0

    def _written(self) -> dict[str, Any]:
        out = absolute(self.out, "--out")
        read = replace(self.read, combinations=True) if self.hold_out == "pairs" else self.read
        with open_screen(absolute(self.screen), read) as opened:
            perturbations, notes = opened.perturbations, opened.notes
        for note in notes:
            print(f"  {note}")
        vectors, missing = None, ()
        if self.embeddings:
            embeddings = read_embeddings([absolute(path, "--embeddings") for path in self.embeddings], self.names)
            found = match_perturbations(embeddings, perturbations, self.names.aliases)
            if missing := found.missing:
                print(f"  left out {len(missing)} perturbations without an embedding: {', '.join(missing)}")
            perturbations = tuple(name for name in perturbations if name not in set(missing))
            vectors = found.embeddings.lookup(perturbations)
        if self.hold_out == "clusters" and vectors is not None:
            folds = assign_cluster_folds(vectors, self.folds, self.seed)
        elif self.hold_out == "pairs":
            folds = assign_pair_folds(perturbations, self.folds, self.seed)
            held_out = folds < self.folds
            perturbations = tuple(
                name for name, is_held_out in zip(perturbations, held_out, strict=True) if is_held_out
            )
            folds = folds[held_out]
        else:
            folds = assign_folds(perturbations, self.folds, self.seed)
        write_fold_file(out, perturbations, folds)
        sizes, fingerprint = np.bincount(folds).tolist(), fold_fingerprint(perturbations, folds)
        print(f"{len(perturbations)} perturbations in {self.folds} folds of {min(sizes)} to {max(sizes)}")
        print(f"sha256 {fingerprint}")
        print(out)
        return {"file": out, "perturbations_per_fold": sizes, "sha256": fingerprint, "without_embedding": missing}
