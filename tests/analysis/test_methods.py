"""Tables and figures that compare methods: numbers against pandas and SciPy, and what a reader is told."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel, wilcoxon
from statsmodels.stats.multitest import multipletests

from analysis import methods_figures
from analysis.averages import fold_means
from analysis.methods import draw_methods, main, read_methods
from analysis.methods_figures import calibration_figure, methods_figure
from analysis.methods_paired import COMPARED
from analysis.methods_tables import method_rank
from histpert.results import METRICS

ROOT = Path(__file__).parents[2]
METHODS = (
    *("Ctrl Hist", "Non-Ctrl Hist", "TG", "ZITG", "MLP+Hist", "Neighbors Hist", "Non-Ctrl Mean", "MLP+Mean"),
    *("Ridge", "GP", "Neighbors Mean", "Observed Hist", "Ceiling"),
)
ORDER = [
    *("Ctrl Hist", "Non-Ctrl Hist", "Non-Ctrl Mean", "GEARS", "GP", "Ridge", "Neighbors Mean", "MLP+Mean"),
    *("Neighbors Hist", "TG", "ZITG", "MLP+Hist", "Observed Hist", "Ceiling"),
]


def study_of(points):
    """Twelve methods; Ctrl Hist has no correlation, the ceiling is undefined for one perturbation."""
    made = points([{"method": method} for method in METHODS])
    for row in made.find(method="Ctrl Hist"):
        row |= {metric: None for metric in METRICS if metric.startswith("pearson")}
    made.find(method="Ceiling", perturbation="G4")[0].update(dict.fromkeys(METRICS))
    return made


@pytest.fixture
def study(points):
    """To be changed at will."""
    return study_of(points)


@pytest.fixture(scope="module")
def whole(points, tmp_path_factory):
    """The study as it is, drawn with two targets apart: its folder, csv files and rows."""
    folder = tmp_path_factory.mktemp("whole") / "s"
    return folder, *drawn(study_of(points), folder, ["G1", "G5"])


def of_all(csv):
    """Rows of all targets, without those set apart."""
    return {name: table[table["targets"] == "all"] for name, table in csv.items()}


def drawn(study, folder, apart=()):
    """The csv files by name, and the rows of `perturbations.parquet`."""
    study.write(folder)
    draw_methods(folder, folder, apart)
    csv: dict[str, Any] = {path.stem: pd.read_csv(path) for path in (folder / "tables").glob("*.csv")}
    return csv, pd.read_parquet(folder / "perturbations.parquet")


def test_means_and_deviations_are_over_folds(whole):
    _, csv, rows = whole
    csv = of_all(csv)
    for name in ("methods_distributions", "methods_means"):
        table = csv[name].set_index("method")
        for method in set(table.index) & set(METHODS):
            for metric in set(table) & set(METRICS):
                folds = rows[rows["method"] == method].groupby("fold")[metric].mean()
                assert table.loc[method, metric] == pytest.approx(folds.mean(), nan_ok=True)
                assert table.loc[method, f"{metric}_sd"] == pytest.approx(folds.std(), nan_ok=True)


def test_rows_are_the_papers_then_ours_in_one_order(whole):
    _, csv, _ = whole
    csv = of_all(csv)
    assert csv["methods_means"]["method"].tolist() == ORDER
    assert csv["methods_means"]["kind"].tolist() == ["floor"] * 3 + ["method"] * 9 + ["reference"] * 2
    of_distributions = [name for name in ORDER if not name.endswith("Mean") and name not in ("GEARS", "GP", "Ridge")]
    assert csv["methods_distributions"]["method"].tolist() == of_distributions
    assert not {"Observed Hist", "Ceiling"} & set(csv["methods_resources"]["method"])
    assert method_rank("ZITG") < method_rank("a method of tomorrow") < method_rank("MLP+Hist")


def test_what_was_not_run_is_an_empty_row_beside_the_papers(whole):
    folder, csv, _ = whole
    csv = of_all(csv)
    gears = csv["methods_means"].set_index("method").loc["GEARS"]
    assert gears["n_folds"] == 0
    assert np.isnan(gears["pearson_top20"])
    assert (gears["published_K562_pearson_top20"], gears["published_RPE1_rmae_mean"]) == (0.472, 0.955)
    lines = (folder / "tables" / "methods_means.md").read_text().splitlines()
    header = next(line for line in lines if line.startswith("| Method"))
    row = next(line for line in lines if line.startswith("| GEARS")).strip("| ").split(" | ")
    assert row[1] == "\u2013"
    assert row[header.strip("| ").split(" | ").index("Pearson 20 ↑ (published, other data: K562)")] == "0.472 ± 0.03"
    subject = csv["methods_resources"].set_index("method").loc["MLP+Hist"]
    assert (subject["published_K562_n_parameters"], subject["published_RPE1_train_minutes"]) == (80552696, 14.93)


def test_costs_are_per_fold(whole):
    _, csv, _ = whole
    costs = csv["methods_resources"].set_index("method")
    assert set(costs["targets"]) == {"all"}
    row = costs.loc["TG"]
    minutes = np.array([60, 66, 72, 78]) / 60
    assert (row["train_minutes"], row["train_minutes_sd"]) == pytest.approx((minutes.mean(), minutes.std(ddof=1)))
    assert (row["peak_memory_mb"], row["n_parameters"]) == (1001.5, 12345)
    assert of_all(csv)["methods_distributions"].set_index("method").loc[["Observed Hist"], "train_minutes"].isna().all()


def test_all_methods_share_perturbations_and_the_ceiling_has_no_say(study, tmp_path):
    study.find(method="Ridge", perturbation="G7")[0]["rmae_mean"] = None
    csv, rows = drawn(study, tmp_path / "s")
    table = csv["methods_means"].set_index("method")
    kept = rows[(rows["perturbation"] != "G7") & (rows["method"] == "MLP+Hist")]
    assert table.loc["MLP+Hist", "rmae_mean"] == pytest.approx(kept.groupby("fold")["rmae_mean"].mean().mean())
    assert table.loc[["MLP+Hist", "Ridge", "Ctrl Hist"], "rmae_mean_n"].tolist() == [11, 11, 11]
    assert table.loc["Ceiling", "rmae_mean_n"] == 10
    assert table.loc["MLP+Hist", "pearson_top20_n"] == 12


def test_every_comparison_is_that_of_scipy(study, tmp_path):
    for row in study.find(method="TG"):
        row["crps"] += 0.2
    csv, rows = drawn(study, tmp_path / "s")
    for metric in COMPARED:
        pairs = csv["methods_paired"].query("metric == @metric").set_index("method")
        wide = rows.pivot(index=["fold", "perturbation"], columns="method", values=metric)
        raw = {}
        for method in pairs.index:
            both = wide[[method, "MLP+Hist"]].dropna()
            if both.empty:
                assert pairs.loc[method, "n"] == 0
                continue
            found = pairs.loc[method]
            over = ttest_rel(both[method], both["MLP+Hist"]).confidence_interval(0.95)
            folds = both.groupby("fold").mean()
            over_folds = ttest_rel(folds[method], folds["MLP+Hist"]).confidence_interval(0.95)
            assert (found["low"], found["high"]) == pytest.approx((over.low, over.high))
            assert (found["fold_low"], found["fold_high"]) == pytest.approx((over_folds.low, over_folds.high))
            assert found["difference"] == pytest.approx((both[method] - both["MLP+Hist"]).mean())
            assert found["p"] == pytest.approx(wilcoxon(both[method], both["MLP+Hist"]).pvalue)
            if found["kind"] != "reference":
                raw[method] = found["p"]
        corrected = multipletests(list(raw.values()), method="holm")[1]
        assert pairs.loc[list(raw), "p_holm"].to_numpy() == pytest.approx(corrected)
        assert pairs.loc[["Observed Hist", "Ceiling"], "p_holm"].isna().all()
    crps = csv["methods_paired"].query("metric == 'crps'").set_index("method")["verdict"]
    assert crps["TG"] == "worse"
    assert pd.isna(crps["GP"])


def test_targets_set_apart_are_in_every_table_and_figure(whole):
    folder, csv, rows = whole
    apart = rows[rows["perturbation"].isin(["G1", "G5"]) & (rows["method"] == "ZITG")]
    rest = rows[~rows["perturbation"].isin(["G1", "G5"]) & (rows["method"] == "ZITG")]
    table = csv["methods_distributions"].set_index(["targets", "method"])
    assert table.loc[("apart", "ZITG"), "crps"] == pytest.approx(apart.groupby("fold")["crps"].mean().mean())
    assert table.loc[("rest", "ZITG"), "crps"] == pytest.approx(rest.groupby("fold")["crps"].mean().mean())
    assert set(csv["methods_paired"]["targets"]) == {"all", "apart", "rest"}
    assert {path.stem for path in (folder / "figures").glob("methods*.png")} == {
        *("methods", "methods_apart", "methods_rest"),
    }
    for name in ("methods_means", "methods_paired"):
        assert "the targets set apart (G1, G5)" in (folder / "tables" / f"{name}.md").read_text()


def test_the_figure_has_each_fold_and_the_mean(study, tmp_path):
    study.write(tmp_path / "s")
    folds = fold_means(read_methods(tmp_path / "s").rows, ["method"])
    figure = methods_figure(folds, "all")
    axes = next(axes for axes in figure.axes if axes.get_title() == "CRPS")
    names = [label.get_text().split(" (")[0] for label in figure.axes[0].get_yticklabels()]
    assert names == [name for name in ORDER if name != "GEARS"]
    values = folds.groupby("method")["crps"]
    dots = {int(line.get_ydata()[0]): line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 4}
    means = {int(line.get_ydata()[0]): line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1}
    far = {text.get_position()[1] for text in axes.texts}
    for place, name in enumerate(names):
        if values.get_group(name).isna().all():
            assert place not in means
        elif place not in far:
            np.testing.assert_array_equal(dots[place], values.get_group(name))
            assert means[place] == pytest.approx(values.get_group(name).mean())


def test_a_method_far_from_the_others_is_written_at_the_edge(study, tmp_path):
    for row in study.find(method="TG"):
        row["rmae_kurt"] += 40
    study.write(tmp_path / "s")
    folds = fold_means(read_methods(tmp_path / "s").rows, ["method"])
    axes = next(axes for axes in methods_figure(folds, "all").axes if axes.get_title() == "RMAE kurt.")
    mean = folds.loc[folds["method"] == "TG", "rmae_kurt"].mean()
    assert [text.get_text() for text in axes.texts] == [f"{mean:.3g} \u25b6"]
    assert axes.get_xlim()[1] < 2


def test_labels_of_the_figure_do_not_overlap(study, tmp_path):
    study.write(tmp_path / "s")
    figure = methods_figure(fold_means(read_methods(tmp_path / "s").rows, ["method"]), "all")
    figure.canvas.draw()
    for axes in figure.axes:
        for labels in (axes.get_yticklabels(), axes.get_xticklabels()):
            boxes = [label.get_window_extent() for label in labels if label.get_visible() and label.get_text()]
            overlaps = [(i, j) for i, one in enumerate(boxes) for j, two in enumerate(boxes[:i]) if one.overlaps(two)]
            assert overlaps == [], axes.get_title()


def test_coverage_is_drawn_against_its_nominal_share(monkeypatch):
    nominal = {"coverage50": 0.5, "coverage90": 0.9}
    monkeypatch.setattr(methods_figures, "_COVERAGE", nominal)
    nan = float("nan")
    folds = pd.DataFrame(
        {
            "method": ["MLP+Hist", "MLP+Hist", "TG", "GP"],
            "coverage50": [0.4, 0.6, 0.7, nan],
            "coverage90": [0.8, 0.9, 1, nan],
        }
    )
    figure: Any = calibration_figure(folds, "all")
    lines = [{line.get_label(): line.get_ydata() for line in axes.lines} for axes in figure.axes]
    assert set(lines[0]) == {"calibrated", "MLP+Hist", "TG"}  # methods for means predict no intervals
    np.testing.assert_allclose(lines[0]["MLP+Hist"], [0.5, 0.85])
    np.testing.assert_allclose(lines[1]["MLP+Hist"], [0, -0.05])
    np.testing.assert_allclose(lines[1]["calibrated"], 0)
    assert calibration_figure(folds[folds["method"] == "GP"], "all") is None
    monkeypatch.setattr(methods_figures, "_COVERAGE", {})
    assert calibration_figure(folds, "all") is None


def test_latex_has_as_many_cells_as_columns(whole):
    folder, *_ = whole
    for path in (folder / "tables").glob("*.tex"):
        for table in re.findall(r"\\begin{tabular}{(\w+)}(.*?)\\end{tabular}", path.read_text(), re.DOTALL):
            columns, body = table
            for row in (line for line in body.splitlines() if line.endswith(r"\\")):
                spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn{(\d+)}", row))
                assert row.count(" & ") + 1 + spans == len(columns)


def test_latex_compiles(study, tmp_path):
    if (
        not shutil.which("pdflatex")
        or subprocess.run(["kpsewhich", "adjustbox.sty"], check=False, capture_output=True).returncode
    ):
        pytest.skip("there is no pdflatex with adjustbox here")
    drawn(study, tmp_path / "s", ["G1"])
    tables = "\n".join(path.read_text() for path in sorted((tmp_path / "s" / "tables").glob("methods_[dmr]*.tex")))
    preamble = r"\documentclass[twocolumn]{article}\usepackage{adjustbox,booktabs,rotating}"
    (tmp_path / "a.tex").write_text(f"{preamble}\\begin{{document}}{tables}\\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_failed_trials_are_counted_and_their_method_stays(study, tmp_path, capsys):
    study.drop(method="GP")
    csv, _ = drawn(study, tmp_path / "s")
    assert csv["methods_means"].set_index("method").loc["GP", "n_folds"] == 0
    assert "GP" not in set(csv["methods_paired"]["method"])
    assert "4 of 52 trials did not finish" in capsys.readouterr().out
    for name in ("methods_means", "methods_paired", "methods_resources"):
        assert "4 of 52 trials did not finish" in (tmp_path / "s" / "tables" / f"{name}.md").read_text()


def test_a_lone_method_is_a_table_without_comparisons(points, tmp_path):
    csv, _ = drawn(points([{"method": "MLP+Hist"}]), tmp_path / "s")
    assert csv["methods_paired"].empty
    assert csv["methods_distributions"].set_index("method").loc["MLP+Hist", "n_folds"] == 4


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([{"method": "TG"}], r"no finished trial of MLP\+Hist, .*\(it has TG\)"),
        ([{"method": "MLP+Hist"}, {"method": "MLP+Hist", "n_bins": 5}], "holds numbers of bins 5, 15"),
        ([{"method": "MLP+Hist"}, {"method": "TG", "screen": "norman"}], "holds screens norman, simulated screen"),
        ([{"method": "MLP+Hist"}, {"method": "MLP+Hist", "dropout": 0.5}], r"2 trials of MLP\+Hist .*: dropout\)"),
    ],
)
def test_a_folder_of_another_study_is_one_line_and_status_2(points, tmp_path, capsys, made, message):
    folder = points(made).write(tmp_path / "s")
    assert main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert re.match(f"error: .*{message}", captured.err)
    assert captured.err.count("\n") == 1
    assert not (folder / "tables").exists()


def test_an_unknown_target_and_an_output_that_cannot_be_written(study, tmp_path, capsys):
    folder = study.write(tmp_path / "s")
    assert main([str(folder), "--apart", "IFNGR9"]) == 2
    assert "no perturbation in the tables is named IFNGR9" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([str(folder), "--out", str(tmp_path / "file")]) == 2
    assert "cannot write into" in capsys.readouterr().err


def test_a_fresh_process_needs_neither_torch_nor_ray_and_gives_the_same_bytes(study, tmp_path):
    folder = study.write(tmp_path / "s")
    code = (
        "import sys; from analysis.methods import main; status = main(sys.argv[1:]);"
        "print('loaded', {'torch', 'ray', 'studies', 'matplotlib.pyplot'} & set(sys.modules)); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *paths, loaded = done.stdout.splitlines()
    assert loaded == "loaded set()"
    again = draw_methods(folder, tmp_path / "again")
    assert [Path(path).name for path in paths] == [path.name for path in again]
    assert [Path(path).read_bytes() for path in paths] == [path.read_bytes() for path in again]
