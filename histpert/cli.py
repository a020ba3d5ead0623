"""The `histpert` command: `histpert simulate OUT.h5ad`, `histpert folds SCREEN`, ...."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

import tyro
from rich.console import Console
from rich.progress import Progress

from histpert.command_line import absolute, given_option, parsed
from histpert.errors import InputError, exit_status
from histpert.export_command import Export
from histpert.fold_command import Folds
from histpert.screens.simulation import PRESETS, Preset, Simulation, write_screen
from histpert.settings import LARGEST_SEED
from histpert.signature_command import Signatures
from histpert.store_commands import StoreCommand

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

    def run(self) -> int:
        """Write the screen, show progress, and name the files."""
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must be 0 or more")
        if self.seed > LARGEST_SEED:
            raise InputError(f"--seed {self.seed}: must be {LARGEST_SEED:,} or less")
        out = absolute(self.out)
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
            cells = progress.add_task("cells", total=self.simulation.n_cells)
            with _interrupts_held() as let_through:

                def advance(n_cells: int) -> None:
                    progress.advance(cells, n_cells)
                    let_through()

                paths = write_screen(out, self.seed, self.simulation, advance)
        for path in paths.values():
            print(path)
        return 0


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


def _command(arguments: list[str]) -> Simulate | Folds | Signatures | Export | StoreCommand:
    # The defaults of `simulate`, and with them its help, follow from --like.
    like: Any = given_option("--like", arguments)
    default = Simulate(out=cast("Any", tyro.MISSING), simulation=PRESETS.get(like, Simulation()))
    simulate = tyro.conf.subcommand("simulate", default=default, description=Simulate.__doc__)
    store = tyro.conf.subcommand("store", description="Look after the histogram stores that studies read.")
    folds = tyro.conf.subcommand("folds", description=Folds.__doc__)
    signatures = tyro.conf.subcommand("signatures", description=Signatures.__doc__)
    export = tyro.conf.subcommand("export", description=Export.__doc__)
    commands: Any = (
        Annotated[Simulate, simulate]
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
