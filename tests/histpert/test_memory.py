"""How much memory there is to take: of this machine, and in cgroups as Linux has them in versions 1 and 2."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from histpert import memory
from histpert.memory import CGROUPS, available_bytes

ROOT = Path(__file__).parents[2]
MB = 1 << 20
UNLIMITED = 2**63 - 4096
"""What version 1 says where nobody set a limit."""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says more than all there is")


def of_machine(what):
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def own_cgroup():
    """The cgroup of this process in the hierarchy of memory, version 1."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next((line.split(":")[2].lstrip("/") for line in lines if line.split(":")[1] == "memory"), "")


def cgroup(folder, version, limit, taken, inactive=0):
    """Files as the kernel shows them: version 1 tells its own pages, and in `total_` also those of cgroups inside."""
    folder.mkdir(parents=True, exist_ok=True)
    limit_name, taken_name, _ = CGROUPS[0 if version == 2 else 1]
    (folder / limit_name).write_text(f"{limit}\n")
    (folder / taken_name).write_text(f"{taken}\n")
    stat = f"anon 5\nfile {inactive}\nactive_file 7\ninactive_anon 3\ninactive_file {inactive}\n"
    if version == 1:
        stat += f"hierarchical_memory_limit {limit}\ntotal_inactive_anon 3\ntotal_inactive_file {inactive}\n"
    (folder / "memory.stat").write_text(stat)


@pytest.fixture(params=[2, 1], ids=["version 2", "version 1"])
def version(request):
    return request.param


INSIDE = Path("slurm/job_7/step_0")
SAID = {2: f"0::/{INSIDE}\n", 1: f"9:name=systemd:/\n4:cpu,memory:/{INSIDE}\n2:cpuset:/memory\n0::/\n"}
"""What the kernel says of a process; version 2 may be there beside version 1, without memory."""


class Machine(type(Path())):
    """A path on a machine on which this process is in another cgroup."""

    said = ""

    def read_text(self, encoding=None, errors=None):
        return Machine.said if str(self) == "/proc/self/cgroup" else super().read_text(encoding, errors)


@pytest.fixture
def root(version, tmp_path, monkeypatch):
    """Of a hierarchy of this version, empty; there is none of the other."""
    names = [(limit, taken) for limit, taken, _ in CGROUPS]
    roots = [tmp_path / ("here" if version == of else "none") for of in (2, 1)]
    faked = tuple((*files, Machine(at)) for files, at in zip(names, roots, strict=True))
    monkeypatch.setattr(memory, "CGROUPS", faked)
    monkeypatch.setattr(memory, "Path", Machine)
    monkeypatch.setattr(Machine, "said", SAID[version])
    return tmp_path / "here"


def test_there_is_some_memory_and_no_more_than_the_machine_has():
    assert 0 < available_bytes() <= of_machine("MemTotal")
    assert available_bytes() < 1.2 * of_machine("MemAvailable")


def test_without_cgroups_it_is_what_the_machine_has_available(root):
    assert available_bytes() == pytest.approx(of_machine("MemAvailable"), rel=0.2)


def test_a_limit_leaves_what_is_not_taken_yet(root, version):
    cgroup(root / INSIDE, version, 300 * MB, 120 * MB)
    assert available_bytes() == 180 * MB


@pytest.mark.parametrize("version", [2, 1], ids=["version 2", "version 1"])
def test_files_in_memory_make_room(root, version):
    cgroup(root / INSIDE, version, 300 * MB, 250 * MB, inactive=100 * MB)
    assert available_bytes() == 150 * MB


def test_no_more_than_the_limit_is_left_however_much_is_in_files(root, version):
    cgroup(root / INSIDE, version, 30 * MB, 30 * MB, inactive=10 * MB)
    assert 10 * MB <= available_bytes() <= 30 * MB


@pytest.mark.parametrize("limit", ["max", UNLIMITED])
def test_a_cgroup_without_a_limit_limits_nothing(root, version, limit):
    for folder in (root, root / INSIDE):
        cgroup(folder, version, limit, 120 * MB)
    assert available_bytes() == pytest.approx(of_machine("MemAvailable"), rel=0.2)


