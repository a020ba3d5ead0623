"""The numbers of a bin sweep against averages taken with plain loops."""

import math
import statistics
from typing import Any

import pytest

from analysis.summary import read_sweeps, summarize
from histpert.errors import InputError
from histpert.results import METRICS


def by_hand(study, method, n_bins, metric, keep=lambda name: True):
    """Each fold's average over the perturbations that every method has, where Ctrl Hist has no say on correlations."""
    names = {row["perturbation"] for row in study.rows}
    rivals = [row for row in study.rows if row["method"] != "Ctrl Hist" or not metric.startswith("pearson")]
    shared = {n for n in names if all(row[metric] is not None for row in rivals if row["perturbation"] == n)}
    folds = {}
    for row in study.find(method=method, n_bins=n_bins):
        if row["perturbation"] in shared and row[metric] is not None and keep(row["perturbation"]):
            folds.setdefault(row["fold"], []).append(row[metric])
    return {fold: statistics.fmean(numbers) for fold, numbers in folds.items()}


def table_of(study, folder, apart=()) -> Any:
    table = summarize(read_sweeps([study.write(folder)]).rows, apart)
    return table.set_index(["targets", "method", "n_bins"])


def same(number, folds):
    return math.isnan(number) if not folds else number == pytest.approx(statistics.fmean(folds.values()), abs=1e-12)


def test_means_and_deviations_over_folds(tables, tmp_path):
    study = tables()
    study.find(method="Non-Ctrl Hist", n_bins=5, perturbation="IRF1")[0]["pearson_top50"] = None
    table = table_of(study, tmp_path / "study")
    assert len(table) == 8
    for (_, method, n_bins), row in table.iterrows():
        assert (row["screen"], row["n_folds"], row["n_perturbations"]) == ("simulated screen", 3, 7)
        for metric in METRICS:
            folds = by_hand(study, method, n_bins, metric)
            assert same(row[metric], folds), (method, n_bins, metric)
            deviation = statistics.stdev(folds.values()) if folds else math.nan
            assert row[f"{metric}_sd"] == pytest.approx(deviation, abs=1e-12, nan_ok=True)


def test_all_methods_and_bins_share_perturbations(tables, tmp_path):
    study = tables(held_out={0: ("STAT1", "IRF1", "CUL3")})
    study.find(method="Non-Ctrl Hist", n_bins=5, perturbation="IRF1")[0]["pearson_top20"] = None
    table = table_of(study, tmp_path / "study")
    for method in ("MLP+Hist", "Non-Ctrl Hist", "Observed Hist"):
        for n_bins in (5, 15):
            rows = study.find(method=method, n_bins=n_bins)
            expected = (rows[0]["pearson_top20"] + rows[2]["pearson_top20"]) / 2
            assert table.loc[("all", method, n_bins), "pearson_top20"] == pytest.approx(expected)
            assert table.loc[("all", method, n_bins), "pearson_top20_n"] == 2
            assert table.loc[("all", method, n_bins), "pearson_top50_n"] == 3
    assert math.isnan(table.loc[("all", "Ctrl Hist", 5), "pearson_top20"])
    assert table.loc[("all", "Ctrl Hist", 5), "pearson_top20_n"] == 0
    assert math.isnan(table.loc[("all", "MLP+Hist", 5), "pearson_top20_sd"])  # one fold


def test_excess_is_paired_by_fold(tables, tmp_path):
    study = tables()
    study.fail("Observed Hist", 15, 1)
    table = table_of(study, tmp_path / "study")
    for n_bins in (5, 15):
        for metric in ("rmae_mean", "rmae_var", "rmae_skew", "rmae_kurt"):
            model, floor = (by_hand(study, name, n_bins, metric) for name in ("MLP+Hist", "Observed Hist"))
            expected = statistics.fmean(model[fold] - floor[fold] for fold in floor)
            assert table.loc[("all", "MLP+Hist", n_bins), f"{metric}_excess"] == pytest.approx(expected, abs=1e-12)
            assert table.loc[("all", "Observed Hist", n_bins), f"{metric}_excess"] == 0
    assert table.loc[("all", "Observed Hist", 15), "n_folds"] == 2
    assert not [name for name in table if name.endswith("_excess") and not name.startswith("rmae")]


