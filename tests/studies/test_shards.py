"""A study whose cells Ray actors read and count, or whose store is on object storage, is the study of one process."""

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from pyarrow import fs
from werkzeug.serving import make_server

from studies import bin_sweep as study
from studies.options import run_script

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY"
N_PERTURBATIONS = 79
"""So many that a shard sends the results of its groups in three parts."""

TARGETS = [f"G{number}" for number in range(N_PERTURBATIONS)]
LABELS = np.random.default_rng(1).permutation(np.repeat(["control", *TARGETS], [60, *([3, 4, 5] * 27)[:79]]))
COUNTS = np.random.default_rng(2).poisson(2.0, (len(LABELS), 90)).astype(np.float32)
SMALL = "--folds", "3", "--bins", "5", "--epochs", "1"


def written(path, values=COUNTS, compression=None):
    obs = pd.DataFrame({"perturbation": LABELS}, index=[f"c{number}" for number in range(len(LABELS))])
    var = pd.DataFrame(index=[f"G{number}" for number in range(values.shape[1])])
    anndata.AnnData(values, obs=obs, var=var).write_h5ad(path, compression=compression)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Options that name a screen and its embeddings."""
    folder = tmp_path_factory.mktemp("files")
    vectors = np.random.default_rng(3).normal(size=(N_PERTURBATIONS, 4)).astype(np.float32)
    np.savez(folder / "emb.npz", genes=np.array(TARGETS), vectors=vectors)
    return "--screen", written(folder / "screen.h5ad", sp.csr_matrix(COUNTS)), "--embeddings", folder / "emb.npz"


@pytest.fixture(scope="module")
def plain(files, bin_sweep, tmp_path_factory):
    """Where a study of one process left its results."""
    out = tmp_path_factory.mktemp("plain")
    run = bin_sweep(*files, *SMALL, "--out", out)
    assert run.returncode == 0, run.stderr
    return out


def store_files(stores):
    (store,) = stores.iterdir()
    return store.name, {path.name: path.read_bytes() for path in sorted(store.iterdir()) if path.name != "lock"}


def assert_same_tables(one, other):
    for name in ("trials", "perturbations"):
        tables = [pd.read_parquet(out / "bin_sweep" / f"{name}.parquet") for out in (one, other)]
        measured = [column for column in ("train_seconds", "peak_memory_mb") if column in tables[0]]
        pd.testing.assert_frame_equal(*(table.drop(columns=measured) for table in tables), check_exact=True)
    assert (pd.read_parquet(one / "bin_sweep" / "trials.parquet")["status"] == "ok").all()


def assert_one_line(run, *words):
    assert run.returncode == 2, run.stderr
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    return line


@pytest.mark.chaos
def test_shards_build_the_store_of_one_process_and_the_study_goes_on_with_it(files, plain, bin_sweep, tmp_path):
    command = (*files, *SMALL, "--out", tmp_path, "--shards", "2", "--memory-gb", "0")
    run = bin_sweep(*command)
    assert (run.returncode, run.stderr) == (0, "")
    assert store_files(tmp_path / "stores")[0] == store_files(plain / "stores")[0]
    names, (_, found), (_, expected) = (
        ["counts_B5.arrow", "manifest.json", "moments.arrow"],
        *(store_files(folder / "stores") for folder in (tmp_path, plain)),
    )
    assert {*names} < {*expected}
    assert found == expected
    assert_same_tables(tmp_path, plain)
    ledger = sorted((tmp_path / "bin_sweep" / "ledger").glob("*.json"))
    ledger[0].unlink()
    again = bin_sweep(*command)
    assert again.returncode == 0, again.stderr
    assert f"{len(ledger) - 1} done before, 1 to run" in again.stdout
    assert_same_tables(tmp_path, plain)


def line_of_one_process(arguments, monkeypatch, capsys):
    """What is told without shards; no Ray is there, so that none is asked."""
    monkeypatch.setattr(sys, "argv", ["bin_sweep.py", *map(str, arguments)])
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(SystemExit) as left:
        run_script(study.BinSweep, study.main, study.__doc__)
    assert left.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--shards", "0"), "--shards 0: must be 1 or more"),
        (("--shards", "-2"), "--shards -2: must be 1 or more"),
        (("--memory-gb", "-1"), "--memory-gb -1.0: must be a number, 0 or more"),
        (("--memory-gb", "nan"), "--memory-gb nan: must be a number, 0 or more"),
        (("--memory-gb", "inf"), "--memory-gb inf: must be a number, 0 or more"),
    ],
)
def test_no_such_number_of_shards_or_bytes(files, tmp_path, monkeypatch, capsys, asked, said):
    line = line_of_one_process((*files, *SMALL, "--out", tmp_path, *asked), monkeypatch, capsys)
    assert line == f"error: {said}\n"


@pytest.mark.chaos
def test_more_shards_than_this_machine_has_processors(files, bin_sweep, tmp_path):
    run = bin_sweep(*files, *SMALL, "--out", tmp_path, "--shards", "1000")
    assert_one_line(run, "--shards 1000: this machine has ", " CPUs for Ray")


def damaged(path):
    """A chunk of the values, in the middle of the file, is no gzip."""
    written(path, sp.csr_matrix(COUNTS), "gzip")
    with h5py.File(path) as file:
        chunks = file["X/data"].id
        chunk = chunks.get_chunk_info(chunks.get_num_chunks() // 2)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\0" * 16)


def odd(path):
    """NaN in one perturbation of each shard."""
    counts = COUNTS.copy()
    for label in ("G9", "G11", "G70"):
        counts[np.flatnonzero(label == LABELS)[1], 5] = np.nan
    written(path, counts)


@pytest.mark.parametrize(("make", "said"), [(damaged, "cannot be read"), (odd, "in 3 cells, first in row")])
def test_what_an_actor_cannot_use_is_told_as_without_shards(
    files, bin_sweep, tmp_path, monkeypatch, capsys, make, said
):
    make(tmp_path / "bad.h5ad")
    arguments = ("--screen", tmp_path / "bad.h5ad", *files[2:], *SMALL, "--out", tmp_path)
    run = bin_sweep(*arguments, "--shards", "2")
    assert_one_line(run, said)
    assert run.stderr == line_of_one_process(arguments, monkeypatch, capsys)


@pytest.fixture
def storage():
    """moto's S3 on loopback, with a bucket: the end of a URI, and what stops it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, moto, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    moto_api_backend.reset()  # its buckets are the process's: another test's server would show them