def test_more_taken_than_allowed_leaves_nothing(root, version):
    cgroup(root / INSIDE, version, 100 * MB, 130 * MB)
    assert available_bytes() == 0


@pytest.mark.parametrize("least", range(4))
def test_cgroups_inside_each_other_each_have_their_say(root, version, least):
    folders = [root / INSIDE, *(root / outer for outer in INSIDE.parents)]
    for folder in folders:
        cgroup(folder, version, 500 * MB, 100 * MB)
    cgroup(folders[least], version, 300 * MB, 120 * MB)
    assert available_bytes() == 180 * MB


def test_cgroups_of_others_have_none(root, version):
    for other in ("slurm/job_8", "slurm/job_7/step_1", "memory"):
        cgroup(root / other, version, 10 * MB, 1 * MB)
    assert available_bytes() == pytest.approx(of_machine("MemAvailable"), rel=0.2)


def test_a_limit_outside_holds_where_that_inside_is_none(root, version):
    for folder in (root, root / INSIDE):
        cgroup(folder, version, "max" if version == 2 else UNLIMITED, 100 * MB)
    cgroup(root, version, 200 * MB, 150 * MB)
    assert available_bytes() == 50 * MB


def test_a_container_that_sees_its_own_cgroup_as_the_outermost_is_limited_by_it(root, version):
    """There is no folder of the name that the kernel tells, which is one of the host."""
    cgroup(root, version, 300 * MB, 120 * MB)
    assert available_bytes() == 180 * MB


def test_files_that_say_nothing_of_use_limit_nothing(root, version):
    folder = root / INSIDE
    cgroup(folder, version, "plenty", 1)
    assert available_bytes() == pytest.approx(of_machine("MemAvailable"), rel=0.2)
    cgroup(folder, version, 300 * MB, "")
    assert available_bytes() == pytest.approx(of_machine("MemAvailable"), rel=0.2)


# Takes memory, fills the cache of files, and says what is left after each.
IN_A_CGROUP = """
import os, sys
from histpert.memory import available_bytes
print(available_bytes())
taken = bytearray(b"x") * (100 << 20)
print(available_bytes())
with open(sys.argv[1], "wb", 0) as file:
    file.write(bytes(100 << 20))
    os.fsync(file.fileno())
print(available_bytes())
"""


@pytest.fixture
def limited():
    """A real cgroup of 300 MB around what is run in it."""
    _, _, hierarchy = CGROUPS[1]
    if os.geteuid() or not os.access(hierarchy / "memory.limit_in_bytes", os.W_OK):
        pytest.skip("needs root and cgroups of version 1 that can be written")
    folder = hierarchy / own_cgroup() / f"histpert-{uuid4().hex}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(300 * MB))
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield folder
    folder.rmdir()


@pytest.fixture
def told(limited, tmp_path):
    """What is left in it at first, with 100 MB taken, and with a file of 100 MB written."""
    command = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    run = subprocess.run(
        ["sh", "-c", command, limited, sys.executable, "-c", IN_A_CGROUP, tmp_path / "file"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return [int(line) / MB for line in run.stdout.split()]


def test_a_real_limit_is_held_to(told):
    at_first, with_taken, _ = told
    assert 200 < at_first < 300
    assert 90 < at_first - with_taken < 110


def test_what_a_file_takes_of_a_real_limit_can_be_had_again_and_no_more(told):
    _, with_taken, with_file = told
    assert with_taken - 30 < with_file < with_taken + 10


FAULTS = """
import resource, sys
import numpy as np
from histpert.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def work():
    for _ in range(20):
        arrays = [np.ones(10 << 17) for _ in range(6)]  # 10 MB each, as a training step's
        del arrays
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(os, "confstr") or "glibc" not in platform.libc_ver(), reason="glibc's")
def test_memory_that_is_freed_is_not_provided_anew():
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("given back", "kept")
    )
    assert kept < 0.1 * given_back
