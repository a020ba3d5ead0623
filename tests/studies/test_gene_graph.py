"""GEARS in the comparison of methods: its graph, from a file or of the simulated screen."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.paired import compared
from histpert.errors import InputError
from histpert.gene_sets import gene_graph, write_gene_sets
from histpert.results import METRICS
from histpert.screens.simulation import PRESETS, write_screen
from histpert.settings import ModelSettings
from studies.data import StudyData, prepare
from studies.gene_graph import with_gene_graph
from studies.methods import DEFAULT, Methods
from studies.options import StudyOptions
from studies.plan import Job, Plan
from studies.trial import run_trial

CPU = torch.device("cpu")
SCREEN = "s.h5ad"  # of no matter: it is not read


def study_data(*perturbations: str) -> StudyData:
    vectors = np.random.default_rng(0).normal(size=(len(perturbations), 4)).astype(np.float32)
    return StudyData("s", "f", "e", "g", perturbations, vectors, np.zeros(len(perturbations), int), None, ())  # pyright: ignore


def with_sets(tmp_path, data, aliases=None, **options):
    sets = {"one": ("A", "B", "C"), "two": ("A", "NEW"), "none": ("Y", "Z")}
    write_gene_sets(tmp_path / "sets.gmt", sets)
    asked = StudyOptions(screen=SCREEN, out=tmp_path, **options)
    if aliases:
        asked = replace(asked, names=replace(asked.names, aliases=aliases))
    return sets, with_gene_graph(data, tmp_path / "sets.gmt", asked)


def test_a_combination_takes_in_what_its_genes_do(tmp_path, capsys):
    data = study_data("A", "A+B", "A+X", "C", "X")
    sets, graph = with_sets(tmp_path, data)
    rows = gene_graph(sets, ["A", "B", "X", "C"])
    np.testing.assert_allclose(graph.vectors, [rows[0], rows[0] + rows[1], 0 * rows[0], rows[3], 0 * rows[0]])
    said = capsys.readouterr().out
    assert "graph of 3 perturbed genes, sets.gmt" in said
    assert "nothing is predicted of 2 perturbations, which the averages of all methods leave out: A+X, X" in said
    assert graph.embeddings == "sets.gmt"
    assert graph.embeddings_fingerprint != data.embeddings_fingerprint
    assert with_sets(tmp_path, data)[1].embeddings_fingerprint == graph.embeddings_fingerprint


def test_genes_are_found_under_other_symbols(tmp_path):
    table = tmp_path / "aliases.tsv"
    table.write_text("symbol\talias_symbol\tprev_symbol\nNEW\tOLD\t\n")
    data = study_data("A", "OLD")
    assert not with_sets(tmp_path, data)[1].vectors[1].any()
    assert with_sets(tmp_path, data, aliases=table)[1].vectors[1].any()


def test_permuted_rows_are_those_of_others(tmp_path):
    data = study_data("A", "B", "C", "OLD")
    _, graph = with_sets(tmp_path, data)
    _, permuted = with_sets(tmp_path, data, permute_embeddings=True, embeddings=(tmp_path / "e.npz",))
    assert sorted(map(tuple, permuted.vectors)) == sorted(map(tuple, graph.vectors))
    assert permuted.embeddings == "sets.gmt (permuted)"


def test_sets_without_any_of_the_genes_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no set has any of the perturbed genes P, Q"):
        with_sets(tmp_path, study_data("P", "Q"))


def test_options_that_do_not_go_together_are_refused(tmp_path):
    with pytest.raises(InputError, match="simulated screen has gene sets of its own"):
        Methods(gene_sets=tmp_path / "s.gmt")
    with pytest.raises(InputError, match="--methods GEARS: needs --gene-sets"):
        Methods(screen="s.h5ad", embeddings=(tmp_path / "e.npz",), methods=("GEARS", "Ridge"))
    assert set(Methods(screen="s.h5ad", embeddings=(tmp_path / "e.npz",)).methods) == set(DEFAULT)


SIZES = {
    "small": (replace(PRESETS["easy"], n_cells=8_000), 3, 60, ("pearson_delta",)),
    "large": (
        replace(PRESETS["easy"], n_perturbations=150, n_cells=16_500),
        9,
        200,
        ("rmae_mean", "mse", "pearson_delta"),
    ),
}


@pytest.mark.parametrize("size", ["small", pytest.param("large", marks=pytest.mark.chaos)])
@pytest.mark.parametrize(("source", "is_better"), [("good", True), ("permuted", False)])
def test_gears_is_better_than_the_pooled_mean_where_effects_follow_the_graph(tmp_path, source, is_better, size):
    simulation, n_folds, epochs, metrics = SIZES[size]
    files = write_screen(tmp_path / "s.h5ad", 0, simulation)
    options = StudyOptions(screen=str(files["screen"]), embeddings=(files["good"],), out=tmp_path, folds=n_folds)
    data = prepare(options, [15], with_coexpression=True)
    graph = with_gene_graph(data, files[f"{source} gene sets"], options)
    plan = Plan("test", data, n_folds, 1, tmp_path, 3600.0, of_method={"GEARS": graph})

    def rows(method):
        jobs = [Job(method, 15, fold, ModelSettings(epochs=epochs)) for fold in range(n_folds)]
        return pd.DataFrame([row for job in jobs for row in run_trial(plan, job, CPU)["perturbations"]])

    gears, floor = rows("GEARS"), rows("Non-Ctrl Mean")
    for metric in metrics:
        found = compared(gears, floor, metric).perturbations
        assert (found.sign == (1 if METRICS[metric].higher_is_better else -1)) == is_better, (metric, found)
