"""Scores against those of cell-eval (Arc Institute), on one small screen and the same predicted cells.

Run with cell-eval 0.8.2 and pdex 0.3.0 (anndata 0.12.19, polars 2.1.0); skipped where cell-eval is not installed.
docs/metrics.md tells what it does otherwise.
"""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from histpert.histograms import open_or_build
from histpert.metrics import evaluate
from histpert.predictions import predicted_means
from histpert.screens import group_cells
from histpert.targets import held_out_targets

cell_eval = pytest.importorskip("cell_eval", reason="cell-eval is not installed")

N_GENES, SIZES = 120, {"control": 300, **{f"G{number:03d}": 40 + 10 * number for number in range(8)}}


def log_normalized(rates, labels, random):
    counts = random.poisson(rates[pd.Categorical(labels, list(SIZES)).codes])
    return np.log1p(counts / counts.sum(1, keepdims=True) * 1_000)


@pytest.fixture(scope="module")
def cells():
    """Observed cells, predicted cells with a fifth of the effects and errors of their own, and their labels."""
    random = np.random.default_rng(0)
    labels = np.repeat(list(SIZES), list(SIZES.values()))
    base = 0.5 + random.gamma(1, 4, N_GENES)  # every gene is seen in some cells of each perturbation
    effects = random.normal(0, 0.35, (len(SIZES), N_GENES)) * (random.uniform(size=(len(SIZES), N_GENES)) < 0.4)
    effects[0] = 0
    guessed = 0.2 * effects + random.normal(0, 0.25, effects.shape)
    observed = log_normalized(base * np.exp(effects), labels, random)
    predicted = log_normalized(base * np.exp(guessed), labels, random)
    predicted[labels == "control"] = observed[labels == "control"]
    return observed.astype(np.float32), predicted.astype(np.float32), labels


@pytest.fixture(scope="module")
def ours(cells, tmp_path_factory):
    observed, predicted, labels = cells
    # One perturbation more, to train on: a fold cannot hold out all.
    labels = np.append(labels, ["training"] * 30)
    expression = sp.csr_matrix(np.concatenate([observed, observed[:30]]))
    names = ["" if label == "control" else label for label in labels]
    screen = group_cells(expression, names, [f"G{number:03d}" for number in range(N_GENES)], "small")
    folds = np.array([1 if name == "training" else 0 for name in screen.perturbations])
    store = open_or_build(tmp_path_factory.mktemp("store"), screen, folds, [5])
    held_out = held_out_targets(store, store.fold(0, 5), torch.device("cpu"))
    means = np.stack([predicted[cells[2] == name].mean(0, dtype=np.float64) for name in list(SIZES)[1:]])
    scores = evaluate(predicted_means(torch.from_numpy(means), held_out.control_mean), held_out)
    return pd.DataFrame(scores, index=list(SIZES)[1:]), held_out.significant.numpy()


@pytest.fixture(scope="module")
def theirs(cells, tmp_path_factory):
    observed, predicted, labels = cells
    genes = pd.DataFrame(index=[f"G{number:03d}" for number in range(N_GENES)])
    rows = pd.DataFrame({"target": labels}, index=np.arange(len(labels)).astype(str))
    real, guess = (anndata.AnnData(sp.csr_matrix(x), obs=rows.copy(), var=genes) for x in (observed, predicted))
    evaluator = cell_eval.MetricsEvaluator(
        guess,
        real,
        control_pert="control",
        pert_col="target",
        num_threads=1,
        outdir=str(tmp_path_factory.mktemp("out")),
    )
    scores, _ = evaluator.compute(
        profile="full", write_csv=False, skip_metrics=["clustering_agreement", "pearson_edistance"]
    )
    return scores.to_pandas().set_index("perturbation").loc[list(SIZES)[1:]], evaluator.de_comparison


@pytest.mark.parametrize(
    ("name", "of_theirs"),
    [("pearson_delta", "pearson_delta"), ("pds", "discrimination_score_l1"), ("mse", "mse"), ("mae", "mae")],
)
def test_scores_of_means_are_those_of_cell_eval(ours, theirs, name, of_theirs):
    np.testing.assert_allclose(ours[0][name], theirs[0][of_theirs], rtol=1e-5)
    assert ours[0][name].nunique() > 1


def test_spearman_of_fold_changes_is_that_of_cell_eval_over_the_same_genes(ours, theirs):
    """Its genes are those of a rank test, ours of Welch's: over ours its fold changes have our correlation."""
    scores, significant = ours
    tables = [
        side.data.to_pandas().pivot(index="target", columns="feature", values="log2_fold_change")
        for side in (theirs[1].real, theirs[1].pred)
    ]
    for row, name in enumerate(scores.index):
        observed, predicted = (table.loc[name].to_numpy(float)[significant[row]] for table in tables)
        expected = pd.Series(observed).corr(pd.Series(predicted), method="spearman")
        assert scores["de_spearman"][name] == pytest.approx(expected, abs=1e-3)  # it keeps float32


def test_a_rank_test_finds_other_genes_and_a_correlation_that_is_near(ours, theirs):
    difference = (ours[0]["de_spearman"] - theirs[0]["de_spearman_lfc_sig"]).abs()
    assert 0 < difference.max() < 0.2
    assert difference.mean() < 0.1
