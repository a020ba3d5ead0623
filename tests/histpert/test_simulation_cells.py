"""Cells of simulated screens: how many of each perturbation, their counts, and what their seed decides."""

from __future__ import annotations

import os
from dataclasses import replace

import anndata
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import CHECKED, PAIRED, TINY, group_sizes, perturbation_of, strength

from histpert.errors import InputError
from histpert.screens.simulation import ScreenTruth, SimulatedCells, simulate_screen, write_screen
from histpert.screens.simulation.drawing import draw_screen


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 12), st.integers(1, 40), st.integers(0, 60), st.floats(0, 1), st.floats(0, 3), st.integers(0, 2**32)
)
def test_every_perturbation_has_a_number_of_cells_within_its_limits(n, least, more, share, spread, seed):
    n_cells = 17 + n * least + round(share * n * more)
    simulation = replace(
        TINY, n_perturbations=n, n_control=17, min_cells=least, max_cells=least + more, n_cells=n_cells
    )
    sizes = group_sizes(draw_screen(seed, replace(simulation, cells_spread=spread))[0])
    assert sizes[0] == 17
    assert sizes.sum() == n_cells
    assert least <= sizes[1:].min() <= sizes[1:].max() <= least + more


def test_numbers_of_cells_spread_as_asked():
    wide = replace(TINY, n_perturbations=300, n_genes=300, n_cells=300_100, min_cells=1, max_cells=100_000)
    assert set(group_sizes(draw_screen(0, replace(wide, cells_spread=0.0))[0])[1:]) == {1000}
    spread = np.log(group_sizes(draw_screen(0, replace(wide, cells_spread=0.6))[0])[1:]).std()
    assert spread == pytest.approx(0.6, abs=4 * 0.6 / np.sqrt(2 * 300))


def test_cells_are_whole_counts_and_have_the_library_sizes_of_the_truth(checked):
    cells = checked.sample(perturbation_of(checked, "strong"), 30_000, seed=4)
    assert cells.counts.shape == (30_000, 40)
    assert cells.counts.dtype == np.float32
    assert (cells.counts.data > 0).all()
    np.testing.assert_array_equal(cells.counts.data, np.rint(cells.counts.data))
    sizes, seen = np.unique(cells.library_size, return_counts=True)
    np.testing.assert_array_equal(sizes, np.unique(checked.library_sizes))
    assert np.abs(seen - 30_000 / 256).max() < 5 * np.sqrt(30_000 / 256)
    expected = np.log1p(cells.counts.toarray() / cells.library_size[:, None] * 10_000)
    np.testing.assert_allclose(cells.expression().toarray(), expected, rtol=1e-6)


def test_the_seed_decides_the_screen():
    one, again, other = (simulate_screen(seed, PAIRED) for seed in (3, 3, 4))
    assert one.screen.fingerprint() == again.screen.fingerprint() != other.screen.fingerprint()
    for source, vectors in one.embeddings.items():
        assert vectors.fingerprint() == again.embeddings[source].fingerprint() != other.embeddings[source].fingerprint()
    assert one.truth.moments("control").equals(again.truth.moments("control"))
    assert not one.truth.moments("control").equals(other.truth.moments("control"))


def test_the_seed_decides_a_sample_which_repeats_no_cells_of_the_screen(tmp_path):
    write_screen(tmp_path / "s.h5ad", 5, TINY)
    truth = ScreenTruth.load(tmp_path / "s.truth.npz")
    of_screen = anndata.read_h5ad(tmp_path / "s.h5ad").obs["library_size"].to_numpy()
    one, again, other = (truth.sample("control", 600, seed) for seed in (5, 5, 6))
    assert (one.counts != again.counts).nnz == 0
    np.testing.assert_array_equal(one.library_size, again.library_size)
    # Of 256 sizes two that have nothing to do with each other are the same once in 256 cells.
    for first, second in ((one.library_size, other.library_size), (one.library_size, of_screen)):
        assert np.mean(first == second) < 0.03


def test_the_screen_holds_the_cells_that_its_truth_describes():
    simulation = replace(CHECKED, n_pairs=0, n_cells=40_000, n_control=15_000, min_cells=1000, max_cells=10_000)
    screen, _, truth = simulate_screen(6, simulation)
    assert screen.perturbations == truth.perturbations
    for group, name in enumerate(("control", *truth.perturbations)):
        cells = screen.expression[screen.group_start[group] : screen.group_start[group + 1]].toarray()
        moments = truth.moments(name)
        error = np.sqrt(moments["variance"] / len(cells))
        assert (np.abs(cells.mean(axis=0) - moments["mean"]) < 4.5 * error).all(), name


def test_cells_do_not_depend_on_the_number_of_threads(checked, monkeypatch):
    def sample(n_threads):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(n_threads)), raising=False)
        return checked.sample(checked.perturbations[1], 120_000, seed=7)  # five blocks

    one, three = sample(1), sample(3)
    assert (one.counts != three.counts).nnz == 0
    np.testing.assert_array_equal(one.library_size, three.library_size)
    np.testing.assert_array_equal(one.response, three.response)


def test_joined_blocks_are_their_cells_one_after_the_other(checked):
    name = perturbation_of(checked, "pair")
    blocks = [checked.sample(name, n_cells, seed=n_cells) for n_cells in (5, 1, 8)]
    joined = SimulatedCells.join(iter(blocks))
    assert joined.counts.shape == (14, 40)
    start = 0
    for block in blocks:
        rows = slice(start, start := start + len(block.response))
        np.testing.assert_array_equal(joined.counts[rows].toarray(), block.counts.toarray())
        np.testing.assert_array_equal(joined.expression()[rows].toarray(), block.expression().toarray())
        np.testing.assert_array_equal(joined.library_size[rows], block.library_size)
        np.testing.assert_array_equal(joined.response[rows], block.response)


@pytest.mark.parametrize("n_cells", [0, -3])
def test_a_sample_without_cells_is_refused(checked, n_cells):
    with pytest.raises(InputError, match=f"{n_cells} cells of 'control'"):
        checked.sample("control", n_cells, 0)


def test_perturbed_genes_go_down_and_others_move_in_the_cells_of_a_screen():
    large = replace(TINY, n_cells=4000, n_control=800, min_cells=300, max_cells=600)
    expressed = replace(large, log_rate_mean=1.0, log_rate_spread=0.5, own_gene_fold=0.1)
    screen, _, truth = simulate_screen(12, replace(expressed, effect_size=0.4, effect_spread=0.2, null_share=0.5))
    control = screen.control.toarray()
    noise = np.abs(control[::2].mean(axis=0) - control[1::2].mean(axis=0)).mean()
    shifts = []
    for group, name in enumerate(screen.perturbations, start=1):
        cells = screen.expression[screen.group_start[group] : screen.group_start[group + 1]].toarray()
        gene = screen.genes.index(name)
        others = np.arange(len(screen.genes)) != gene
        shifts.append(np.abs(cells.mean(axis=0) - control.mean(axis=0))[others].mean())
        if strength(truth)[group - 1] == 0:
            assert cells[:, gene].mean() < 0.6 * control[:, gene].mean()
    acts = strength(truth) > 0
    assert acts.sum() == 4
    assert np.max(np.array(shifts)[~acts]) < 2 * noise < np.min(np.array(shifts)[acts])
