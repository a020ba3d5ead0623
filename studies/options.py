"""What every study takes on its command line, and how a script ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal, TypeVar

from histpert.command_line import absolute
from histpert.embeddings import EmbeddingOptions
from histpert.errors import InputError, exit_status
from histpert.histograms.remote import Cache, default_cache, is_remote
from histpert.memory import available_bytes
from histpert.screens import ReadOptions, WorkingSpace
from histpert.screens.fold_files import read_fold_file
from histpert.settings import ModelSettings
from histpert.study_defaults import FOLDS
from histpert.words import parsed_with_words

__all__ = ["SIMULATED", "Outcome", "StudyOptions", "default_out", "run_script"]

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
    """Gene embeddings: .npz, .parquet, .csv, .tsv, .h5, .h5ad or .pkl; several are scaled and joined. A path with
    {fold} in it names a file for each fold, such as those that have not learned from what the fold holds out."""
    names: EmbeddingOptions = field(default_factory=EmbeddingOptions)
    read: ReadOptions = field(default_factory=ReadOptions)
    model: ModelSettings = field(default_factory=ModelSettings)
    folds: int = FOLDS
    """Folds of the cross-validation over perturbations."""
    folds_file: Path | None = None
    """Table with columns perturbation and fold, as `histpert folds` writes it: the folds, and their number, are its."""
    hold_out: Literal["random", "clusters"] = "random"
    """What a fold holds out: perturbations drawn at random, or whole clusters of embeddings, which are harder."""
    permute_embeddings: bool = False
    """Give each perturbation the embedding of another: what is still predicted is not told by embeddings."""
    only_folds: tuple[int, ...] = ()
    """Run these folds alone, of 0 to --folds less 1; a later run adds others. Default: all."""
    out: Path = field(default_factory=default_out)
    """Results go to a folder named after the study in here. On a cluster, one that all nodes see."""
    store: str = ""
    """Folder of the histogram stores; default: `stores` in --out. On a cluster, one that all nodes see, or one on
    object storage: s3://bucket/stores, gs://bucket/stores."""
    store_cache: Path = field(default_factory=default_cache)
    """Folder on each node for what is fetched from a store on object storage."""
    store_cache_gb: float = 100.0
    """The most that it may hold."""
    memory_gb: float | None = None
    """The most memory for a screen's values, 8 bytes each; more go through a file in --store. Default: half of what is
    free."""
    shards: int = 1
    """Read and count the screen in as many Ray tasks, spread over the nodes of a cluster that all see its file."""
    gpus_per_trial: float | None = None
    """Share of a GPU for each trial, 0.25 runs four at once. Default: where there is a GPU, as many trials as its
    memory holds, by a forecast; else 0."""
    threads_per_trial: int = 1
    """CPU threads of each trial. The number changes the last digits of results."""
    max_concurrent_trials: int | None = None
    """The most trials at a time; default: what CPUs and GPUs hold."""
    checkpoint_seconds: float = 60.0
    """Time between the states of a training that are kept, from which it goes on if its process dies."""
    save_predictions: bool = False
    """Keep what each trial predicted, and what was observed, in `predictions/`: figures of single perturbations are
    drawn from it. 99 MB a trial for 120 held-out perturbations of 5,000 genes in 15 bins."""
    smoke: bool = False
    """Run a small shape of the study, to see that everything works."""

    def __post_init__(self):
        if self.threads_per_trial < 1:
            raise InputError(f"--threads-per-trial {self.threads_per_trial}: must be 1 or more")
        if self.max_concurrent_trials is not None and self.max_concurrent_trials < 1:
            raise InputError(f"--max-concurrent-trials {self.max_concurrent_trials}: must be 1 or more")
        if self.folds_file is not None and self.hold_out != "random":
            raise InputError("--folds-file says what each fold holds out: leave out --hold-out")
        if self.folds_file is not None:
            object.__setattr__(self, "folds_file", absolute(self.folds_file, "--folds-file"))
            object.__setattr__(self, "folds", max(read_fold_file(self.folds_file).values()) + 1)
        if unknown := sorted(set(self.only_folds) - set(range(self.folds))):
            raise InputError(
                f"--only-folds {' '.join(map(str, unknown))}: --folds {self.folds} are 0 to {self.folds - 1}"
            )
        if self.gpus_per_trial is not None and not 0 <= self.gpus_per_trial < inf:
            raise InputError(f"--gpus-per-trial {self.gpus_per_trial}: must be a number, 0 or more")
        if self.memory_gb is not None and not 0 <= self.memory_gb < inf:
            raise InputError(f"--memory-gb {self.memory_gb}: must be a number, 0 or more")
        if not self.checkpoint_seconds >= 0:
            raise InputError(f"--checkpoint-seconds {self.checkpoint_seconds}: must be a number, 0 or more")
        if self.shards < 1:
            raise InputError(f"--shards {self.shards}: must be 1 or more")
        object.__setattr__(self, "out", absolute(self.out, "--out"))
        if not 0 < self.store_cache_gb < inf:
            raise InputError(f"--store-cache-gb {self.store_cache_gb}: must be a number above 0")
        if not is_remote(self.store):
            object.__setattr__(self, "store", str(absolute(self.store or self.out / "stores", "--store")))
        object.__setattr__(self, "store_cache", absolute(self.store_cache, "--store-cache"))
        object.__setattr__(self, "embeddings", tuple(absolute(path, "--embeddings") for path in self.embeddings))
        if self.screen != SIMULATED:
            object.__setattr__(self, "screen", str(absolute(self.screen, "--screen")))

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """The folds to run."""
        return tuple(sorted(set(self.only_folds))) or tuple(range(self.folds))

    @property
    def cache(self) -> Cache:
        """For files of a store on object storage."""
        return Cache(self.store_cache, int(self.store_cache_gb * 1e9))

    def working_space(self, n_shards: int = 1) -> WorkingSpace:
        """Memory for a screen's values, shared by as many processes, and a folder for more."""
        n_bytes = available_bytes() / 2 if self.memory_gb is None else self.memory_gb * 1e9
        return WorkingSpace(int(n_bytes / n_shards), self.store_cache if is_remote(self.store) else Path(self.store))


@dataclass(frozen=True)
class Outcome:
    """What a script ends with.

    Attributes:
        status: Its exit status.
        told: What `--json` says of it.
    """

    status: int
    told: Mapping[str, Any]


Options = TypeVar("Options")


def run_script(
    options_type: type[Options],
    main: Callable[[Options], Outcome],
    description: str | None,
    default: Options | None = None,
) -> None:
    """Read the command line, run the study and leave with its exit status; input that cannot be used ends with 2.

    Args:
        options_type: What the command line takes.
        main: Runs the study.
        description: For `--help`.
        default: Other defaults than those of the options.
    """

    def run() -> int:
        options, words = parsed_with_words(options_type, default, description=description)
        with words.said() as said:
            outcome = main(options)
            said.update(outcome.told)
        return outcome.status

    sys.exit(exit_status(run, "stopped; the same command goes on with what is missing"))
