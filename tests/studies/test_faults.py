"""Studies on a real Ray when processes and nodes are killed, memory and disks end, and others have ports and tokens."""

import json
import os
import random
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from listening import listeners
from running import N_SHORT, SHORT, assert_same, end, entries, isolated_in, processes, start, tables, wait_for, workers

pytestmark = [
    pytest.mark.ray,
    pytest.mark.chaos,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes through /proc"),
]

HERE = Path(__file__).parent
SMALL_DISK = ("unshare", "--user", "--map-root-user", "--mount")
STALE = "127.0.0.1:6390"
"""Where a Ray was that is gone."""


def n_lines(text: str) -> int:
    return len(text.splitlines())


# Killed drivers


def kill(study: subprocess.Popen[str]) -> None:
    os.killpg(study.pid, signal.SIGKILL)
    study.wait()


@pytest.mark.chaos
def test_a_study_that_is_killed_ten_times_trains_nothing_twice_and_ends_as_one_that_is_not(
    undisturbed, started, isolated, tmp_path
):
    draw = random.Random(0)
    # While it starts; then once there are so many entries more; and when there are all, while tables are written.
    moments = [(0, draw.uniform(0, 12)) for _ in range(4)]
    moments += [(1, draw.uniform(0, 1.5)) for _ in range(4)]
    moments += [(N_SHORT, draw.uniform(0, 3)) for _ in range(2)]
    done: dict[str, tuple[int, int]] = {}
    for more, seconds in moments:
        study = started(*SHORT, "--out", tmp_path)
        enough = min(len(done) + more, N_SHORT)
        wait_for(lambda study=study, enough=enough: len(entries(tmp_path)) >= enough or study.poll() is not None)
        with suppress(subprocess.TimeoutExpired):
            study.wait(seconds)
        kept = entries(tmp_path)
        kill(study)
        assert done.items() <= kept.items()
        done = kept
    last = started(*SHORT, "--out", tmp_path)
    said = last.communicate(timeout=200)[0]
    assert last.returncode == 0, said
    assert done.items() <= entries(tmp_path).items()
    assert_same(tables(tmp_path), undisturbed)
    wait_for(lambda: not processes(isolated))


# Lost nodes


