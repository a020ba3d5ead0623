"""What a page answers, against scipy on the rows themselves."""

import re

import pandas as pd
import pytest
from report_pages import record
from scipy.stats import ttest_rel

from analysis.report_bins import bin_sweep
from analysis.report_studies import QUESTIONS
from histpert.results import DEPENDENCY_SCHEMA, PRETRAINING_SCHEMA, PROPERTY_SCHEMA, write_table

GAP = re.compile(r"difference (\S+), 95% interval (\S+) to (\S+?), (\d+) ")


def gaps(sentence) -> list[list[float]]:
    """Every difference of a sentence, its interval and its number of values."""
    return [[float(part.replace("\u2212", "-")) for part in found] for found in GAP.findall(sentence)]


def answer(name, folder, **more) -> list[str]:
    return QUESTIONS[name].answer(folder, record(name, **more))


def wide(folder, metric, point, **fixed) -> pd.DataFrame:
    """A row per perturbation, a column per point."""
    rows = pd.read_parquet(folder / "perturbations.parquet").fillna({"variant": ""})
    trials = pd.read_parquet(folder / "trials.parquet")
    rows = rows.merge(trials[["trial_id", "weight_ce", "weight_wass", "weight_mse"]], on="trial_id")
    for name, value in fixed.items():
        rows = rows[rows[name] == value]
    return rows.pivot(index=["fold", "perturbation"], columns=point, values=metric)


def agrees(found, one, other):
    """Whether a sentence's difference is that of scipy, to the digits it shows."""
    expected = ttest_rel(one, other).confidence_interval(0.95)
    assert found == pytest.approx([(one - other).mean(), expected.low, expected.high, len(one)], rel=0.01, abs=6e-6)


def swept(points, folder, worse=()):
    study = points([{"method": name, "n_bins": n} for name in ("MLP+Hist", "Ctrl Hist") for n in (5, 10, 15)])
    for row in study.rows:
        row["crps"] += 0.3 * (row["n_bins"] in worse) + 0.2 * (row["method"] == "Ctrl Hist")
    return study.write(folder)


def test_bins_are_enough_from_which_the_best_is_not_told_apart(points, tmp_path):
    folder = swept(points, tmp_path / "s", worse=(5,))
    said = bin_sweep(folder, {})
    values = wide(folder, "crps", "n_bins", method="MLP+Hist")
    best = values.groupby("fold").mean().mean().idxmin()
    if best == 15:
        assert said[0].startswith("10 bins are enough for MLP+Hist")
        agrees(gaps(said[0])[0], values[10], values[15])
    else:
        assert said[0].startswith("MLP+Hist needs 10 bins: its CRPS, ")
        agrees(gaps(said[0])[0], values[5], values[10])
    floor = wide(folder, "crps", "n_bins", method="Ctrl Hist")
    assert said[1].startswith("With 10 bins the CRPS of MLP+Hist is better than the floor, Ctrl Hist")
    agrees(gaps(said[1])[0], values[10], floor[10])


def test_where_the_most_bins_are_needed_more_may_be_better(points, tmp_path):
    folder = swept(points, tmp_path / "s", worse=(5, 10))
    said = bin_sweep(folder, {})
    assert said[0].startswith("MLP+Hist needs 15 bins, the most that were tried")
    assert said[1] == "No more than 15 bins were tried: more may be better still."
    values = wide(folder, "crps", "n_bins", method="MLP+Hist")
    agrees(gaps(said[0])[0], values[10], values[15])


def test_the_fewest_bins_may_be_enough_and_one_fold_does_not_tell(points, tmp_path):
    folder = swept(points, tmp_path / "s", worse=(10, 15))
    assert bin_sweep(folder, {})[0].startswith("5 bins, the fewest tried, are enough for MLP+Hist")
    one = points([{"method": "MLP+Hist", "n_bins": n, "folds": {0: ("A", "B")}} for n in (5, 15)])
    assert "whether fewer are enough takes two folds" in bin_sweep(one.write(tmp_path / "one"), {})[0]


@pytest.mark.parametrize("moved", [-0.2, 0.2])
def test_the_best_method_is_held_against_mlp_hist(points, tmp_path, moved):
    study = points([{"method": name} for name in ("MLP+Hist", "TG", "GP", "Non-Ctrl Hist", "Observed Hist")])
    for row in study.find(method="TG"):
        row["crps"] += moved
    for row in study.find(method="Non-Ctrl Hist"):
        row["crps"] += 0.5
    folder = study.write(tmp_path / "s")
    said = answer("methods", folder)
    values = wide(folder, "crps", "method")
    best = "TG" if moved < 0 else "MLP+Hist"
    assert said[0].startswith(f"By CRPS, {best} is best ({values[best].groupby('fold').mean().mean():.3f})")
    agrees(gaps(said[0])[0], values["TG"], values["MLP+Hist"])
    assert ("better than MLP+Hist" if moved < 0 else "next is TG, worse") in said[0]
    assert any(one.startswith("By RMAE mean, ") for one in said)


