"""The table and figure of loss weights: order, best, ties and the paper's values."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from analysis.loss_weights import draw_loss_weights, loss_weights_figure, main
from histpert.results import METRICS

WEIGHTS = ["weight_ce", "weight_wass", "weight_mse"]
TRIPLES = [(i / 4, j / 4, (4 - i - j) / 4) for i in range(5) for j in range(5 - i)]


def point(triple, method="MLP+Hist"):
    return {"method": method, **dict(zip(WEIGHTS, triple, strict=True))}


@pytest.fixture
def study(points):
    return points([point(triple) for triple in TRIPLES])


def drawn(study, folder):
    draw_loss_weights(study.write(folder), folder)
    table = pd.read_csv(folder / "tables" / "loss_weights.csv").set_index(WEIGHTS)
    trials, rows = (pd.read_parquet(folder / f"{name}.parquet") for name in ("trials", "perturbations"))
    return table, rows.merge(trials[["trial_id", *WEIGHTS]], on="trial_id")


def test_rows_are_in_the_papers_order_then_what_it_does_not_print(study, tmp_path):
    table, _ = drawn(study, tmp_path / "s")
    assert len(table) == 15
    printed = table["published_pearson_top20"].dropna()
    assert (len(printed), printed.is_monotonic_increasing) == (13, True)
    assert printed.loc[(0, 0.75, 0.25)] == 0.651
    assert table.index[-2:].tolist() == [(0.5, 0.25, 0.25), (0, 0, 1)]
    markdown = (tmp_path / "s" / "tables" / "loss_weights.md").read_text()
    assert [line.split(" | ")[:3] for line in markdown.splitlines() if line.endswith("not printed |")] == [
        ["| 0.5", "0.25", "0.25"],
        ["| 0", "0", "1"],
    ]


def test_means_best_and_ties_are_those_of_pandas_and_scipy(study, tmp_path):
    table, rows = drawn(study, tmp_path / "s")
    for metric, sign in {"pearson_top20": -1, "rmae_kurt": 1, "crps": 1}.items():
        folds = rows.groupby([*WEIGHTS, "fold"])[metric].mean().unstack("fold")
        pd.testing.assert_series_equal(table[metric].sort_index(), folds.mean(axis=1), check_names=False)
        best = (sign * folds.mean(axis=1)).idxmin()
        assert table.index[table[f"{metric}_best"]].tolist() == [best]
        wide = rows.pivot(index="perturbation", columns=WEIGHTS, values=metric)
        for triple in TRIPLES:
            if triple == best:
                continue
            over = ttest_rel(wide[triple], wide[best]).confidence_interval(0.95)
            over_folds = ttest_rel(folds.loc[triple], folds.loc[best]).confidence_interval(0.95)
            row = table.loc[triple]
            assert (row[f"{metric}_low"], row[f"{metric}_high"]) == pytest.approx((over.low, over.high))
            holds_zero = over.low <= 0 <= over.high or over_folds.low <= 0 <= over_folds.high
            assert row[f"{metric}_tie"] == holds_zero


def test_bold_and_dagger_are_the_best_and_its_ties(study, tmp_path):
    for row in study.rows:
        triple = TRIPLES[int(row["trial_id"].split("-")[0])]
        row["crps"] = row["crps"] + (0 if triple in ((0, 1, 0), (0, 0.75, 0.25)) else 0.5)
    table, _ = drawn(study, tmp_path / "s")
    lines = (tmp_path / "s" / "tables" / "loss_weights.md").read_text().splitlines()
    column = lines[0].split(" | ").index("CRPS ↓")
    cells = {tuple(map(float, line.strip("| ").split(" | ")[:3])): line.split(" | ")[column] for line in lines[2:17]}
    bold = [triple for triple, cell in cells.items() if cell.startswith("**")]
    ties = [triple for triple, cell in cells.items() if "\u2020" in cell]
    assert bold == table.index[table["crps_best"]].tolist()
    assert ties == table.index[table["crps_tie"]].tolist()
    assert set(bold) | set(ties) <= {(0, 1, 0), (0, 0.75, 0.25)}


def test_weights_that_were_not_tried_are_empty_rows(points, tmp_path):
    table, _ = drawn(points([point((1, 0, 0)), point((0, 0, 1))]), tmp_path / "s")
    assert len(table) == 14
    assert table.loc[(0, 0.5, 0.5), "n_folds"] == 0
    assert np.isnan(table.loc[(0, 0.5, 0.5), "crps"])
    assert not table.loc[(0, 0.5, 0.5), ["crps_best", "crps_tie"]].any()
    assert table["n_folds"].sum() == 8


def test_the_figure_prints_each_value_in_its_place(study, tmp_path):
    drawn(study, tmp_path / "s")
    table = pd.read_csv(tmp_path / "s" / "tables" / "loss_weights.csv")
    axes = next(axes for axes in loss_weights_figure(table).axes if axes.get_title().startswith("CRPS"))
    corners = {"cross-entropy": 0, "Wasserstein-1": 1, "squared error": 2}
    named = {text.get_text(): text.get_position() for text in axes.texts if text.get_text() in corners}
    assert named["cross-entropy"][1] > named["Wasserstein-1"][1]
    assert named["Wasserstein-1"][0] < named["squared error"][0]
    texts = {tuple(np.round(text.get_position(), 6)): text.get_text() for text in axes.texts}
    for row in table.to_dict("records"):
        x = row["weight_mse"] + row["weight_ce"] / 2  # left corner at 0, right corner at 1, top between them
        place = tuple(np.round([x, row["weight_ce"] * np.sqrt(0.75)], 6))
        assert texts[place] == f"{row['crps']:.3f}"
    (best,) = (patch for patch in axes.patches if patch.get_linewidth() > 1.5)
    weights = table.loc[table["crps_best"], WEIGHTS].to_numpy()[0]
    assert best.xy == pytest.approx((weights[2] + weights[0] / 2, weights[0] * np.sqrt(0.75)))
    assert len([patch for patch in axes.patches if patch.get_linewidth() == 1]) == table["crps_tie"].sum()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([point((1, 0, 0), "TG"), point((0, 1, 0), "TG")], r"no finished trial of MLP\+Hist"),
        ([point((1, 0, 0))], "all trials in .* have the loss weights 1, 0, 0"),
        ([point((1, 0, 0)), point((1, 0, 0)) | {"epochs": 5}, point((0, 1, 0))], r"differing in: epochs\)"),
    ],
)
def test_a_folder_of_another_study_is_one_line_and_status_2(points, tmp_path, capsys, made, message):
    folder = points(made).write(tmp_path / "s")
    assert main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert re.match(f"error: .*{message}", captured.err)
    assert captured.err.count("\n") == 1


def test_floors_in_the_folder_and_failed_trials_do_no_harm(points, tmp_path, capsys):
    study = points([*map(point, TRIPLES), {"method": "Ctrl Hist"}])
    study.drop(method="MLP+Hist", fold=2, weight_ce=1.0)
    table, _ = drawn(study, tmp_path / "s")
    assert table.loc[(1, 0, 0), "n_folds"] == 3
    assert table["n_folds"].max() == 4
    assert "1 of 60 trials did not finish" in capsys.readouterr().out
    assert set(METRICS) <= set(table)
