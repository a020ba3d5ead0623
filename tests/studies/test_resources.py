"""What training costs, beside what the device can do."""

import json

import pandas as pd
import pytest
import torch

from analysis.resources import with_floor
from studies.device_rates import bytes_per_second, operations_per_second
from studies.resources import Resources, main


def test_the_table_counts_what_a_step_of_each_method_needs(tmp_path, capsys):
    options = Resources(out=tmp_path, folds=3, methods=("MLP+Mean", "MLP+Hist"), bins=(5,), smoke=True, threads=1)
    assert main(options).status == 0
    said = capsys.readouterr().out
    folder = tmp_path / "resources"
    assert f"table: {folder}/tables/resources.md" in said
    table = pd.read_csv(folder / "tables" / "resources.csv").set_index("method")
    assert list(table.index) == ["MLP+Mean", "MLP+Hist"]
    before = 64 * 128 + 128 * 64 + 3 * (128 + 64)
    for method, n_outputs in (("MLP+Mean", 200), ("MLP+Hist", 1000)):
        row = table.loc[method]
        assert row["n_parameters"] == before + 65 * n_outputs
        # Of the output layer's weights only, 7 passes; of its biases and all before, 10; and four of a batch's outputs.
        assert row["bytes_per_step"] == 4 * (7 * 64 * n_outputs + 10 * (before + n_outputs) + 4 * 32 * n_outputs)
        assert row["operations_per_step"] == 6 * 32 * (before + 65 * n_outputs)
        assert row["seconds_per_fold"] == pytest.approx(500 * 2 / row["steps_per_second"])  # 60 perturbations: 2 steps
        assert row["ratio"] > 1
        assert row["peak_memory_mb"] > 50
    assert table.loc["MLP+Hist", "published_K562_seconds"] == pytest.approx(593.4)
    record = json.loads((folder / "study.json").read_text())
    assert record["rates"]["device"] == "CPU, 1 threads"


def test_the_floor_is_the_longer_of_bytes_and_operations():
    row = {"method": "TG", "bytes_per_step": 2e9, "bytes_per_second": 1e10, "operations_per_step": 1e9}
    measured = pd.DataFrame([row | {"operations_per_second": rate, "steps_per_second": 4.0} for rate in (1e10, 2e9)])
    table = with_floor(measured)
    assert table["floor_ms"].tolist() == pytest.approx([200.0, 500.0])
    assert table["ratio"].tolist() == pytest.approx([1.25, 0.5])
    assert table["published_RPE1_seconds"].tolist() == pytest.approx([41.16 * 60] * 2)


def test_rates_are_of_a_machine_of_these_days():
    cpu = torch.device("cpu")
    assert 1e8 < bytes_per_second(cpu) < 1e13
    assert 1e8 < operations_per_second(cpu) < 1e14
