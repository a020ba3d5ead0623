"""What all studies take, on this machine and on a GPU that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from histpert.doctor.coverage import FoldSizes
from histpert.doctor.forecast import Forecast, fitting_forecast
from histpert.doctor.gpus import Gpu
from histpert.doctor.machine import Machine
from histpert.doctor.on_gpu import GpuForecast, at_once_on, forecast_on, most_bytes
from histpert.doctor.studies import ScreenShape, Study, combination_study, studies
from histpert.doctor.trying import Reading, tried
from histpert.embeddings import GeneEmbeddings
from histpert.models.celltarnet import CellSettings
from histpert.screens import Screen
from histpert.settings import ModelSettings
from histpert.study_defaults import COMBINATION_GENES

__all__ = ["Outlook", "outlook_on", "planned_studies"]


PROCESS_BYTES = 600 << 20
"""Of a process that tries trials, beside their tensors: libraries, and what torch compiles."""


@dataclass(frozen=True)
class Outlook:
    """What studies take.

    Attributes:
        machine: This one.
        here: Each study on it, measured.
        gpu: One that was asked for; None where none was.
        there: Each study on that, computed; those of whole cells are not.
        n_tried: Perturbations that were tried, at random, where the screen is too large for all; else all.
    """

    machine: Machine
    here: tuple[Forecast, ...] = ()
    gpu: Gpu | None = None
    there: tuple[GpuForecast, ...] = ()
    n_tried: int = 0

    def and_of(self, other: Outlook) -> Outlook:
        """Both."""
        return Outlook(self.machine, self.here + other.here, self.gpu, self.there + other.there, self.n_tried)

    def wants_fewer(self, each: Forecast) -> bool:
        """Whether a study fits into memory with fewer trials at once only than it would run by default."""
        return not self.machine.gpu and each.n_at_once < min(self.machine.cores, each.n_trials)

    @property
    def lacking(self) -> str:
        """What this machine has too little of for every study, in a line; empty where one can run."""
        lacks = [each.lacks(self.machine) for each in self.here]
        if not all(lacks):
            return ""
        own, disk = (min(getattr(each, name) for each in self.here) / 1e9 for name in ("own_bytes", "disk_bytes"))
        return (
            f"this machine has too little {' and '.join(dict.fromkeys(lacks))} for any study: {own:.1f} GB of memory "
            f"and {disk:.1f} GB of disk are needed at the least, {self.machine.memory_bytes / 1e9:.1f} and "
            f"{self.machine.disk_bytes / 1e9:.1f} are free"
        )


def planned_studies(folds: FoldSizes, settings: ModelSettings, of_pairs: bool) -> list[Study]:
    """Those of single perturbations, or that of pairs."""
    if of_pairs:
        return [combination_study(folds, settings, CellSettings.like(settings))]
    return studies(folds, settings)


def outlook_on(
    root: Path,
    screen: Screen,
    vectors: GeneEmbeddings,
    folds: FoldSizes,
    settings: ModelSettings,
    reading: Reading,
    machine: Machine,
    gpu: Gpu | None,
    of_pairs: bool = False,
) -> Outlook:
    """Try the methods of the studies of single perturbations, or of pairs, and add up what the studies take.

    Args:
        root: Temporary folder.
        screen: Perturbations that have an embedding.
        vectors: Their embeddings.
        folds: Of the cross-validation.
        settings: Of training.
        reading: What reading the screen took.
        machine: This one.
        gpu: One to compute a forecast for.
        of_pairs: Whether it is the study of pairs.
    """
    planned: Sequence[Study] = planned_studies(folds, settings, of_pairs)
    n_genes = min(len(screen.genes), COMBINATION_GENES) if of_pairs else len(screen.genes)
    shape = ScreenShape(int(screen.n_cells.sum()), n_genes, vectors.vectors.shape[1], of_pairs)
    n_at_once, needed = machine.cores, max(most_bytes(study, shape, settings) for study in planned)
    if machine.gpu:
        n_at_once = at_once_on(machine.gpu_bytes, needed, machine.cores)
    n_tried = max(1, min(n_at_once, machine.memory_bytes // (needed + PROCESS_BYTES)))
    measured = tried(root, screen, vectors, planned, folds, settings, shape, reading, n_tried, bool(machine.gpu))
    here = tuple(fitting_forecast(study, measured, machine, n_at_once) for study in planned)
    there: tuple[GpuForecast, ...] = ()
    if gpu is not None and not of_pairs:
        there = tuple(forecast_on(gpu, study, measured, settings, machine.cores) for study in planned)
    return Outlook(machine, here, gpu, there, measured.n_perturbations)
