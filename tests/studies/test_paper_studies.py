"""The studies of methods, loss weights and open choices on a real local Ray, in the small shape."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histpert.errors import InputError
from histpert.screens import PRESETS, assign_cluster_folds, simulate_screen
from histpert.settings import weight_triples
from studies.data import prepare, with_permuted_embeddings
from studies.loss_weights import LossWeights
from studies.methods import DEFAULT, Methods
from studies.open_choices import OpenChoices
from studies.open_choices import main as open_choices
from studies.options import StudyOptions

ray = pytest.mark.ray


@pytest.fixture(scope="module")
def ran(script, tmp_path_factory):
    """Runs a study once; its tables, and the names of the files it says it wrote."""
    out = tmp_path_factory.mktemp("out")
    kept = {}

    def run(name):
        if name not in kept:
            done = script(name, "--smoke", "--out", out)
            assert done.returncode == 0, done.stdout + done.stderr
            written = [Path(path) for path in re.findall(r"^(?:table|figure): (.*)$", done.stdout, re.MULTILINE)]
            assert all(path.exists() for path in written)
            tables = (pd.read_parquet(out / name / f"{table}.parquet") for table in ("trials", "perturbations"))
            kept[name] = *tables, [path.name for path in written]
        return kept[name]

    return run


@ray
def test_every_method_runs_on_the_same_folds_between_floor_and_ceiling(ran):
    trials, rows, written = ran("methods")
    assert set(trials["method"]) == {*DEFAULT, "Observed Hist", "Ceiling"}
    assert set(trials["status"]) == {"ok"}
    held_out = rows.groupby("method")["perturbation"].apply(sorted)
    assert held_out.map(tuple).nunique() == 1
    means = trials.groupby("method")[
        ["rmae_mean", "rmae_kurt", "crps", "energy_distance", "pearson_delta_split"]
    ].mean()
    assert means["rmae_mean"]["Ctrl Hist"] == pytest.approx(1, abs=1e-6)
    for metric in ("rmae_mean", "rmae_kurt", "crps", "energy_distance"):
        predicted = means[metric].drop(["Ceiling", "Observed Hist"]).dropna()
        assert (means[metric]["Ceiling"] < predicted).all()
    assert written == [
        *(f"methods_{name}.md" for name in ("distributions", "means", "resources", "paired")),
        *("methods.png", "calibration.png"),
    ]


@ray
def test_the_grid_has_all_triples_once(ran):
    trials, _, written = ran("loss_weights")
    weights = trials[["weight_ce", "weight_wass", "weight_mse"]].apply(tuple, axis=1)
    assert sorted(weights) == sorted(weight_triples())
    assert trials["crps"].nunique() == len(trials)
    assert written == ["loss_weights.md", "loss_weights.png"]


@ray
def test_each_choice_changes_what_it_should_and_nothing_else(ran):
    trials, _, written = ran("open_choices")
    of = trials[trials["method"] == "MLP+Hist"].set_index("variant")
    default = of.loc[""]
    for variant, column in {"output scale": "output_scale", "control": "control_smoothing"}.items():
        for name in (name for name in of.index if name.startswith(variant)):
            assert of.loc[name, column] != default[column]
            assert of.loc[name, "crps"] != default["crps"]
    # The floor of the likelihood is looked at when all else is done.
    for name in ("NLL floor 1e-08", "NLL floor 0.0001"):
        assert of.loc[name, "crps"] == default["crps"]
    assert of.loc["permuted embeddings", "embeddings"].endswith("(permuted)")
    floors = trials[trials["method"] == "Ctrl Hist"].set_index("variant")
    assert floors.loc["cluster-held-out folds", "n_perturbations"] != 0
    assert floors.loc["cluster-held-out folds", "crps"] != floors.loc["", "crps"]
    assert written == ["open_choices.md"]


def test_no_perturbation_keeps_its_embedding_where_they_are_permuted(tmp_path):
    data = prepare(StudyOptions(out=tmp_path, folds=3), [5])
    permuted = with_permuted_embeddings(data, 0)
    assert sorted(map(tuple, permuted.vectors)) == sorted(map(tuple, data.vectors))
    assert (permuted.vectors != data.vectors).any(axis=1).all()
    assert permuted.embeddings_fingerprint != data.embeddings_fingerprint
    again = prepare(StudyOptions(out=tmp_path, folds=3, permute_embeddings=True), [5])
    assert again.embeddings_fingerprint == permuted.embeddings_fingerprint
    assert with_permuted_embeddings(data, 1).embeddings_fingerprint != permuted.embeddings_fingerprint


def test_clusters_are_held_out_where_asked_for(tmp_path):
    data = prepare(StudyOptions(out=tmp_path, folds=3, hold_out="clusters"), [5])
    embeddings = simulate_screen(0, PRESETS["easy"]).embeddings["good"].lookup(data.perturbations)
    np.testing.assert_array_equal(data.folds, assign_cluster_folds(embeddings, 3, 0))


@pytest.mark.parametrize(
    ("options", "wrong", "named"),
    [
        (Methods, {"methods": ("MLP+Hist", "CPA")}, "--methods CPA: give some of .*MLP\\+Hist"),
        (Methods, {"bins": 1}, "--bins 1"),
        (Methods, {"external": ("scGPT",)}, "--external scGPT: give NAME=FILE"),
        (Methods, {"external": ("MLP+Hist=p.h5ad",)}, "the name none of ours"),
        (Methods, {"external": ("a=p.h5ad", "a=q.h5ad")}, "give each name once"),
        (LossWeights, {"bins": 0}, "--bins 0"),
        (OpenChoices, {"bins": 1}, "--bins 1"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(options, wrong, named):
    with pytest.raises(InputError, match=named):
        options(**wrong)


@pytest.mark.parametrize("wrong", [{"hold_out": "clusters"}, {"permute_embeddings": True}])
def test_open_choices_runs_both_ways_by_itself(tmp_path, wrong):
    with pytest.raises(InputError, match="--hold-out and --permute-embeddings"):
        open_choices(replace(OpenChoices(out=tmp_path), **wrong))