@contextmanager
def cluster(environment: dict[str, str], *n_cpus: int) -> Iterator[tuple[dict[str, str], list[int]]]:
    """What leads a study to a cluster on loopback, and the raylets of its nodes."""
    token = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    nodes = subprocess.Popen(
        [sys.executable, HERE / "nodes.py", *map(str, n_cpus)],
        env=environment | token,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said = json.loads(nodes.stdout.readline())
        yield token | {"RAY_ADDRESS": said["address"]}, said["raylets"]
        nodes.communicate("", timeout=60)
    finally:
        end(nodes)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.chaos
def test_a_study_outlives_a_node_that_is_lost(undisturbed, started, isolated, tmp_path):
    with cluster(isolated, 0, 1, 1) as (leads, raylets):
        one = ("--max-concurrent-trials", 1, "--checkpoint-seconds", 0)
        study = started(*SHORT, *one, "--out", tmp_path, environment=leads)
        wait_for(lambda: list((tmp_path / "bin_sweep" / "checkpoints").glob("*.pt")))  # it trains
        (worker,) = workers(isolated)
        raylet = parent(worker)
        assert raylet in raylets
        os.kill(raylet, signal.SIGKILL)
        (instead,) = wait_for(lambda: set(workers(isolated)) - {worker})
        assert parent(instead) in set(raylets) - {raylet}
        said = study.communicate(timeout=200)[0]
    assert study.returncode == 0, said
    assert_same(tables(tmp_path), undisturbed)


# Memory

WIDE = 3100
"""Units of a layer: a matrix between two such takes 38 MB, which malloc gets from the system and gives back."""


def address_space(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def leave_too_little_memory(pid: int) -> None:
    """What the process has when its gradients are freed, and less than one of them."""
    least = min(address_space(pid) for _ in range(500) if not time.sleep(0.002))
    resource.prlimit(pid, resource.RLIMIT_AS, (least + (20 << 20), resource.RLIM_INFINITY))


@pytest.mark.chaos
def test_a_trial_that_gets_no_memory_has_a_result_once_it_is_tried_alone(started, isolated, tmp_path):
    wide = ("--hidden", WIDE, WIDE, WIDE, "--epochs", 12, "--checkpoint-seconds", 0)
    study = started("--folds", 3, "--only-folds", 0, "--bins", 5, *wide, "--out", tmp_path)
    wait_for(lambda: list((tmp_path / "bin_sweep" / "checkpoints").glob("*.pt")))  # it trains
    for pid in workers(isolated):
        leave_too_little_memory(pid)
    said = study.communicate(timeout=200)[0]
    assert study.returncode == 0, said
    assert "1 trials ran out of memory or lost their worker: each is tried once more, with nothing beside it" in said
    assert (pd.read_parquet(tmp_path / "bin_sweep" / "trials.parquet")["status"] == "ok").all()


# Full disks


@pytest.mark.chaos
def test_a_study_whose_ledger_is_full_says_so_and_goes_on_once_there_is_room(undisturbed, isolated, tmp_path):
    tried = subprocess.run([*SMALL_DISK, "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"no disk of a small size can be had: {tried.stderr.decode().strip()}")
    done = subprocess.run(
        [*SMALL_DISK, sys.executable, HERE / "full_ledger.py", tmp_path],
        env=isolated,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (status, _, errors), (status_then, said_then, errors_then) = found["said"]
    assert status == 2
    assert n_lines(errors) == 1, errors
    ledger = tmp_path / "bin_sweep" / "ledger"
    assert errors.startswith(f"error: results cannot be written into {ledger} ([Errno 28] No space left on device")
    assert "make room and run the same command again" in errors
    n_before = len(found["before"])
    assert 0 < n_before < N_SHORT
    assert (status_then, errors_then) == (0, ""), said_then
    assert f"{N_SHORT} trials, {n_before} done before, {N_SHORT - n_before} to run" in said_then
    assert found["before"].items() <= found["after"].items()
    assert_same(tables(tmp_path), undisturbed)


# What others left, and have


def leave_stale_address(environment: dict[str, str]) -> None:
    folder = Path(environment["TMPDIR"]) / "ray"
    folder.mkdir()
    (folder / "ray_current_cluster").write_text(STALE)


@pytest.fixture(scope="module")
def beside_others(tmp_path_factory) -> dict[str, Any]:
    """A study where Ray's own ports are taken, and a file names a cluster that is gone; and where it listened."""
    folder = tmp_path_factory.mktemp("others")
    environment = isolated_in(folder)
    leave_stale_address(environment)
    heard: dict[int, str] = {}
    with ExitStack() as stack:
        for port in (6379, 8265, 10001, 52365):
            with suppress(OSError):  # another has it already
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        study = start(environment, "--smoke", "--out", folder, stderr=subprocess.PIPE)
        stack.callback(end, study)
        while study.poll() is None:
            heard |= listeners(processes(environment))
            time.sleep(0.2)
        said, errors = study.communicate()
    return {"status": study.returncode, "said": said, "errors": errors, "heard": heard}


def test_a_study_needs_none_of_the_ports_that_others_have_and_no_cluster_that_is_gone(beside_others):
    assert (beside_others["status"], beside_others["errors"]) == (0, "")
    assert "24/24 trials ended" in beside_others["said"]


def test_a_study_listens_on_loopback_only(beside_others):
    assert len(beside_others["heard"]) > 3
    assert set(beside_others["heard"].values()) <= {"127.0.0.1", "::1"}


def refused(environment: dict[str, str], out: Path, within: Sequence[str] = ()) -> str:
    """The one line of a study that is led to a Ray that does not take it."""
    study = start(environment, "--smoke", "--out", out, within=within, stderr=subprocess.PIPE)
    try:
        while "to run; results in" not in (line := study.stdout.readline()):
            assert line, study.stderr.read()
        begin = time.monotonic()
        _, errors = study.communicate(timeout=120)
    finally:
        end(study)
    assert (study.returncode, n_lines(errors)) == (2, 1), errors
    assert time.monotonic() - begin < 15
    assert not (out / "bin_sweep").exists()
    return errors


def test_a_cluster_that_is_gone_is_one_line(tmp_path):
    # With `auto` Ray takes any other that it sees on this machine.
    alone = [*SMALL_DISK, "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("processes of others cannot be hidden")
    environment = isolated_in(tmp_path) | {"RAY_ADDRESS": "auto"}
    leave_stale_address(environment)
    said = refused(environment, tmp_path, alone)
    assert said.startswith(f"error: no Ray answers at RAY_ADDRESS=auto ({STALE}: ")
    assert said.endswith("): start it, or unset RAY_ADDRESS to run on this machine alone\n")


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Iterator[str]:
    """The address of a Ray that wants a token."""
    with cluster(isolated_in(tmp_path_factory.mktemp("head")), 0) as (leads, _):
        yield leads["RAY_ADDRESS"]


ANOTHER = {"RAY_AUTH_TOKEN": "0" * 64}
TOKENS = {
    "another": ({"RAY_AUTH_MODE": "token"} | ANOTHER, "the one given is another"),
    "one that is not used": (ANOTHER, "none is given without RAY_AUTH_MODE"),
    "none": ({}, "none is given without RAY_AUTH_MODE"),
    "no file": ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/nowhere"}, "/nowhere"),
}


@pytest.mark.parametrize(("given", "reason"), TOKENS.values(), ids=TOKENS)
def test_a_cluster_that_wants_another_token_is_one_line(isolated, tmp_path, head, given, reason):
    said = refused(isolated | given | {"RAY_ADDRESS": head}, tmp_path)
    assert said.startswith(f"error: Ray at RAY_ADDRESS={head} wants its token (")
    assert reason in said
    assert said.endswith("): set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file that holds it\n")


# Ctrl-C


def interrupt(study: subprocess.Popen[str]) -> None:
    """What a terminal does, and what must come of it."""
    os.killpg(study.pid, signal.SIGINT)
    said, errors = study.communicate(timeout=60)
    assert (study.returncode, errors) == (130, "stopped; the same command goes on with what is missing\n"), said
    assert "Traceback" not in said


def test_ctrl_c_stops_a_study_that_the_same_command_goes_on_with(undisturbed, started, isolated, tmp_path):
    study = started(*SHORT, "--out", tmp_path, stderr=subprocess.PIPE)
    done = wait_for(lambda: entries(tmp_path))
    interrupt(study)
    kept = entries(tmp_path)
    assert done.items() <= kept.items()
    assert len(kept) < N_SHORT
    assert not (tmp_path / "bin_sweep" / "trials.parquet").exists()
    again = started(*SHORT, "--out", tmp_path)
    said = again.communicate(timeout=200)[0]
    assert again.returncode == 0, said
    assert kept.items() <= entries(tmp_path).items()
    assert_same(tables(tmp_path), undisturbed)


def test_ctrl_c_stops_a_study_whose_workers_only_start(started, isolated, tmp_path):
    study = started(*SHORT, "--out", tmp_path, stderr=subprocess.PIPE)
    wait_for(lambda: any(b"default_worker.py" in title for title in processes(isolated).values()))
    interrupt(study)
    assert not (tmp_path / "bin_sweep").exists()
    wait_for(lambda: not processes(isolated))