def test_no_excess_without_the_observed_histogram(tables, tmp_path):
    table = table_of(tables(methods=("MLP+Hist", "Ctrl Hist")), tmp_path / "study")
    assert table["rmae_var_excess"].isna().all()
    assert table["rmae_var"].notna().all()


def test_named_targets_apart_from_the_rest(tables, tmp_path):
    study = tables()
    table = table_of(study, tmp_path / "study", ["STAT1", "JAK2"])
    named = {"STAT1", "JAK2", "MYC+STAT1"}  # a double with a named gene belongs to it
    for metric in METRICS:
        for targets, keep in {
            "all": lambda n: True,
            "apart": lambda n: n in named,
            "rest": lambda n: n not in named,
        }.items():
            assert same(table.loc[(targets, "MLP+Hist", 5), metric], by_hand(study, "MLP+Hist", 5, metric, keep))
    assert list(table.loc[("rest", "MLP+Hist", 5), ["n_folds", "n_perturbations"]]) == [3, 4]
    only = table_of(tables(), tmp_path / "only", ["JAK2"]).loc[("apart", "MLP+Hist", 5)]
    assert list(only[["n_folds", "n_perturbations"]]) == [1, 1]
    assert only["nll"] == study.find(method="MLP+Hist", n_bins=5, perturbation="JAK2")[0]["nll"]
    assert math.isnan(only["nll_sd"])


@pytest.mark.parametrize(
    ("apart", "message"),
    [(["STAT1", "IFNGR9"], "named IFNGR9"), (["STAT1", "IRF1", "CUL3", "JAK2", "BRD4", "SMAD4"], "cover every")],
)
def test_names_that_cannot_be_set_apart(tables, tmp_path, apart, message):
    with pytest.raises(InputError, match=message):
        table_of(tables(), tmp_path / "study", apart)


def test_a_screen_in_two_folders_is_told_apart(tables, tmp_path):
    first = tables("norman").write(tmp_path / "first" / "bin_sweep")
    second = tables("norman").write(tmp_path / "second" / "bin_sweep")
    third = tables("rpe1").write(tmp_path / "third")
    labels = set(read_sweeps([first, second, third, first]).rows["screen"])
    assert labels == {"norman (first/bin_sweep)", "norman (second/bin_sweep)", "rpe1"}
    assert set(read_sweeps([first, third]).rows["screen"]) == {"norman", "rpe1"}


def test_several_trials_for_one_point_are_refused(tables, tmp_path):
    study = tables()
    study.trials = [{**trial, "seed": 1} for trial in study.trials]
    study.trials.append({**study.trials[0], "trial_id": "again", "seed": 2})
    study.rows += [{**row, "trial_id": "again"} for row in study.find(trial_id="MLP+Hist-5-0")]
    with pytest.raises(InputError, match=r"2 trials of MLP\+Hist with 5 bins in fold 0 of simulated .*: seed\)"):
        read_sweeps([study.write(tmp_path / "study")])


@pytest.mark.parametrize("part", ["other numbers", "no rows"])
def test_tables_of_different_runs_are_refused(tables, tmp_path, part):
    study = tables()
    if part == "other numbers":
        study.trials[0]["rmae_skew"] = 0.5
    else:
        study.rows = [row for row in study.rows if row["trial_id"] != "MLP+Hist-5-0"]
    with pytest.raises(InputError, match=r"disagree on 1 of 24 trials \(first: MLP\+Hist-5-0\)"):
        read_sweeps([study.write(tmp_path / "study")])


def test_trials_without_bins_are_refused(tables, tmp_path):
    study = tables()
    for row in (*study.trials, *study.rows):
        row["n_bins"] = None if row["method"] == "Ctrl Hist" else row["n_bins"]
    with pytest.raises(InputError, match="Ctrl Hist without a number of bins"):
        read_sweeps([study.write(tmp_path / "study")])
