"""Features, splits, floors and scores of gene dependency, beside scikit-learn, SciPy and closed forms."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.decomposition import PCA
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from histpert.errors import InputError
from histpert.perturbert.dependency import (
    GENE_MEAN,
    ONE_HOT,
    SPLITS,
    Problem,
    bootstrap_scores,
    fit_and_score,
    gene_features,
    line_features,
    make_split,
)
from histpert.perturbert.depmap import INFORMATIVE, PERMUTED, simulate_depmap


def fitted(problem, source, split, **changes):
    how = {"fit_seed": 1, "draw_seed": 0, "n_trees": 10_000, "n_replicates": 3, "n_threads": 1}
    return fit_and_score(problem, source=source, split=split, **{**how, **changes})


@pytest.fixture(scope="module")
def problem():
    """The simulated DepMap, as the study makes it."""
    depmap, sources = simulate_depmap(0)
    n_lines, n_genes = depmap.effects.shape
    splits = {name: make_split(name, n_lines, n_genes, 0) for name in SPLITS}
    of_gene = {
        (source, name): gene_features(embeddings.vectors, splits[name].genes.training)
        for source, embeddings in sources.items()
        for name in SPLITS
    }
    of_line = line_features(depmap.expression, splits["lines"].lines.training)
    return Problem(depmap.effects, of_line, of_gene, splits)


@pytest.fixture(scope="module")
def small():
    """Random effects of 30 lines and 20 genes."""
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(30, 20)).astype(np.float32) - np.arange(20, dtype=np.float32)
    effects[rng.random((30, 20)) < 0.1] = np.nan
    splits = {name: make_split(name, 30, 20, 0) for name in SPLITS}
    return Problem(effects, rng.normal(size=(30, 4)).astype(np.float32), {}, splits)


def test_splits_are_as_published_and_share_no_line_and_no_gene():
    split = make_split("lines", 1_683, 900, 0)
    assert [len(part) for part in split.lines] == [1_347, 168, 168]
    assert all(len(part) == 900 for part in split.genes)
    held = make_split("genes", 1_683, 900, 0)
    assert [len(part) for part in held.genes] == [720, 90, 90]
    for parts in (split.lines, held.lines, held.genes):
        everything = np.concatenate(parts)
        assert sorted(everything) == list(range(len(everything)))
    assert all((one == other).all() for one, other in zip(split.lines, held.lines, strict=True))
    assert (make_split("lines", 1_683, 900, 1).lines.test != split.lines.test).any()


def test_too_few_genes_to_hold_out_are_refused():
    with pytest.raises(InputError, match="9 genes have effects and embeddings: ten are needed"):
        make_split("genes", 30, 9, 0)


def test_components_keep_ninety_percent_of_the_variance_of_training_lines():
    expression = simulate_depmap(0, 50, 20, 80)[0].expression
    training = np.arange(40)
    found = line_features(expression, training)
    exact = expression[training].astype(float)
    singular = np.linalg.svd(exact - exact.mean(axis=0), compute_uv=False)
    shares = np.cumsum(singular**2) / (singular**2).sum()
    assert found.shape[1] == np.flatnonzero(shares > 0.9)[0] + 1
    np.testing.assert_allclose(found[training].var(axis=0), (singular**2 / 40)[: found.shape[1]], rtol=1e-3)


def test_held_out_lines_and_genes_have_no_say_in_components():
    depmap, sources = simulate_depmap(0, 50, 70, 80)
    training = np.arange(5, 45)
    changed = depmap.expression.copy()
    changed[:5] += np.random.default_rng(0).normal(size=(5, 80)) * 10
    first, second = line_features(depmap.expression, training), line_features(changed, training)
    np.testing.assert_array_equal(first[training], second[training])
    assert (first[:5] != second[:5]).any()
    vectors = sources[INFORMATIVE].vectors
    moved = vectors.copy()
    moved[:5] *= -3
    first, second = gene_features(vectors, training), gene_features(moved, training)
    np.testing.assert_array_equal(first[training], second[training])


@pytest.mark.parametrize(("n_training", "n_features", "n_kept"), [(70, 64, 50), (30, 64, 29), (70, 20, 20)])
def test_embeddings_keep_fifty_components_or_what_there_is(n_training, n_features, n_kept):
    vectors = np.random.default_rng(0).normal(size=(70, n_features)).astype(np.float32)
    found = gene_features(vectors, np.arange(n_training))
    assert found.shape == (70, n_kept)
    expected = PCA(n_kept).fit(vectors[:n_training].astype(float)).transform(vectors.astype(float))
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=2e-3)


def weighted(observed, predicted, lines, genes):
    """Scores of rows that are written out as often as they are drawn."""
    y, x = (values[np.ix_(lines, genes)] for values in (observed, predicted))
    there = np.isfinite(y)
    r = []
    for gene in range(len(genes)):
        own = there[:, gene]
        if np.ptp(y[own, gene]) > 0:
            r.append(pearsonr(x[own, gene], y[own, gene])[0] if np.ptp(x[own, gene]) > 0 else 0)
    rows = y[there], x[there]
    return root_mean_squared_error(*rows), mean_absolute_error(*rows), r2_score(*rows), np.mean(r)


def test_scores_are_those_of_scikit_learn_and_scipy_also_of_bootstrap_samples():
    rng = np.random.default_rng(0)
    observed = rng.normal(size=(12, 6)) - 2 * np.arange(6)
    predicted = observed + rng.normal(size=(12, 6))
    observed[rng.random((12, 6)) < 0.15] = np.nan
    predicted[:, 2] = 0.1 + 0.2  # says nothing about lines
    observed[:, 4] = -8  # cannot be said anything about
    drawn = [(np.arange(12), np.arange(6)), (rng.integers(12, size=12), np.array([0, 1, 1, 3, 4, 2]))]
    weights = [np.stack([np.bincount(draw[axis], minlength=n) for draw in drawn]) for axis, n in ((0, 12), (1, 6))]
    found = bootstrap_scores(observed, predicted, *(each.astype(float) for each in weights))
    for place, draw in enumerate(drawn):
        expected = weighted(observed, predicted, *draw)
        got = [found[name][place] for name in ("rmse", "mae", "r2", "r_within_gene")]
        np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert found["n_genes_constant"].tolist() == [1, 1]


def test_within_genes_nothing_but_the_differences_between_lines_counts():
    rng = np.random.default_rng(0)
    observed, predicted = rng.normal(size=(2, 15, 5))
    ones = np.ones((1, 15)), np.ones((1, 5))
    first = bootstrap_scores(observed, predicted, *ones)["r_within_gene"]
    moved = bootstrap_scores(observed + np.arange(5), 3 * predicted - 50 * np.arange(5), *ones)
    np.testing.assert_allclose(moved["r_within_gene"], first, rtol=1e-9)
    assert moved["rmse"] > 10


def test_of_one_line_or_of_constant_effects_no_correlation_is_defined():
    observed = np.full((4, 3), -1.0)
    scores = bootstrap_scores(observed, observed + 1, np.ones((1, 4)), np.ones((1, 3)))
    assert np.isnan(scores["r_within_gene"][0])
    assert scores["rmse"][0] == 1
    assert np.isnan(bootstrap_scores(observed[:1], observed[:1], np.ones((1, 1)), np.ones((1, 3)))["r_within_gene"][0])


def test_the_mean_of_a_gene_is_that_over_training_lines(small):
    row = fitted(small, GENE_MEAN, "lines")[0]
    lines = small.splits["lines"].lines
    effects = small.effects.astype(float)
    errors = effects[lines.test] - np.nanmean(effects[lines.training], axis=0)
    assert row["rmse"] == pytest.approx(np.sqrt(np.nanmean(errors**2)))
    assert row["mae"] == pytest.approx(np.nanmean(np.abs(errors)))
    assert row["r_within_gene"] == 0
    assert row["n_genes_constant"] == (np.isfinite(effects[lines.test]).sum(axis=0) > 1).sum()
    assert row["n_trees"] == 0
    assert row["n_train"] == np.isfinite(effects[lines.training]).sum()
    assert row["n_test"] == np.isfinite(effects[lines.test]).sum()


def test_the_mean_of_a_gene_that_is_held_out_is_that_of_training_genes(small):
    row = fitted(small, GENE_MEAN, "genes")[0]
    split, effects = small.splits["genes"], small.effects.astype(float)
    mean = np.nanmean(np.nanmean(effects[np.ix_(split.lines.training, split.genes.training)], axis=0))
    errors = effects[np.ix_(split.lines.test, split.genes.test)] - mean
    assert row["rmse"] == pytest.approx(np.sqrt(np.nanmean(errors**2)))


@pytest.mark.parametrize("split", SPLITS)
def test_effects_of_what_is_held_out_are_not_trained_on(small, split):
    """The same is predicted for other effects: with all of them far above, the error moves by as much."""
    held, maes = small.splits[split], []
    for moved_by in (1_000, 3_000):
        moved = small.effects.copy()
        moved[np.ix_(held.lines.test, held.genes.test)] += moved_by
        maes.append(fitted(replace(small, effects=moved), ONE_HOT, split, n_trees=30)[0]["mae"])
    assert maes[1] - maes[0] == pytest.approx(2_000, rel=1e-6)


def test_every_gene_keeps_a_category_of_its_own():
    """With LightGBM's own number of bins, nine of 900 genes share one and cannot be told apart."""
    n_lines, n_genes = 30, 900
    rng = np.random.default_rng(0)
    effects = np.tile(3 * rng.normal(size=n_genes), (n_lines, 1)).astype(np.float32)
    split = make_split("lines", n_lines, n_genes, 0)
    problem = Problem(effects, rng.normal(size=(n_lines, 2)).astype(np.float32), {}, {"lines": split})
    assert fitted(problem, ONE_HOT, "lines", n_trees=600)[0]["r2"] > 0.9999


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(small):
    first, again, other = (fitted(small, ONE_HOT, "lines", n_trees=20, fit_seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert [row["replicate"] for row in first] == [0, 1, 2, 3]
    drawn = fitted(small, ONE_HOT, "lines", n_trees=20, draw_seed=5)
    assert drawn[0] == first[0]
    assert drawn[1:] != first[1:]


def test_what_knows_genes_beats_noise_and_floor_within_genes_and_on_genes_held_out(problem):
    scores = {
        (source, split): fitted(problem, source, split)[0]
        for source in (INFORMATIVE, PERMUTED, ONE_HOT, GENE_MEAN)
        for split in SPLITS
    }
    for split in SPLITS:
        for other in (PERMUTED, ONE_HOT, GENE_MEAN):
            assert scores[INFORMATIVE, split]["r_within_gene"] > scores[other, split]["r_within_gene"]
            assert scores[INFORMATIVE, split]["r2"] > scores[other, split]["r2"]
    assert scores[INFORMATIVE, "genes"]["r2"] > 0.3
    assert all(abs(scores[other, "genes"]["r2"]) < 0.2 for other in (PERMUTED, ONE_HOT, GENE_MEAN))
    assert scores[GENE_MEAN, "lines"]["r2"] > 0.8


def test_without_lightgbm_the_extra_is_named(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(InputError, match=r"lightgbm is not installed: pip install 'histpert\[genes\]'"):
        fitted(small, ONE_HOT, "lines")
