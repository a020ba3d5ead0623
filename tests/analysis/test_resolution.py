"""Files of a bin sweep: what is drawn and printed is what the table says."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from analysis.resolution import FIGURES, draw_resolution, main, resolution_figure
from histpert.results import METRICS, TRIAL_SCHEMA, write_table

ROOT = Path(__file__).parents[2]


def lines_of(figure) -> Any:
    """Per panel, the drawn curves by label."""
    return [{line.get_label(): line for line in axes.lines if line.get_label()[0] != "_"} for axes in figure.axes]


def test_files_and_returned_paths(tables, tmp_path):
    study = tables().write(tmp_path / "study")
    paths = draw_resolution([study], tmp_path / "out", ["STAT1"])
    stems = [f"{name}{suffix}" for suffix in ("", "_apart", "_rest") for name in FIGURES]
    figures = {tmp_path / "out" / "figures" / f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert set(paths) == figures | {tmp_path / "out" / "tables" / f"resolution.{kind}" for kind in ("csv", "md", "tex")}
    assert {path for path in (tmp_path / "out").rglob("*") if path.is_file()} == set(paths)  # nothing left beside
    for path in figures:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_drawing_again_gives_the_same_bytes(tables, tmp_path):
    study = tables().write(tmp_path / "study")
    first = {path.name: path.read_bytes() for path in draw_resolution([study], tmp_path / "first")}
    second = {path.name: path.read_bytes() for path in draw_resolution([study], tmp_path / "second")}
    assert first == second


@pytest.mark.parametrize("screens", [["norman"], ["norman", "k562", "rpe1"]])
@pytest.mark.parametrize("name", FIGURES)
def test_lines_equal_the_table(tables, tmp_path, screens, name):
    studies = [tables(s, bins=(5, 10, 15 + i)).write(tmp_path / s) for i, s in enumerate(screens)]
    draw_resolution(studies, tmp_path / "out")
    table: Any = pd.read_csv(tmp_path / "out" / "tables" / "resolution.csv")
    panels = lines_of(resolution_figure(table, "all", FIGURES[name]))
    assert len(panels) == len(FIGURES[name])
    for metric, lines in zip(FIGURES[name], panels, strict=True):
        drawn = table.dropna(subset=[metric]).groupby(["screen", "method"])
        assert set(lines) == {f"{screen}, {method}" for screen, method in drawn.groups}
        for (screen, method), points in drawn:
            line = lines[f"{screen}, {method}"]
            np.testing.assert_array_equal(line.get_xdata(), points["n_bins"])
            np.testing.assert_array_equal(line.get_ydata(), points[metric])


def test_bands_are_the_standard_deviation_of_methods_only(tables, tmp_path):
    draw_resolution([tables().write(tmp_path / "study")], tmp_path)
    table = pd.read_csv(tmp_path / "tables" / "resolution.csv")
    axes = resolution_figure(table, "all", ["rmae_var"]).axes[0]
    (band,) = axes.collections
    rows = table[table["method"] == "MLP+Hist"]
    corners: Any = band.get_paths()[0].vertices
    for n_bins, mean, sd in rows[["n_bins", "rmae_var", "rmae_var_sd"]].to_numpy():
        heights = corners[corners[:, 0] == n_bins][:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((mean - sd, mean + sd))


def test_styles_can_be_told_apart_without_colour(tables, tmp_path):
    other = ("MLP+Hist", "TG", "ZITG", "Ctrl Hist", "Non-Ctrl Hist", "Observed Hist")
    frame = pd.DataFrame(
        {
            "screen": s,
            "method": m,
            "targets": "all",
            "n_bins": b,
            **dict.fromkeys(METRICS, 1.0),
            "nll": 0.0,
            "rmae_var_sd": 0.1,
        }
        for s in ("norman", "k562", "rpe1")
        for m in other
        for b in (5, 15)
    )
    for table in (frame, frame[frame["screen"] == "norman"]):
        (lines,) = lines_of(resolution_figure(table, "all", ["rmae_var"]))
        looks = {(line.get_marker(), str(line._unscaled_dash_pattern), line.get_linewidth()) for line in lines.values()}
        assert len(looks) == len(lines) == table.groupby(["screen", "method"]).ngroups


def test_one_bin_count_and_one_fold_have_a_tick_and_no_band(tables, tmp_path):
    study = tables(bins=(15,), held_out={0: ("STAT1", "IRF1")}).write(tmp_path / "study")
    draw_resolution([study], tmp_path)
    axes = resolution_figure(pd.read_csv(tmp_path / "tables" / "resolution.csv"), "all", ["rmae_var"]).axes[0]
    assert list(axes.get_xticks()) == [15]
    assert not axes.collections
    assert len(axes.lines) == 4


def test_ticks_are_the_bin_counts_of_all_screens(tables, tmp_path):
    studies = [
        tables("norman", bins=(5, 10)).write(tmp_path / "n"),
        tables("rpe1", bins=(10, 35)).write(tmp_path / "r"),
    ]
    draw_resolution(studies, tmp_path)
    figure = resolution_figure(pd.read_csv(tmp_path / "tables" / "resolution.csv"), "all", FIGURES["rmae_by_bins"])
    assert [list(axes.get_xticks()) for axes in figure.axes] == [[5, 10, 35]] * 4


def test_markdown_marks_the_best_predictive_method(tables, tmp_path):
    study = tables(bins=(15,), held_out={0: ("STAT1",), 1: ("IRF1",)})
    numbers = {
        "MLP+Hist": (0.5, 0.6),
        "Ctrl Hist": (0.7, None),
        "Non-Ctrl Hist": (0.6, 0.8),
        "Observed Hist": (0.1, 0.99),
    }
    for row in study.rows:
        shift = 0.01 * (row["fold"] or -1)
        row["rmae_mean"], row["pearson_top20"] = (x if x is None else x + shift for x in numbers[row["method"]])
    draw_resolution([study.write(tmp_path / "study")], tmp_path)
    lines = (tmp_path / "tables" / "resolution.md").read_text().splitlines()
    cells = {line.split(" | ")[1]: line.strip("| ").split(" | ") for line in lines if line.startswith("| 15 ")}
    header = next(line for line in lines if line.startswith("| Bins")).strip("| ").split(" | ")
    mean, pearson = header.index("RMAE mean"), header.index("Pearson 20")
    assert {name: row[mean] for name, row in cells.items()} == {
        "MLP+Hist": "**0.500 ± 0.014**",
        "Ctrl Hist": "0.700 ± 0.014",
        "Non-Ctrl Hist": "0.600 ± 0.014",
        "Observed Hist": "0.100 ± 0.014",
    }
    assert [row[pearson] for row in cells.values()] == ["0.600 ± 0.014", "\u2013", "**0.800 ± 0.014**", "0.990 ± 0.014"]


def test_captions_warn_of_nll_and_count_failed_trials(tables, tmp_path, capsys):
    study = tables("norman_2019 & 50%")
    study.fail("MLP+Hist", 5, 1)
    draw_resolution([study.write(tmp_path / "study")], tmp_path)
    assert "1 of 24 trials did not finish" in capsys.readouterr().out
    markdown = (tmp_path / "tables" / "resolution.md").read_text()
    latex = (tmp_path / "tables" / "resolution.tex").read_text()
    for text in (markdown, latex):
        assert "1 of 24 trials did not finish" in text
        assert "NLL depends on the number of bins and must not be compared" in text
    assert r"norman\_2019 \& 50\%" in latex
    assert "±" not in latex


def test_latex_is_balanced_and_has_as_many_cells_as_columns(tables, tmp_path):
    draw_resolution([tables(r"a_b{c}\d~^#$").write(tmp_path / "study")], tmp_path, ["STAT1"])
    latex = (tmp_path / "tables" / "resolution.tex").read_text()
    assert latex.count(r"\begin{table*}") == latex.count(r"\end{table*}") == 3
    bare = re.sub(r"\\[{}]", "", latex)
    assert bare.count("{") == bare.count("}")
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3 * (1 + 8)
    assert {row.count(" & ") + 1 for row in rows} == {len("rlcccccccc")}
    assert r"a\_b\{c\}\textbackslash{}d\textasciitilde{}\textasciicircum{}\#\$" in latex


def test_redrawing_in_a_fresh_process_needs_neither_torch_nor_ray(tables, tmp_path):
    study = tables().write(tmp_path / "study")
    code = (
        "import sys; from analysis.resolution import main; status = main(sys.argv[1:]);"
        "print('loaded', {'torch', 'ray', 'studies', 'matplotlib.pyplot'} & set(sys.modules)); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, study], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded set()"
    assert (study / "figures" / "rmae_by_bins.svg").is_file()  # the first folder is the default


def none_finished(folder, tables):
    study = tables(bins=(5,), held_out={0: ("STAT1",)}, methods=("MLP+Hist",))
    study.fail("MLP+Hist", 5, 0)
    study.rows = tables(bins=(5,)).rows
    study.write(folder)


def without_rows(folder, tables):
    tables().write(folder)
    write_table(folder / "trials.parquet", [], TRIAL_SCHEMA)


def without_perturbations(folder, tables):
    (tables().write(folder) / "perturbations.parquet").unlink()


def another_table(folder, tables):
    tables().write(folder)
    pd.DataFrame({"x": [1]}).to_parquet(folder / "trials.parquet")


def not_parquet(folder, tables):
    (tables().write(folder) / "trials.parquet").write_text("text")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder, tables: None, "trials.parquet is missing"),
        (without_perturbations, "perturbations.parquet is missing"),
        (without_rows, "trials.parquet has no rows"),
        (none_finished, "none of the 1 trials"),
        (another_table, "has no column trial_id"),
        (not_parquet, "cannot be read as parquet"),
    ],
)
def test_unusable_tables_are_one_line_and_status_2(tables, tmp_path, make, message, capsys):
    make(tmp_path / "study", tables)
    assert main([str(tmp_path / "study"), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_command_line_names_an_unknown_target(tables, tmp_path):
    study = tables().write(tmp_path / "study")
    command = [sys.executable, "-m", "analysis.resolution", study, "--apart", "STAT1", "IFNGR9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: no perturbation in the tables is named IFNGR9: check the names to set apart\n"


def test_an_output_folder_that_cannot_be_written(tables, tmp_path, capsys):
    study = tables().write(tmp_path / "study")
    (tmp_path / "file").write_text("")
    assert main([str(study), "--out", str(tmp_path / "file")]) == 2
    assert "cannot write into" in capsys.readouterr().err
