"""The store when processes are killed, files are damaged and disks are full: never wrong, and whole the next time.

`make chaos` kills many more.
"""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from filelock import FileLock
from store_processes import (
    BIN_COUNTS,
    SMALL_DISK,
    Process,
    assert_is_right,
    build,
    build_at_once,
    build_twice,
    folder_in,
    read,
    read_from_file,
    run_on_small_disks,
)
from test_store import FOLDS, assert_holds_the_counts, snapshot

from histpert.errors import InputError
from histpert.histograms import HistogramStore, open_or_build
from histpert.screens import WorkingSpace, read_screen

N_GROUPS = len(FOLDS) + 1
PARTIAL = re.compile(r"\.(moments|ranges|reference|counts_B\d+|manifest)\.(arrow|json)\.\d+\.[0-9a-f]{8}")


def partial_files(path):
    return {name for name in os.listdir(path) if PARTIAL.fullmatch(name)}


def in_manifest(path):
    """Files that the store has, by itself."""
    manifest = path / "manifest.json"
    return set(json.loads(manifest.read_text())["files"]) if manifest.exists() else set()


def names(path):
    return {name for name in os.listdir(path) if name != "lock"}


def assert_whole(path, bin_counts):
    """All is there and right, nothing else is, and nobody holds the lock."""
    assert_is_right(HistogramStore(path), bin_counts)
    arrays = {"moments.arrow", "ranges.arrow", "reference.arrow", *(f"counts_B{n_bins}.arrow" for n_bins in bin_counts)}
    assert in_manifest(path) == arrays
    assert names(path) == {*arrays, "manifest.json"}
    assert_nobody_holds_the_lock(path)


def assert_nobody_holds_the_lock(path):
    with FileLock(path / "lock").acquire(timeout=0):
        pass


def assert_untouched(path, before, but=("lock",)):
    """The files that were there are the same, with the same content."""
    after = snapshot(path)
    assert {name for name in before if after[name] != before[name]} <= set(but)


def assert_one_line(message, *words):
    assert "\n" not in message
    for word in words:
        assert word in message


# Killed processes


class Kill(NamedTuple):
    """When a process is killed that builds a store."""

    stage: str
    """Stage and groups done; or `write`, when a file has that many bytes."""
    at: int
    built: tuple[int, ...] = ()
    """Bin counts that the store has before."""

    def __str__(self):
        return f"{self.stage} {self.at}" + " of a bin count more" * bool(self.built)


def kills(n_each, seed):
    """At random places: among moments, among counts, and while a bin count is added to a store."""
    draw = random.Random(seed)
    for _ in range(n_each):
        yield Kill("moments", draw.randint(0, N_GROUPS))
        yield Kill("counts", draw.randint(0, N_GROUPS))
        yield Kill("counts", draw.randint(0, N_GROUPS), BIN_COUNTS[:1])


def kills_at_bytes(n_kills, seed):
    """At random bytes of a file; counts at 50 bins have the most."""
    draw = random.Random(seed)
    for number in range(n_kills):
        yield Kill("write", draw.randrange(1, 12_000), BIN_COUNTS[: number % 2])


def kill_and_recover(kill, root):
    before = {}
    if kill.built:
        before = snapshot(build(lambda *told: None, root, kill.built))
    if kill.stage == "write":
        process = Process(build, root, room=kill.at, fatal=True)
        assert process.exit_code() == -signal.SIGXFSZ
    else:
        process = Process(build, root, stop=(kill.stage, kill.at))
        process.hear(kill.stage, kill.at)
        process.kill()
    path = folder_in(root)

    # It was hit while it wrote, and nothing says that the files are there.
    partial = partial_files(path)
    assert any(f".{process.pid}." in name for name in partial)
    if kill.stage == "write":
        assert kill.at in {(path / name).stat().st_size for name in partial}
    else:
        of_stage = "moments.arrow" if kill.stage == "moments" else f"counts_B{BIN_COUNTS[-1]}.arrow"
        assert any(name.startswith(f".{of_stage}.") for name in partial)
    assert f"counts_B{BIN_COUNTS[-1]}.arrow" not in in_manifest(path)
    assert bool(in_manifest(path)) == bool(kill.built)
    assert_nobody_holds_the_lock(path)

    # Others read what was finished before, and nothing else.
    if kill.built:
        Process(read, path, kill.built).result()
    with pytest.raises(InputError, match="counts_B50" if kill.built else "no histogram store"):
        Process(read, path, BIN_COUNTS[::-1]).result()
    assert_untouched(path, before)

    assert Process(build, root).result() == path
    assert_whole(path, BIN_COUNTS)
    assert_untouched(path, before, ("lock", "manifest.json"))


