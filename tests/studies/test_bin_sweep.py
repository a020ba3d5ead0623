"""The main job on a real local Ray, and what it does when it is run again."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from histpert.results import METRICS, PERTURBATION_SCHEMA, TRIAL_SCHEMA
from histpert.screens import PRESETS, assign_folds, simulate_screen

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(bin_sweep, tmp_path_factory):
    """A smoke run that ended: what it printed, and its folder."""
    out = tmp_path_factory.mktemp("out")
    run = bin_sweep("--smoke", "--out", out)
    assert run.returncode == 0, run.stderr
    return run, out / "bin_sweep"


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return tuple(pd.read_parquet(folder / f"{name}.parquet") for name in ("trials", "perturbations"))


def test_ends_with_the_paths_of_figures_that_exist(finished):
    run, folder = finished
    figures = re.findall(r"^figure: (.*)$", run.stdout, flags=re.MULTILINE)
    assert [Path(figure).name for figure in figures] == ["rmae_by_bins.png", "pearson_by_bins.png"]
    for figure in map(Path, figures):
        assert figure.parent == folder / "figures"
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert figure.with_suffix(".svg").read_text().startswith("<?xml")


def test_says_that_the_screen_is_simulated_and_shows_progress(finished):
    run, _ = finished
    assert "SIMULATED" in run.stdout
    assert "24/24 trials ended" in run.stdout
    assert run.stderr == ""


def test_has_a_row_per_configuration_and_fold_and_one_per_held_out_perturbation(finished):
    trials, perturbations = tables(finished[1])
    assert list(trials.columns) == TRIAL_SCHEMA.names
    assert list(perturbations.columns) == PERTURBATION_SCHEMA.names
    assert set(trials["status"]) == {"ok"}
    assert trials.groupby(["method", "n_bins"])["fold"].apply(sorted).map(tuple).unique().tolist() == [(0, 1, 2)]
    assert set(trials["method"]) == {"MLP+Hist", "Ctrl Hist", "Non-Ctrl Hist", "Observed Hist"}
    screen = simulate_screen(0, PRESETS["easy"]).screen
    for _, rows in perturbations.groupby(["method", "n_bins"]):
        assert sorted(rows["perturbation"]) == list(screen.perturbations)


def test_trial_metrics_are_averages_over_held_out_perturbations(finished):
    trials, perturbations = tables(finished[1])
    averages = perturbations.groupby("trial_id")[list(METRICS)].mean()
    pd.testing.assert_frame_equal(trials.set_index("trial_id")[list(METRICS)].sort_index(), averages, check_names=False)


def test_control_is_worth_exactly_one_and_has_no_correlation(finished):
    trials, _ = tables(finished[1])
    control = trials[trials["method"] == "Ctrl Hist"]
    assert control["rmae_mean"].tolist() == pytest.approx([1.0] * 6, abs=1e-6)
    assert control["pearson_top20"].isna().all()
    assert (control["n_pearson_undefined"] == control["n_perturbations"]).all()


def test_study_json_says_how_to_run_it_again(finished):
    record = json.loads((finished[1] / "study.json").read_text())
    screen = simulate_screen(record["settings"]["model"]["seed"], PRESETS["easy"]).screen
    assert record["screen"]["sha256"] == screen.fingerprint()
    folds = assign_folds(screen.perturbations, record["settings"]["folds"], record["settings"]["model"]["seed"])
    assert record["folds"] == dict(zip(screen.perturbations, folds.tolist(), strict=True))
    assert record["versions"]["torch"]


def test_leaves_nothing_of_ray_behind(finished, isolated):
    _, folder = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        *("figures", "ledger", "perturbations.parquet", "report.html", "study.json", "tables", "trials.parquet")
    ]
    assert not (Path(isolated["HOME"]) / ".ray").exists()
    assert not list(Path(isolated["TMPDIR"]).glob("histpert-ray-*"))


def test_a_rerun_does_only_what_is_missing_and_gets_the_same_numbers(finished, bin_sweep):
    _, folder = finished
    before = tables(folder)
    learned = before[0].query("method == 'MLP+Hist'")["trial_id"].tolist()
    (folder / "ledger" / f"{learned[0]}.json").unlink()
    (folder / "ledger" / f"{learned[1]}.json").write_text('{"trial": {"trial_id"')
    run = bin_sweep("--smoke", "--out", folder.parent, "--json")
    assert run.returncode == 0, run.stderr
    assert "22 done before, 2 to run" in run.stderr
    assert f"{learned[1]}.json is damaged" in run.stderr
    told = json.loads(run.stdout)
    assert (told["study"], told["status"], told["n_trials"], told["unfinished"]) == ("bin_sweep", "ok", 24, [])
    assert (told["folder"], told["report"]) == (str(folder), str(folder / "report.html"))
    assert told["results"] == [str(folder / f"{name}.parquet") for name in ("trials", "perturbations")]
    assert [Path(path).suffix for path in told["figures"]] == [".png", ".svg"] * 2
    assert [Path(path).suffix for path in told["tables"]] == [".csv", ".md", ".tex"]
    assert "words" not in json.loads((folder / "study.json").read_text())["settings"]
    measured = ["train_seconds", "peak_memory_mb"]
    for old, new in zip(before, tables(folder), strict=True):
        pd.testing.assert_frame_equal(
            old.drop(columns=measured, errors="ignore"), new.drop(columns=measured, errors="ignore"), check_exact=True
        )


@pytest.mark.chaos
def test_a_terminal_sees_one_line_that_is_written_over(isolated, tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, ROOT / "studies" / "bin_sweep.py", "--smoke", "--out", tmp_path]
    with subprocess.Popen(command, env=isolated | {"TERM": "xterm"}, stdout=theirs, stderr=theirs) as run:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 4096):
                seen += part
        except OSError:  # how a terminal's end is told on Linux
            pass
    assert run.returncode == 0, seen.decode()
    assert b"\x1b[2K" in seen  # erases the line
    assert seen.count(b"trials ended") > 3
    assert b"resolution.md\r\n" in seen


def test_failed_trials_are_rows_and_the_exit_status_says_so_however_quiet(bin_sweep, tmp_path):
    run = bin_sweep("--smoke", "--learning-rate", "1e30", "--out", tmp_path, "--quiet")
    assert (run.returncode, run.stdout) == (1, ""), run.stderr
    error, advice = run.stderr.splitlines()
    assert error.startswith("error: 6 of 24 trials have no result; the first: MLP+Hist, ")
    assert advice == "Run the same command again: it trains only what is missing."
    trials, _ = tables(tmp_path / "bin_sweep")
    failed = trials[trials["status"] != "ok"]
    assert set(failed["method"]) == {"MLP+Hist"}
    assert failed["error"].str.contains("lower --learning-rate").all()
    assert (tmp_path / "bin_sweep" / "figures" / "rmae_by_bins.png").exists()
