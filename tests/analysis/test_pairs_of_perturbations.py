"""The table of held-out pairs: methods on all folds, and what lacks a part beside the whole on the same ones."""

import pandas as pd
import pytest

from analysis.combinations import SUBJECT, WHOLE, draw_combinations


def table_of(study, folder):
    draw_combinations(study.write(folder), folder)
    rows = pd.read_parquet(folder / "perturbations.parquet")
    return pd.read_csv(folder / "tables" / "combinations.csv").set_index("point"), rows


def test_a_part_left_out_in_fewer_folds_stands_beside_the_whole_on_those(points, tmp_path):
    lacking = {"method": SUBJECT, "variant": "without prior", "folds": {2: ("G6", "G7", "G8")}}
    table, rows = table_of(points([{"method": "Additive"}, {"method": SUBJECT}, lacking]), tmp_path / "s")
    assert list(table.index) == ["Additive", SUBJECT, WHOLE, f"{SUBJECT}, without prior"]
    own = rows[(rows["method"] == SUBJECT) & rows["variant"].isin(["", None])]
    assert table.loc[SUBJECT, "l2"] == pytest.approx(own.groupby("fold")["l2"].mean().mean())
    assert table.loc[WHOLE, "l2"] == pytest.approx(own.loc[own["fold"] == 2, "l2"].mean())
    assert table.loc[[WHOLE, f"{SUBJECT}, without prior"], "l2_n"].tolist() == [3, 3]


def test_on_the_same_folds_nothing_is_shown_twice(points, tmp_path):
    lacking = {"method": SUBJECT, "variant": "without prior"}
    table, _ = table_of(points([{"method": SUBJECT}, lacking]), tmp_path / "s")
    assert list(table.index) == [SUBJECT, f"{SUBJECT}, without prior"]
