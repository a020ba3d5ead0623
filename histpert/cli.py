"""The `histpert` command: `histpert simulate OUT.h5ad`, `histpert folds SCREEN`, ...."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import getdoc
from pathlib import Path
from typing import Annotated, Any, cast

import tyro
from rich.console import Console
from rich.progress import Progress

from histpert.command_line import absolute, given_option, parsed
from histpert.doctor_command import Doctor
from histpert.errors import InputError, exit_status
from histpert.export_command import Export
from histpert.fit_command import Fit
from histpert.fold_command import Folds
from histpert.predict_command import Predict
from histpert.screens.simulation import PRESETS, Preset, Simulation, write_screen
from histpert.settings import LARGEST_SEED
from histpert.signature_command import Signatures
from histpert.store_commands import StoreCommand
from histpert.words import Words

__all__ = ["main"]


@dataclass(frozen=True)
class Simulate:
    """Simulate a screen of known truth, and embeddings of its perturbed genes from sources of unlike quality."""

    out: tyro.conf.Positional[Path]
    """The .h5ad file to write. Beside it come parameters (.truth.npz), embeddings (.good.npz, ...) and gene
    sets that tell the same (.good.gmt, ...)."""
    like: Preset = "papalexi"
    """Start from the settings of a published screen, or from easy ones."""
    seed: int = 0
    """The same seed and settings give the same screen."""
    simulation: Simulation = field(default_factory=Simulation)
    words: Words = field(default_factory=Words)

    def run(self) -> int:
        """Write the screen, show progress, and name the files."""
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must be 0 or more")
        if self.seed > LARGEST_SEED:
            raise InputError(f"--seed {self.seed}: must be {LARGEST_SEED:,} or less")
        with self.words.said() as outcome:
            outcome["files"] = self._written(absolute(self.out))
            for path in outcome["files"].values():
                print(path)
        return 0

    def _written(self, out: Path) -> dict[str, Path]:
        is_shown = sys.stderr.isatty() and not self.words.quiet
        with Progress(console=Console(stderr=True), transient=True, disable=not is_shown) as progress:
            cells = progress.add_task("cells", total=self.simulation.n_cells)
            with _interrupts_held() as let_through:

                def advance(n_cells: int) -> None:
                    progress.advance(cells, n_cells)
                    let_through()

                return write_screen(out, self.seed, self.simulation, advance)


@contextmanager
def _interrupts_held() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the function given is called: raised while HDF5 calls back, it would be lost."""
    held = []
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: held.append(True))

    def let_through() -> None:
        if held:
            raise KeyboardInterrupt

    try:
        yield let_through
    finally:
        signal.signal(signal.SIGINT, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status, 2 for input that cannot be used."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    return exit_status(lambda: _command(arguments).run())


def _command(arguments: list[str]) -> Doctor | Simulate | Fit | Predict | Folds | Signatures | Export | StoreCommand:
    # The defaults of `simulate`, and with them its help, follow from --like.
    like: Any = given_option("--like", arguments)
    default = Simulate(out=cast("Any", tyro.MISSING), simulation=PRESETS.get(like, Simulation()))
    doctor = tyro.conf.subcommand("doctor", description=getdoc(Doctor))
    simulate = tyro.conf.subcommand("simulate", default=default, description=Simulate.__doc__)
    store = tyro.conf.subcommand("store", description="Look after the histogram stores that studies read.")
    study: Any = given_option("--settings-of", arguments)
    of_study: Any = {} if study is None else {"default": Fit.with_settings_of(study)}
    fit = tyro.conf.subcommand("fit", description=Fit.__doc__, **of_study)
    predict = tyro.conf.subcommand("predict", description=Predict.__doc__)
    folds = tyro.conf.subcommand("folds", description=Folds.__doc__)
    signatures = tyro.conf.subcommand("signatures", description=Signatures.__doc__)
    export = tyro.conf.subcommand("export", description=Export.__doc__)
    commands: Any = (
        Annotated[Doctor, doctor]
        | Annotated[Simulate, simulate]
        | Annotated[Fit, fit]
        | Annotated[Predict, predict]
        | Annotated[Folds, folds]
        | Annotated[Signatures, signatures]
        | Annotated[Export, export]
        | Annotated[StoreCommand, store]
    )
    return parsed(
        commands,
        args=arguments,
        prog="histpert",
        description="Predict whole gene expression distributions after unseen genetic perturbations.",
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )


if __name__ == "__main__":
    sys.exit(main())
