"""Combinations of perturbations: read, held out, and what the additive model says of them."""

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from real_data import REAL_DATA
from test_models import QUICK, problem

from histpert.errors import InputError
from histpert.models.additive import Additive
from histpert.multi_hot import genes_of, multi_hot
from histpert.screens import PRESETS, ReadOptions, assign_pair_folds, read_screen, simulate_screen
from histpert.screens.simulation import write_screen

LABELS = ["ctrl", "A+ctrl", "ctrl+B", "B+A", "A+B", "C+A+B", "C", "ctrl+ctrl"]


def written(folder: Path) -> Path:
    counts = np.random.default_rng(0).poisson(2, (8 * 4, 5)).astype(np.float32)
    obs = pd.DataFrame({"condition": LABELS * 4}, index=[f"c{number}" for number in range(32)])
    anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=list("ABXYZ"))).write_h5ad(folder / "s.h5ad")
    return folder / "s.h5ad"


def test_combinations_are_kept_where_they_are_asked_for_in_either_order(tmp_path):
    path = written(tmp_path)
    screen = read_screen(path, ReadOptions(combinations=True))
    sizes = dict(zip(("", *screen.perturbations), screen.n_cells.tolist(), strict=True))
    assert sizes == {"": 8, "A": 4, "A+B": 8, "A+B+C": 4, "B": 4, "C": 4}
    assert not any("left out" in note for note in screen.notes)
    assert any("1 of 3 perturbed genes are not among the genes measured: C" in note for note in screen.notes)
    without = read_screen(path)
    assert without.perturbations == ("A", "B", "C")
    assert any("left out 2 combinations of perturbations (12 cells)" in note for note in without.notes)


def test_the_norman_slice_has_its_pairs():
    path = REAL_DATA / "norman_k562_slice.h5ad"
    if not path.is_file():
        pytest.skip(f"needs real data, which are not here: {path}")
    screen = read_screen(path, ReadOptions(combinations=True))
    n_genes = [len(genes_of(name)) for name in screen.perturbations]
    assert (n_genes.count(1), n_genes.count(2)) == (18, 15)
    folds = assign_pair_folds(screen.perturbations, 5, 0)
    assert sorted(folds.tolist()) == [0, 1, 2, 3, 4] + [5] * 28
    with pytest.raises(InputError, match=r"--folds 10: the screen has 15 pairs, of which 5 can be held out; of"):
        assign_pair_folds(screen.perturbations, 10, 0)
    assert (assign_pair_folds(screen.perturbations, 10, 0, any_pair=True) < 10).sum() == 15


@pytest.mark.parametrize("n_folds", [1, 0, -3])
def test_fewer_than_two_folds_over_pairs_are_refused_as_such(n_folds):
    with pytest.raises(InputError, match=f"--folds {n_folds}: cross-validation needs at least 2 folds"):
        assign_pair_folds(["A", "A+B", "A+C", "B", "B+C", "C"], n_folds, 0)


def test_a_simulated_screen_in_memory_is_that_of_the_file_with_its_pairs(tmp_path):
    simulation = replace(PRESETS["easy"], n_perturbations=20, n_pairs=15, n_cells=4_600)
    write_screen(tmp_path / "s.h5ad", 3, simulation)
    read = read_screen(tmp_path / "s.h5ad", ReadOptions(combinations=True))
    made = simulate_screen(3, simulation, with_pairs=True).screen
    assert len(made.perturbations) == 35
    assert read.fingerprint() == made.fingerprint()


def test_the_most_expressed_genes_are_chosen_by_control_cells():
    screen = simulate_screen(0, replace(PRESETS["easy"], n_perturbations=20, n_cells=3_000)).screen
    chosen = screen.most_expressed(30)
    mean = np.asarray(screen.control.mean(axis=0))[0]
    assert set(chosen.genes) == {screen.genes[gene] for gene in np.argsort(mean)[-30:]}
    assert list(chosen.genes) == sorted(chosen.genes)
    assert chosen.notes[-1] == "the 30 most expressed of 200 genes, by their mean over control cells"
    number = screen.genes.index(chosen.genes[7])
    assert (chosen.expression[:, 7] != screen.expression[:, number]).nnz == 0


def test_places_of_genes():
    assert multi_hot(["B", "A+B", "A", "C+A"]).tolist() == [[0, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1]]


def test_the_additive_model_adds_what_single_genes_do():
    names = ["A", "B", "C", "A+B", "C+D"]
    training = problem(n_perturbations=5, n_genes=6)
    rows = torch.from_numpy(multi_hot(names))
    model = Additive(QUICK)
    list(model.fit(replace(training, embeddings=rows)))
    found = model.predict(torch.from_numpy(multi_hot([*names, "A+C", "D"])[-2:])).moments.mean.float()
    torch.testing.assert_close(found[0], training.means[0] + training.means[2] - training.control_mean)
    assert found[1].isnan().all()  # D was not perturbed alone
    assert model.n_parameters == 18
