"""Sources of embeddings against random ones, from tables made by hand."""

import pandas as pd
import pytest
from scipy.stats import ttest_rel

from analysis.embedding_sources import draw_embedding_sources, main


def points_of():
    return [
        {"method": method, "variant": source} for method in ("MLP+Hist", "GP") for source in ("GO", "PerturBERT", "")
    ]


def test_each_source_is_held_against_random_embeddings(points, tmp_path):
    study = points(points_of())
    for row in study.find(method="MLP+Hist", variant="GO"):
        row["crps"] -= 0.3
    folder = study.write(tmp_path / "s")
    paths = draw_embedding_sources(folder, folder)
    assert {path.suffix for path in paths} == {".csv", ".md", ".tex", ".png", ".svg"}
    table = pd.read_csv(folder / "tables" / "embedding_sources.csv").set_index(["method", "source"])
    assert set(table.loc["GP"].index) == {"Random", "GO", "PerturBERT"}
    rows = pd.read_parquet(folder / "perturbations.parquet").fillna({"variant": ""})
    wide = rows[rows["method"] == "MLP+Hist"].pivot(index="perturbation", columns="variant", values="crps")
    expected = ttest_rel(wide["GO"], wide[""]).confidence_interval(0.95)
    found = table.loc[("MLP+Hist", "GO")]
    assert found[["crps_low", "crps_high"]].tolist() == pytest.approx([expected.low, expected.high])
    assert found["crps_verdict"] == "better"
    text = (folder / "tables" / "embedding_sources.md").read_text()
    assert "| MLP+Hist | Random |" in text
    assert "Embeddings" in text.splitlines()[0]


def test_it_is_drawn_again_from_the_command_line(points, tmp_path, capsys):
    folder = points(points_of()).write(tmp_path / "s")
    assert main([str(folder), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "figures" / "embedding_sources.png").stat().st_size > 10_000
    only = points([{"method": "GP"}]).write(tmp_path / "t")
    assert main([str(only)]) == 2
    assert "no trial in" in capsys.readouterr().err
