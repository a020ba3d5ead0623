"""The table of named choices: each variant against the default of its method."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from analysis.choices import draw_choices, main

OTHER_FOLDS = {0: ("G0", "G3", "G6"), 1: ("G1", "G4", "G7"), 2: ("G2", "G5", "G8"), 3: ("G9", "G10", "G11")}


def points_of():
    """Made anew for each study, which takes them apart."""
    return [
        {"method": "MLP+Hist"},
        {"method": "MLP+Hist", "variant": "output scale 1"},
        {"method": "MLP+Hist", "variant": "35 bins", "n_bins": 35},
        {"method": "MLP+Hist", "variant": "cluster-held-out folds", "folds": OTHER_FOLDS},
        {"method": "Non-Ctrl Mean", "variant": ""},
        {"method": "Non-Ctrl Mean", "variant": "cluster-held-out folds", "folds": OTHER_FOLDS},
    ]


def drawn(study, folder):
    draw_choices(study.write(folder), folder)
    table = pd.read_csv(folder / "tables" / "open_choices.csv").set_index(["method", "variant"])
    rows = pd.read_parquet(folder / "perturbations.parquet").fillna({"variant": ""})
    return table, rows.assign(variant=rows["variant"].replace("", "default"))


def test_rows_are_floors_first_and_the_default_before_its_variants(points, tmp_path):
    table, _ = drawn(points(points_of()), tmp_path / "s")
    assert table.index.tolist() == [
        ("Non-Ctrl Mean", "default"),
        ("Non-Ctrl Mean", "cluster-held-out folds"),
        ("MLP+Hist", "default"),
        ("MLP+Hist", "output scale 1"),
        ("MLP+Hist", "35 bins"),
        ("MLP+Hist", "cluster-held-out folds"),
    ]


def test_differences_are_those_of_scipy(points, tmp_path):
    study = points(points_of())
    for row in study.find(variant="output scale 1"):
        row["rmae_var"] += 0.2
    study.find(variant="output scale 1", perturbation="G3")[0]["crps"] = None
    table, rows = drawn(study, tmp_path / "s")
    for metric in ("rmae_var", "crps", "pearson_top20", "nll"):
        wide = rows[rows["method"] == "MLP+Hist"].pivot(index="perturbation", columns="variant", values=metric)
        wide = wide.dropna()
        for variant in ("output scale 1", "cluster-held-out folds"):
            found = table.loc[("MLP+Hist", variant)]
            expected = ttest_rel(wide[variant], wide["default"]).confidence_interval(0.95)
            bounds = found[[f"{metric}_low", f"{metric}_high"]].tolist()
            assert bounds == pytest.approx([expected.low, expected.high])
            assert found[f"{metric}_compared"] == len(wide)
    assert table.loc[("MLP+Hist", "output scale 1"), "rmae_var_verdict"] == "worse"
    assert len(wide) == 12
    assert table.loc[("MLP+Hist", "output scale 1"), "crps_compared"] == 11
    assert " worse |" in (tmp_path / "s" / "tables" / "open_choices.md").read_text()


def test_other_folds_are_compared_by_perturbation_without_a_verdict(points, tmp_path):
    table, _ = drawn(points(points_of()), tmp_path / "s")
    row = table.loc[("MLP+Hist", "cluster-held-out folds")]
    assert row["crps_compared"] == 12
    assert np.isinf(row[["crps_fold_low", "crps_fold_high"]].astype(float)).all()
    assert pd.isna(row["crps_verdict"])


def test_nll_is_not_compared_across_numbers_of_bins(points, tmp_path):
    table, _ = drawn(points(points_of()), tmp_path / "s")
    assert np.isnan(table.loc[("MLP+Hist", "35 bins"), "nll_difference"])
    assert table.loc[("MLP+Hist", "35 bins"), "crps_compared"] == 12
    assert table.loc[("MLP+Hist", "35 bins"), "n_bins"] == 35


def test_the_default_shows_its_values_and_methods_of_means_show_dashes(points, tmp_path):
    table, rows = drawn(points(points_of()), tmp_path / "s")
    folds = rows[(rows["method"] == "MLP+Hist") & (rows["variant"] == "default")].groupby("fold")["rmae_mean"].mean()
    lines = (tmp_path / "s" / "tables" / "open_choices.md").read_text().splitlines()
    column = lines[0].split(" | ").index("RMAE mean ↓")
    cells = {tuple(line.strip("| ").split(" | ")[:2]): line.split(" | ") for line in lines[2:8]}
    assert cells["MLP+Hist", "default"][column] == f"{folds.mean():.3f} ± {folds.std():.3f}"
    assert cells["Non-Ctrl Mean", "cluster-held-out folds"][column + 1] == "\u2013"
    assert table.loc[("MLP+Hist", "default"), "rmae_mean"] == pytest.approx(folds.mean())


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([{"method": "MLP+Hist"}], "no trial in .* has a variant"),
        ([{"method": "TG", "variant": "a"}, {"method": "MLP+Hist"}], "no finished default run of TG"),
        (
            [{"method": "TG"}, {"method": "TG", "variant": "a"}, {"method": "TG", "variant": "a", "dropout": 0.5}],
            r"differing in: dropout\)",
        ),
    ],
)
def test_a_folder_of_another_study_is_one_line_and_status_2(points, tmp_path, capsys, made, message):
    folder = points(made).write(tmp_path / "s")
    assert main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert re.match(f"error: .*{message}", captured.err)
    assert captured.err.count("\n") == 1
    assert not (folder / "tables").exists()
