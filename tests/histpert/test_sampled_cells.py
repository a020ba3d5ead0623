"""Predictions as cells and as tables, for other tools."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from histpert.export_command import tidy_means
from histpert.prediction_files import SavedPredictions, write_predictions
from histpert.sampled_cells import CONTROL_LABEL, LABEL_COLUMN, sampled_cells, sampled_screen

ROOT = Path(__file__).parents[2]
N_GENES, N_BINS = 6, 8
LOWER, WIDTH = np.array([-0.1, -0.2, -0.05, -0.1, 0.5, -0.25]), np.array([0.2, 0.4, 0.1, 0.2, 0.3, 0.5])
"""Zero is the middle of the first bin, but of the fifth gene, which has none."""


def masses(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(N_BINS, 0.5), (*shape, N_GENES)).astype(np.float32)


def saved(fold: int = 0, names: tuple[str, ...] = ("A", "B")) -> SavedPredictions:
    predicted, control = masses(fold, len(names)), masses(9)
    centers = LOWER[:, None] + WIDTH[:, None] * (np.arange(N_BINS) + 0.5)
    return SavedPredictions(
        trial_id=f"t{fold}",
        method="MLP+Hist",
        screen="s",
        fold=fold,
        n_bins=N_BINS,
        control_smoothing=1e-4,
        perturbations=names,
        genes=tuple(f"g{number}" for number in range(N_GENES)),
        n_cells=np.array([50, 70])[: len(names)],
        n_control=400,
        lower=LOWER,
        width=WIDTH,
        constant=np.zeros(N_GENES, bool),
        observed=predicted,
        control=control,
        observed_mean=(predicted * centers).sum(-1).astype(float),
        control_mean=(control * centers).sum(-1).astype(float),
        predicted_mean=(predicted * centers).sum(-1).astype(float),
        predicted_control_mean=(control * centers).sum(-1).astype(float),
        predicted=predicted,
        predicted_control=control,
    )


@pytest.mark.parametrize("n_cells", [1, 7, 500])
def test_shares_of_bins_and_means_are_those_predicted_to_within_a_cell(n_cells):
    of_genes = masses(3)
    cells = sampled_cells(of_genes, LOWER, WIDTH, n_cells, np.random.default_rng(0))
    assert cells.shape == (n_cells, N_GENES)
    assert cells.min() >= 0
    edges = LOWER[:, None] + WIDTH[:, None] * np.arange(N_BINS + 1)
    for gene in range(N_GENES):
        counts = np.histogram(cells[:, gene], edges[gene])[0]
        # One cell from each part of the distribution: an edge between bins cuts one part.
        assert np.abs(counts.cumsum() - n_cells * of_genes[gene].cumsum()).max() <= 1 + 1e-3
    centers = (edges[:, 1:] + edges[:, :-1]) / 2
    error = np.abs(cells.mean(0) - (of_genes * centers).sum(1))
    assert (error <= (edges[:, -1] - edges[:, 0]) / n_cells + 1e-6).all()


def test_what_is_in_the_bin_around_zero_is_zero_and_nothing_else():
    of_genes = masses(4)
    cells = sampled_cells(of_genes, LOWER, WIDTH, 1_000, np.random.default_rng(0))
    shares = (cells == 0).mean(0)
    np.testing.assert_allclose(shares[[0, 1, 2, 3, 5]], of_genes[[0, 1, 2, 3, 5], 0], atol=2e-3)
    assert shares[4] == 0


def test_genes_are_drawn_apart():
    cells = sampled_cells(masses(5), LOWER, WIDTH, 4_000, np.random.default_rng(0))
    correlations = np.corrcoef(cells.T)[np.triu_indices(N_GENES, 1)]
    assert np.abs(correlations).max() < 4 / 4_000**0.5


def test_a_screen_has_the_cells_of_all_folds_and_one_control():
    screen = sampled_screen([saved(0), saved(1, ("C",))], None, 3)
    assert screen.obs[LABEL_COLUMN].value_counts().to_dict() == {CONTROL_LABEL: 400, "A": 50, "B": 70, "C": 50}
    assert list(screen.var_names) == [f"g{number}" for number in range(N_GENES)]
    alone = sampled_screen([saved(1, ("C",))], None, 3)
    ours, theirs = (each[each.obs[LABEL_COLUMN] == "C"].X.toarray() for each in (screen, alone))
    np.testing.assert_array_equal(ours, theirs)
    assert (sampled_screen([saved()], 5, 0).obs[LABEL_COLUMN] == "A").sum() == 5


def test_a_table_has_a_row_per_perturbation_and_gene():
    table = tidy_means([saved(0), saved(1, ("C",))])
    assert len(table) == 3 * N_GENES
    row = table[(table["perturbation"] == "B") & (table["gene"] == "g4")].iloc[0]
    assert row["predicted_mean"] == saved().predicted_mean[1, 4]
    assert row["control_mean"] == saved().control_mean[4]
    assert (row["fold"], row["n_cells"]) == (0, 70)


def export(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "histpert.cli", "export", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def study(tmp_path):
    (tmp_path / "predictions").mkdir()
    of_means = replace(saved(0), method="Ridge", trial_id="m", predicted=None, predicted_control=None)
    for each in (saved(0), saved(1, ("C",)), of_means):
        write_predictions(tmp_path / "predictions" / f"{each.trial_id}.arrow", each)
    return tmp_path


def test_the_command_writes_cells_and_tables(study, tmp_path):
    run = export(study, "--out", tmp_path / "p.h5ad", "--fold", 1)
    assert run.returncode == 0, run.stderr
    assert anndata.read_h5ad(tmp_path / "p.h5ad").n_obs == 450
    run = export(study, "--out", tmp_path / "p.csv", "--method", "Ridge")
    assert run.returncode == 0, run.stderr
    assert len(pd.read_csv(tmp_path / "p.csv")) == 2 * N_GENES


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method", "TG"), "MLP+Hist, Ridge"),
        (("--bins", 3), "has 8; give one of them"),
        (("--fold", 5), "has folds 0, 1"),
        (("--method", "Ridge"), "predicts means"),
        (("--cells", 0), "must be 1 or more"),
    ],
)
def test_what_is_not_there_is_one_line(study, tmp_path, arguments, said):
    run = export(study, "--out", tmp_path / "p.h5ad", *arguments)
    assert run.returncode == 2
    assert said in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_study_without_predictions_is_one_line(tmp_path):
    run = export(tmp_path, "--out", tmp_path / "p.h5ad")
    assert run.returncode == 2
    assert "run the study again with --save-predictions" in run.stderr
