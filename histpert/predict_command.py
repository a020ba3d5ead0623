"""`histpert predict MODEL --genes TP53 A+B`: what perturbations would do, those that nobody has measured among them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.results import write_atomically
from histpert.screens import ReadOptions, Screen, open_screen
from histpert.study_defaults import INTERVAL_LEVEL, SHOWN_GENES
from histpert.top_genes import TopBy
from histpert.words import Words

if TYPE_CHECKING:
    from histpert.ensembles.ensemble import Ensemble
    from histpert.ensembles.responses import Responses

__all__ = ["Predict"]

N_SHOWN = 5
"""Top genes of a perturbation that are printed."""

MOST_DRAWN = 50
"""Perturbations of which figures are drawn, the first ones: each takes a second."""


@dataclass(frozen=True)
class Predict:
    """Predict distributions of all genes after perturbations, with intervals of their means.

    Perturbations that the model was trained on are predicted by members that had not seen them.
    """

    model: tyro.conf.Positional[Path]
    """A model that `histpert fit` wrote."""
    genes: tuple[str, ...] = ()
    """Perturbed genes, and combinations of them as A+B."""
    out: Path = Path("predictions")
    """Folder to write to: responses.csv (a row per perturbation and gene), perturbations.csv (how far to trust each),
    histograms.arrow and figures/."""
    top_by: TopBy = "w1"
    """Which genes are shown: those whose distribution changes most (w1), or its mean, its variance, its shape (what the
    distance has beyond the shift of the mean), or its bimodality."""
    n_genes: int = SHOWN_GENES
    """How many."""
    show: tuple[str, ...] = ()
    """Genes to show instead."""
    screen: Path | None = None
    """A screen, read as that of the model was: perturbations that it has are set beside their cells."""
    level: float = INTERVAL_LEVEL
    """Share of the intervals that hold the mean."""
    cells: int | None = None
    """Cells of the experiment that intervals are for; default: the median of the screen's perturbations."""
    aliases: Path | None = None
    """Table with columns symbol, alias_symbol, prev_symbol, as HGNC's: genes are also found under their other names."""
    words: Words = field(default_factory=Words)

    def run(self) -> int:
        """Predict, write tables, histograms and figures, and say what changes most."""
        with self.words.said() as outcome:
            outcome.update(self._predicted())
        return 0

    def _predicted(self) -> dict[str, Any]:
        # torch takes a while, and help does not need it
        from histpert.ensembles.beside import beside  # noqa: PLC0415
        from histpert.ensembles.files import read_ensemble  # noqa: PLC0415
        from histpert.ensembles.predicting import predict  # noqa: PLC0415

        if self.n_genes < 1:
            raise InputError(f"--n-genes {self.n_genes}: must be 1 or more")
        if not self.genes:
            raise InputError("histpert predict needs --genes: perturbed genes, or combinations as A+B")
        out, aliases = absolute(self.out, "--out"), self.aliases and absolute(self.aliases, "--aliases")
        ensemble = read_ensemble(absolute(self.model))
        responses = predict(ensemble, self.genes, level=self.level, n_cells=self.cells, aliases=aliases)
        for note in responses.notes:
            print(f"  {note}")
        if self.screen is not None:
            cells = self._cells(ensemble, responses)
            responses = responses if cells is None else beside(responses, ensemble, cells)
        try:
            written = list(_written(responses, out))
            figures = list(self._drawn(responses, out))
        except OSError as error:
            raise InputError(f"--out {out} cannot be written ({error}): name another folder") from error
        self._tell(responses)
        if responses.missing:
            print(f"no embedding, not predicted: {', '.join(responses.missing)}")
        for path in (*figures, *written):
            print(path)
        return {
            "tables": written,
            "figures": figures,
            "missing": responses.missing,
            "perturbations": responses.trust.to_dict("records"),
            "top": {name: self._top(responses, name)["gene"].tolist() for name in responses.perturbations},
        }

    def _cells(self, ensemble: Ensemble, responses: Responses) -> Screen | None:
        """Cells of what is predicted, read as the model's were; where there are none that is told."""
        assert self.screen is not None
        kept = {field.name for field in fields(ReadOptions)}
        given = {name: value for name, value in ensemble.about.get("read", {}).items() if name in kept}
        given["min_control_detection"] = 0.0  # the genes are those of the model
        with open_screen(absolute(self.screen, "--screen"), ReadOptions(**given)) as opened:
            there = set(opened.perturbations).intersection(responses.perturbations)
            if there:
                return opened.with_perturbations(there).read()
            print(f"  {opened.name} has none of these perturbations: no cells are set beside what is predicted")
            return None

    def _top(self, responses: Responses, name: str) -> Any:
        if self.show:
            rows = responses.rows
            return rows[(rows["perturbation"] == name) & rows["gene"].isin(self.show)]
        return responses.top(name, self.top_by, self.n_genes)

    def _drawn(self, responses: Responses, out: Path) -> Iterator[Path]:
        from histpert.plots import save_figure  # noqa: PLC0415 (matplotlib takes a while)

        for name in responses.perturbations[:MOST_DRAWN]:
            figure = responses.figure(name, self.top_by, self.n_genes, self.show)
            yield save_figure(figure, out / "figures" / re.sub(r"[^\w.+-]", "_", name))[0]
        if len(responses) > MOST_DRAWN:
            print(f"figures of the first {MOST_DRAWN} of {len(responses):,} perturbations; name fewer for others")

    def _tell(self, responses: Responses) -> None:
        for row in responses.trust.itertuples():
            known = f"in the screen; predicted by the {row.n_members} members that had not seen it"
            print(f"{row.perturbation}: {known if row.trained_on else f'not in the screen; {row.n_members} members'}")
            print(
                f"  nearest embedding trained on: {row.nearest}; distance {row.distance:.2f}, more than that of "
                f"{row.farther_than:.0%} of the perturbations held out in training"
            )
            for gene in self._top(responses, str(row.perturbation)).head(N_SHOWN).itertuples():
                print(
                    f"  {gene.gene}: mean {gene.control_mean:.3f} -> {gene.predicted_mean:.3f} "
                    f"[{gene.mean_low:.3f}, {gene.mean_high:.3f}], W1 {gene.w1:.3f}"
                )


def _written(responses: Responses, out: Path) -> Iterator[Path]:
    out.mkdir(parents=True, exist_ok=True)
    for name, table in {"responses": responses.rows, "perturbations": responses.trust}.items():
        path = out / f"{name}.csv"
        write_atomically(path, lambda beside, table=table: table.to_csv(beside, index=False))
        yield path
    path = out / "histograms.arrow"
    responses.write_histograms(path)
    yield path