def test_the_best_loss_weights_are_held_against_the_default(points, tmp_path):
    triples = [(0.0, 0.75, 0.25), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
    names = ("weight_ce", "weight_wass", "weight_mse")
    study = points([{"method": "MLP+Hist", **dict(zip(names, triple, strict=True))} for triple in triples])
    for row in study.rows:
        row["crps"] -= 0.3 * row["trial_id"].startswith("1-")
    folder = study.write(tmp_path / "s")
    said = answer("loss_weights", folder)
    assert said[0].startswith("Cross-entropy 1, Wasserstein-1 0, squared error 0 has the lowest CRPS")
    assert "the default, cross-entropy 0, Wasserstein-1 0.75, squared error 0.25, is worse" in said[0]
    values = wide(folder, "crps", list(names))
    agrees(gaps(said[0])[0], values[triples[0]], values[triples[1]])


def test_choices_and_sources_are_held_against_their_default(points, tmp_path):
    study = points([{"method": "MLP+Hist"}, *({"method": "MLP+Hist", "variant": name} for name in ("GO", "poor"))])
    for row in study.find(variant="GO"):
        row["crps"] -= 0.3
    folder = study.write(tmp_path / "s")
    values = wide(folder, "crps", "variant")
    choices, sources = answer("open_choices", folder), answer("embedding_sources", folder)
    assert choices[0] == "1 of 2 choices change the CRPS of MLP+Hist: GO."
    assert choices[1].startswith("GO is better than the default (")
    assert choices[2] == "Ties with the default: poor."
    assert sources[0].startswith("With MLP+Hist, GO has the lowest CRPS of all sources")
    for sentence in (choices[1], sources[0]):
        agrees(gaps(sentence)[0], values["GO"], values[""])


def test_a_tie_over_folds_says_so(points, tmp_path):
    study = points([{"method": "MLP+Hist", "folds": {0: ("A", "B", "C"), 1: ("D", "E", "F")}}])
    study.rows += [{**row, "variant": "x", "trial_id": f"x{row['fold']}"} for row in study.rows]
    study.trials += [{**trial, "variant": "x", "trial_id": f"x{trial['fold']}"} for trial in study.trials]
    for place, row in enumerate(study.find(variant="x")):
        row["crps"] += 0.2 + 0.01 * place + 0.15 * row["fold"]
    said = " ".join(answer("embedding_sources", study.write(tmp_path / "s")))
    assert "a tie with Random vectors" in said
    assert "the interval over folds holds 0)" in said


def test_trainings_are_held_against_marginal_frequencies(tmp_path):
    rows = [
        {"fold": fold, "epoch": 0, "test_loss": 1.2 + 0.1 * fold, "test_marginal_loss": 1.6, "seconds": 1.0}
        for fold in range(3)
    ]
    write_table(tmp_path / "scores.parquet", rows, PRETRAINING_SCHEMA)
    said = answer("pretrain", tmp_path)
    assert "is 1.300 nats, 18.8% less" in said[0]
    expected = ttest_rel([1.2, 1.3, 1.4], [1.6] * 3).confidence_interval(0.95)
    assert gaps(said[0])[0] == pytest.approx([-0.3, expected.low, expected.high, 3], abs=0.001)


def test_sources_are_held_against_random_embeddings_task_by_task(tmp_path):
    areas = {"GO": [0.9, 0.8, 0.7], "Random": [0.5, 0.6, 0.4]}
    rows = [
        {"source": source, "task": "CCD", "form": "", "split": "", "fold": fold, "roc_auc": area}
        for source, of in areas.items()
        for fold, area in enumerate(of)
    ]
    write_table(tmp_path / "scores.parquet", rows, PROPERTY_SCHEMA)
    said = answer("gene_properties", tmp_path)
    assert len(said) == 1
    assert said[0].startswith("GO tells more than Random in 1 of 1 tasks, most in CCD")
    expected = ttest_rel(areas["GO"], areas["Random"]).confidence_interval(0.95)
    assert gaps(said[0])[0] == pytest.approx([0.3, expected.low, expected.high, 3], abs=0.001)


def test_the_best_source_is_held_against_the_mean_of_each_gene(tmp_path):
    rows = [
        {
            "source": source,
            "split": "lines",
            "seed": 0,
            "replicate": replicate,
            "rmse": rmse + 0.001 * replicate * slope,
        }
        for source, rmse, slope in (("GO", 0.1, 2), ("Random", 0.15, 0), ("Per-gene mean", 0.2, 0))
        for replicate in range(41)
    ]
    write_table(tmp_path / "scores.parquet", rows, DEPENDENCY_SCHEMA)
    pd.DataFrame({"status": ["ok"]}).to_parquet(tmp_path / "trials.parquet")
    said = answer("dependency", tmp_path)
    assert said[0].startswith("Of held-out lines, GO has the lowest RMSE (0.100), held against the per-gene mean")
    drawn = pd.Series([0.002 * replicate - 0.1 for replicate in range(1, 41)])
    assert gaps(said[0])[0] == pytest.approx([-0.1, *drawn.quantile([0.025, 0.975]), 40], abs=0.0006)
