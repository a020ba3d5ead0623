"""Tables of gene dependency from rows made by hand: means and errors over fits, intervals over what is held out."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from analysis.dependency import SCORES, differences, draw_dependency, main, summarize_dependency
from analysis.tables import DASH, TIE
from histpert.errors import InputError
from histpert.results import DEPENDENCY_SCHEMA, write_table

OURS = {"rmse": 0.18, "mae": 0.12, "r2": 0.88, "r_within_gene": 0.3}


def rows_of(sources, splits=("lines", "genes"), n_fits=3, n_replicates=40):
    """Rows of sources that are better by what is given; what a sample adds is the same for all of them."""
    rows = []
    for split in splits:
        for source, better in sources.items():
            for seed in range(1 if source == "Per-gene mean" else n_fits):
                fit = 0.0001 * np.random.default_rng([seed, len(source)]).normal() * (source != "Per-gene mean")
                for replicate in range(n_replicates + 1):
                    drawn = 0.02 * np.random.default_rng(replicate).normal() * (replicate > 0)
                    shift = better * (1 + 5 * drawn) + fit
                    scores = {
                        name: OURS[name] + drawn + (1 if high else -1) * shift for name, (_, high) in SCORES.items()
                    }
                    if source == "Per-gene mean":
                        scores["r_within_gene"] = 0.0
                    key = {"source": source, "split": split, "seed": seed, "replicate": replicate}
                    sizes = {"n_train": 1000, "n_test": 100, "n_trees": 300, "n_genes_constant": 0}
                    rows.append({**key, **sizes, **scores})
    return rows


SOURCES = {"PerturBERT": 0.004, "scGPT": 0.00395, "Random": 0.001, "one-hot": 0.001, "Per-gene mean": -0.01}


def written(folder, rows, statuses=("ok",)):
    folder.mkdir()
    write_table(folder / "scores.parquet", rows, DEPENDENCY_SCHEMA)
    pd.DataFrame({"status": list(statuses)}).to_parquet(folder / "trials.parquet")
    return folder


def test_means_and_standard_errors_are_over_fits_of_the_held_out_rows_themselves():
    rows = rows_of(SOURCES)
    table = summarize_dependency(pd.DataFrame(rows)).set_index(["split", "source"])
    own = [row["r2"] for row in rows if (row["source"], row["split"], row["replicate"]) == ("scGPT", "genes", 0)]
    assert table.loc[("genes", "scGPT"), "r2"] == pytest.approx(np.mean(own))
    assert table.loc[("genes", "scGPT"), "r2_se"] == pytest.approx(np.std(own, ddof=1) / np.sqrt(3))
    assert table.loc[("lines", "scGPT"), "n_fits"] == 3
    assert np.isnan(table.loc[("lines", "Per-gene mean"), "r2_se"])


def test_intervals_are_quantiles_of_differences_in_the_same_samples():
    rows = pd.DataFrame(rows_of(SOURCES))
    found = differences(rows).set_index(["split", "against", "kind", "source", "score"])
    of = {
        name: rows[(rows["source"] == name) & (rows["split"] == "lines")].groupby("replicate")["rmse"].mean()
        for name in ("scGPT", "one-hot")
    }
    gap = (of["scGPT"] - of["one-hot"]).to_numpy()
    row = found.loc[("lines", "one-hot", "floor", "scGPT", "rmse")]
    assert row["difference"] == pytest.approx(gap[0])
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(gap[1:], [0.025, 0.975]))
    assert row["high"] - row["low"] < np.ptp(of["scGPT"]) / 5  # what samples share is not in it
    assert found.loc[("lines", "PerturBERT", "best", "scGPT", "rmse"), "difference"] > 0


def cells_of(path, start):
    lines = path.read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_marks_the_best_by_fits_and_ties_by_what_is_held_out(tmp_path):
    rows = rows_of({**SOURCES, "close": 0.0037})
    for row in rows:  # far from the best in each fit, and on either side of it in samples
        if row["source"] == "close" and row["replicate"]:
            for name in SCORES:
                row[name] += 0.01 * (-1) ** row["replicate"]
    draw_dependency(written(tmp_path / "s", rows), tmp_path / "s")
    table = tmp_path / "s" / "tables" / "dependency.md"
    assert cells_of(table, "PerturBERT")[1].startswith("**0.1760 ± 0.000")
    assert all(cell.startswith("**") for cell in cells_of(table, "scGPT")[1:5])
    assert all(cell.endswith(TIE) and not cell.startswith("**") for cell in cells_of(table, "close")[1:5])
    assert not any(TIE in cell or "*" in cell for cell in cells_of(table, "one-hot"))
    assert cells_of(table, "Per-gene mean")[1:] == ["0.1900", "0.1300", "0.8700", "0.0000", DASH]


def test_the_printed_table_of_the_paper_stands_beside(tmp_path):
    draw_dependency(written(tmp_path / "s", rows_of({"mine": 0.0, "Per-gene mean": -0.01})), tmp_path / "s")
    found = cells_of(tmp_path / "s" / "tables" / "dependency.md", "GenePT")
    assert found == ["GenePT", "0.186387 ± 0.000051", "0.126280 ± 0.000024", "0.879049 ± 0.000066"]


def test_floors_are_subtracted_row_by_row(tmp_path):
    paths = draw_dependency(written(tmp_path / "s", rows_of(SOURCES), ("ok", "failed")), tmp_path / "out")
    assert sorted(path.name for path in paths if path.suffix in (".csv", ".png")) == [
        "dependency.csv",
        "dependency.png",
        "dependency_floors.csv",
    ]
    table = (tmp_path / "out" / "tables" / "dependency_floors.md").read_text(encoding="utf-8")
    assert "1 of 2 fits failed" in table
    firsts = [line.split("|")[1:4] for line in table.splitlines() if line.startswith(("| lines", "| genes"))]
    groups = [tuple(cell.strip() for cell in first[:2]) for first in firsts]
    assert [one for one, other in pairwise([*groups, ("", "")]) if one != other] == [
        ("lines", "Per-gene mean"),
        ("lines", "one-hot"),
        ("genes", "Per-gene mean"),
        ("genes", "one-hot"),
    ]


def test_it_is_drawn_again_from_the_command_line(tmp_path, capsys):
    folder = written(tmp_path / "s", rows_of(SOURCES, splits=("lines",), n_fits=1))
    assert main([str(folder)]) == 0
    assert str(folder / "figures" / "dependency.png") in capsys.readouterr().out
    (folder / "scores.parquet").unlink()
    assert main([str(folder)]) == 2
    assert "scores.parquet is missing" in capsys.readouterr().err


def test_tables_of_another_study_are_refused(tmp_path):
    folder = written(tmp_path / "s", rows_of(SOURCES))
    pd.DataFrame({"fold": [1]}).to_parquet(folder / "scores.parquet")
    with pytest.raises(InputError, match=r"has no column source, .*: give a study of dependency"):
        draw_dependency(folder, folder)
    write_table(folder / "scores.parquet", [], DEPENDENCY_SCHEMA)
    with pytest.raises(InputError, match="has no rows: run the study, or wait"):
        draw_dependency(folder, folder)
