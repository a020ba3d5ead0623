"""Does a simulated screen look like a measured one?

Sets two screens beside each other: zeros, mean, variance, skewness and kurtosis per gene, gene-gene correlations,
cells, significant genes and size of the shift per perturbation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from analysis.screens import draw_comparison
from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.results import SCREEN_SCHEMAS, write_table
from histpert.screens import ReadOptions, read_screen
from histpert.screens.statistics import gene_pair_rows, gene_rows, perturbation_rows
from studies.data import check_writable
from studies.ended import Study
from studies.options import Outcome, default_out, run_script

NAME = "compare_screens"


@dataclass(frozen=True)
class CompareScreens:
    """Options of the comparison."""

    screen: Path
    """A measured screen: .h5ad, .zarr, 10x .h5 or matrix.mtx."""
    beside: Path
    """The one to set beside it, read without any of the options below: a simulated one needs none."""
    read: ReadOptions = field(default_factory=ReadOptions)
    out: Path = field(default_factory=default_out)
    """Results go to the folder `compare_screens` in here."""


def main(options: CompareScreens) -> Outcome:
    """Describe both screens and draw them."""
    out = absolute(options.out, "--out")
    check_writable(out, NAME)
    screens = [read_screen(options.screen, options.read), read_screen(options.beside)]
    if screens[0].name == screens[1].name:
        raise InputError(f"both screens are called {screens[0].name}: rename one of the files")
    for screen in screens:
        print(f"screen {screen.name}", *(f"  {note}" for note in screen.notes), sep="\n", flush=True)
    made = {"genes": gene_rows, "perturbations": perturbation_rows, "gene_pairs": gene_pair_rows}
    rows = {name: [row for screen in screens for row in made[name](screen)] for name in SCREEN_SCHEMAS}
    folder = out / NAME
    try:
        folder.mkdir(exist_ok=True)
        for name, schema in SCREEN_SCHEMAS.items():
            write_table(folder / f"{name}.parquet", rows[name], schema)
    except OSError as error:
        raise InputError(f"results cannot be written into {folder} ({error}): name another --out") from error
    written = draw_comparison(folder)
    print(next(path for path in written if path.suffix == ".md").read_text(encoding="utf-8"))
    return Study(folder, 0, (), tuple(f"{name}.parquet" for name in SCREEN_SCHEMAS)).report(written)


if __name__ == "__main__":
    run_script(CompareScreens, main, __doc__)