@pytest.mark.parametrize("kill", [*kills(1, seed=0), *kills_at_bytes(1, seed=0)], ids=str)
def test_a_store_whose_process_was_killed_is_completed_by_the_next(kill, tmp_path):
    kill_and_recover(kill, tmp_path)


@pytest.mark.chaos
@pytest.mark.parametrize("kill", [*kills(4, seed=1), *kills_at_bytes(8, seed=2)], ids=str)
def test_a_store_is_completed_wherever_its_process_was_killed(kill, tmp_path):
    kill_and_recover(kill, tmp_path)


@pytest.mark.chaos
def test_a_store_is_completed_by_the_first_that_survives(tmp_path):
    for kill in [*kills(4, seed=3), *kills_at_bytes(8, seed=4)]:
        at_byte = kill.stage == "write"
        room = {"room": kill.at, "fatal": True} if at_byte else {"stop": (kill.stage, kill.at)}
        process = Process(build, tmp_path, **room)
        if not at_byte:
            process.hear(kill.stage, kill.at)
            process.kill()
        assert process.exit_code() == -(signal.SIGXFSZ if at_byte else signal.SIGKILL)
        path = folder_in(tmp_path)
        assert {name.split(".")[-2] for name in partial_files(path)} == {str(process.pid)}
        assert not in_manifest(path)
    Process(build, tmp_path).result()
    assert_whole(path, BIN_COUNTS)


def test_a_process_that_is_killed_while_it_writes_the_manifest_leaves_nothing(tmp_path):
    path = build(lambda *told: None, tmp_path / "whole", long_names=True)
    sizes = {file.name: file.stat().st_size for file in path.iterdir()}
    room = sizes.pop("manifest.json") - 1
    assert room > max(sizes.values())
    root = tmp_path / "killed"
    process = Process(build, root, BIN_COUNTS, True, room=room, fatal=True)
    assert process.exit_code() == -signal.SIGXFSZ
    path = folder_in(root)
    (partial,) = partial_files(path)
    assert partial.startswith(".manifest.json.")
    assert (path / partial).stat().st_size == room
    with pytest.raises(InputError, match="no histogram store"):
        Process(read, path, BIN_COUNTS).result()
    Process(build, root, BIN_COUNTS, True).result()
    assert_whole(path, BIN_COUNTS)


# Processes at once


def test_a_process_that_waits_takes_over_from_one_that_is_killed(tmp_path):
    first = Process(build, tmp_path, stop=("counts", 4))
    first.hear("counts", 4)
    second = Process(build, tmp_path)
    assert second.hear()[0].startswith("waiting")
    assert second.says_nothing(0.5)
    first.kill()
    path = second.result()
    assert ("counts", N_GROUPS) in second.heard
    assert_whole(path, BIN_COUNTS)


def test_one_of_eight_processes_builds_and_the_others_wait_for_it(tmp_path):
    barrier = multiprocessing.get_context("forkserver").Barrier(8)
    # The one that builds stops, so that all others must come while it does.
    processes = [Process(build_at_once, tmp_path, barrier, stop=("counts", 0)) for _ in range(8)]
    for process in processes:
        process.hear()
    builders = [process for process in processes if process.heard == [("moments", 0)]]
    assert len(builders) == 1
    builders[0].hear("counts", 0)
    builders[0].go_on()
    assert len({process.result() for process in processes}) == 1  # each has compared what it read
    for process in processes:
        stages = {stage for stage, _ in process.heard}
        if process is builders[0]:
            assert stages == {"moments", "counts"}
        else:
            assert all(stage.startswith("waiting") for stage in stages)
    path = folder_in(tmp_path)
    assert_whole(path, BIN_COUNTS)
    assert all(file.stat().st_nlink == 1 for file in path.iterdir())


