"""The `histpert` command: in this process, and as a user starts it."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import anndata
import pytest
from command import unchecked_main

from histpert.screens import read_screen
from histpert.screens.simulation import PRESETS, ScreenTruth, Simulation, simulate_screen

HISTPERT = Path(sys.executable).parent / "histpert"
SMALL = replace(Simulation(), n_perturbations=8, n_genes=30, n_cells=600, n_control=100, min_cells=20, max_cells=120)
AS_SMALL = [
    *("--n-perturbations", "8", "--n-genes", "30", "--n-cells", "600"),
    *("--n-control", "100", "--min-cells", "20", "--max-cells", "120"),
]
ENDS = (
    *("h5ad", "truth.npz", "good.npz", "poor.npz", "permuted.npz"),
    *("good.gmt", "poor.gmt", "permuted.gmt"),
)


main = unchecked_main()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def without_color(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_simulate_writes_eight_files_and_prints_where_they_are(tmp_path, capsys):
    assert main(["simulate", str(tmp_path / "s.h5ad"), "--seed", "3", *AS_SMALL]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / f"s.{end}") for end in ENDS]
    assert names_in(tmp_path) == sorted(f"s.{end}" for end in ENDS)
    truth = ScreenTruth.load(tmp_path / "s.truth.npz")
    assert (truth.seed, truth.simulation) == (3, SMALL)


def test_the_installed_command_writes_the_screen_of_its_seed_and_settings(tmp_path):
    command = [HISTPERT, "simulate", "here.h5ad", "--seed", "4", "--n-pairs", "3", *AS_SMALL]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # The folder is named even where the user named only a file.
    assert done.stdout.splitlines() == [str(tmp_path / f"here.{end}") for end in ENDS]
    assert done.stderr.strip() == ""
    expected = simulate_screen(4, replace(SMALL, n_pairs=3)).screen
    assert read_screen(tmp_path / "here.h5ad").fingerprint() == expected.fingerprint()


def test_a_path_in_the_home_folder_and_in_new_folders_is_understood(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["simulate", "~/new/folder/s.h5ad", *AS_SMALL]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "new" / "folder" / "s.h5ad")
    assert len(names_in(tmp_path / "new" / "folder")) == len(ENDS)


def help_for(*arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["simulate", *arguments, "--help"])
    assert stopped.value.code == 0
    return " ".join(re.sub("[│╭╮╰╯─]", " ", without_color(capsys.readouterr().out)).split())


@pytest.mark.parametrize("preset", PRESETS)
def test_help_shows_the_settings_that_a_preset_starts_from(preset, capsys):
    shown = help_for("s.h5ad", "--like", preset, capsys=capsys)
    settings = PRESETS[preset]
    for option in ("n_pairs", "n_genes", "n_cells", "log_rate_mean", "own_gene_fold"):
        words = shown.split(f"--{option.replace('_', '-')} ")[1].split("--")[0]
        assert f"(default: {getattr(settings, option)})" in words
    assert shown == help_for("s.h5ad", f"--like={preset}", capsys=capsys)


def test_help_without_a_preset_shows_the_default_settings(capsys):
    shown = help_for(capsys=capsys)
    assert f"(default: {Simulation().n_cells})" in shown
    assert "(default: papalexi)" in shown


def test_help_that_nobody_reads_to_its_end_says_nothing_more():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [HISTPERT, "simulate", "--help"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("first", [True, False], ids=["preset first", "preset last"])
def test_options_change_the_settings_of_a_preset(tmp_path, capsys, first):
    changes = ["--n-cells", "7000", "--log-rate-mean", "-1.5", "--n-features", "3", "4"]
    like = ["--like", "easy"]
    order = [*like, *changes] if first else [*changes, *like]
    assert main(["simulate", str(tmp_path / "s.h5ad"), *order]) == 0
    truth = ScreenTruth.load(tmp_path / "s.truth.npz")
    assert truth.simulation == replace(PRESETS["easy"], n_cells=7000, log_rate_mean=-1.5, n_features=(3, 4))
    assert anndata.read_h5ad(tmp_path / "s.h5ad").shape == (7000, 200)


UNUSABLE = {
    "share above 1": (["{}/s.h5ad", "--null-share", "1.5"], "--null-share 1.5: must be from 0 to 1"),
    "too few cells": (["{}/s.h5ad", "--n-cells", "50"], "--n-cells 50: must be "),
    "too many counts": (["{}/s.h5ad", "--log-rate-mean", "9"], "lower --log-rate-mean or --log-rate-spread"),
    "preset that does not fit": (["{}/s.h5ad", "--like", "norman", "--n-genes", "90"], "at most the 90 genes"),
    "negative seed": (["{}/s.h5ad", "--seed", "-1", *AS_SMALL], "--seed -1: must be 0 or more"),
    "other suffix": (["{}/s.csv", *AS_SMALL], "s.csv: name a file that ends in .h5ad"),
    "file exists": (["{}/mine.h5ad", *AS_SMALL], "mine.h5ad exists already"),
    "file beside it exists": (["{}/other.h5ad", *AS_SMALL], "other.poor.npz exists already"),
    "a file for a folder": (["{}/mine.h5ad/s.h5ad", *AS_SMALL], "cannot be written"),
    "a name too long": (["{}/" + 300 * "s" + ".h5ad", *AS_SMALL], "cannot be written"),
    "no folder to write to": (["/proc/s.h5ad", *AS_SMALL], "/proc/s.h5ad cannot be written"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path, capsys, case):
    (tmp_path / "mine.h5ad").write_text("mine")
    (tmp_path / "other.poor.npz").write_text("mine")
    arguments, words = UNUSABLE[case]
    assert main(["simulate", *(argument.replace("{}", str(tmp_path)) for argument in arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = without_color(printed.err).split("\n")
    assert [line for line in lines if line.strip()] == [line for line in lines if line.startswith("error: ")]
    assert len([line for line in lines if line.strip()]) == 1
    assert words in printed.err
    assert names_in(tmp_path) == ["mine.h5ad", "other.poor.npz"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulate", "s.h5ad", "--like", "nonsense"], "nonsense"),
        (["simulate", "s.h5ad", "--like"], "--like"),
        (["simulate", "s.h5ad", "--n-genes", "many"], "many"),
        (["simulate", "s.h5ad", "--n-moons", "2"], "--n-moons"),
        (["simulate"], "PATH"),
        (["simulated", "s.h5ad"], "simulated"),
        ([], "simulate"),
    ],
    ids=["preset", "preset missing", "number", "option", "path missing", "command", "nothing"],
)
def test_a_command_line_that_is_not_understood_ends_with_status_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(f"error: [^\n]*{words}[^\n]*; see --help\n", printed.err)
    assert names_in(tmp_path) == []


def test_an_error_of_the_installed_command_is_a_line_and_a_status(tmp_path):
    command = [HISTPERT, "simulate", tmp_path / "s.h5ad", "--guide-efficiency", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --guide-efficiency 0.0: must be above 0, up to 1\n"


@pytest.mark.parametrize("room", [20, 200, 1_200], ids=lambda room: f"{room} kB")
def test_a_full_disk_is_said_in_one_line_and_leaves_nothing_behind(tmp_path, room):
    # No file may grow beyond this: to the writer that is a disk without room.
    limited = ["bash", "-c", f'ulimit -c 0 -f {room} && exec "$0" "$@"']
    command = [*limited, HISTPERT, "simulate", tmp_path / "s.h5ad", "--like", "easy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr[-300:]
    assert done.stderr.strip().startswith(f"error: {tmp_path / 's.h5ad'} cannot be written: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert names_in(tmp_path) == []


def test_a_simulation_that_is_interrupted_says_so_and_leaves_nothing_behind(tmp_path):
    command = [HISTPERT, "simulate", tmp_path / "s.h5ad", "--like", "norman"]
    # An interrupt that is ignored here, as in jobs in the background, would be ignored there too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    try:
        # It is writing once there is a file, whatever it is called.
        deadline = time.monotonic() + 60
        while not names_in(tmp_path) and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(names_in(tmp_path)) == 1
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, out, err.strip()) == (130, "", "stopped")
    assert names_in(tmp_path) == []
