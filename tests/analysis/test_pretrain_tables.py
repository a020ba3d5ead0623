"""The table and the curves of trainings of PerturBERT."""

import pandas as pd
import pytest

from analysis.pretrain import draw_pretrain, main, summarize_pretrain
from analysis.tables import DASH
from histpert.results import PRETRAINING_SCHEMA, write_table


def rows(folds=(-1,), n_epochs=3) -> list[dict]:
    found = []
    for fold in folds:
        for epoch in range(n_epochs):
            last = {"test_loss": 1.2, "test_accuracy": 0.6, "test_marginal_loss": 1.6} if epoch == n_epochs - 1 else {}
            known = {
                "marginal_loss": 2.0,
                "marginal_accuracy": 0.5,
                "n_training": 100,
                "n_genes": 20,
                "n_parameters": 999,
            }
            losses = {
                "training_loss": 2.0 - 0.1 * epoch,
                "validation_loss": 2.1 - 0.2 * epoch,
                "validation_accuracy": 0.55,
            }
            times = {"seconds": 2.0, "tokens_per_second": 1_000.0}
            found.append({"fold": fold, "epoch": epoch, **known, **losses, **times, **last})
    return found


def test_the_last_epoch_is_set_beside_marginal_frequencies():
    table = summarize_pretrain(pd.DataFrame(rows((0, 1))))
    assert table["fold"].tolist() == [0, 1]
    assert table["validation_gain"].tolist() == pytest.approx([1 - 1.7 / 2.0] * 2)
    assert table["test_gain"].tolist() == pytest.approx([1 - 1.2 / 1.6] * 2)
    assert table["train_seconds"].tolist() == [6.0, 6.0]


def test_table_and_figure_are_drawn(tmp_path, capsys):
    write_table(tmp_path / "scores.parquet", rows(), PRETRAINING_SCHEMA)
    paths = draw_pretrain(tmp_path, tmp_path)
    assert {path.name for path in paths} == {f"pretraining.{kind}" for kind in ("png", "svg", "csv", "md", "tex")}
    line = (tmp_path / "tables" / "pretraining.md").read_text().splitlines()[2]
    assert line.startswith(
        f"| {DASH} | 100 | 20 | 999 | 1.7000 | 2.0000 | 15.0% | 1.2000 | 25.0% | 0.550 | 0.500 | 6 |"
    )
    assert main([str(tmp_path), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "figures" / "pretraining.png").read_bytes() == (
        tmp_path / "figures" / "pretraining.png"
    ).read_bytes()


def test_a_folder_without_a_training_is_one_line(tmp_path, capsys):
    write_table(tmp_path / "scores.parquet", [], PRETRAINING_SCHEMA)
    assert main([str(tmp_path)]) == 2
    assert "holds no training that has ended" in capsys.readouterr().err
