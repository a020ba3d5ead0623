"""Metrics against numerical integration, SciPy, scanpy, the cells themselves and values worked out by hand."""

import warnings
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.sparse as sp
import scipy.stats
import torch

from histpert.histograms import group_moments, open_or_build
from histpert.metrics import evaluate, evaluate_in_batches
from histpert.metrics.distances import cell_positions, continuous_ranked_probability, negative_log_likelihood
from histpert.metrics.shifts import pearson_over_top_genes, relative_error
from histpert.metrics.significance import differential_expression
from histpert.models.interface import smoothed
from histpert.moments import moments_from_sums
from histpert.predictions import predicted_histograms, predicted_means
from histpert.results import METRICS
from histpert.screens import PRESETS, assign_folds, group_cells, simulate_screen
from histpert.targets import held_out_targets

CPU = torch.device("cpu")


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(array)) for array in arrays]


def histograms(cells, lower, width, n_bins):
    """Masses of a genes x cells array."""
    edges = [low + wide * np.arange(n_bins + 1) for low, wide in zip(lower, width, strict=True)]
    return np.stack([np.histogram(row, line)[0] / len(row) for row, line in zip(cells, edges, strict=True)])


def test_likelihood_is_the_mean_log_density_at_the_cells():
    random = np.random.default_rng(0)
    lower, width = np.array([-0.2, 1.0]), np.array([0.4, 0.05])
    cells = lower[:, None] + width[:, None] * random.uniform(0, 6, (2, 200))
    predicted = random.dirichlet(np.ones(6), 2)
    densities = [
        scipy.stats.rv_histogram((predicted[gene], lower[gene] + width[gene] * np.arange(7)), density=False)
        for gene in range(2)
    ]
    expected = [-density.logpdf(row).mean() for density, row in zip(densities, cells, strict=True)]
    found = negative_log_likelihood(*tensors(predicted, histograms(cells, lower, width, 6), width))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_cell_in_a_bin_predicted_empty_costs_the_floor():
    predicted, observed = tensors([[1.0, 0.0]], [[0.75, 0.25]])
    width = torch.tensor([0.5]).double()
    # Log density of the full bin: log 2. Of the empty one: that of the floor.
    expected = -0.75 * np.log(2) - 0.25 * np.log(1e-6 / 0.5)
    assert negative_log_likelihood(predicted, observed, width).item() == pytest.approx(expected, rel=1e-12)
    expected = -0.75 * np.log(2) - 0.25 * np.log(1e-3 / 0.5)
    assert negative_log_likelihood(predicted, observed, width, floor=1e-3).item() == pytest.approx(expected, rel=1e-12)


def crps_by_integration(masses, lower, width, cells):
    """`integral of (F - 1{x <= z})^2 dz` for each cell x, by the trapezoidal rule on a fine grid."""
    grid = np.linspace(lower, lower + width * len(masses), 200 * len(masses) + 1)
    cdf = np.interp(grid, lower + width * np.arange(len(masses) + 1), [0, *np.cumsum(masses)])
    below = scipy.integrate.cumulative_trapezoid(cdf**2, grid, initial=0)
    above = scipy.integrate.cumulative_trapezoid((1 - cdf) ** 2, grid, initial=0)
    return np.interp(cells, grid, below) + above[-1] - np.interp(cells, grid, above)


def test_crps_is_the_mean_integral_over_cells_wherever_they_lie():
    random = np.random.default_rng(1)
    n_bins, lower, width = 8, np.array([-0.15, 0.4]), np.array([0.3, 0.7])
    upper = lower + n_bins * width
    predicted = random.dirichlet(np.ones(n_bins), 2)
    cells = np.stack([random.uniform(low, high, 50) for low, high in zip(lower, upper, strict=True)])
    cells[:, :10] = np.array([0.0, 0.4])[:, None]  # many at one place, for the second gene on an edge
    cells[:, 10], cells[:, 11], cells[:, 12] = upper, lower - 0.5, upper + 0.25
    expected = []
    for gene in range(2):
        inside = np.clip(cells[gene], lower[gene], upper[gene])
        scores = crps_by_integration(predicted[gene], lower[gene], width[gene], inside)
        expected.append((scores + np.abs(cells[gene] - inside)).mean())  # beyond the range F is 0 or 1
    values, shares, low, wide = tensors(cells, np.full(cells.shape, 1 / 50), lower, width)
    positions = cell_positions(values, shares, low, wide, n_bins)
    found = continuous_ranked_probability(torch.from_numpy(predicted), positions, wide)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("n_bins", [2, 5, 20])
