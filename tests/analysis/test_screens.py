"""Two screens beside each other: what is drawn and printed are the distributions in the tables."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from analysis.screens import comparison_figure, comparison_table, draw_comparison, main
from histpert.errors import InputError
from histpert.results import SCREEN_SCHEMAS, write_table

ROOT = Path(__file__).parents[2]
PLACES = {
    "Fraction of zeros": ("genes", "zeros"),
    "Mean": ("genes", "mean"),
    "Variance / mean": ("genes", "ratio"),
    "Skewness": ("genes", "skewness"),
    "Excess kurtosis": ("genes", "kurtosis"),
    "Gene-gene correlation": ("gene_pairs", "correlation"),
    "Cells per perturbation": ("perturbations", "n_cells"),
    "Significant genes": ("perturbations", "n_significant"),
    "Size of the shift": ("perturbations", "shift"),
}
"""Where each line of the table comes from."""


def rows_of(screen, seed, n_genes=60, n_perturbations=14):
    """Numbers that differ between all columns and screens, with ties, NaN and genes that are never seen."""
    random = np.random.default_rng(seed)
    genes, perturbations, pairs = [], [], []
    for number in range(n_genes):
        seen = number % 10 > 0
        mean = float(random.gamma(2, 0.3 + 0.1 * seed)) * seen
        shape = random.normal(size=2) if seen and number % 7 else (None, None)
        genes.append(
            {
                "screen": screen,
                "gene": f"g{number}",
                "zeros": float(random.integers(40)) / 40 if seen else 1.0,
                "mean": mean,
                "variance": mean * float(random.uniform(0.5, 1.5)),
                "skewness": shape[0] if shape[0] is None else 2 + float(shape[0]),
                "kurtosis": shape[1] if shape[1] is None else 30 + seed + 9 * float(shape[1]),
            }
        )
    for number in range(n_perturbations):
        n_cells, shift = int(random.integers(20, 60 + 20 * seed)), float(random.exponential(0.1))
        row = {"screen": screen, "perturbation": f"p{number}", "n_cells": n_cells, "shift": shift if number else None}
        perturbations.append(row | {"n_significant": int(random.poisson(2))})
    for number in range(80):
        names = {"gene_a": f"g{number % 9}", "gene_b": f"g{10 + number % 13}"}
        pairs.append({"screen": screen, **names, "correlation": float(random.normal(0.1 * seed, 0.1))})
    return {"genes": genes, "perturbations": perturbations, "gene_pairs": pairs}


def written(folder, *screens):
    folder.mkdir(exist_ok=True)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in SCREEN_SCHEMAS}
    for rows in screens:
        for name in tables:
            tables[name] += rows[name]
    for name, schema in SCREEN_SCHEMAS.items():
        write_table(folder / f"{name}.parquet", tables[name], schema)
    return folder


@pytest.fixture(scope="module")
def both():
    return rows_of("measured", 1), rows_of("simulated", 2, n_genes=45, n_perturbations=11)


@pytest.fixture
def folder(both, tmp_path):
    return written(tmp_path / "study", *both)


def values_of(rows, table, column):
    """By plain loops: every defined value, of seen genes only."""
    if table == "genes":
        seen = [row for row in rows["genes"] if row["mean"] > 0]
        found = [row["variance"] / row["mean"] if column == "ratio" else row[column] for row in seen]
    else:
        found = [row[column] for row in rows[table]]
    return [value for value in found if value is not None]


def read_csv(folder) -> Any:
    return pd.read_csv(folder / "tables" / "screens.csv", float_precision="round_trip").set_index("statistic")


def test_the_hand_made_tables_have_what_must_be_left_out(both):
    for rows in both:
        assert 0 < len(values_of(rows, "genes", "zeros")) < len(rows["genes"])
        assert 0 < len(values_of(rows, "genes", "skewness")) < len(values_of(rows, "genes", "zeros"))
        assert len(values_of(rows, "perturbations", "shift")) == len(rows["perturbations"]) - 1


def test_the_csv_holds_every_distance_and_quantile_in_full(both, folder):
    draw_comparison(folder)
    table = read_csv(folder)
    assert list(table.index) == list(PLACES)
    for label, place in PLACES.items():
        row, samples = table.loc[label], [values_of(rows, *place) for rows in both]
        assert row["distance"] == pytest.approx(scipy.stats.ks_2samp(*samples).statistic, abs=1e-12), label
        for number, (screen, values) in enumerate(zip(("measured", "simulated"), samples, strict=True), start=1):
            assert (row[f"screen_{number}"], row[f"n_{number}"]) == (screen, len(values))
            for percent in (5, 25, 50, 75, 95):
                assert row[f"q{percent:02}_{number}"] == pytest.approx(np.percentile(values, percent), rel=1e-12)


def test_distances_of_equal_and_of_disjoint_screens_are_0_and_1(tmp_path):
    first = rows_of("first", 1)
    again = {name: [row | {"screen": "again"} for row in rows] for name, rows in first.items()}
    draw_comparison(written(tmp_path / "same", first, again))
    assert (read_csv(tmp_path / "same")["distance"] == 0).all()
    for row in again["genes"]:
        row["zeros"] += 2
    for row in again["perturbations"]:
        row["n_cells"] += 1000
    draw_comparison(written(tmp_path / "other", first, again))
    distances = read_csv(tmp_path / "other")["distance"]
    assert list(distances[distances == 1].index) == ["Fraction of zeros", "Cells per perturbation"]
    assert distances[distances != 1].eq(0).all()


def test_the_tables_to_read_show_medians_ranges_and_distances_of_the_csv(folder):
    draw_comparison(folder)
    table = read_csv(folder)
    lines = (folder / "tables" / "screens.md").read_text().splitlines()
    printed = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ") and "---" not in line]
    assert printed[0] == ["Statistic", "measured", "simulated", "Distance"]
    assert [row[0] for row in printed[1:]] == list(PLACES)
    for label, *cells, distance in printed[1:]:
        assert float(distance) == pytest.approx(table.loc[label, "distance"], abs=0.005 + 1e-9)
        for number, cell in enumerate(cells, start=1):
            numbers = re.fullmatch(r"(\S+) \((\S+) to (\S+)\)", cell)
            assert numbers, cell
            expected = [table.loc[label, f"q{percent}_{number}"] for percent in ("50", "05", "95")]
            assert [float(one) for one in numbers.groups()] == pytest.approx(expected, rel=0.006)


def test_latex_has_a_line_per_statistic_and_escapes_the_names_of_screens(tmp_path, both):
    first, second = both
    odd = {name: [row | {"screen": "papalexi_2021 & 50%"} for row in rows] for name, rows in second.items()}
    draw_comparison(written(tmp_path / "study", first, odd))
    latex = (tmp_path / "study" / "tables" / "screens.tex").read_text()
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(PLACES)
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {4}
    assert r"\begin{tabular}{lccc}" in latex
    assert r"papalexi\_2021 \& 50\%" in rows[0]


def test_files_and_returned_paths(folder):
    before = {path for path in folder.rglob("*") if path.is_file()}
    paths = draw_comparison(folder)
    figures = {folder / "figures" / f"screens.{kind}" for kind in ("png", "svg")}
    assert set(paths) == figures | {folder / "tables" / f"screens.{kind}" for kind in ("csv", "md", "tex")}
    assert {path for path in folder.rglob("*") if path.is_file()} == set(paths) | before  # nothing left beside
    png, svg, *_ = paths
    assert png.read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")


def test_drawing_again_gives_the_same_bytes(folder):
    first = {path.name: path.read_bytes() for path in draw_comparison(folder)}
    second = {path.name: path.read_bytes() for path in draw_comparison(folder)}
    assert first == second


def frames(both):
    tables = {name: pd.concat([pd.DataFrame(rows[name]) for rows in both]) for name in SCREEN_SCHEMAS}
    genes = tables["genes"].astype({"skewness": float, "kurtosis": float})
    genes = genes[genes["mean"] > 0]
    return tables | {"genes": genes.assign(ratio=genes["variance"] / genes["mean"])}


def test_a_screen_without_values_has_no_distance(both):
    tables = frames(both)
    pairs = tables["gene_pairs"]
    table: Any = comparison_table(
        tables | {"gene_pairs": pairs[pairs["screen"] == "measured"]}, ["measured", "simulated"]
    )
    row = table.set_index("statistic").loc["Gene-gene correlation"]
    assert (row["n_1"], row["n_2"]) == (80, 0)
    assert np.isnan([row["distance"], row["q50_2"]]).all()
    assert row["q50_1"] == pytest.approx(np.median(values_of(both[0], "gene_pairs", "correlation")))
    assert table["distance"].notna().sum() == len(PLACES) - 1


def test_a_screen_without_values_is_drawn(both, tmp_path):
    """Where fewer than two genes are seen often enough there is no correlation, which is no reason to draw nothing."""
    first, second = both
    draw_comparison(written(tmp_path / "study", first, second | {"gene_pairs": []}))
    assert read_csv(tmp_path / "study").loc["Gene-gene correlation", "n_2"] == 0
    assert (tmp_path / "study" / "figures" / "screens.png").is_file()


def drawn(line):
    """Points of a curve, without those that are not drawn."""
    x, y = (np.asarray(data, dtype=float) for data in line.get_data())
    return x[~np.isnan(y)], y[~np.isnan(y)]


def shows_cumulative(line, values):
    (x, y), expected = drawn(line), scipy.stats.ecdf(values).cdf
    if not np.array_equal(np.unique(x), expected.quantiles):
        return False
    return np.allclose([y[x <= value].max() for value in expected.quantiles], expected.probabilities)


def shows_points(line, points):
    return np.array_equal(np.column_stack(drawn(line)), points)


def panels_where(figure, shows, samples):
    """How many panels have a curve for each screen that shows its sample, in the order of the screens."""
    lines = [axes.lines for axes in figure.axes]
    return sum(len(curves) == 2 and all(map(shows, curves, samples)) for curves in lines)


def test_panels_draw_the_distributions_of_both_screens(both):
    figure = comparison_figure(frames(both), ["measured", "simulated"])
    assert len(figure.axes) == 8
    for place in PLACES.values():
        if place[1] in ("zeros", "correlation", "n_cells", "n_significant", "shift"):
            assert panels_where(figure, shows_cumulative, [values_of(rows, *place) for rows in both]) == 1, place
    for column in ("variance", "skewness", "kurtosis"):
        points = [
            [[row["mean"], row[column]] for row in rows["genes"] if row["mean"] > 0 and row[column] is not None]
            for rows in both
        ]
        assert panels_where(figure, shows_points, points) == 1, column


def test_the_screens_can_be_told_apart_without_colour_and_are_named_once(both):
    figure = comparison_figure(frames(both), ["measured", "simulated"])
    for axes in figure.axes:
        looks = {(line.get_marker(), line.get_linestyle()) for line in axes.lines}
        assert len(looks) == 2, axes.get_title()
    (key,) = figure.legends
    assert [text.get_text() for text in key.get_texts()] == ["measured", "simulated"]
    assert len({(line.get_marker(), line.get_linestyle()) for line in key.get_lines()}) == 2


@pytest.mark.parametrize(("n_screens", "message"), [(0, "holds 0 screens"), (1, "holds 1 screens"), (3, "holds 3")])
def test_any_other_number_of_screens_is_refused(tmp_path, n_screens, message):
    study = written(tmp_path / "study", *(rows_of(f"screen {number}", number) for number in range(n_screens)))
    with pytest.raises(InputError, match=message):
        draw_comparison(study)
    assert not (study / "tables").exists()


def without(name):
    return lambda folder: (folder / f"{name}.parquet").unlink()


def not_parquet(folder):
    (folder / "gene_pairs.parquet").write_text("text")


def another_table(folder):
    pd.DataFrame({"x": [1]}).to_parquet(folder / "genes.parquet")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        *((without(name), f"{name}.parquet is missing") for name in SCREEN_SCHEMAS),
        (not_parquet, "gene_pairs.parquet cannot be read as parquet"),
        (another_table, "genes.parquet"),
    ],
)
def test_unusable_tables_are_one_line_and_status_2(folder, spoil, message, capsys):
    spoil(folder)
    assert main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert "trials.parquet" not in captured.err  # that table belongs to another study
    assert captured.err.count("\n") == 1
    assert not (folder / "figures").exists()


def test_a_folder_that_cannot_be_written(folder, capsys):
    (folder / "figures").write_text("not a folder")
    assert main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: cannot write into {folder} (")
    assert captured.err.count("\n") == 1


def test_the_command_line_redraws_and_needs_neither_torch_nor_ray(folder):
    code = (
        "import sys; from analysis.screens import main; status = main(sys.argv[1:]);"
        "print('loaded', {'torch', 'ray', 'anndata', 'studies', 'matplotlib.pyplot'} & set(sys.modules));"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *written_paths, loaded = done.stdout.splitlines()
    assert loaded == "loaded set()"
    assert len(written_paths) == 5
    assert all(Path(path).stat().st_size > 0 for path in written_paths)


def test_as_a_module_it_exits_with_its_status(folder, tmp_path):
    def run(where):
        command = [sys.executable, "-m", "analysis.screens", where]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert str(folder / "tables" / "screens.csv") in done.stdout.splitlines()
    done = run(tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert str(tmp_path / "nowhere") in done.stderr
    assert len(done.stderr.splitlines()) == 1
