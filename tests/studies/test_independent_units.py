"""Independent pieces of work: what is done stays done, what fails is a row, and what is gone is done again."""

import json
from functools import partial

import pandas as pd
import pyarrow as pa
import pytest
import running
from filelock import FileLock

from histpert.embeddings import EmbeddingOptions, GeneEmbeddings
from histpert.errors import InputError
from histpert.results import RANDOM, write_atomically
from studies.sources import checked_sources, random_embeddings, read_sources, shared_genes
from studies.units import Unit, UnitOptions, run_units

SCHEMA = pa.schema([("number", pa.int32()), ("fold", pa.int32()), ("value", pa.float64())])

WORK = """
import sys
from functools import partial
from pathlib import Path
import pyarrow as pa
from studies.units import Unit, UnitOptions, run_units

def work(shared, number, folder):
    with (Path(folder) / "tried.txt").open("a") as file:
        file.write(f"{number}\\n")
    if number == shared["fails"] and not (Path(folder) / "mended").exists():
        raise ValueError("a number that fails\\nin two lines")
    (Path(folder) / f"{number}.txt").touch()
    return [{"fold": fold, "value": number + fold / 10} for fold in range(2)]

if __name__ == "__main__":
    folder, n_units, fails = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    schema = pa.schema([("number", pa.int32()), ("fold", pa.int32()), ("value", pa.float64())])
    units = [
        Unit({"number": n}, {"of": "test"}, partial(work, number=n, folder=folder), (Path(folder) / f"{n}.txt",))
        for n in range(n_units)
    ]
    options = UnitOptions(out=Path(folder))
    study = run_units("test", options, units, schema, inputs={"data": "x"}, shared={"fails": fails})
    sys.exit(study.report([]).status)
"""


@pytest.fixture
def run(isolated, tmp_path):
    """Run so many units in a process of its own, one of which fails; returns its status and what it said."""
    (tmp_path / "script.py").write_text(WORK)

    def started(n_units: int, fails: int = -1) -> tuple[int, str]:
        environment = isolated | {"PYTHONPATH": str(running.ROOT)}
        process = running.start(environment, tmp_path, n_units, fails, path=tmp_path / "script.py")
        said = process.communicate(timeout=120)[0]
        return process.returncode, said

    return started


@pytest.mark.ray
def test_what_fails_is_a_row_and_only_what_is_missing_is_done_again(run, tmp_path):
    status, said = run(4, fails=2)
    assert (status, "3 done" in said) == (1, False)
    assert (
        "error: 1 of 4 trials have no result; the first: number 2: ValueError: a number that fails in two lines" in said
    )
    trials, scores = (pd.read_parquet(tmp_path / "test" / f"{name}.parquet") for name in ("trials", "scores"))
    assert dict(zip(trials["number"], trials["status"], strict=True)) == {0: "ok", 1: "ok", 2: "failed", 3: "ok"}
    assert trials.set_index("number")["error"][2] == "ValueError: a number that fails in two lines"
    assert scores["value"].tolist() == [0.0, 0.1, 1.0, 1.1, 3.0, 3.1]
    record = json.loads((tmp_path / "test" / "study.json").read_text())
    assert (record["study"], record["inputs"], record["settings"]["seed"]) == ("test", {"data": "x"}, 0)

    (tmp_path / "mended").touch()
    (tmp_path / "3.txt").unlink()  # what a unit left is gone
    (tmp_path / "tried.txt").unlink()
    status, said = run(5, fails=2)
    assert status == 0
    assert "5 trials, 2 done before, 3 to run" in said
    assert sorted((tmp_path / "tried.txt").read_text().split()) == ["2", "3", "4"]
    assert len(pd.read_parquet(tmp_path / "test" / "scores.parquet")) == 10


def done(shared) -> list:
    return []


def test_two_at_work_in_one_folder(tmp_path):
    (tmp_path / "test" / "ledger").mkdir(parents=True)
    units = [Unit({"number": 0}, {}, done)]
    with (
        FileLock(tmp_path / "test" / "ledger" / "lock"),
        pytest.raises(InputError, match="another process is at work"),
    ):
        run_units("test", UnitOptions(out=tmp_path), units, SCHEMA, inputs={})


def test_a_unit_is_named_by_what_its_result_depends_on():
    unit = Unit({"number": 0}, {"data": "x"}, done)
    assert unit.trial_id(1) == Unit({"number": 0}, {"data": "x"}, partial(done)).trial_id(1)
    others = [Unit({"number": 1}, {"data": "x"}, done), Unit({"number": 0}, {"data": "y"}, done)]
    assert len({unit.trial_id(1), unit.trial_id(2), *(other.trial_id(1) for other in others)}) == 4


@pytest.mark.parametrize("options", [{"seed": -1}, {"threads_per_trial": 0}])
def test_options_that_cannot_be(options):
    with pytest.raises(InputError, match="must be"):
        UnitOptions(**options)


# ---- sources of embeddings


@pytest.fixture
def files(tmp_path):
    for name, genes in {"one": "ABC", "two": "BCD", "three": "XY"}.items():
        embeddings = random_embeddings(tuple(genes), 3, len(name))
        write_atomically(tmp_path / f"{name}.npz", embeddings.save)
    return tmp_path


def test_sources_are_named_and_joined(files):
    given = checked_sources([f"{files}/one.npz", f"Both={files}/one.npz+{files}/two.npz"])
    sources = read_sources(given, EmbeddingOptions())
    assert list(sources) == ["one", "Both"]
    assert sources["Both"].vectors.shape == (2, 6)
    assert shared_genes(sources) == ("B", "C")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["=a.npz"], "give NAME=FILE"),
        (["a.npz+"], "give NAME=FILE"),
        (["a.npz", "a=b.npz"], "a stands there twice"),
        ([f"{RANDOM}=a.npz"], "Random stands there twice, or is a name of ours"),
    ],
)
def test_sources_that_cannot_be(given, said):
    with pytest.raises(InputError, match=said):
        checked_sources(given)


def test_sources_that_share_no_gene(files):
    sources = read_sources(checked_sources([f"{files}/one.npz", f"{files}/three.npz"]), EmbeddingOptions())
    with pytest.raises(InputError, match=r"share no gene: one has A, B, C, \.\.\.; three has X, Y, \.\.\."):
        shared_genes(sources)


def test_random_embeddings_are_the_same_for_the_same_seed():
    one, other, another = (random_embeddings(("A", "B"), 4, seed) for seed in (0, 0, 1))
    assert isinstance(one, GeneEmbeddings)
    assert one.fingerprint() == other.fingerprint() != another.fingerprint()
