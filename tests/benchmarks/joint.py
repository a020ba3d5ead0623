"""Whole cells against the known joint distribution of a simulated screen; and what CellTARNet's contrast costs.

The first table scores one fold of `studies/combinations.py` against cells that were held out, and against new ones that
the simulator draws of the same perturbations; its last row is how other new cells score. The second has, of cells that
were held out, the negative log-likelihood, in nats per gene on the flow's scale, and how far latents are from standard
normal ones: the deviation of means from 0, of standard deviations from 1, the Kolmogorov-Smirnov distance, each over
genes, and the absolute correlation between genes, beside the same of as many standard normal numbers.

`make bench-joint`, or `python tests/benchmarks/joint.py --epochs 150`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kstest

from histpert.metrics import HeldOut, evaluate_in_batches
from histpert.models import METHODS, OF_COMBINATIONS
from histpert.models.celltarnet import CellTARNet
from histpert.models.interface import TrainingSet
from histpert.predictions import Prediction
from histpert.screens import simulate_screen
from histpert.screens.simulation.truth import ScreenTruth
from histpert.study_defaults import ON_GENES
from histpert.targets import held_out_targets, training_targets
from studies.combinations import SIMULATION, Combinations
from studies.data import Pairs, prepare
from studies.trial import open_store
from studies.whole_cells import on_genes

CPU = torch.device("cpu")
SHOWN = "edistance", "mmd", "correlation_error"
N_CELLS = 500
"""New cells of each perturbation."""


class TrueCells:
    """New cells of the simulator, in the place of those that were held out."""

    def __init__(self, truth: ScreenTruth, control: torch.Tensor, names: list[str], seed: int):
        self._truth, self._control, self._names, self._seed = truth, control, names, seed

    def of_control(self) -> torch.Tensor:
        return self._control

    def of(self, number: int) -> torch.Tensor:
        cells = self._truth.sample(self._names[number], N_CELLS, self._seed).expression()
        return torch.from_numpy(cells.toarray())


def latents(model: CellTARNet, held_out: HeldOut, embeddings: torch.Tensor) -> tuple[float, np.ndarray]:
    """Negative log-likelihood per gene of the cells of a fold, and their latents, of the first network."""
    whole, scale, flow = held_out.whole_cells, model.network.scale, model.network.members[0].flow
    assert whole is not None
    random = torch.Generator().manual_seed(0)
    control, costs, found = whole.of_control(), [], []
    for row in held_out.rows:
        cells = whole.of(int(row))
        before = control[torch.randint(len(control), (len(cells),), generator=random)]
        uniform = [torch.rand(cells.shape, generator=random) for _ in range(2)]
        context = flow.encoder(scale.to_flow(before, uniform[0]), model.network(embeddings[row]).expand(len(cells), -1))
        cells = scale.to_flow(cells, uniform[1])
        costs.append(-flow.log_density(cells, context) / cells.shape[1])
        found.append(flow(cells, context)[0])
    return float(torch.cat(costs).mean()), torch.cat(found).numpy()


def normality(latent: np.ndarray) -> tuple[float, float, float, float]:
    correlation = np.corrcoef(latent.T)
    return (
        float(np.abs(latent.mean(0)).mean()),
        float(np.abs(latent.std(0) - 1).mean()),
        float(np.mean([kstest(gene, "norm").statistic for gene in latent.T])),
        float(np.abs(correlation[np.triu_indices(len(correlation), 1)]).mean()),
    )


def trained(name: str, settings: Any, training: TrainingSet) -> Any:
    model = {**METHODS, **OF_COMBINATIONS}[name](settings)
    deque(model.fit(training), maxlen=0)
    return model


def scored(model: Any, embeddings: torch.Tensor, held_out: HeldOut) -> Iterator[str]:
    def predict(batch: HeldOut) -> Prediction:
        return model.predict(embeddings[batch.rows])

    found = evaluate_in_batches(predict, held_out)
    for name in SHOWN:
        yield f"{found[name].mean():.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--epochs", type=int, default=Combinations.cell_epochs, help="of CellTARNet")
    epochs = parser.parse_args().epochs
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        options = Combinations(out=Path(folder), store=f"{folder}/store", cell_epochs=epochs)
        data = prepare(options, [options.bins], with_cells=True, pairs=Pairs(False, SIMULATION, options.n_genes))
        store = open_store(data.store)
        counts = store.fold(0, options.bins)
        held_out = held_out_targets(store, counts, CPU, 0, with_cells=True)
        assert held_out.whole_cells is not None
        truth = simulate_screen(options.model.seed, SIMULATION, with_pairs=True).truth
        assert store.genes == truth.genes
        names = [data.perturbations[number] for number in counts.held_out]
        new, others = (TrueCells(truth, held_out.whole_cells.of_control(), names, seed) for seed in (1, 2))
        against_new = replace(held_out, whole_cells=new)
        without = replace(options.of_cells, flow=replace(options.flow, contrast_weight=0.0))
        methods = {name: options.model for name in ("Ctrl Hist", "Additive", "MLP+Hist", "MLP+Hist copula")}
        runs = [*methods.items(), ("CellTARNet", options.of_cells), ("CellTARNet", without)]
        lines, likelihoods = [], []
        for name, settings in runs:
            vectors = on_genes(data).vectors if name in ON_GENES else data.vectors
            training = training_targets(counts, store.moments, vectors, CPU)
            model, embeddings = trained(name, settings, training), torch.from_numpy(vectors[counts.held_out])
            shown = f"{name}, without contrast" if settings is without else name
            lines.append([shown, *scored(model, embeddings, held_out), *scored(model, embeddings, against_new)])
            print(" | ".join(lines[-1]), flush=True)
            if name == "CellTARNet":
                with torch.no_grad():
                    cost, latent = latents(model, held_out, embeddings)
                likelihoods.append([shown, f"{cost:.4f}", *(f"{value:.4f}" for value in normality(latent))])
                shape = latent.shape

        def as_true(batch: HeldOut) -> Prediction:
            exact = Prediction(batch.moments, batch.control_mean, held_out.cells.masses(batch.rows))
            return exact._replace(cells=lambda n: torch.stack([others.of(int(row))[:n] for row in batch.rows]))

        found = [evaluate_in_batches(as_true, against) for against in (held_out, against_new)]
        lines.append(["other new cells", *(f"{scores[name].mean():.4f}" for scores in found for name in SHOWN)])
    chance = normality(np.random.default_rng(0).normal(size=shape))
    likelihoods.append(["standard normal", "", *(f"{value:.4f}" for value in chance)])
    columns = [f"{name}, {cells}" for cells in ("held-out cells", "known joint") for name in SHOWN]
    for header, rows in ((["method", *columns], lines), (["", "NLL", "mean", "sd", "KS", "correlation"], likelihoods)):
        print("\n| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
        print("\n".join("| " + " | ".join(row) + " |" for row in rows))


if __name__ == "__main__":
    main()