# Damaged files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store that is whole."""
    return build(lambda *told: None, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def damaged(whole, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / whole.name))


def everything(path):
    """All that can be read of a store."""
    store = HistogramStore(path)
    found = {name: getattr(store, name) for name in ("screen", "fingerprint", "genes", "perturbations", "folds")}
    found |= {f"moments {number}": array for number, array in enumerate(store.moments.power_sums)}
    found |= {name: getattr(store.moments, name) for name in ("n_cells", "minimum", "maximum", "n_detected")}
    found |= {f"range {name}": array for name, array in store.ranges._asdict().items()}
    for n_bins in BIN_COUNTS:
        for fold in np.unique(FOLDS):
            counts = store.fold(int(fold), n_bins)
            for name in ("training_counts", "control_counts", "held_out_counts", "held_out_outside"):
                found[f"{name} {n_bins} {fold}"] = getattr(counts, name)
            found[f"reference {fold}"] = counts.held_out_reference
            found[f"edges {n_bins} {fold}"] = counts.edges.edges
    return found


def assert_noticed(path, name):
    with pytest.raises(InputError) as refusal:
        everything(path)
    assert_one_line(str(refusal.value), str(path / name), "damaged")


def flips(path, n_flips, seed):
    """Files, bytes of them and bits to change there: first, last and some byte of each file, and others by size."""
    draw = random.Random(seed)
    sizes = {file.name: file.stat().st_size for file in sorted(path.glob("*.arrow"))}
    places = [(name, at) for name, size in sizes.items() for at in (0, size - 1, draw.randrange(1, size - 1))]
    for name in draw.choices(list(sizes), list(sizes.values()), k=n_flips - len(places)):
        places.append((name, draw.randrange(sizes[name])))
    return [(name, at, draw.randrange(1, 256)) for name, at in places]


def flip(file, at, bits):
    content = bytearray(file.read_bytes())
    content[at] ^= bits
    file.write_bytes(content)


def test_a_flipped_byte_anywhere_in_an_array_is_noticed(damaged):
    places = flips(damaged, 50, seed=0)
    assert len(places) == 50
    for name, at, bits in places:
        flip(damaged / name, at, bits)
        assert_noticed(damaged, name)
        flip(damaged / name, at, bits)
    everything(damaged)


def test_a_flipped_bit_in_any_byte_of_the_manifest_gives_no_wrong_data(damaged):
    manifest, right, draw = damaged / "manifest.json", everything(damaged), random.Random(1)
    wrong = {}
    for at in range(manifest.stat().st_size):
        bit = 1 << draw.randrange(3)  # mostly makes another digit or letter
        flip(manifest, at, bit)
        try:
            found = everything(damaged)
            other = [name for name in right if not np.array_equal(found[name], right[name])]
            if other:
                wrong.setdefault(f"other {other[0]}", []).append(at)
        except InputError as refusal:
            assert_one_line(str(refusal), str(damaged))
        except Exception as error:
            wrong.setdefault(repr(error), []).append(at)
        flip(manifest, at, bit)
    assert not wrong, "\n".join(f"{what}: {len(places)} bytes" for what, places in wrong.items())


LENGTHS = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "one byte long": lambda content: content + b"\0",
    "a page long": lambda content: content + bytes(4096),
    "twice": lambda content: content * 2,
}


@pytest.mark.parametrize("change", LENGTHS.values(), ids=LENGTHS)
def test_a_file_of_another_length_is_noticed(damaged, change):
    for file in sorted(damaged.glob("*.arrow")):
        content = file.read_bytes()
        file.write_bytes(change(content))
        assert_noticed(damaged, file.name)
        file.write_bytes(content)
    manifest = damaged / "manifest.json"
    # Without its last byte, an end of line, it says the same.
    manifest.write_bytes(change(manifest.read_bytes().strip()))
    with pytest.raises(InputError) as refusal:
        everything(damaged)
    assert_one_line(str(refusal.value), "manifest.json")


# Full disks

SAID = ("--store", "cannot be written")