@pytest.mark.chaos
def test_a_store_on_object_storage_serves_a_study_elsewhere(files, plain, isolated, storage, tmp_path, monkeypatch):
    secrets = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    address = f"endpoint_override=http://127.0.0.1:{storage.server_port}&scheme=http"
    filesystem, _ = fs.FileSystem.from_uri(f"s3://bucket?{address}&region=us-east-1&allow_bucket_creation=true")
    filesystem.create_dir("bucket")
    printed = ""

    def run(node):
        nonlocal printed
        where = ("--out", tmp_path / node, "--store", f"s3://bucket/stores?{address}")
        command = [sys.executable, ROOT / "studies" / "bin_sweep.py", *files, *SMALL, *where]
        command += ["--store-cache", tmp_path / f"cache of {node}", "--memory-gb", "0"]
        ended = subprocess.run(
            command, env=isolated | secrets, cwd=isolated["HOME"], capture_output=True, text=True, check=False
        )
        printed += ended.stdout + ended.stderr
        return ended

    def objects():
        infos = filesystem.get_file_info(fs.FileSelector("bucket/stores", recursive=True))
        return {info.path: info.mtime_ns for info in infos if info.type == fs.FileType.File}

    first = run("one")
    assert (first.returncode, first.stderr) == (0, "")
    name, expected = store_files(plain / "stores")
    found = {path: filesystem.open_input_stream(path).read() for path in objects()}
    assert found == {f"bucket/stores/{name}/{file}": content for file, content in expected.items()}
    assert_same_tables(tmp_path / "one", plain)
    before = objects()
    assert run("another").returncode == 0
    assert objects() == before
    assert_same_tables(tmp_path / "another", plain)
    cached = [path for path in (tmp_path / "cache of another").iterdir() if len(path.name) == 64]
    assert {path.read_bytes() for path in cached} <= {*expected.values()}
    assert expected["counts_B5.arrow"] in {path.read_bytes() for path in cached}
    storage.shutdown()
    storage.server_close()
    assert_one_line(run("a third"), "s3://bucket/stores", "nobody answers there")
    assert not list(Path(isolated["HOME"]).glob("s3*"))  # values went to the folder of the cache
    records = [(tmp_path / node / "bin_sweep" / "study.json").read_text() for node in ("one", "another")]
    assert all(json.loads(record)["settings"]["store"].startswith("s3://bucket/stores") for record in records)
    for text in (printed, *records):
        for part in (SECRET, "K7MDENG", "AKIAEXAMPLE"):
            assert part not in text
