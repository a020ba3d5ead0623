"""What perturbations and pairs of them do in simulated screens, and what embeddings tell of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest, lognorm, norm
from simulated import CHECKED, EDGES, TINY, perturbation_of, singles_and_pairs, strength

from histpert.screens.simulation import Simulation
from histpert.screens.simulation.drawing import draw_screen

# ---- Pairs ----


def test_a_pair_is_named_in_either_order(checked):
    for pair in singles_and_pairs(checked)[1][:2]:
        turned = "+".join(reversed(pair.split("+")))
        assert turned != pair
        assert checked.moments(turned).equals(checked.moments(pair))
        np.testing.assert_array_equal(checked.histogram(turned, EDGES), checked.histogram(pair, EDGES))
        assert (checked.sample(turned, 50, 1).counts != checked.sample(pair, 50, 1).counts).nnz == 0


def test_the_guides_of_a_pair_work_independently_of_each_other(checked):
    n_cells = 200_000
    pair = perturbation_of(checked, "pair")
    first, second = (checked.perturbations.index(name) for name in pair.split("+"))
    both, (a, b) = checked.perturbations.index(pair), checked.efficiency[[first, second]]
    assert abs(a - b) > 0.05
    shares = {-1: (1 - a) * (1 - b), first: a * (1 - b), second: (1 - a) * b, both: a * b}
    assert checked.mixture(pair) == pytest.approx(shares)
    response = checked.sample(pair, n_cells, seed=2).response
    assert set(response) == set(shares)
    for number, share in shares.items():
        assert np.mean(response == number) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / n_cells))


def test_a_single_guide_works_in_its_share_of_cells_and_control_cells_have_none(checked):
    n_cells = 200_000
    for name in singles_and_pairs(checked)[0][:3]:
        number = checked.perturbations.index(name)
        share = checked.efficiency[number]
        assert checked.mixture(name) == pytest.approx({-1: 1 - share, number: share})
        response = checked.sample(name, n_cells, seed=3).response
        assert set(response) == {-1, number}
        assert np.mean(response == number) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / n_cells))
    assert set(checked.sample("control", 100, 3).response) == {-1}


def test_the_truth_of_a_pair_is_the_mixture_of_its_parts(checked):
    pair = perturbation_of(checked, "pair")
    first, second = pair.split("+")
    a, b = (checked.efficiency[checked.perturbations.index(name)] for name in (first, second))
    sure = replace(checked, efficiency=np.ones_like(checked.efficiency))
    parts = [(pair, a * b), (first, a * (1 - b)), (second, (1 - a) * b), ("control", (1 - a) * (1 - b))]
    for column in ("mean", "zeros"):
        expected = sum(share * sure.moments(name)[column] for name, share in parts)
        np.testing.assert_allclose(checked.moments(pair)[column], expected, rtol=1e-9)
    expected = sum(share * sure.histogram(name, EDGES) for name, share in parts)
    np.testing.assert_allclose(checked.histogram(pair, EDGES), expected, atol=1e-12)


def many_pairs(epistatic_share):
    simulation = Simulation(
        n_perturbations=25, n_pairs=200, n_genes=60, n_cells=30_000, epistatic_share=epistatic_share, null_share=0.2
    )
    return draw_screen(5, simulation)[0]


def test_pairs_are_of_two_genes_perturbed_alone_too():
    truth = many_pairs(0.5)
    singles, pairs = singles_and_pairs(truth)
    assert len({frozenset(pair.split("+")) for pair in pairs}) == 200
    for pair, (first, second) in zip(pairs, truth.pairs, strict=True):
        assert pair == f"{singles[first]}+{singles[second]}"
        assert first != second
    n_other = sum(kind != "additive" for kind in truth.interactions)
    assert abs(n_other - 100) < 4 * np.sqrt(200 / 4)


def test_without_epistasis_the_effect_of_a_pair_is_the_sum_of_the_single_ones():
    truth = many_pairs(0.0)
    assert set(truth.interactions) == {"additive"}
    np.testing.assert_allclose(truth.activity[25:], truth.activity[truth.pairs].sum(axis=1), atol=1e-12)


def test_interactions_combine_the_single_effects_as_their_names_say():
    truth = many_pairs(1.0)
    kinds = np.array(truth.interactions)
    assert set(kinds) == {"synergy", "suppression", "epistasis", "neomorphism"}
    assert min(np.sum(kinds == kind) for kind in set(kinds)) > 50 - 4 * np.sqrt(200 * 0.25 * 0.75)
    size = strength(truth)
    for kind, (first, second), joint in zip(kinds, truth.pairs, truth.activity[25:], strict=True):
        strong = first if size[first] >= size[second] else second
        both = truth.activity[first] + truth.activity[second]
        expected = {"synergy": 1.5 * both, "suppression": 0.5 * both, "epistasis": truth.activity[strong]}
        if kind in expected:
            np.testing.assert_allclose(joint, expected[kind], atol=1e-12)
        else:
            # Something new besides, as strong as the stronger one and unlike either.
            new = (joint - both) @ truth.loadings.T
            assert np.sqrt(np.mean(new**2)) == pytest.approx(size[strong], abs=1e-9)
            assert size[strong] == 0 or not np.allclose(joint - both, truth.activity[strong])


# ---- Effects, and what embeddings tell of them ----


@pytest.mark.parametrize(("n", "null_share", "n_null"), [(25, 0.4, 10), (25, 0.0, 0), (9, 1.0, 9), (10, 0.33, 3)])
def test_the_share_without_effects_and_the_median_size_of_the_others_are_as_asked(n, null_share, n_null):
    simulation = replace(
        TINY, n_perturbations=n, n_cells=100 + 60 * n, null_share=null_share, effect_size=0.31, effect_spread=0.9
    )
    truth, _ = draw_screen(6, simulation)
    size = strength(truth)
    assert np.sum(size == 0) == n_null
    if n_null < n:
        assert (n - n_null) % 2 == 1  # so that one of them is the median
        assert np.median(size[size > 0]) == pytest.approx(0.31, rel=1e-9)


def test_sizes_of_effects_are_log_normal():
    truth, _ = draw_screen(7, replace(TINY, n_perturbations=200, n_genes=300, n_cells=9000, null_share=0.25))
    size = np.log(strength(truth)[strength(truth) > 0])
    assert len(size) == 150
    expected = norm(np.log(TINY.effect_size), TINY.effect_spread)
    assert kstest(size, expected.cdf).statistic < 1 / 150


def held_out_r2(vectors, wanted):
    """R2, on every second gene, of a linear regression fitted on the others."""
    design = np.column_stack([np.ones(len(vectors)), vectors.astype(np.float64)])
    coefficients = np.linalg.lstsq(design[::2], wanted[::2], rcond=1e-5)[0]
    left = wanted[1::2] - design[1::2] @ coefficients
    return 1 - (left**2).sum() / ((wanted[1::2] - wanted[::2].mean(axis=0)) ** 2).sum()


def embedded(told_share, embedding_quality):
    """What embeddings tell of directions and of sizes, by source."""
    simulation = replace(
        TINY,
        n_perturbations=600,
        n_genes=600,
        n_cells=30_000,
        null_share=0.0,
        told_share=told_share,
        embedding_quality=embedding_quality,
    )
    truth, embeddings = draw_screen(8, simulation)
    size = strength(truth)
    told = {"direction": truth.activity / size[:, None], "size": np.log(size)[:, None]}
    names = truth.perturbations
    return {
        source: {what: held_out_r2(vectors.lookup(names), values) for what, values in told.items()}
        for source, vectors in embeddings.items()
    }


@pytest.mark.parametrize("what", ["direction", "size"])
def test_embeddings_tell_effects_as_far_as_the_settings_say(what):
    assert embedded(1.0, (1.0, 1.0))["good"][what] > 0.8
    assert embedded(0.0, (1.0, 1.0))["good"][what] < 0.1
    half = embedded(0.5, (1.0, 0.3))
    assert 0.3 < half["good"][what] < 0.7
    assert 0.05 < half["poor"][what] < half["good"][what] - 0.1
    assert half["permuted"][what] < 0.1


def test_permuted_embeddings_are_those_of_other_genes():
    truth, embeddings = draw_screen(9, replace(TINY, n_features=(7, 3)))
    assert set(embeddings) == {"good", "poor", "permuted"}
    good, permuted = embeddings["good"].vectors, embeddings["permuted"].vectors
    assert good.shape == permuted.shape == (8, 7)
    assert embeddings["poor"].vectors.shape == (8, 3)
    assert sorted(map(tuple, good)) == sorted(map(tuple, permuted))
    assert not np.array_equal(good, permuted)
    for name, source in embeddings.items():
        assert source.name == name
        assert source.genes == truth.perturbations
        assert len(np.unique(source.vectors, axis=0)) == 8


def test_effects_saturate_however_strong_the_shift(checked):
    strongest = checked.number(perturbation_of(checked, "strong"))
    others = np.arange(len(checked.genes)) != checked.targets[strongest]

    def scaled(factor):
        activity = np.zeros_like(checked.activity)
        activity[strongest] = factor * checked.activity[strongest]
        effects = replace(checked, activity=activity).effects(np.array([strongest]))
        return (values[0, others] for values in effects)

    log_rate, log_dispersion, silenced = scaled(1e-4)
    linear = [loadings @ checked.activity[strongest] for loadings in (checked.loadings, checked.dispersion_loadings)]
    np.testing.assert_allclose(log_rate, 1e-4 * linear[0][others], rtol=1e-5)
    np.testing.assert_allclose(log_dispersion, 1e-4 * linear[1][others], rtol=1e-5)
    log_rate, log_dispersion, silenced = scaled(1e9)
    np.testing.assert_allclose(np.abs(log_rate), 3)
    np.testing.assert_allclose(np.abs(log_dispersion), 1.5)
    # A fifth of the genes can be silenced, and a program does it in one direction only.
    assert set(silenced) == {0.0, 1.0}
    assert silenced.mean() < 0.3


@pytest.mark.parametrize(("log_rate_mean", "most"), [(3.5, 8000), (4.9, None)])
def test_genes_together_take_no_more_than_their_share_of_the_counts(log_rate_mean, most):
    strong = replace(TINY, null_share=0.25, effect_size=1.5, effect_spread=1.0, silencing_effect=0.1)
    truth, _ = draw_screen(3, replace(strong, log_rate_mean=log_rate_mean, log_rate_spread=1.0))
    in_control = np.exp(truth.log_rate + ((truth.loadings * truth.activity_spread) ** 2).sum(axis=1) / 2)
    # Four fifths of 10,000 counts, or what they take in control where that is more.
    assert (in_control.sum() > 8000) == (most is None)
    most = most or in_control.sum()
    effects = truth.effects(np.arange(len(truth.targets)))
    log_rate = 3 * np.tanh(truth.activity @ truth.loadings.T / 3)
    log_rate[np.arange(len(truth.targets)), truth.targets] += np.log(strong.own_gene_fold)
    expressed = np.exp(-np.maximum(truth.activity @ truth.silencing_loadings.T, 0))
    wanted = (np.exp(log_rate) * expressed) @ in_control
    assert 2 <= np.sum(wanted > most) < len(wanted)
    taken = (np.exp(effects.log_rate) * (1 - effects.silenced)) @ in_control
    np.testing.assert_allclose(taken, np.minimum(wanted, most))
    # All rates of a response are lowered alike.
    np.testing.assert_allclose(log_rate - effects.log_rate, np.log(wanted / taken)[:, None] * np.ones(30), atol=1e-12)


def test_silencing_adds_zeros_and_leaves_the_other_values_as_they_are():
    settings = replace(CHECKED, guide_efficiency=1.0)
    (with_silencing, _), (without, _) = (draw_screen(1, replace(settings, silencing_effect=x)) for x in (1.0, 0.0))
    name = perturbation_of(without, "strong")
    before, after = (truth.histogram(name, EDGES) for truth in (without, with_silencing))
    added = with_silencing.moments(name)["zeros"] - without.moments(name)["zeros"]
    assert added.min() >= 0
    assert 2 <= np.sum(added > 0.05) < 0.4 * len(added)
    kept = (1 - with_silencing.moments(name)["zeros"]) / (1 - without.moments(name)["zeros"])
    np.testing.assert_allclose(after[:, 1:], before[:, 1:] * kept.to_numpy()[:, None], atol=1e-12)
    assert with_silencing.moments("control").equals(without.moments("control"))


@pytest.mark.parametrize("program_spread", [0.0, 0.02, 0.1])
def test_programs_vary_as_asked_and_perturbations_shift_them_all_the_same(program_spread):
    simulation = replace(TINY, program_spread=program_spread, n_genes=400)
    truth, _ = draw_screen(10, simulation)
    assert np.sqrt(np.mean(truth.activity_spread**2)) == pytest.approx(program_spread)
    # No gene varies so much that it is cut.
    assert np.sqrt((truth.loadings**2).sum(axis=1).mean()) == pytest.approx(1)
    spread = np.sqrt(((truth.loadings * truth.activity_spread) ** 2).sum(axis=1))
    assert spread.max() < 0.8
    assert np.sqrt(np.mean(spread**2)) == pytest.approx(program_spread, rel=0.1)
    np.testing.assert_allclose(truth.activity, draw_screen(10, replace(simulation, program_spread=0.05))[0].activity)


def test_perturbations_act_where_control_cells_do_not_vary_through_programs():
    truth, _ = draw_screen(1, replace(CHECKED, program_spread=0.0))
    assert (truth.log_variance == 0).all()
    for kind in ("strong", "pair"):
        name = perturbation_of(truth, kind)
        effects = truth.effects(np.array([truth.number(name)]))
        assert np.median(np.abs(effects.log_rate)) > 0.2
        assert np.median(np.abs(effects.log_dispersion)) > 0.2
        assert effects.silenced.max() > 0.2
        change = (truth.moments(name) - truth.moments("control")).drop(name.split("+"))
        assert np.median(np.abs(change["mean"])) > 0.05


def test_genes_of_a_program_vary_together():
    def correlation(program_spread):
        expressed = replace(TINY, log_rate_mean=2.0, log_rate_spread=0.3, n_programs=3)
        truth, _ = draw_screen(10, replace(expressed, program_spread=program_spread))
        sample = truth.sample("control", 4000, 0)
        of_genes = np.corrcoef(sample.expression().toarray().T)
        along = truth.loadings * truth.activity_spread**2 @ truth.loadings.T
        upper = np.triu_indices(30, 1)
        return np.abs(of_genes[upper]).mean(), np.corrcoef(of_genes[upper], along[upper])[0, 1]

    # Sampling alone gives sqrt(2 / pi / 4000) = 0.013 and, through library sizes, hardly more.
    assert correlation(1e-9)[0] < 0.02
    strong, with_loadings = correlation(0.8)
    assert strong > 0.08
    assert with_loadings > 0.9


def test_guides_work_in_the_asked_share_of_cells_on_average():
    many = replace(TINY, n_perturbations=900, n_genes=900, n_cells=50_000)
    efficiency = draw_screen(11, many)[0].efficiency
    # A beta distribution of mean 0.8 and concentration 12.
    assert efficiency.mean() == pytest.approx(0.8, abs=4 * np.sqrt(0.8 * 0.2 / 13 / 900))
    assert efficiency.std() == pytest.approx(np.sqrt(0.8 * 0.2 / 13), rel=0.1)
    assert (draw_screen(11, replace(many, guide_efficiency=1.0))[0].efficiency == 1).all()


def test_log_rates_and_library_sizes_are_distributed_as_asked():
    truth, _ = draw_screen(12, replace(TINY, n_genes=4000))
    z = (truth.log_rate - TINY.log_rate_mean) / TINY.log_rate_spread
    assert np.abs(z).max() < 3
    assert kstest(z, norm.cdf).pvalue > 1e-3
    sizes = lognorm(s=TINY.library_spread, scale=TINY.library_size)
    assert kstest(truth.library_sizes, sizes.cdf).statistic < 1 / len(truth.library_sizes)
