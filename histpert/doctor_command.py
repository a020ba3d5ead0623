"""`histpert doctor SCREEN`: whether a screen is fit for a study, what is doubtful about it, and what studies take."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from histpert.command_line import absolute
from histpert.embeddings import EmbeddingOptions
from histpert.errors import InputError
from histpert.screens import ReadOptions
from histpert.settings import ModelSettings
from histpert.study_defaults import FOLDS
from histpert.terminal_progress import bars_on
from histpert.words import Words

if TYPE_CHECKING:
    from histpert.doctor.examination import Examined

__all__ = ["Doctor"]


@dataclass(frozen=True)
class Doctor:
    """Say whether a screen is fit for a study, and what each study would take here: time, memory and disk.

    Told are what the file holds, what is doubtful about it and what to do, and which perturbations lack an embedding.
    Nothing is written but temporary files, which are removed. The exit status is 0 where a study can run; 1 where the
    screen was read and none can, as without --embeddings; 2 for what cannot be read.
    """

    screen: tyro.conf.Positional[Path]
    """An .h5ad or .zarr, a 10x .h5 or matrix.mtx."""
    embeddings: tuple[Path, ...] = ()
    """Gene embeddings, as studies take them, without which no study can run; {fold} in a path is the fold's number."""
    folds: int = FOLDS
    """Folds of the cross-validation over perturbations."""
    seed: int = 0
    """Of folds and trainings."""
    epochs: int = ModelSettings.epochs
    """Of trainings, other than those of CellTARNet."""
    gpu: str | None = None
    """Compute also what studies would take on a GPU that is not here: H200, H100, A100-80, A100-40, L40S, A10, RTX4090,
    V100 or T4."""
    names: EmbeddingOptions = field(default_factory=EmbeddingOptions)
    read: ReadOptions = field(default_factory=ReadOptions)
    words: Words = field(default_factory=Words)

    def run(self) -> int:
        """Look, and say what was found."""
        # It loads torch, which the other commands of this program do without.
        from histpert.doctor.content import as_content  # noqa: PLC0415
        from histpert.doctor.examination import Examination, examine  # noqa: PLC0415
        from histpert.doctor.gpus import gpu_named  # noqa: PLC0415
        from histpert.doctor.report import print_report  # noqa: PLC0415

        if self.folds < 2:
            raise InputError(f"--folds {self.folds}: cross-validation needs at least 2 folds")
        what = Examination(
            screen=absolute(self.screen),
            embeddings=tuple(absolute(path, "--embeddings") for path in self.embeddings),
            names=self.names,
            read=self.read,
            folds=self.folds,
            settings=ModelSettings(seed=self.seed, epochs=self.epochs),
            gpu=None if self.gpu is None else gpu_named(self.gpu),
        )
        with self.words.said() as outcome:
            with bars_on(Console(stderr=True)) as told:
                found = examine(what, told)
            command = self._next(found)
            outcome.update(as_content(found, command))
            if not self.words.json:
                print_report(found, command)
        return 1 if found.reasons else 0

    def _next(self, found: Examined) -> str:
        """The command to run next: a study, or this one again with what it lacks."""
        given = [*_given(self.names), *_given(self.read)]
        training = ["--seed", str(self.seed)] if self.seed else []
        training += ["--epochs", str(self.epochs)] if self.epochs != ModelSettings.epochs else []
        folds = ["--folds", str(self.folds)] if self.folds != FOLDS else []
        embeddings = ["--embeddings", *map(str, self.embeddings)]
        screen = str(self.screen)
        if not self.embeddings:
            embeddings = ["--embeddings", "FILE"]
        if found.facts is None:
            embeddings += ["--control-label", "LABEL"]
        if not found.reasons:
            assert found.outlook is not None
            study = next(each for each in found.outlook.here if not each.lacks(found.outlook.machine))
            fewer = ["--max-concurrent-trials", str(study.n_at_once)] if found.outlook.wants_fewer(study) else []
            whole = ["python", f"studies/{study.study}.py", "--screen", screen, *embeddings, *given, *folds, *training]
            return shlex.join([*whole, *fewer])
        n = len(found.coverage.perturbations) if found.coverage else 0
        if 2 <= n < self.folds:
            folds = ["--folds", str(max(2, n // 2))]
        return shlex.join(["histpert", "doctor", screen, *embeddings, *given, *folds, *training])


def _given(options: Any) -> list[str]:
    """Options that differ from their defaults, as they are written on a command line."""
    words: list[str] = []
    for option in fields(options):
        value = getattr(options, option.name)
        if value == option.default:
            continue
        flag = f"--{option.name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    return words
