"""The paper's numbers that are shipped, against what stands in its text."""

import tomllib
from pathlib import Path

import pytest

from analysis import published
from analysis.published import published_table, published_weights

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("number", "screen", "method", "metric", "value"),
    [
        (1, "K562", "Ctrl Hist", "nll", -0.379),
        (1, "RPE1", "MLP+Hist", "rmae_kurt", 0.633),
        (1, "K562", "ZITG", "train_minutes", 24.52),
        (2, "K562", "GP", "pearson_top100", 0.706),
        (2, "RPE1", "GEARS", "rmae_mean", 0.955),
        (3, "RPE1", "TG", "peak_memory_mb", 28970),
        (3, "K562", "MLP+Hist", "n_parameters", 80552696),
    ],
)
def test_values_are_those_printed(number, screen, method, metric, value):
    rows = published_table(number).set_index(["screen", "method", "metric"])
    assert rows.loc[(screen, method, metric), "value"] == value


def test_each_table_is_whole_and_holds_nothing_twice():
    sizes = [len(published_table(number)) for number in (1, 2, 3)]
    assert sizes == [56, 36, 28]
    for number in (1, 2, 3):
        assert not published_table(number).duplicated(["screen", "method", "metric"]).any()
    assert published_table(2)["spread"].notna().all()
    assert published_table(1)["spread"].isna().all()


def test_weights_add_to_one_and_two_of_the_grid_are_not_printed():
    printed = published_weights()
    grid = {(i / 4, j / 4, (4 - i - j) / 4) for i in range(5) for j in range(5 - i)}
    assert set(printed.index) == grid - {(0, 0, 1), (0.5, 0.25, 0.25)}
    assert printed.iloc[[0, -1]].tolist() == [0.628, 0.651]


def test_the_file_is_shipped():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    files = published._FILE, published._FILE_OF_PAIRS, published._FILE_OF_GENES
    assert {file.name for file in files} <= set(settings["package-data"]["analysis"])
    assert all(file.is_file() for file in files)
