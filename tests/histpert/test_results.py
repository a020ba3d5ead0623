"""Result tables: what is written is read again, and a write that fails leaves what was there."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histpert.errors import InputError
from histpert.results import (
    METRICS,
    PERTURBATION_SCHEMA,
    TRIAL_SCHEMA,
    read_table,
    write_atomically,
    write_json,
    write_table,
)

DOCUMENTED = Path(__file__).parents[2] / "docs" / "metrics.md"

TRIALS = [
    {"trial_id": "a1", "method": "MLP+Hist", "n_bins": 15, "hidden": [128, 64], "fold": 0, "status": "ok", "w1": 0.25},
    {"trial_id": "b2", "method": "Ctrl Hist", "n_bins": 5, "fold": 1, "status": "failed", "error": "line 1\nline µ"},
]


def test_every_metric_is_a_column_of_both_tables_with_a_line_that_says_what_it_means_and_a_place_in_the_docs():
    rows = [line.split("|") for line in DOCUMENTED.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    better = {name.strip(" `"): row[4].strip() for row in rows for name in row[1].split(",")}
    assert list(better) == list(METRICS)
    for name, metric in METRICS.items():
        assert name in TRIAL_SCHEMA.names
        assert name in PERTURBATION_SCHEMA.names
        assert metric.label
        assert len(metric.meaning.splitlines()) == 1
        if metric.target is None:
            assert better[name] == ("higher" if metric.higher_is_better else "lower")
        else:
            assert str(metric.target) in better[name].removeprefix("near ").split(", ")
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)


def test_rows_are_read_as_they_were_written(tmp_path):
    write_table(tmp_path / "trials.parquet", TRIALS, TRIAL_SCHEMA)
    table = read_table(tmp_path / "trials.parquet")
    assert table.schema.equals(TRIAL_SCHEMA)
    rows = table.to_pylist()
    for row, trial in zip(rows, TRIALS, strict=True):
        assert {name: value for name, value in row.items() if value is not None} == trial
    assert [path.name for path in tmp_path.iterdir()] == ["trials.parquet"]


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    write_table(tmp_path / "perturbations.parquet", [], PERTURBATION_SCHEMA)
    table = read_table(tmp_path / "perturbations.parquet")
    assert table.num_rows == 0
    assert table.schema.equals(PERTURBATION_SCHEMA)


def test_rows_from_a_generator_are_all_written(tmp_path):
    rows = ({"trial_id": str(number), "n_cells": number} for number in range(5))
    write_table(tmp_path / "perturbations.parquet", rows, PERTURBATION_SCHEMA)
    assert read_table(tmp_path / "perturbations.parquet")["n_cells"].to_pylist() == [0, 1, 2, 3, 4]


def test_a_number_that_is_not_defined_is_null_in_the_table(tmp_path):
    rows = [{"trial_id": "a1", "pearson_top20": math.nan}, {"trial_id": "b2", "pearson_top20": 0.5}]
    write_table(tmp_path / "perturbations.parquet", rows, PERTURBATION_SCHEMA)
    column = read_table(tmp_path / "perturbations.parquet")["pearson_top20"]
    assert column.to_pylist() == [None, 0.5]


def test_a_number_that_is_not_defined_is_null_on_the_way_through_json_to_a_table(tmp_path):
    rows = [{"trial_id": "a1", "pearson_top20": float("nan")}, {"trial_id": "b2", "pearson_top20": 0.5}]
    write_json(tmp_path / "entry.json", rows)
    write_table(
        tmp_path / "perturbations.parquet", json.loads((tmp_path / "entry.json").read_text()), PERTURBATION_SCHEMA
    )
    assert read_table(tmp_path / "perturbations.parquet")["pearson_top20"].to_pylist() == [None, 0.5]


def test_a_column_that_the_schema_lacks_is_refused_and_the_old_table_stays(tmp_path):
    path = tmp_path / "trials.parquet"
    write_table(path, TRIALS, TRIAL_SCHEMA)
    with pytest.raises(KeyError, match="peerson"):
        write_table(path, [{"trial_id": "c3", "peerson": 0.1}], TRIAL_SCHEMA)
    assert read_table(path)["trial_id"].to_pylist() == ["a1", "b2"]


def test_a_value_of_another_type_is_refused_and_the_old_table_stays(tmp_path):
    path = tmp_path / "trials.parquet"
    write_table(path, TRIALS, TRIAL_SCHEMA)
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        write_table(path, [{"trial_id": "c3", "n_bins": "fifteen"}], TRIAL_SCHEMA)
    assert read_table(path)["trial_id"].to_pylist() == ["a1", "b2"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_writer_that_raises_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "study.json"
    path.write_text("old")

    def write_half(beside):
        beside.write_text("ne")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write_half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "study.json"
    path.write_text("old")

    def write(beside):
        beside.write_text("new")
        assert path.read_text() == "old"
        assert beside.parent == path.parent

    write_atomically(path, write)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "study.json"

    def write_with_another_in_between(beside):
        beside.write_text("outer")
        write_atomically(path, lambda inner: inner.write_text("inner"))
        assert path.read_text() == "inner"
        assert beside.read_text() == "outer"

    write_atomically(path, write_with_another_in_between)
    assert path.read_text() == "outer"


def test_a_table_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"trials\.parquet is missing"):
        read_table(tmp_path / "trials.parquet")


def overwritten(content, place, length):
    return content[:place] + bytes(255 - byte for byte in content[place : place + length]) + content[place + length :]


DAMAGES = {
    "empty": lambda content: b"",
    "text": lambda content: b"trial_id,method\n",
    "truncated": lambda content: content[: len(content) // 2],
    "data damaged": lambda content: overwritten(content, 4, 400),
    "footer damaged": lambda content: overwritten(content, len(content) - 1000, 400),
    "footer length damaged": lambda content: overwritten(content, len(content) - 8, 4),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_table_that_is_damaged_is_named_in_one_line(tmp_path, damage):
    path = tmp_path / "trials.parquet"
    write_table(path, TRIALS, TRIAL_SCHEMA)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(InputError, match=r"trials\.parquet cannot be read") as failure:
        read_table(path)
    assert len(str(failure.value).splitlines()) == 1


def test_nan_is_null_in_json_however_deep_it_lies(tmp_path):
    content = {"a": math.nan, "b": [1.5, (np.float64("nan"), "µ")], "c": {"d": {"e": math.nan}}, "f": True}
    write_json(tmp_path / "study.json", content)
    text = (tmp_path / "study.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": None, "b": [1.5, [None, "µ"]], "c": {"d": {"e": None}}, "f": True}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None)
@given(content=plain)
def test_any_plain_content_is_read_as_it_was_written(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("json") / "study.json"
    write_json(path, content)
    assert json.loads(path.read_text(encoding="utf-8")) == content


def test_content_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "study.json"
    write_json(path, {"seed": 1})
    with pytest.raises(TypeError):
        write_json(path, {"seed": {2, 3}})
    assert json.loads(path.read_text()) == {"seed": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_in_settings_is_its_text(tmp_path):
    write_json(tmp_path / "x.json", {"settings": {"folds_file": tmp_path / "folds.csv"}})
    assert json.loads((tmp_path / "x.json").read_text()) == {"settings": {"folds_file": str(tmp_path / "folds.csv")}}