def test_crps_of_a_uniform_prediction_is_known(n_bins):
    length = 3.0
    lower, width, uniform, share = tensors(np.zeros(1), [length / n_bins], np.full((1, n_bins), 1 / n_bins), [[1.0]])
    for place in (0.0, 0.3, 0.5, 1.0):
        value = torch.tensor([[place * length]], dtype=torch.float64)
        found = continuous_ranked_probability(uniform, cell_positions(value, share, lower, width, n_bins), width)
        assert found.item() == pytest.approx(length * (place**3 + (1 - place) ** 3) / 3, rel=1e-12)


def scored(masses, control, held_out):
    """Scores of histograms on the edges of what was held out."""
    return evaluate(predicted_histograms(masses, control, held_out.lower, held_out.width), held_out)


def crps_of_cells(masses, lower, width, cells):
    """`E|X - x| - E|X - X'| / 2` for each cell x, X uniform in its bin."""
    centres = lower + width * (np.arange(len(masses)) + 0.5)
    apart = np.abs(cells[:, None] - centres)
    inside = apart < width / 2
    to_cell = np.where(inside, apart**2 / width + width / 4, apart)
    within = np.abs(centres[:, None] - centres) + np.eye(len(masses)) * width / 3
    return to_cell @ masses - masses @ within @ masses / 2


@pytest.mark.parametrize(("n_bins", "bound"), [(5, 0.002), (15, 0.002), (35, 0.002)])
def test_crps_and_energy_distance_from_counts_are_near_those_of_the_measured_cells_one_by_one(
    papalexi, n_bins, bound, tmp_path
):
    store = open_or_build(tmp_path, papalexi, assign_folds(papalexi.perturbations, 3, 0), [n_bins])
    counts = store.fold(0, n_bins)
    control = smoothed(torch.from_numpy(counts.control_counts / papalexi.n_cells[0]), 1e-4)
    held_out = held_out_targets(store, counts, CPU)
    found = scored(control.expand_as(held_out.masses), control, held_out)
    expected, energy = [], []
    for group in counts.held_out + 1:
        cells = papalexi.expression[papalexi.group_start[group] : papalexi.group_start[group + 1]].toarray()
        genes = range(cells.shape[1])
        edges = counts.edges
        scores = [
            crps_of_cells(control[g].numpy(), edges.lower[g], edges.width[g], cells[:, g].astype(np.float64)).mean()
            for g in genes
        ]
        expected.append(np.mean(scores))
        # Over pairs of different cells, each of which is counted once from either side.
        ranks, n_cells = np.arange(1, len(cells) + 1)[:, None], len(cells)
        apart = (2 * (2 * ranks - n_cells - 1) * np.sort(cells, axis=0)).sum(0) / (n_cells * (n_cells - 1))
        energy.append(np.mean(2 * np.array(scores) - apart))
    np.testing.assert_allclose(found["crps"], expected, rtol=bound)
    np.testing.assert_allclose(found["energy_distance"], energy, atol=0.0003)


