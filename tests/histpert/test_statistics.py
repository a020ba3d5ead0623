"""Statistics of screens against SciPy, pandas, NumPy and scanpy on the dense cells, and on cells of known shifts."""

import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.stats

from histpert.results import SCREEN_SCHEMAS
from histpert.screens import ReadOptions, group_cells, read_screen
from histpert.screens.statistics import gene_pair_rows, gene_rows, perturbation_rows, shape_statistics

PAPALEXI = Path(__file__).parents[3] / "shared" / "data" / "papalexi_thp1_303genes.h5ad"


def screen_of(dense, labels):
    genes = [f"g{number}" for number in range(dense.shape[1])]
    return group_cells(sp.csr_matrix(dense.astype(np.float32)), labels, genes, "small")


def small_screen():
    """Mostly zeros, on the scale of log-normalized counts; perturbation A shifts the first genes."""
    random = np.random.default_rng(0)
    labels = [""] * 80 + ["A"] * 30 + ["B"] * 12
    dense = np.log1p(random.poisson(np.geomspace(0.05, 4, 30), (122, 30)) * random.uniform(0.5, 2, (122, 1)))
    dense[80:110, :10] += random.uniform(0, 1.5, (30, 10)) * (dense[80:110, :10] > 0)
    dense[80:110, 20:] *= 0.5
    return screen_of(dense, labels)


def control_of(screen):
    return screen.control.toarray().astype(np.float64)


def cells_of(screen, group):
    rows = slice(screen.group_start[group], screen.group_start[group + 1])
    return screen.expression[rows].toarray().astype(np.float64)


def by_gene(screen):
    return pd.DataFrame(list(gene_rows(screen))).set_index("gene")


@pytest.fixture(scope="module")
def all_genes():
    """Papalexi 2021 with all of its 303 genes: what is significant depends on how many are tested."""
    if not PAPALEXI.is_file():
        pytest.skip(f"needs real data, which are not here: {PAPALEXI}")
    cell_filter = "guide_frac > 0.8 and guide_umi_max >= 5"
    return read_screen(PAPALEXI, ReadOptions(library_size_column="n_umi_full", cell_filter=cell_filter))


@pytest.mark.parametrize(
    ("rows", "table"), [(gene_rows, "genes"), (perturbation_rows, "perturbations"), (gene_pair_rows, "gene_pairs")]
)
def test_rows_have_the_columns_of_their_table(rows, table):
    screen = small_screen()
    assert {tuple(row) for row in rows(screen)} == {tuple(SCREEN_SCHEMAS[table].names)}
    assert {row["screen"] for row in rows(screen)} == {"small"}


def check_genes(screen):
    found, cells = by_gene(screen), control_of(screen)
    assert tuple(found.index) == screen.genes
    expected = {
        "zeros": (cells == 0).mean(axis=0),
        "mean": pd.DataFrame(cells).mean().to_numpy(),
        "variance": pd.DataFrame(cells).var(ddof=0).to_numpy(),
        "skewness": scipy.stats.skew(cells),
        "kurtosis": scipy.stats.kurtosis(cells),
    }
    for column, values in expected.items():
        np.testing.assert_allclose(found[column], values, rtol=1e-6, atol=1e-5, err_msg=column)


def test_moments_of_genes_are_those_of_scipy_and_pandas_over_control_cells():
    check_genes(small_screen())


def test_moments_of_measured_genes_are_those_of_scipy_and_pandas(all_genes):
    check_genes(all_genes)


def test_a_steady_gene_of_high_expression_keeps_its_digits():
    # Its variance is a ten-thousandth of its squared mean: sums in single precision have nothing left of it.
    cells = np.random.default_rng(1).normal(5, 0.05, (2_000, 3))
    check_genes(screen_of(cells, [""] * 1_999 + ["A"]))


@pytest.mark.parametrize("value", [0.0, 0.1, 1.1, 2.3, 3.3])
def test_a_gene_without_variance_has_neither_skewness_nor_kurtosis(value):
    dense = np.random.default_rng(2).poisson(1.0, (301, 2)).astype(np.float64)
    dense[:, 1] = value
    rows = by_gene(screen_of(dense, [""] * 298 + ["A"] * 3))
    assert rows.loc["g1", ["skewness", "kurtosis"]].isna().all()
    assert rows.loc["g1", "variance"] == pytest.approx(0, abs=1e-12)
    assert rows.loc["g1", "zeros"] == (value == 0)
    assert rows.loc["g0"].notna().all()


@pytest.mark.parametrize("center", [0.0, 0.7])
def test_shapes_of_distributions_follow_from_their_moments(center):
    distributions = [
        *(scipy.stats.norm(1, 2), scipy.stats.gamma(2), scipy.stats.beta(5, 1), scipy.stats.uniform(1, 3)),
        *(scipy.stats.poisson(0.3), scipy.stats.nbinom(2, 0.4), scipy.stats.bernoulli(0.9)),
    ]
    moments = [[one.expect(lambda x, k=k: (x - center) ** k) for one in distributions] for k in (1, 2, 3, 4)]
    found = shape_statistics(np.array(moments))
    expected = np.array([one.stats("mvsk") for one in distributions]).T
    expected[0] -= center
    for values, column in zip(expected, ("mean", "variance", "skewness", "kurtosis"), strict=True):
        np.testing.assert_allclose(found[column], values, rtol=1e-6, atol=1e-6, err_msg=column)


