"""Figures of one perturbation: what is drawn is what the files hold, and what cannot be drawn is one line."""

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from saved import predictions, write_study

from analysis.perturbation import main, response_figure
from analysis.predicted import Response, SavedStudy
from analysis.telling_genes import LARGEST_SHIFT
from histpert.results import TRIAL_SCHEMA, read_table, write_table

CONTROL = np.linspace(0.1, 0.9, 12), np.full(12, 1.5), np.full(12, 0.4)


def shifted(name):
    """JAK2 is the strongest of all."""
    return CONTROL[0], CONTROL[1] + (0.9 if name == "JAK2" else 0.1), CONTROL[2]


def trials(**settings):
    named = ("STAT1", "IRF1"), ("JAK2", "MYC+STAT1")
    return [
        predictions("MLP+Hist", fold, n_bins, names, change=shifted, seed=fold, **settings)
        for n_bins in (5, 15)
        for fold, names in enumerate(named)
    ]


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path / "study", trials())


def test_by_default_the_strongest_perturbation_at_the_most_bins(study, capsys):
    assert main([str(study)]) == 0
    out = capsys.readouterr().out
    assert [path.rsplit("/", 1)[1] for path in out.split() if path.startswith("/")] == [
        f"perturbation_JAK2.{kind}" for kind in ("png", "svg", "csv")
    ]
    svg = study / "figures" / "perturbation_JAK2.svg"
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert "no gene changes its shape" in out
    (saved,) = [t for t in trials() if t.n_bins == 15 and t.fold == 1]
    table = pd.read_csv(study / "tables" / "perturbation_JAK2.csv")
    assert list(table["gene"]) == list(saved.genes)
    means = saved.observed_mean[0] - saved.control_mean
    np.testing.assert_allclose(table["observed_mean_shift"], means)
    assert (table["observed_shift"] >= np.abs(means) - saved.width / 2).all()
    assert sorted(table["rank_shift"].dropna()) == list(range(1, int(table["rank_shift"].max()) + 1))


def test_panels_hold_the_masses_and_their_means(study):
    response = SavedStudy(study, "MLP+Hist").response("IRF1")
    figure: Any = response_figure(response, {"GENE3": LARGEST_SHIFT, "GENE7": ""})
    scatter, first, second = figure.axes[-1], *figure.axes[:2]
    assert (first.get_title("left"), first.get_title("right")) == ("GENE3", "largest shift")
    assert second.get_title("left") == "GENE7"
    steps = [patch.get_data() for patch in first.patches if hasattr(patch, "get_data")]
    saved = response.saved
    for masses in (saved.control[3], saved.observed[1, 3], saved.predicted[1, 3]):
        assert any(np.array_equal(step.values, masses.astype(float)) for step in steps)
    np.testing.assert_allclose(steps[0].edges, saved.lower[3] + saved.width[3] * np.arange(16))
    centres = saved.lower[3] + saved.width[3] * (np.arange(15) + 0.5)
    means = [np.average(centres, weights=m) for m in (saved.control[3], saved.observed[1, 3], saved.predicted[1, 3])]
    lines = {line.get_xdata()[0] for line in first.lines if line.is_dashed()}
    np.testing.assert_allclose(sorted(lines), sorted(means), rtol=1e-6)
    dots = np.concatenate([line.get_xydata() for line in scatter.lines[1:]])
    assert len(dots) == 12
    np.testing.assert_allclose(np.sort(dots[:, 0]), np.sort(response.observed_shift))
    np.testing.assert_allclose(np.sort(dots[:, 1]), np.sort(response.predicted_shift))
    r = np.corrcoef(response.observed_shift, response.predicted_shift)[0, 1]
    assert f"{r:.2f}" in scatter.texts[0].get_text()


def test_what_is_predicted_to_stay_as_control_has_no_shift():
    saved = predictions()
    still = replace(saved, predicted=np.stack([saved.predicted_control] * 2))
    assert (Response(still, 0).predicted_shift == 0).all()
    assert (Response(still, 0).observed_shift > 0).all()


def test_genes_that_are_named_are_shown(study, tmp_path, capsys):
    arguments = ["--perturbation", "MYC+STAT1", "--genes", "GENE1", "--n-bins", "5", "--out", str(tmp_path / "out")]
    assert main([str(study), *arguments]) == 0
    svg = (tmp_path / "out" / "figures" / "perturbation_MYC+STAT1.svg").read_text()
    assert "<!-- GENE1 -->" in svg
    assert not (study / "figures").exists()


def test_the_papers_perturbations_are_drawn_where_the_screen_has_them(tmp_path, capsys):
    genes = (*(f"GENE{i}" for i in range(11)), "HIST1H4C")
    study = write_study(
        tmp_path / "study", [predictions(perturbations=("CEBPA", "POU3F2"), genes=genes, change=shifted)]
    )
    assert main([str(study), "--preset", "paper"]) == 0
    out = capsys.readouterr().out
    assert "not in the study: CDKN1B" in out
    assert re.findall(r"/(perturbation_\w+).png", out) == ["perturbation_CEBPA", "perturbation_POU3F2"]
    assert "<!-- HIST1H4C -->" in (study / "figures" / "perturbation_POU3F2.svg").read_text()


def without_files(folder):
    for path in (folder / "predictions").iterdir():
        path.unlink()


def of_a_search(folder):
    rows = read_table(folder / "trials.parquet").to_pylist()
    write_table(folder / "trials.parquet", [*rows, rows[-1] | {"trial_id": "other"}], TRIAL_SCHEMA)


@pytest.mark.parametrize(
    ("make", "arguments", "said"),
    [
        (None, ["--perturbation", "STAT"], "no perturbation in {} is named STAT: it has STAT1, "),
        (None, ["--perturbation", "JAK2", "--genes", "GENE1", "ACTB"], "--genes ACTB: not among the 12 genes"),
        (None, ["--preset", "paper"], "--preset paper: the study lacks CEBPA, CDKN1B, POU3F2"),
        (None, ["--preset", "paper", "--genes", "GENE1"], "--preset paper names perturbations and genes itself"),
        (None, ["--n-genes", "0"], "--n-genes 0: must be 1 or more"),
        (None, ["--method", "TG"], "no finished trial in {} has --method TG: give one of MLP+Hist"),
        (None, ["--n-bins", "7"], "no finished trial in {} has --n-bins 7: give one of 5, 15"),
        (without_files, [], "2 of 2 trials of MLP+Hist with 15 bins in {} have no file of predictions: run the study"),
        (of_a_search, [], "{} holds several trials of MLP+Hist in one fold"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(study, capsys, make, arguments, said):
    if make:
        make(study)
    assert main([str(study), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said.format(study)}")
    assert error.count("\n") == 1
    assert not (study / "figures").exists()


def test_a_method_of_means_has_no_histograms_to_draw(tmp_path, capsys):
    study = write_study(tmp_path / "study", [predictions("MLP+Mean", predicts=False)])
    assert main([str(study), "--method", "MLP+Mean", "--perturbation", "STAT1"]) == 2
    assert "MLP+Mean predicts means, no histograms: name another --method" in capsys.readouterr().err