def rooms(whole):
    """Bytes that a file may have so that a file of that name does not fit, and those that are written before it."""
    size = {name: (whole / name).stat().st_size for name in names(whole)}
    counts = f"counts_B{BIN_COUNTS[-1]}.arrow"
    assert size["moments.arrow"] < size[counts]
    return {
        "the start of moments": (100, set()),
        "moments": (size["moments.arrow"] - 1, set()),
        "counts": (size["moments.arrow"], {"moments.arrow", "ranges.arrow"}),
        "the end of counts": (size[counts] - 1, {"moments.arrow", "ranges.arrow"}),
    }


@pytest.mark.parametrize("file", ["the start of moments", "moments", "counts", "the end of counts"])
def test_a_file_for_which_there_is_no_room_is_an_input_error(whole, tmp_path, file):
    room, before = rooms(whole)[file]
    said, left = Process(build_twice, tmp_path, room=room).result()
    path = folder_in(tmp_path)
    assert_one_line(said, str(path), "File too large", *SAID)
    assert set(left) - {"lock"} == before
    assert_whole(path, BIN_COUNTS)


def test_a_manifest_for_which_there_is_no_room_is_an_input_error(tmp_path):
    path = build(lambda *told: None, tmp_path / "whole", long_names=True)
    room = (path / "manifest.json").stat().st_size - 1
    said, left = Process(build_twice, tmp_path / "full", BIN_COUNTS, True, room=room).result()
    assert_one_line(said, "File too large", *SAID)
    assert set(left) - {"lock"} == names(path) - {"manifest.json"}
    assert_whole(folder_in(tmp_path / "full"), BIN_COUNTS)


def test_a_store_stays_readable_where_there_is_no_room_for_another_bin_count(tmp_path):
    path = build(lambda *told: None, tmp_path, BIN_COUNTS[:1])
    before = snapshot(path)
    process = Process(build, tmp_path, room=max(file.stat().st_size for file in path.iterdir()))
    with pytest.raises(InputError, match="File too large") as refusal:
        process.result()
    assert_one_line(str(refusal.value), *SAID)
    assert_whole(path, BIN_COUNTS[:1])
    assert_untouched(path, before)
    Process(read, path, BIN_COUNTS[:1]).result()
    Process(build, tmp_path).result()
    assert_whole(path, BIN_COUNTS)
    assert_untouched(path, before, ("lock", "manifest.json"))


@pytest.fixture
def small_disks(tmp_path):
    """A folder in which disks may be mounted; skips where this is not allowed."""
    mount = [*SMALL_DISK, "mount", "-t", "tmpfs", "-o", "size=4k", "none", tmp_path]
    try:
        tried = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"no disk of a small size can be had: {error}")
    if tried.returncode:
        pytest.skip(f"no disk of a small size can be had: {tried.stderr.strip()}")
    return tmp_path


def test_a_full_disk_is_an_input_error_whichever_page_is_missing(small_disks):
    tried = run_on_small_disks("new_stores", small_disks)
    arrays = {"moments.arrow", "ranges.arrow", "reference.arrow", "counts_B5.arrow", "counts_B50.arrow"}
    for said, left, read_then in tried:
        assert_one_line(said, "No space left on device", *SAID)
        assert set(left) <= {*arrays, "lock"}
        assert "no histogram store" in read_then
    reached = [set(left) - {"lock"} for _, left, _ in tried]
    assert reached[0] == set()
    assert {"moments.arrow", "ranges.arrow"} in reached  # it was full while counts were written
    assert reached[-1] == arrays  # only the manifest had no room


def test_a_store_on_a_full_disk_stays_readable(small_disks):
    tried = run_on_small_disks("larger_stores", small_disks)
    assert len(tried) > 2
    for said, left, changed in tried:
        assert_one_line(said, "No space left on device", *SAID)
        assert not [name for name in left if name.startswith(".")]
        assert changed == []
    assert "counts_B50.arrow" not in tried[0][1]
    assert "counts_B50.arrow" in tried[-1][1]  # only the manifest had no room


# Values in a file


def screen_file(path, values, compression=None):
    """Of cells grouped as those of the store's screen."""
    labels = ["control"] * 40 + [f"P{number}" for number in range(7) for _ in range(30)]
    obs = pd.DataFrame({"perturbation": labels}, index=[f"C{number}" for number in range(len(labels))])
    var = pd.DataFrame(index=[f"G{number}" for number in range(values.shape[1])])
    anndata.AnnData(values, obs=obs, var=var).write_h5ad(path, compression=compression)
    return path


