"""What every study takes on its command line, and how a script ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TypeVar

import tyro

from histpert.command_line import absolute, parsed
from histpert.embeddings import EmbeddingOptions
from histpert.errors import InputError, exit_status
from histpert.screens import ReadOptions
from histpert.settings import ModelSettings

__all__ = ["SIMULATED", "StudyOptions", "default_out", "run_script"]

SIMULATED = "simulated"


def default_out() -> Path:
    """`results` in the current folder, or `~/histpert-results` where that folder is Ray's copy of an uploaded one."""
    here = Path.cwd()
    return Path.home() / "histpert-results" if "runtime_resources" in here.parts else here / "results"


@dataclass(frozen=True)
class StudyOptions:
    """Common to all studies."""

    screen: str = SIMULATED
    """An .h5ad or .zarr, a 10x .h5 or matrix.mtx, or `simulated` for a small screen with embeddings of its own."""
    embeddings: tuple[Path, ...] = ()
    """Gene embeddings: .npz, .parquet, .csv, .tsv, .h5, .h5ad or .pkl; several are scaled and joined."""
    names: EmbeddingOptions = field(default_factory=EmbeddingOptions)
    read: ReadOptions = field(default_factory=ReadOptions)
    model: ModelSettings = field(default_factory=ModelSettings)
    folds: int = 9
    """Folds of the cross-validation over perturbations."""
    out: Path = field(default_factory=default_out)
    """Results go to a folder named after the study in here. On a cluster, one that all nodes see."""
    store: Path | None = None
    """Folder of the histogram stores; default: `stores` in --out. On a cluster, one that all nodes see."""
    gpus_per_trial: float | None = None
    """Share of a GPU for each trial, 0.25 runs four at once; default: 1 where there is a GPU, else 0."""
    threads_per_trial: int = 1
    """CPU threads of each trial. The number changes the last digits of results."""
    smoke: bool = False
    """Run a small shape of the study, to see that everything works."""

    def __post_init__(self):
        if self.threads_per_trial < 1:
            raise InputError(f"--threads-per-trial {self.threads_per_trial}: must be 1 or more")
        if self.gpus_per_trial is not None and not 0 <= self.gpus_per_trial < inf:
            raise InputError(f"--gpus-per-trial {self.gpus_per_trial}: must be a number, 0 or more")
        object.__setattr__(self, "out", absolute(self.out, "--out"))
        object.__setattr__(self, "store", absolute(self.store or self.out / "stores", "--store"))
        object.__setattr__(self, "embeddings", tuple(absolute(path, "--embeddings") for path in self.embeddings))
        if self.screen != SIMULATED:
            object.__setattr__(self, "screen", str(absolute(self.screen, "--screen")))


Options = TypeVar("Options")


def run_script(options_type: type[Options], main: Callable[[Options], int], description: str | None) -> None:
    """Read the command line, run the study and leave with its exit status; input that cannot be used ends with 2."""
    sys.exit(
        exit_status(
            lambda: main(parsed(options_type, description=description, config=(tyro.conf.OmitArgPrefixes,))),
            "stopped; the same command goes on with what is missing",
        )
    )
