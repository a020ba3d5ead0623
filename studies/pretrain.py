"""What do perturbation signatures tell about genes? Learns gene embeddings with PerturBERT.

Masks responses in perturbation signatures and trains a transformer to find them out, beside what a gene's frequencies
tell. Leaves embeddings that every study reads: the learned gene table, contextual embeddings, and the principal
components of the same signatures, which they have to be better than.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from analysis.pretrain import draw_pretrain
from histpert.command_line import absolute, given_option
from histpert.errors import InputError
from histpert.perturbert.reading import SignatureOptions, checked_signatures
from histpert.perturbert.settings import PRESETS, BertSettings, Preset
from histpert.results import PRETRAINING_SCHEMA
from histpert.screens.fold_files import read_fold_file
from studies.corpora import prepared_corpus
from studies.data import check_writable
from studies.options import Outcome, run_script
from studies.pretraining import put_in_place, training_unit
from studies.units import UnitOptions, run_units

NAME = "pretrain"
ALL = -1
"""In the place of a fold: nothing is held out."""


@dataclass(frozen=True)
class Pretrain(UnitOptions):
    """Options."""

    signatures: tuple[str, ...] = ()
    """FILE or CELL_LINE=FILE: screens (.h5ad, .zarr, 10x), level 5 of L1000 (.gctx), tidy tables of perturbation, gene
    and z_score (.parquet, .csv, .tsv), or a corpus.arrow of an earlier run. Default: a simulated corpus."""
    how: SignatureOptions = field(default_factory=SignatureOptions)
    preset: Preset = "small"
    """Start from settings that train in minutes, or from the published ones."""
    bert: BertSettings = PRESETS["small"]
    folds_file: Path | None = None
    """Table of perturbations and folds, as `histpert folds` writes it: train once per fold, without any signature that
    tells of what the fold holds out, in whatever cell line and source."""
    only_folds: tuple[int, ...] = ()
    """Of that file; default: all."""
    workers: int = 1
    """Processes that share each batch, with Ray Train: one per GPU, where there are several."""
    gpu: bool | None = None
    """Train on GPUs; default: where this machine has one."""
    checkpoint_seconds: float = 60.0
    """Time between the states of a training that are kept, from which it goes on if its process dies."""

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "signatures", checked_signatures(self.signatures))
        if self.folds_file is not None:
            object.__setattr__(self, "folds_file", absolute(self.folds_file, "--folds-file"))
        if self.only_folds and self.folds_file is None:
            raise InputError("--only-folds goes with --folds-file")
        if self.workers < 1 or not self.checkpoint_seconds >= 0:
            raise InputError("--workers must be 1 or more, --checkpoint-seconds 0 or more")
        if self.bert.batch_size % self.workers:
            raise InputError(f"--batch-size {self.bert.batch_size}: must be a multiple of --workers {self.workers}")

    @property
    def uses_gpu(self) -> bool:
        """Whether to train on a GPU."""
        return torch.cuda.is_available() if self.gpu is None else self.gpu

    def left_out(self) -> dict[int, tuple[str, ...]]:
        """What each training must know nothing of."""
        if self.folds_file is None:
            return {ALL: ()}
        fold_of = read_fold_file(self.folds_file)
        folds = sorted({fold for fold in fold_of.values() if fold >= 0})
        if unknown := sorted(set(self.only_folds) - set(folds)):
            raise InputError(f"--only-folds {' '.join(map(str, unknown))}: {self.folds_file} has 0 to {folds[-1]}")
        wanted = sorted(set(self.only_folds)) or folds
        return {fold: tuple(sorted(name for name, its in fold_of.items() if its == fold)) for fold in wanted}


def main(options: Pretrain, before: Mapping[str, Any] | None = None) -> Outcome:
    """Write the corpus, train, and draw."""
    if options.smoke:
        options = replace(options, bert=replace(options.bert, epochs=3))
    check_writable(options.out, NAME)
    folder, uses_gpu = options.out / NAME, options.uses_gpu
    given = options.signatures, options.how, options.seed, folder
    corpus = prepared_corpus(*given, n_simulated=200 if options.smoke else 800)
    settings = replace(options.bert, seed=options.seed)
    how = settings, folder, options.checkpoint_seconds, options.threads_per_trial, options.workers, uses_gpu
    units = [training_unit({"fold": fold}, corpus, left_out, *how) for fold, left_out in options.left_out().items()]
    study = run_units(
        NAME,
        options,
        units,
        PRETRAINING_SCHEMA,
        inputs={"signatures": corpus.fingerprint()},
        before=before,
        n_gpus=float(uses_gpu),
        in_turn=options.workers > 1,
    )
    embeddings = list(put_in_place(folder / "embeddings", units, ALL))
    for path in embeddings:
        print(f"embeddings: {path}")
    return study.report(draw_pretrain(folder, folder) if study.has_results else [], embeddings=embeddings)


if __name__ == "__main__":
    named: Any = given_option("--preset", sys.argv[1:])
    run_script(Pretrain, main, __doc__, default=Pretrain(bert=PRESETS.get(named, PRESETS["small"])))
