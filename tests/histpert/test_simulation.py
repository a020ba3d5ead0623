"""The simulated screen is repeatable, large enough, and looks like a screen."""

from dataclasses import replace

import numpy as np
import pytest

from histpert.screens import simulate_screen
from histpert.screens.simulation import Simulation

SMALL = Simulation(n_perturbations=10, n_genes=30, n_control=80, min_cells=20, max_cells=30)


@pytest.fixture(scope="module")
def simulated():
    return simulate_screen(0)


def test_the_seed_decides_the_screen_and_the_embeddings():
    (screen, embeddings), (again, embeddings_again) = (simulate_screen(3, SMALL) for _ in range(2))
    assert screen.fingerprint() == again.fingerprint()
    assert embeddings.fingerprint() == embeddings_again.fingerprint()
    other, other_embeddings = simulate_screen(4, SMALL)
    assert screen.fingerprint() != other.fingerprint()
    assert embeddings.fingerprint() != other_embeddings.fingerprint()


def test_the_default_screen_is_large_enough_for_a_study(simulated):
    screen, _ = simulated
    assert len(screen.perturbations) >= 90
    assert len(screen.genes) >= 200
    assert screen.n_cells.min() >= 60
    assert screen.expression.shape == (screen.n_cells.sum(), len(screen.genes))
    assert screen.name == "simulated"
    assert any("SIMULATED" in note for note in screen.notes)


def test_expression_has_the_zeros_and_the_scale_of_a_screen(simulated):
    screen, _ = simulated
    values = screen.expression.data
    assert 0.3 < 1 - screen.expression.nnz / np.prod(screen.expression.shape) < 0.8
    assert np.isfinite(values).all()
    assert values.min() > 0


def test_every_perturbation_has_an_embedding_of_its_own(simulated):
    screen, embeddings = simulated
    vectors = embeddings.lookup(screen.perturbations)
    assert len(np.unique(vectors, axis=0)) == len(screen.perturbations)
    assert np.isfinite(vectors).all()
    assert set(screen.perturbations) <= set(screen.genes)


def test_a_knocked_down_gene_goes_down_in_its_own_cells():
    # Without program shifts nothing else moves it.
    screen, _ = simulate_screen(1, replace(Simulation(), effect_size=1e-9))
    control = np.asarray(screen.control.mean(axis=0)).ravel()
    for group, name in enumerate(screen.perturbations, start=1):
        gene = screen.genes.index(name)
        own = screen.expression[screen.group_start[group] : screen.group_start[group + 1], gene].mean()
        # 80% of the cells lose 80%: about a third is left, on the scale of the logarithm up to a half.
        assert control[gene] < 0.2 or own < 0.75 * control[gene]


def test_perturbations_move_other_genes_than_their_own(simulated):
    screen, _ = simulated
    control = np.asarray(screen.control.mean(axis=0)).ravel()
    halves = [np.asarray(screen.control[start::2].mean(axis=0)).ravel() for start in (0, 1)]
    noise = np.abs(halves[0] - halves[1]).mean()
    shifts = []
    for group, name in enumerate(screen.perturbations, start=1):
        rows = screen.expression[screen.group_start[group] : screen.group_start[group + 1]]
        others = np.array(screen.genes) != name
        shifts.append(np.abs(np.asarray(rows.mean(axis=0)).ravel() - control)[others].mean())
    assert np.median(shifts) > 3 * noise
