"""The study as a submitted Ray job, from an installed checkout and with an uploaded working directory."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")

pytestmark = pytest.mark.ray

Run = Callable[..., subprocess.CompletedProcess[str]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def ray(isolated) -> Iterator[Run]:
    """The `ray` command, talking to a head of its own that listens on loopback and wants a token."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: Ray's sockets lie below it
    address = f"http://127.0.0.1:{free_port()}"
    environment = isolated | {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_API_SERVER_ADDRESS": address,
        "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [RAY, *words]
        for _ in range(30):
            done = subprocess.run(
                command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
            )
            if "No available agent" not in done.stderr:  # on a busy machine it starts late
                break
        return done

    # Not `ray stop`, which would stop every Ray on this machine: the head ends with this process group.
    head = [RAY, "start", "--head", "--block", "--num-cpus", "2", "--disable-usage-stats", "--temp-dir", folder]
    head += ["--node-ip-address", "127.0.0.1", "--port", str(free_port())]
    # An agent whose fixed port another Ray still has lives on without taking jobs.
    head += ["--dashboard-agent-listen-port", "0"]
    head += ["--dashboard-host", "127.0.0.1", "--dashboard-port", address.rsplit(":", 1)[1]]
    process = subprocess.Popen(
        head, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(60):
            if run("job", "list").returncode == 0:
                break
            assert process.poll() is None, "the head did not start"
        yield run
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def status(ray: Run, submitted: subprocess.CompletedProcess[str]) -> str:
    job = re.search(r"raysubmit_\w+", submitted.stdout + submitted.stderr)
    assert job, submitted.stdout + submitted.stderr
    answer = ray("job", "status", job[0])
    return answer.stdout + answer.stderr


def test_a_job_from_an_installed_checkout_leaves_its_results_where_it_says(ray, tmp_path):
    job = ray("job", "submit", "--", "python", "studies/bin_sweep.py", "--smoke", "--out", str(tmp_path))
    assert "SUCCEEDED" in status(ray, job).upper(), job.stdout
    assert f"figure: {tmp_path}/bin_sweep/figures/rmae_by_bins.png" in job.stdout
    assert (tmp_path / "bin_sweep" / "figures" / "rmae_by_bins.png").stat().st_size > 0
    assert (tmp_path / "bin_sweep" / "trials.parquet").exists()


def test_a_job_with_an_uploaded_folder_leaves_its_results_at_home(ray, isolated):
    job = ray("job", "submit", "--working-dir", ".", "--", "python", "studies/bin_sweep.py", "--smoke")
    assert "SUCCEEDED" in status(ray, job).upper(), job.stdout
    folder = Path(isolated["HOME"]) / "histpert-results" / "bin_sweep"
    assert f"figure: {folder}/figures/rmae_by_bins.png" in job.stdout
    assert (folder / "figures" / "rmae_by_bins.png").stat().st_size > 0


def test_an_uploaded_folder_is_what_runs_whether_installed_or_not(ray):
    where = "import histpert, analysis; print(histpert.__file__, analysis.__file__)"
    job = ray("job", "submit", "--working-dir", ".", "--", "python", "-P", "-c", where)
    assert job.stdout.count("working_dir_files") == 2, job.stdout


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "http://127.0.0.1:{port}"])
def test_an_address_without_a_cluster_is_one_line(isolated, tmp_path, address):
    named = address.format(port=free_port())
    run = subprocess.run(
        [sys.executable, ROOT / "studies" / "bin_sweep.py", "--smoke", "--out", tmp_path],
        env=isolated | {"RAY_ADDRESS": named},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.startswith(f"error: no Ray answers at RAY_ADDRESS={named} (")
    assert len(run.stderr.splitlines()) == 1


def test_a_failing_job_is_failed_with_its_error_line_in_the_log(ray):
    arguments = ["--smoke", "--screen", "missing.h5ad", "--embeddings", "missing.npz"]
    job = ray("job", "submit", "--", "python", "studies/bin_sweep.py", *arguments)
    assert "FAILED" in status(ray, job).upper()
    assert re.search(r"^error: .*missing\.npz does not exist", job.stdout, flags=re.MULTILINE)