def test_moments_of_cells_have_the_shape_that_scipy_finds():
    cells = np.random.default_rng(3).gamma(1.5, size=(400, 6))
    constant = np.arange(6) == 2
    found = shape_statistics(np.stack([(cells**k).mean(axis=0) for k in (1, 2, 3, 4)]), constant)
    for column, values in {"skewness": scipy.stats.skew(cells), "kurtosis": scipy.stats.kurtosis(cells)}.items():
        np.testing.assert_allclose(found[column], np.where(constant, np.nan, values), err_msg=column)
    np.testing.assert_allclose(found["variance"], np.where(constant, 0, cells.var(axis=0)))


def significant_by_scanpy(screen):
    """Genes below 5% of the adjusted p-values of `rank_genes_groups`: Welch's t-test, Benjamini-Hochberg."""
    import scanpy  # noqa: PLC0415 - takes seconds to load

    labels = np.repeat(["control", *screen.perturbations], screen.n_cells)
    obs = pd.DataFrame({"perturbation": pd.Categorical(labels)}, index=np.arange(len(labels)).astype(str))
    data = anndata.AnnData(screen.expression, obs=obs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scanpy.tl.rank_genes_groups(
            data, "perturbation", method="t-test", reference="control", corr_method="benjamini-hochberg"
        )
    adjusted = data.uns["rank_genes_groups"]["pvals_adj"]
    return {name: int((adjusted[name] < 0.05).sum()) for name in screen.perturbations}


def n_significant(screen):
    return {row["perturbation"]: row["n_significant"] for row in perturbation_rows(screen)}


def test_significant_genes_are_those_of_scanpy_on_a_small_screen():
    found = n_significant(small_screen())
    assert found == significant_by_scanpy(small_screen())
    assert 0 < found["A"] < 30  # neither all nor none, or any threshold would do


def test_significant_genes_are_those_of_scanpy_on_measured_cells(all_genes):
    assert n_significant(all_genes) == significant_by_scanpy(all_genes)


def test_significant_genes_are_those_of_scipy_on_the_dense_cells():
    screen = small_screen()
    for group, row in enumerate(perturbation_rows(screen), start=1):
        p_values = scipy.stats.ttest_ind(cells_of(screen, group), control_of(screen), equal_var=False).pvalue
        assert row["n_significant"] == (scipy.stats.false_discovery_control(p_values) < 0.05).sum()


def test_a_gene_that_nobody_expresses_counts_as_tested_and_not_significant():
    """As scanpy has it: with such genes among the tests, the others are adjusted for more tests."""
    dense = small_screen().expression.toarray()
    labels = [""] * 80 + ["A"] * 30 + ["B"] * 12
    silent = screen_of(np.hstack([dense, np.zeros((122, 400))]), labels)
    found = n_significant(silent)
    assert found == significant_by_scanpy(silent)
    assert 0 < found["A"] < n_significant(small_screen())["A"]


def test_strong_targets_have_many_significant_genes_and_inert_ones_none(all_genes):
    # The interferon pathway is what this screen was built to find.
    assert len(all_genes.genes) == 303
    found = n_significant(all_genes)
    assert all(found[name] > 80 for name in ("IFNGR1", "IFNGR2", "JAK2", "STAT1")), found
    assert [found[name] for name in ("ATF2", "CAV1", "IRF7")] == [0, 0, 0]


def test_rows_name_the_perturbations_and_count_their_cells():
    rows = list(perturbation_rows(small_screen()))
    assert [(row["perturbation"], row["n_cells"]) for row in rows] == [("A", 30), ("B", 12)]


@pytest.mark.parametrize("size", [0.0, 0.2, 0.6])
def test_a_shift_of_known_size_is_found_and_none_where_cells_are_as_control(size):
    random = np.random.default_rng(3)
    n_genes, n_cells, n_control = 2_000, 20, 50
    shift = random.normal(size=n_genes)
    shift *= size / np.sqrt((shift**2).mean())
    cells = random.normal(4, 1, (n_control + n_cells, n_genes))
    cells[n_control:] += shift
    (row,) = perturbation_rows(screen_of(cells, [""] * n_control + ["A"] * n_cells))
    # A mean over genes of (shift + noise)^2, of which the variance of the noise is subtracted again.
    noise = 1 / n_cells + 1 / n_control
    error = np.sqrt((2 * noise**2 + 4 * noise * size**2) / n_genes)
    assert 4 * error < noise / 2  # so that it would show if the noise were left in
    assert row["shift"] ** 2 == pytest.approx(size**2, abs=4 * error)


def test_sizes_of_shifts_are_right_on_average_over_small_groups():
    """The square of the size is unbiased: many perturbations of 2 cells, each far too few to tell."""
    random = np.random.default_rng(4)
    size, n_groups = 1.0, 400
    shift = np.array([size, -size] * 10)
    cells = np.vstack([random.normal(6, 1, (200, 20)), random.normal(6, 1, (2 * n_groups, 20)) + shift])
    labels = [""] * 200 + [f"P{number:03}" for number in range(n_groups) for _ in range(2)]
    squares = [row["shift"] ** 2 for row in perturbation_rows(screen_of(cells, labels))]
    error = np.std(squares, ddof=1) / np.sqrt(n_groups)
    # Control, which all of them share, adds an error of its own: twice the shift times that of 20 means of 200 cells.
    allowed = 4 * np.hypot(error, 2 * size / np.sqrt(20 * 200))
    assert allowed < 0.15  # without the correction the mean would be off by 1/2 + 1/200
    assert np.mean(squares) == pytest.approx(size**2, abs=allowed)


def test_a_perturbation_of_one_cell_has_no_variance_and_so_no_size():
    dense = small_screen().expression.toarray()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning would stand in the middle of a study's output
        rows = list(perturbation_rows(screen_of(dense, [""] * 80 + ["A"] * 41 + ["B"])))
    assert [row["n_cells"] for row in rows] == [41, 1]
    assert (rows[0]["n_significant"] > 0, rows[1]["n_significant"]) == (True, 0)
    assert not np.isnan(rows[0]["shift"])
    assert np.isnan(rows[1]["shift"])


def test_correlations_are_those_of_numpy_over_control_cells():
    screen = small_screen()
    cells = control_of(screen)
    correlation = pd.DataFrame(np.corrcoef(cells, rowvar=False), screen.genes, screen.genes)
    rows = list(gene_pair_rows(screen))
    np.testing.assert_allclose(
        [row["correlation"] for row in rows],
        [correlation.loc[row["gene_a"], row["gene_b"]] for row in rows],
        rtol=1e-9,
        atol=1e-12,
    )
    often = [gene for gene, share in zip(screen.genes, (cells > 0).mean(axis=0), strict=True) if share > 0.1]
    assert 2 < len(often) < 30
    pairs = {frozenset((row["gene_a"], row["gene_b"])) for row in rows}
    assert len(pairs) == len(rows) == len(often) * (len(often) - 1) // 2
    assert set().union(*pairs) == set(often)


def test_correlations_are_of_genes_in_more_than_a_tenth_of_control_cells():
    random = np.random.default_rng(5)
    dense = np.zeros((90, 5))
    for gene, n_seen in enumerate((60, 60, 7, 6, 5)):  # of 60 control cells
        dense[:n_seen, gene] = random.uniform(1, 2, n_seen)
    dense[60:] = random.uniform(1, 2, (30, 5))  # what perturbed cells express does not count
    pairs = {(row["gene_a"], row["gene_b"]) for row in gene_pair_rows(screen_of(dense, [""] * 60 + ["A"] * 30))}
    assert pairs == {("g0", "g1"), ("g0", "g2"), ("g1", "g2")}


@pytest.mark.parametrize("value", [0.0, 0.7, 2.0, 2.3])
def test_a_gene_without_variance_has_no_correlation(value):
    dense = np.random.default_rng(6).uniform(1, 2, (40, 3))
    dense[:, 1] = value
    rows = list(gene_pair_rows(screen_of(dense, [""] * 30 + ["A"] * 10)))
    assert [(row["gene_a"], row["gene_b"]) for row in rows] == [("g0", "g2")]


@pytest.mark.parametrize("n_genes", [0, 1])
def test_fewer_than_two_genes_have_no_pairs(n_genes):
    dense = np.zeros((40, 3))
    dense[:, :n_genes] = np.random.default_rng(7).uniform(1, 2, (40, n_genes))
    assert list(gene_pair_rows(screen_of(dense, [""] * 30 + ["A"] * 10))) == []


def test_many_pairs_are_drawn_the_same_every_time_and_fairly():
    dense = np.random.default_rng(8).uniform(1, 2, (40, 220))
    screen = screen_of(dense, [""] * 30 + ["A"] * 10)
    rows = list(gene_pair_rows(screen))
    assert rows == list(gene_pair_rows(screen))
    places = [(int(row["gene_a"][1:]), int(row["gene_b"][1:])) for row in rows]
    assert len({frozenset(pair) for pair in places}) == len(places) == 20_000
    correlation = np.corrcoef(control_of(screen), rowvar=False)
    np.testing.assert_allclose([row["correlation"] for row in rows], [correlation[place] for place in places])
    # 20,000 of all 24,090 pairs: about this share too of the pairs with one of the first genes, and of the last.
    share, n_all = 20_000 / 24_090, sum(range(170, 220))
    for drawn in (sum(min(pair) < 50 for pair in places), sum(max(pair) >= 170 for pair in places)):
        assert drawn / n_all == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / n_all))
