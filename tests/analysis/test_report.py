"""The page of a study: its numbers are those of the tables, whatever is in the data is text, and damage is told."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from report_pages import page_of, write_record

from analysis import report
from analysis.choices import draw_choices
from analysis.report import main, report_of_study, write_report
from analysis.resolution import draw_resolution
from histpert.results import METRICS

ROOT = Path(__file__).parents[2]
SCRIPT = "<script>alert(1)</script>&\"'"


@pytest.fixture(scope="session")
def drawn(points, tmp_path_factory):
    """A bin sweep with figures and tables, one trial failed."""
    methods = ("MLP+Hist", "Ctrl Hist", "Non-Ctrl Hist", "Observed Hist")
    study = points([{"method": method, "n_bins": n_bins} for method in methods for n_bins in (5, 15)])
    study.drop(method="Ctrl Hist", n_bins=5, fold=1)
    folder = write_record(study.write(tmp_path_factory.mktemp("drawn") / "bin_sweep"), "bin_sweep")
    draw_resolution([folder], folder)
    return folder


@pytest.fixture
def sweep(drawn, tmp_path):
    """A copy of it in a results folder, to be changed at will."""
    return Path(shutil.copytree(drawn, tmp_path / "results" / "bin_sweep"))


def by_heading(table):
    """Rows as dictionaries, by the headings of their columns."""
    headings = [text.replace("\u00a0", " ") for text, _ in table[0]]
    return [dict(zip(headings, row, strict=True)) for row in table[1:]]


def test_numbers_are_those_of_the_parquet_files(sweep):
    page = page_of(write_report([sweep]))
    rows = pd.read_parquet(sweep / "perturbations.parquet")
    folds = rows.groupby(["method", "n_bins", "fold"])[list(METRICS)].mean()
    shown = by_heading(page.tables[0])
    assert len(shown) == 8
    for row in shown:
        point = row["Method"][0], int(row["Bins"][1]["data-value"].split(".")[0])
        for heading, metric in {"CRPS ↓": "crps", "RMAE mean ↓": "rmae_mean", "NLL ↓": "nll"}.items():
            of = folds.loc[point, metric]
            text, attributes = row[heading]
            assert float(attributes["data-value"]) == pytest.approx(of.mean(), abs=1e-12)
            assert attributes["title"].split(" ± ")[0] == attributes["data-value"]
            assert float(re.search("± ([^,]*)", attributes["title"])[1]) == pytest.approx(of.std(), abs=1e-12)
            assert text == f"{of.mean():.3f} ± {of.std():.3f}"


def test_the_page_holds_all_that_it_shows(sweep):
    path = write_report([sweep])
    page, text = page_of(path), path.read_text()
    assert path == sweep / "report.html"
    assert [image["src"].split(";")[0] for image in page.images] == ["data:image/svg+xml"] * 2
    assert all(int(image["width"]) > 400 and int(image["height"]) > 100 and image["alt"] for image in page.images)
    leads = [of[name] for _, of in page.elements for name in ("src", "href", "action") if name in of]
    assert all(lead.startswith(("data:", "#")) for lead in leads)
    assert not re.search(r"@import|url\(", text)
    for said in (
        "How many histogram bins",
        "5c4ee7",
        "e3bedd",
        "c0ffee, with changes",
        "model.weight_wass",
        "<control>",
    ):
        assert said in page.text
    assert f"python studies/rerun.py {sweep}/study.json" in page.text


def test_the_policy_lets_only_the_own_style_and_script_run(sweep):
    page = page_of(write_report([sweep]))
    policy = next(of["content"] for tag, of in page.elements if of.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not [of for _, of in page.elements if any(name == "style" or name.startswith("on") for name in of)]


def test_the_same_study_gives_the_same_bytes(sweep):
    first = write_report([sweep]).read_bytes()
    assert write_report([sweep]).read_bytes() == first


def test_what_failed_is_named_with_its_reason(sweep):
    page = page_of(write_report([sweep]))
    assert "method Ctrl Hist, n bins 5, fold 1" in page.text
    assert "CUDA out of memory" in page.text
    assert "31 of 32 trials finished" in page.text


def test_a_study_of_which_nothing_finished_has_a_page(tables, tmp_path):
    study = tables(methods=("MLP+Hist",), bins=(5,))
    for fold in range(3):
        study.fail("MLP+Hist", 5, fold)
    folder = write_record(study.write(tmp_path / "bin_sweep"), "bin_sweep")
    page = page_of(write_report([folder]))
    assert "No trial has finished" in page.text
    assert page.text.count("CUDA out of memory") == 3


def test_what_comes_from_data_is_text(points, tmp_path):
    made = [{"method": "MLP+Hist"}, {"method": "MLP+Hist", "variant": SCRIPT}, {"method": "Non-Ctrl Hist"}]
    study = points(made)
    study.drop(method="Non-Ctrl Hist", fold=1)
    study.trials[-1]["error"] = SCRIPT
    study.trials[-1]["status"] = "failed"
    study.rows = [row for row in study.rows if row["trial_id"] != study.trials[-1]["trial_id"]]
    folder = write_record(study.write(tmp_path / SCRIPT.replace("/", "")), "open_choices", settings={SCRIPT: SCRIPT})
    draw_choices(folder, folder)
    path = write_report([folder])
    page = page_of(path)
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert "alert(1)</script>" not in path.read_text()
    assert page.text.count(SCRIPT) >= 4  # variant, error, setting and its value
    assert SCRIPT in [cell[0] for row in page.tables[0] for cell in row]


def folder_of_scores(out):
    folder = out / "unknown"
    folder.mkdir()
    pd.DataFrame({"status": ["ok"], "error": [None]}).to_parquet(folder / "trials.parquet")
    pd.DataFrame({"fold": [0]}).to_parquet(folder / "scores.parquet")
    return write_record(folder, "unknown")


def test_a_results_folder_gives_one_page_of_all_its_studies(sweep, points, tmp_path):
    made = [{"method": "MLP+Hist"}, {"method": "MLP+Hist", "variant": "output scale 1"}]
    other = write_record(points(made).write(tmp_path / "results" / "open_choices"), "open_choices")
    (tmp_path / "results" / "stores").mkdir()
    path = write_report([sweep.parent])
    assert path == sweep.parent / "report.html"
    page = page_of(path)
    ids = [of["id"] for tag, of in page.elements if tag == "article"]
    links = [of["href"] for tag, of in page.elements if tag == "a"]
    assert links == [f"#{name}" for name in ids]
    assert len(ids) == 2
    assert page.text.index("How many histogram bins") < page.text.index("Does it matter")
    assert write_report([other, folder_of_scores(tmp_path)]) == tmp_path / "report.html"  # in what holds both
    assert write_report([other], tmp_path / "one.html") == tmp_path / "one.html"


def broken(folder, name, content):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("study.json", b"{", "study.json cannot be read as the record of a study"),
        ("study.json", b'["bin_sweep"]', "study.json cannot be read as the record of a study"),
        ("study.json", b'{"study": 3}', "study.json is not the record of a study"),
        ("study.json", b'{"study": "bin_sweep", "folds": [0]}', "study.json is not the record of a study"),
        ("trials.parquet", b"PAR1", "trials.parquet cannot be read as parquet"),
        ("perturbations.parquet", b"PAR1", "perturbations.parquet cannot be read as parquet"),
        ("tables/resolution.csv", b"", "resolution.csv cannot be read as a table"),
        ("tables/resolution.csv", b"\xff\xfe", "resolution.csv cannot be read as a table"),
        ("figures/rmae_by_bins.svg", b"<svg></svg>", "rmae_by_bins.svg is not a figure of this package"),
        ("figures/other.png", b"\x89PNG", "other.png is not a figure of this package"),
    ],
)
def test_a_damaged_study_is_one_line_and_status_2(sweep, capsys, name, content, message):
    broken(sweep, name, content)
    assert main([str(sweep.parent)]) == 2
    said = capsys.readouterr().err
    assert re.match(f"error: .*{re.escape(message)}", said)
    assert said.count("\n") == 1
    assert not (sweep.parent / "report.html").exists()


def test_scores_of_another_study_are_one_line_and_status_2(tmp_path, capsys):
    assert main([str(write_record(folder_of_scores(tmp_path), "pretrain"))]) == 2
    assert re.fullmatch(r"error: the tables in .* lack 'epoch': run the study again.*\n", capsys.readouterr().err)


def test_a_study_without_what_its_question_needs_says_so(points, tmp_path):
    folder = write_record(points([{"method": "TG"}]).write(tmp_path / "methods"), "methods")
    assert "No answer: " in page_of(write_report([folder])).text
    folder = write_record(points([{"method": "TG"}]).write(tmp_path / "mine"), "mine")
    assert "knows no question of a study of this name" in page_of(write_report([folder])).text


def test_a_folder_of_something_else_is_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for given, message in {"photos": "holds no study.json", "absent": "cannot be read"}.items():
        assert main([str(tmp_path / given)]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


def test_a_page_that_cannot_be_drawn_does_not_lose_the_study(sweep, capsys):
    report_of_study(sweep)
    assert capsys.readouterr().out == f"report: {sweep}/report.html\n"
    broken(sweep, "figures/other.png", b"")
    report_of_study(sweep)
    said = capsys.readouterr().err
    assert said.startswith("error: the report could not be written (InputError: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("how", [["analysis/report.py"], ["-m", "analysis.report"]])
def test_it_is_run_as_a_script_and_as_a_module_from_any_folder(sweep, tmp_path, how):
    command = [sys.executable, *(str(ROOT / part) if part.endswith(".py") else part for part in how)]
    done = subprocess.run(
        [*command, "results/bin_sweep"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"{sweep}/report.html\n"), done.stderr


def test_large_drawings_are_taken_as_pictures(sweep):
    drawing = sweep / "figures" / "rmae_by_bins.svg"
    drawing.write_bytes(drawing.read_bytes() + b" " * 300_000)
    first, second = page_of(write_report([sweep])).images
    assert [image["src"][:14] for image in (first, second)] == ["data:image/png", "data:image/svg"]
    assert abs(int(first["width"]) - int(second["width"])) < 100


def test_a_long_table_says_how_much_of_it_is_shown(sweep):
    rows = pd.DataFrame({"gene": [f"G{i}" for i in range(1000)], "zeros_1": range(1000), "NA": ["NA"] * 1000})
    rows.to_csv(sweep / "tables" / "zero_bin.csv", index=False)
    page = page_of(write_report([sweep]))
    assert "The first 400 of 1,000 rows" in page.text
    assert len(page.tables[1]) == 401
    assert page.tables[1][1][2][0] == "NA"


def test_files_of_the_page_are_shipped():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    files = {path.name for path in Path(report.__file__).parent.iterdir() if path.is_file() and path.suffix != ".py"}
    assert files == set(settings["package-data"]["analysis"])


def test_a_record_that_is_not_rerun_says_so(tmp_path):
    folder = tmp_path / "resources"
    (folder / "tables").mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps({"study": "resources", "screen": "simulated"}))
    row = {"method": "TG", "n_bins": 15, "seconds_per_fold": 12.34, "ratio": 1.5}
    pd.DataFrame([row]).to_csv(folder / "tables" / "resources.csv", index=False)
    page = page_of(write_report([folder]))
    assert "TG with 15 bins takes 12.3 s per fold, a step 1.5 times its floor." in page.text
    assert "rerun.py" not in page.text
    assert "python studies/resources.py" in page.text


def test_counts_stand_with_their_means_even_where_one_fold_has_no_deviation(points, tmp_path):
    study = points([{"method": "MLP+Hist", "n_bins": n, "folds": {0: ("A", "B")}} for n in (5, 15)])
    folder = write_record(study.write(tmp_path / "bin_sweep"), "bin_sweep")
    draw_resolution([folder], folder)
    row = by_heading(page_of(write_report([folder])).tables[0])[0]
    assert row["CRPS ↓"][1]["title"] == f"{row['CRPS ↓'][1]['data-value']}, of 2"
    assert not [heading for heading in row if heading.endswith(" n")]
