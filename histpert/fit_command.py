"""`histpert fit SCREEN --embeddings FILE`: a final model, for perturbations that nobody has measured."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import tyro

from histpert.best_settings import best_settings
from histpert.command_line import absolute
from histpert.embeddings import EmbeddingOptions, read_embeddings
from histpert.embeddings.fold_files import FOLD
from histpert.embeddings.learned import learned_from_of, telling_of
from histpert.errors import InputError
from histpert.locks import only_process_in
from histpert.memory import available_bytes
from histpert.perturbed_screen import notes_on, with_embeddings
from histpert.screens import ReadOptions, WorkingSpace, open_screen
from histpert.settings import ModelSettings
from histpert.study_defaults import BINS, INTERVAL_LEVEL, MEMBER_FOLDS, REPEATS
from histpert.terminal_progress import store_progress
from histpert.wording import some
from histpert.words import Words

if TYPE_CHECKING:
    from histpert.ensembles.ensemble import Ensemble

__all__ = ["Fit"]


@dataclass(frozen=True)
class Fit:
    """Train a final model on all perturbations of a screen: an ensemble of MLP+Hist, with checked intervals.

    Members are trained side by side, each without one fold of the perturbations; what they predict of those that they
    have not seen tells how far to trust what is predicted later. A fit that was stopped goes on with the same command.
    """

    screen: tyro.conf.Positional[Path]
    """An .h5ad or .zarr, a 10x .h5 or matrix.mtx."""
    embeddings: tuple[Path, ...] = ()
    """Gene embeddings, as studies take them; those of all genes are kept in the model."""
    out: Path = Path("model.safetensors")
    """The file to write; beside it come figures of the calibration (.calibration.png, .svg)."""
    settings_of: Path | None = None
    """Folder of a study (results/search, results/loss_weights, results/bin_sweep, ...): its best settings of MLP+Hist,
    by CRPS, are the defaults."""
    bins: int = BINS
    """Bins per gene."""
    folds: int = MEMBER_FOLDS
    """Parts of the perturbations; each member is trained without one."""
    repeats: int = REPEATS
    """How often the perturbations are parted anew; there are folds x repeats members."""
    names: EmbeddingOptions = field(default_factory=EmbeddingOptions)
    read: ReadOptions = field(default_factory=ReadOptions)
    model: ModelSettings = field(default_factory=ModelSettings)
    words: Words = field(default_factory=Words)

    @staticmethod
    def with_settings_of(study: str) -> Fit:
        """The defaults that follow from a study; the screen is yet to be named."""
        model, bins = best_settings(absolute(study, "--settings-of"))
        return Fit(screen=cast("Any", tyro.MISSING), model=model, bins=bins)

    def run(self) -> int:
        """Train, write the model and its calibration, and say how far to trust it."""
        with self.words.said() as outcome:
            outcome.update(self._fitted())
        return 0

    def _fitted(self) -> dict[str, Any]:
        from histpert.ensembles.fitting import fit  # noqa: PLC0415 (torch takes a while, and help does not need it)

        out, paths = absolute(self.out, "--out"), [absolute(path, "--embeddings") for path in self.embeddings]
        if out.suffix != ".safetensors":
            raise InputError(f"--out {out}: name a file that ends in .safetensors")
        if not paths:
            raise InputError("histpert fit needs --embeddings: a file with an embedding for each gene")
        if any(FOLD in str(path) for path in paths):
            raise InputError(f"--embeddings with {FOLD}: a final model has no folds of its own, give one file for all")
        embeddings = read_embeddings(paths, self.names)
        parts, busy = (
            out.with_name(f"{out.name}.parts"),
            f"another process fits {out}: wait for it, or name another --out",
        )
        alone = only_process_in(
            parts, busy, lambda error: f"--out {out} cannot be written ({error}): name another file"
        )
        with alone, store_progress() as progress:
            space = WorkingSpace(available_bytes() // 2, parts)
            with open_screen(absolute(self.screen), self.read, space, progress) as opened:
                wanted, found = with_embeddings(opened, embeddings, self.names.aliases)
                screen = wanted.read()
            print(f"screen {screen.name}", flush=True)
            for note in (*notes_on(screen, len(opened.perturbations), found), *_learned(paths, screen.perturbations)):
                print(f"  {note}", flush=True)
            about = {"screen_file": str(absolute(self.screen)), "read": asdict(self.read), "embedding_files": paths}
            how = {"n_bins": self.bins, "folds": self.folds, "repeats": self.repeats, "aliases": self.names.aliases}
            ensemble = fit(screen, embeddings, self.model, **how, parts=parts, progress=progress, about=about)
            ensemble.save(out)
        shutil.rmtree(parts)
        return _told(ensemble, out)


def _learned(paths: list[Path], perturbations: tuple[str, ...]) -> Iterator[str]:
    """A note on embeddings that have learned from what the screen's perturbations do: members know too much then."""
    for path in paths:
        if seen := telling_of(perturbations, sorted(learned_from_of(path))):
            yield (
                f"{path.name} has learned from {some(seen)}, which members are judged on: intervals are too narrow for "
                "genes that it has not learned from"
            )


def _told(ensemble: Ensemble, out: Path) -> dict[str, Any]:
    """Draw the calibration, and say what was made."""
    from histpert.plots import save_figure  # noqa: PLC0415 (matplotlib takes a while)

    calibration = ensemble.calibration
    assert calibration is not None
    figures = save_figure(ensemble.calibration_figure(), out.with_name(f"{out.stem}.calibration"))
    held = {name: calibration.at(INTERVAL_LEVEL, name) for name in calibration.coverage}
    print(f"{len(ensemble.networks)} members trained on {len(ensemble.perturbations)} perturbations")
    share = f"{INTERVAL_LEVEL:.0%} intervals hold {held['all']:.0%}"
    print(f"{share} of the means of perturbations held out, by what the others say")
    for name, share in held.items():
        if name != "all":
            print(f"  {name}: {share:.0%}")
    print(f"figure: {figures[0]}")
    print(f"model: {out}")
    print(f"next: histpert predict {out} --genes {' '.join(_unmeasured(ensemble))}")
    return {
        "model": out,
        "figures": figures,
        "members": len(ensemble.networks),
        "perturbations": len(ensemble.perturbations),
        "level": INTERVAL_LEVEL,
        "coverage": held,
    }


def _unmeasured(ensemble: Ensemble) -> list[str]:
    """Two genes that could be asked for: of the screen's genes, where those have embeddings and were not perturbed."""
    known = set(ensemble.embeddings.genes) - set(ensemble.perturbations)
    measured_first = dict.fromkeys((*ensemble.genes, *ensemble.embeddings.genes))
    return [gene for gene in measured_first if gene in known][:2] or list(ensemble.perturbations[:2])