def test_relative_error_by_hand_leaves_out_genes_without_an_observation():
    nan = float("nan")
    predicted = torch.tensor([[1.0, 2.0, 5.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    observed = torch.tensor([[2.0, -2.0, nan], [3.0, -4.0, 0.5], [nan, nan, nan]])
    found = relative_error(predicted, observed)
    assert found[:2].tolist() == [(1 + 4) / 4, 1]
    assert found[2].isnan()


def test_a_prediction_that_is_not_a_number_has_no_relative_error():
    found = relative_error(torch.tensor([[float("nan"), 1.0]]), torch.tensor([[2.0, 1.0]]))
    assert found.isnan().all()


def ranked_by_scanpy(screen):
    import scanpy  # noqa: PLC0415 - takes seconds to load

    labels = np.repeat(["control", *screen.perturbations], screen.n_cells)
    data = anndata.AnnData(
        screen.expression,
        obs=pd.DataFrame({"perturbation": pd.Categorical(labels)}, index=np.arange(len(labels)).astype(str)),
    )
    data.var_names = list(screen.genes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scanpy.tl.rank_genes_groups(
            data, "perturbation", method="t-test", reference="control", rankby_abs=True, n_genes=len(screen.genes)
        )
    names = data.uns["rank_genes_groups"]["names"]
    return {name: list(names[name]) for name in screen.perturbations}


def ranked(screen):
    moments = group_moments(screen.expression, screen.group_start)
    statistics = moments_from_sums(
        *tensors(np.stack(moments.power_sums), moments.n_cells[:, None].astype(float), moments.minimum, moments.maximum)
    )
    mean, variance = statistics.mean.numpy(), statistics.variance.numpy()
    tested = differential_expression(
        mean[1:], variance[1:], moments.n_cells[1:], mean[0], variance[0], int(moments.n_cells[0])
    )
    genes = np.array(screen.genes)
    return {name: list(genes[row]) for name, row in zip(screen.perturbations, tested.ranking, strict=True)}


def test_genes_are_ranked_as_scanpy_ranks_them_on_measured_cells(papalexi):
    ours, theirs = ranked(papalexi), ranked_by_scanpy(papalexi)
    assert len(ours) == 25
    for name in papalexi.perturbations:
        for n_top in (20, 50, 100):
            assert ours[name][:n_top] == theirs[name][:n_top]


def test_genes_are_ranked_as_scanpy_ranks_them_on_a_small_screen():
    random = np.random.default_rng(2)
    labels = [""] * 30 + ["A"] * 12 + ["B"] * 5
    dense = (
        random.poisson(1.0, (47, 25))
        + random.poisson(0.5, (47, 25)) * np.array([bool(label) for label in labels])[:, None]
    )
    dense[:, 7] = 0
    screen = group_cells(sp.csr_matrix(np.log1p(dense)), labels, [f"G{number:02d}" for number in range(25)], "small")
    ours, theirs = ranked(screen), ranked_by_scanpy(screen)
    for name in ("A", "B"):
        assert ours[name][:-1] == [gene for gene in theirs[name] if gene != "G07"]
        assert ours[name][-1] == "G07"


def test_pearson_is_that_of_scipy_over_the_first_genes_of_each_ranking():
    random = np.random.default_rng(3)
    predicted, observed = random.normal(size=(2, 4, 30))
    ranking = np.stack([random.permutation(30) for _ in range(4)])
    for n_top in (2, 20, 30, 100):
        expected = [
            scipy.stats.pearsonr(predicted[p, ranking[p, :n_top]], observed[p, ranking[p, :n_top]]).statistic
            for p in range(4)
        ]
        found = pearson_over_top_genes(*tensors(predicted, observed, ranking), n_top)
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_constant_prediction_or_observation_has_no_correlation():
    random = np.random.default_rng(4)
    shifts, flat = random.normal(size=(1, 30)), np.full((1, 30), 0.2)
    # Constant over the first ten genes only.
    partly = np.concatenate([flat[:, :10], shifts[:, 10:]], axis=1)
    ranking = np.arange(30)[None]
    for predicted, observed in ((flat, shifts), (shifts, flat), (partly, shifts), (flat + 1e-12 * shifts, shifts)):
        assert pearson_over_top_genes(*tensors(predicted, observed, ranking), 10).isnan().all()
    assert pearson_over_top_genes(*tensors(partly, shifts, ranking), 20).isfinite().all()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One fold of a small simulated screen at several bin counts."""
    simulation = replace(
        PRESETS["easy"], n_perturbations=12, n_genes=120, n_control=400, n_cells=1_000, min_cells=40, max_cells=60
    )
    screen = simulate_screen(0, simulation).screen
    folds = assign_folds(screen.perturbations, 3, 0)
    store = open_or_build(tmp_path_factory.mktemp("stores"), screen, folds, [10, 40, 160])
    return {n_bins: (store, store.fold(0, n_bins)) for n_bins in (10, 40, 160)}


@pytest.fixture(scope="module")
def screen_of_targets(tmp_path_factory):
    """A screen that measures the genes it perturbs, one fold of it in 20 bins, and its held-out perturbations."""
    random = np.random.default_rng(7)
    genes = [f"G{number:02d}" for number in range(40)]
    sizes = {"": 90} | {name: int(random.integers(20, 40)) for name in [*genes[:10], "G10+G11", "other"]}
    labels = np.repeat(list(sizes), list(sizes.values()))
    rates = random.gamma(2, 1, 40) * np.exp(0.7 * random.normal(size=(len(sizes), 40)))
    counts = random.poisson(np.repeat(rates, list(sizes.values()), axis=0))
    screen = group_cells(sp.csr_matrix(np.log1p(counts / 2)), list(labels), genes, "targets")
    folds = np.array([0] * 6 + [1] * 6)
    folds[list(screen.perturbations).index("G10+G11")] = folds[list(screen.perturbations).index("other")] = 0
    store = open_or_build(tmp_path_factory.mktemp("targets"), screen, folds, [20], n_replicates=4)
    return screen, store, held_out_targets(store, store.fold(0, 20), CPU, 4)


def cells_of(screen, name):
    group = [*screen.perturbations].index(name) + 1 if name else 0
    return screen.expression[screen.group_start[group] : screen.group_start[group + 1]].toarray().astype(np.float64)


def test_scores_of_means_are_those_of_the_cells_themselves(screen_of_targets):
    screen, store, held_out = screen_of_targets
    names = [store.perturbations[number] for number in np.flatnonzero(store.folds == 0)]
    control, cells = cells_of(screen, ""), [cells_of(screen, name) for name in names]
    means = np.stack([of_one.mean(0) for of_one in cells])
    predicted = 0.6 * means + 0.4 * means.mean(0) + 0.1 * np.random.default_rng(0).normal(size=means.shape)
    found = evaluate(predicted_means(torch.from_numpy(predicted), held_out.control_mean), held_out)
    training = [cells_of(screen, store.perturbations[number]).mean(0) for number in np.flatnonzero(store.folds != 0)]
    origins = {"pearson_delta": control.mean(0), "pearson_delta_hat": np.mean(training, axis=0)}
    for row, name in enumerate(names):
        others = ~np.isin(screen.genes, name.split("+"))
        assert (~others).sum() == {"other": 0, "G10+G11": 2}.get(name, 1)
        expected = {
            metric: scipy.stats.pearsonr(predicted[row] - origin, means[row] - origin).statistic
            for metric, origin in origins.items()
        }
        shifts = predicted[row] - control.mean(0), means[row] - control.mean(0)
        expected["pearson_delta_no_target"] = scipy.stats.pearsonr(*(shift[others] for shift in shifts)).statistic
        distances = np.abs(means - predicted[row])[:, others].sum(1)
        expected["pds"] = 1 - (distances < distances[row]).mean()
        error = predicted[row] - means[row]
        expected |= {"l2": np.linalg.norm(error), "mse": (error**2).mean(), "mae": np.abs(error).mean()}
        expected["mse_corrected"] = (error**2 - cells[row].var(0, ddof=1) / len(cells[row])).mean()
        p = scipy.stats.ttest_ind(cells[row], control, equal_var=False).pvalue
        significant = scipy.stats.false_discovery_control(np.nan_to_num(p, nan=1.0)) < 0.05
        # As scanpy, with its offset; a predicted mean below 0 is none.
        of_control = np.expm1(control.mean(0)[significant]) + 1e-9
        changes = [
            np.log2((np.expm1(x[significant].clip(0)) + 1e-9) / of_control) for x in (predicted[row], means[row])
        ]
        expected["de_spearman"] = scipy.stats.spearmanr(*changes).statistic
        for metric, value in expected.items():
            assert found[metric][row] == pytest.approx(value, rel=1e-6), (metric, name)


def test_scores_of_histograms_are_those_of_the_cells_themselves(screen_of_targets):
    screen, store, held_out = screen_of_targets
    names = [store.perturbations[number] for number in np.flatnonzero(store.folds == 0)]
    lower, width = held_out.lower.numpy(), held_out.width.numpy()
    predicted = torch.from_numpy(np.random.default_rng(1).dirichlet(np.full(20, 2.0), held_out.moments.mean.shape))
    found = scored(predicted, predicted[0], held_out)
    fine = (np.arange(20 * 400) + 0.5) / 400
    for row, name in enumerate(names):
        cells, energy = cells_of(screen, name), []
        inside = np.zeros(4)
        for gene in range(40):
            masses, x = predicted[row, gene].numpy(), cells[:, gene]
            points, weights = lower[gene] + width[gene] * fine, np.repeat(masses, 400)
            squared = scipy.stats.energy_distance(points, x, u_weights=weights) ** 2
            gini = np.abs(x[:, None] - x).mean()
            energy.append(squared - gini / (len(x) - 1))  # over pairs of different cells
            bins = np.clip(((x - lower[gene]) / width[gene]).astype(int), 0, 19)
            cdf = np.concatenate([[0], masses.cumsum()])
            transformed = np.random.default_rng(gene).uniform(cdf[bins], cdf[bins + 1], (200, len(x)))
            inside += [(np.abs(transformed - 0.5) < level / 2).mean() for level in (0.5, 0.8, 0.9, 0.95)]
        assert found["energy_distance"][row] == pytest.approx(np.mean(energy), rel=0.01)
        coverages = [found[f"coverage{level}"][row] for level in (50, 80, 90, 95)]
        np.testing.assert_allclose(coverages, inside / 40, atol=0.005)


def test_perturbations_are_scored_in_batches_as_all_at_once(screen_of_targets, monkeypatch):
    *_, held_out = screen_of_targets
    predicted = torch.from_numpy(np.random.default_rng(2).dirichlet(np.ones(20), held_out.moments.mean.shape))
    whole = scored(predicted, predicted[0], held_out)
    sizes = []

    def predict(batch):
        sizes.append(len(batch.rows))
        return predicted_histograms(predicted[batch.rows], predicted[0], batch.lower, batch.width)

    for at_once in (1, 3):
        monkeypatch.setattr("histpert.metrics.held_out.SCORED_AT_ONCE", at_once)
        for name, values in evaluate_in_batches(predict, held_out).items():
            np.testing.assert_allclose(values, whole[name], rtol=1e-12, err_msg=name)
    assert sizes == [1] * 8 + [3, 3, 2]


def scores_of(study, n_bins, predict):
    """Scores of what `predict` makes of control and observed masses."""
    store, counts = study[n_bins]
    held_out = held_out_targets(store, counts, CPU)
    control = torch.from_numpy(counts.control_counts / store.moments.n_cells[0])
    return scored(predict(control, held_out.masses), control, held_out)


def test_every_metric_of_the_tables_is_worked_out_for_every_perturbation(study):
    scores = scores_of(study, 10, lambda control, observed: observed)
    assert list(scores) == list(METRICS)
    assert all(values.shape == (4,) for values in scores.values())


@pytest.mark.parametrize("n_bins", [10, 160])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predicting_control_has_a_relative_error_of_the_mean_of_one(study, n_bins, dtype):
    def control_histogram(control, observed):
        return smoothed(control.to(dtype), 1e-4).expand_as(observed)

    store, counts = study[n_bins]
    held_out = held_out_targets(store, counts, CPU)
    control = smoothed(torch.from_numpy(counts.control_counts / store.moments.n_cells[0]).to(dtype), 1e-4)
    scores = scored(control.expand_as(held_out.masses), control, held_out)
    np.testing.assert_allclose(scores["rmae_mean"], 1, rtol=1e-9)
    assert np.isnan(scores["pearson_top50"]).all()


def test_the_observed_histogram_comes_ever_nearer_to_its_cells(study):
    errors = [scores_of(study, n_bins, lambda control, observed: observed) for n_bins in (10, 40, 160)]
    for scores in errors:
        np.testing.assert_array_equal(scores["w1"], 0)
    for name in ("rmae_mean", "rmae_var", "rmae_skew", "rmae_kurt"):
        coarse, middle, fine = (scores[name].mean() for scores in errors)
        assert fine < middle < coarse
        assert fine < 0.05
    assert errors[-1]["pearson_top100"].min() > 0.99


def test_means_alone_are_scored_as_means_and_nothing_else(study):
    store, counts = study[40]
    held_out = held_out_targets(store, counts, CPU)
    means = held_out.moments.mean + 0.1 * torch.arange(4, dtype=torch.float64)[:, None]
    found = evaluate(predicted_means(means, held_out.control_mean), held_out)
    shift = (held_out.moments.mean - held_out.control_mean).abs().sum(1)
    np.testing.assert_allclose(found["rmae_mean"], 0.1 * np.arange(4) * means.shape[1] / shift.numpy())
    np.testing.assert_allclose(found["pearson_top100"], 1)
    np.testing.assert_allclose(found["mae"], 0.1 * np.arange(4), atol=1e-12)
    for name in METRICS:
        of_means = name in ("rmae_mean", "de_spearman", "pds", "l2", "mse", "mae", "mse_corrected")
        if not of_means and not name.startswith("pearson_"):
            assert np.isnan(found[name]).all(), name


def test_the_observed_histogram_scores_better_than_control(study):
    best = scores_of(study, 40, lambda control, observed: observed)
    floor = scores_of(study, 40, lambda control, observed: control.expand_as(observed))
    for name in ("nll", "w1", "crps", "rmae_mean", "rmae_var"):
        assert (best[name] < floor[name]).all()


# From an independent implementation, on folds drawn otherwise. Its skewness errors are met when genes whose cells do
# not vary count as skewness 0; `evaluate` leaves them out.
@pytest.mark.parametrize(
    ("n_bins", "variance_error", "skewness_error"),
    [(5, 0.347, 0.574), (10, 0.137, 0.268), (15, 0.12, 0.204), (25, 0.116, 0.198)],
)
def test_control_is_as_wrong_as_an_independent_implementation_found(
    papalexi_273_genes, n_bins, variance_error, skewness_error, tmp_path
):
    papalexi = papalexi_273_genes
    store = open_or_build(tmp_path, papalexi, assign_folds(papalexi.perturbations, 9, 0), [n_bins])
    errors = {"rmae_var": [], "rmae_skew": []}
    for fold in range(9):
        counts = store.fold(fold, n_bins)
        control = smoothed(torch.from_numpy(counts.control_counts / papalexi.n_cells[0]), 1e-4)
        held_out = held_out_targets(store, counts, CPU)
        moments = held_out.moments._replace(skewness=held_out.moments.skewness.nan_to_num(0.0))
        found = scored(control.expand_as(held_out.masses), control, replace(held_out, moments=moments))
        for name, values in errors.items():
            values.extend(found[name])  # over perturbations: fold averages depend on the draw of the folds
    assert np.mean(errors["rmae_var"]) == pytest.approx(variance_error, abs=0.01)
    assert np.mean(errors["rmae_skew"]) == pytest.approx(skewness_error, abs=0.01)
