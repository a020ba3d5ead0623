"""Likelihoods split into zero or not, and the rest: exact, and what the evaluation of a trial gives."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from saved import predictions, write_study

from analysis.zero_bin import main, split_likelihood
from histpert.metrics.distances import negative_log_likelihood


def likelihood(saved):
    """As the evaluation of a trial has it, from the cells' own counts in float64."""
    counts = torch.from_numpy(np.rint(saved.observed * saved.n_cells[:, None, None].astype(float)))
    observed = counts / counts.sum(-1, keepdim=True)
    predicted = torch.from_numpy(saved.predicted.astype(float))
    return negative_log_likelihood(predicted, observed, torch.from_numpy(saved.width)).numpy()


@given(st.integers(0, 1000), st.sampled_from([2, 5, 15, 35]), st.sampled_from([0.0, 0.5, 0.999]))
@settings(max_examples=40, deadline=None)
def test_the_parts_add_up_and_are_the_likelihood(seed, n_bins, emptied):
    random = np.random.default_rng(seed)
    saved = predictions(n_bins=n_bins, seed=seed)
    predicted = np.where(random.random(saved.predicted.shape) < emptied, 0, saved.predicted).astype(np.float32)
    saved = replace(saved, predicted=predicted)  # below the floor, and not adding to 1
    split = split_likelihood(saved)
    np.testing.assert_allclose(split.zero + split.rest, likelihood(saved), rtol=0, atol=1e-12)
    np.testing.assert_allclose(split.nll, likelihood(saved), rtol=0, atol=1e-12)


def test_the_zero_part_is_the_cross_entropy_of_zero_or_not_and_the_rest_a_conditional_likelihood():
    saved = predictions()
    split, width = split_likelihood(saved), saved.width
    h, p = saved.observed[0, 4].astype(float), saved.predicted[0, 4].astype(float)
    entropy = -h[0] * np.log(p[0]) - (1 - h[0]) * np.log(p[1:].sum())
    assert split.zero[0, 4] - h[0] * np.log(width[4]) == pytest.approx(entropy, abs=1e-5)
    conditional = -(h[1:] / (1 - h[0])) @ np.log(p[1:] / p[1:].sum() / width[4])
    assert split.rest[0, 4] == pytest.approx((1 - h[0]) * conditional, abs=1e-5)


def test_a_gene_whose_smallest_value_is_not_zero_has_no_zero_part():
    saved = predictions()
    lower = saved.lower.copy()
    lower[3] += 0.5
    split = split_likelihood(replace(saved, lower=lower))
    assert (split.zero[:, 3] == 0).all()
    assert (split.zero_mass[:, 3] == 0).all()
    np.testing.assert_array_equal(split.rest[:, 3], split.nll[:, 3])
    assert (split.zero[:, 2] > 0).all()


@pytest.fixture
def study(tmp_path):
    trials = [
        predictions(method, fold, perturbations=(f"P{fold}", f"Q{fold}"), seed=10 * fold + len(method))
        for method in ("MLP+Hist", "Non-Ctrl Hist")
        for fold in (0, 1)
    ]
    # Both methods meet the same cells; a gene that does not vary in one fold is left out there.
    trials = [replace(t, observed=trials[t.fold].observed, n_cells=trials[t.fold].n_cells) for t in trials]
    constant = np.arange(12) == 5
    trials = [replace(t, constant=constant & (t.fold == 1)) for t in trials]
    return write_study(tmp_path / "study", trials), trials


def test_the_table_holds_each_gene_and_its_differences_are_the_figure(study, capsys):
    folder, trials = study
    assert main([str(folder)]) == 0
    paths = capsys.readouterr().out.split()
    assert [path.rsplit("/", 1)[1] for path in paths] == ["zero_bin.png", "zero_bin.svg", "zero_bin.csv"]
    assert ElementTree.parse(paths[1]).getroot().tag.endswith("svg")
    table = pd.read_csv(folder / "tables" / "zero_bin.csv").set_index("gene")
    assert list(table.index) == list(trials[0].genes)
    np.testing.assert_allclose(table["zero_difference"] + table["rest_difference"], table["nll_difference"], atol=1e-12)
    nll = {(t.method, t.fold): likelihood(t).mean(0) for t in trials}
    first, second = (np.stack([nll[method, fold] for fold in (0, 1)]) for method in ("MLP+Hist", "Non-Ctrl Hist"))
    expected = (second - first).mean(0)
    expected[5] = (second - first)[0, 5]
    np.testing.assert_allclose(table["nll_difference"], expected, atol=1e-12)
    np.testing.assert_allclose(table["nll_1"].drop("GENE5"), np.delete(first.mean(0), 5), atol=1e-12)


def without_files(folder, trials):
    (folder / "predictions" / f"{trials[2].trial_id}.arrow").unlink()
    return []


def damaged(folder, trials):
    path = folder / "predictions" / f"{trials[2].trial_id}.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    return []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda *_: ["--methods", "MLP+Hist", "TG"], "no finished trial in {} has --method TG: give one of MLP+Hist, "),
        (lambda *_: ["--methods", "MLP+Hist", "MLP+Hist"], "--methods MLP+Hist MLP+Hist: give two that differ"),
        (lambda *_: ["--n-bins", "5"], "no finished trial in {} has --n-bins 5: give one of 15"),
        (without_files, "1 of 2 trials of Non-Ctrl Hist with 15 bins in {} have no file of predictions: run the study"),
        (damaged, "{}/predictions/Non-CtrlHist-15-0.arrow is damaged"),
    ],
)
def test_what_cannot_be_split_is_one_line(study, capsys, make, said):
    folder, trials = study
    arguments = make(folder, trials)
    assert main([str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said.format(folder)}")
    assert error.count("\n") == 1
    assert not (folder / "figures").exists()
