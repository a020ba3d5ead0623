"""A study that is run again from its record."""

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from histpert.errors import InputError
from histpert.screens import ReadOptions
from histpert.settings import ModelSettings
from studies import rerun
from studies.bin_sweep import BinSweep
from studies.search import Search

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(script, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "results"
    run = script("bin_sweep", "--smoke", "--out", out)
    assert run.returncode == 0, run.stderr
    return out / "bin_sweep"


@pytest.fixture
def record(finished, tmp_path):
    """A copy of a record, to be changed."""
    folder = tmp_path / "results" / "bin_sweep"
    folder.mkdir(parents=True)
    shutil.copy(finished / "study.json", folder)
    shutil.copy(finished / "perturbations.parquet", folder)

    def change(edit) -> Path:
        content = json.loads((folder / "study.json").read_text())
        edit(content)
        (folder / "study.json").write_text(json.dumps(content))
        return folder / "study.json"

    return change


@pytest.mark.ray
def test_the_same_data_and_versions_give_the_same_numbers(finished, script):
    run = script("rerun", finished / "study.json")
    assert run.returncode == 0, run.stderr
    again = finished.parents[1] / "results-rerun" / "bin_sweep"
    assert f"results in {again}" in run.stdout
    assert run.stdout.splitlines()[-1] == "all 720 rows are the same to the last digit"
    assert (again / "figures" / "rmae_by_bins.png").exists()
    told = [line for line in run.stdout.splitlines() if line.startswith("differs: ")]
    assert {line for line in told if "changes" not in line} == set()


@pytest.mark.ray
def test_other_versions_data_and_folds_are_named_before_anything_is_trained(record, script):
    def edit(content):
        content["versions"]["torch"] = "1.0"
        content["commit"] = "0" * 40
        content["screen"]["sha256"] = "0" * 64
        content["embeddings"]["sha256"] = "0" * 64
        content["folds"].pop(next(iter(content["folds"])))
        content["settings"]["bins"] = [5]
        content["settings"]["smoke"] = False
        content["settings"]["model"]["epochs"] = 1

    run = script("rerun", record(edit))
    assert run.returncode == 0, run.stderr
    before, _ = run.stdout.split("trials, 0 done before")
    for name in ("torch: 1.0 then", f"commit: {'0' * 40} then", "the cells: ", "the embeddings: ", "the folds: "):
        assert f"differs: {name}" in before
    assert "rows then" in run.stdout.splitlines()[-2]
    assert "these moved" in run.stdout.splitlines()[-1]


def settings_of(path):
    return rerun._settings(BinSweep, rerun._read(path), path)


def test_settings_come_back_as_they_were(tmp_path):
    options = BinSweep(
        embeddings=(tmp_path / "a.npz", tmp_path / "b.npz"),
        screen=str(tmp_path / "screen.h5ad"),
        read=ReadOptions(cell_filter="x > 1", min_control_detection=0.01),
        model=replace(ModelSettings(), hidden=(64, 32), epochs=3),
        bins=(7,),
        gpus_per_trial=0.25,
        out=tmp_path,
    )
    path = tmp_path / "study.json"
    path.write_text(json.dumps({"study": "bin_sweep", "settings": asdict(options)}, default=str))
    assert settings_of(path) == options
    search = Search(objectives=("crps", "w1"), out=tmp_path)
    path.write_text(json.dumps({"study": "search", "settings": asdict(search)}, default=str))
    assert rerun._settings(Search, rerun._read(path), path) == search


def test_every_study_can_be_run_again():
    runs = {
        path.stem for path in (ROOT / "studies").glob("*.py") if re.search(r"run_(study|units)\(", path.read_text())
    }
    assert runs - {"engine", "units", "simulated_sources"} == set(rerun.STUDIES)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as the record of a study"),
        ("[]", "cannot be read as the record of a study"),
        (
            '{"study": "other", "settings": {}}',
            "is of the study other, which is none of bin_sweep, combinations, dependency, embedding_sources, "
            "gene_properties, loss_weights, methods, open_choices, pretrain, search",
        ),
        ('{"study": "bin_sweep", "settings": {"model": {"depth": 3}, "new": 1}}', "does not know: new, model.depth"),
        ('{"study": "bin_sweep", "settings": {"folds": "many"}}', "the setting folds cannot be used"),
        ('{"study": "bin_sweep", "settings": {"model": {"epochs": -1}}}', "--epochs -1"),
        ('{"study": "bin_sweep", "settings": {"bins": [1]}}', "--bins 1"),
    ],
)
def test_a_record_that_cannot_be_used_is_said_in_one_line(tmp_path, content, said):
    path = tmp_path / "study.json"
    path.write_text(content)
    with pytest.raises(InputError) as raised:
        settings_of(path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_results_are_not_written_over_those_to_compare_with(record):
    path = record(lambda content: None)
    with pytest.raises(InputError, match="name another folder"):
        rerun.main(rerun.Rerun(path, out=path.parents[1]))