def counts():
    """Whole numbers, and what they are log-normalized."""
    found = np.random.default_rng(0).poisson(1.0, (250, 12)).astype(np.float32)
    found[:, 0] += 1
    return found, np.log1p(found / found.sum(axis=1, keepdims=True, dtype=np.float64) * 1e4)


def logarithms():
    """Log-normalized values; those of some cells are whole numbers, which for themselves could be counts."""
    _, found = counts()
    whole = np.arange(len(found)) % 7 == 3
    found[whole] = np.where(found[whole] > 0, 3, 0)
    return found.astype(np.float32), found


def untidy(values):
    """A CSR matrix in which values are made of two that follow each other at some distance, columns in any order."""
    draw = np.random.default_rng(1)
    cells, columns = np.nonzero(values)
    stored = values[cells, columns]
    split = stored >= 2  # taking 1 away is exact
    rest = np.where(split, stored - 1, stored)
    cells, columns = np.concatenate([cells, cells[split]]), np.concatenate([columns, columns[split]])
    stored = np.concatenate([rest, np.ones(split.sum(), dtype=values.dtype)])
    order = np.lexsort([draw.random(len(cells)), cells])
    bounds = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=len(values)))])
    return sp.csr_matrix((stored[order], columns[order], bounds), shape=values.shape)


LAYOUTS = {
    "dense": (np.asarray, None),
    "dense in gzip": (np.asarray, "gzip"),
    "CSR": (sp.csr_matrix, None),
    "CSR in gzip": (sp.csr_matrix, "gzip"),
    "untidy CSR": (untidy, None),
    "untidy CSR in gzip": (untidy, "gzip"),
}


@pytest.mark.parametrize("values", [counts, logarithms])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_store_of_values_in_a_file_is_that_of_values_in_memory(tmp_path, values, layout):
    made, expected = values()
    arrange, compression = LAYOUTS[layout]
    file, folder = screen_file(tmp_path / "s.h5ad", arrange(made), compression), tmp_path / "values"
    contents = []
    for root, space in (("memory", WorkingSpace()), ("file", WorkingSpace(0, folder))):
        screen = read_screen(file, space=space)
        if Path("/proc/self/maps").exists():
            assert (f"{folder}/" in Path("/proc/self/maps").read_text()) == (root == "file")
        np.testing.assert_allclose(screen.expression.toarray(), expected, rtol=1e-6)
        assert_holds_the_counts(open_or_build(tmp_path / root, screen, FOLDS, BIN_COUNTS), screen, BIN_COUNTS[:1])
        path = folder_in(tmp_path / root)
        contents.append((path.name, {name: (path / name).read_bytes() for name in names(path)}))
        del screen
    assert contents[0] == contents[1]
    assert list(folder.iterdir()) == []


@pytest.fixture
def counts_file(tmp_path):
    return screen_file(tmp_path / "s.h5ad", sp.csr_matrix(counts()[0]))


SAID_OF_VALUES = ("--memory-gb", "--store", "no room")


@pytest.mark.parametrize("room", [0, 4096])
def test_values_for_which_a_file_has_no_room_are_an_input_error(tmp_path, counts_file, room):
    folder = tmp_path / "values"
    with pytest.raises(InputError, match="File too large") as refusal:
        Process(read_from_file, counts_file, folder, room=room).result()
    assert_one_line(str(refusal.value), str(folder), *SAID_OF_VALUES)
    assert list(folder.iterdir()) == []


def test_values_for_which_a_disk_has_no_room_are_an_input_error(small_disks, counts_file):
    tried = run_on_small_disks("values_in_files", small_disks, counts_file)
    assert len(tried) == 2
    for said, left in tried:
        assert_one_line(said, "No space left on device", *SAID_OF_VALUES)
        assert left == []


def test_a_killed_process_leaves_no_values(tmp_path, counts_file):
    folder, root = tmp_path / "values", tmp_path / "stores"
    process = Process(read_from_file, counts_file, folder, root, stop=("counts", 3))
    process.hear("counts", 3)
    maps = Path(f"/proc/{process.pid}/maps")
    assert not maps.exists() or f"{folder}/" in maps.read_text()
    process.kill()
    assert list(folder.iterdir()) == []
