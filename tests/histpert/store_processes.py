"""Processes that build and read stores, which tests stop, kill and leave without room.

They are forked from one that has imported everything and run nothing, so that many of them take little time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import numpy as np
import test_store
from test_store import FOLDS, assert_holds_the_counts

from histpert.errors import InputError
from histpert.histograms import HistogramStore, bin_edges, open_or_build
from histpert.histograms.store import REFERENCE_BINS
from histpert.screens import WorkingSpace, read_screen

BIN_COUNTS = (5, 50)
PATIENCE = 60.0
"""Seconds after which a process that says nothing has failed."""
PAGE = 4096

_CONTEXT = multiprocessing.get_context("forkserver")


class Process:
    """A process that calls `work(progress, *arguments)`; what `progress` is told there is heard here.

    Args:
        work: A function of a module.
        arguments: Its arguments.
        stop: Stage and number at which `progress` waits to be told to go on.
        room: Bytes that a file may have.
        fatal: Whether a write beyond that kills the process, in the middle of the write; else it is an error.
    """

    def __init__(self, work, *arguments, stop=None, room=None, fatal=False):
        self._pipe, there = _CONTEXT.Pipe()
        _CONTEXT.set_forkserver_preload([__name__])
        with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
            forkserver.ensure_running()
        self._process = _CONTEXT.Process(target=_run, args=(there, work, arguments, stop, room, fatal), daemon=True)
        self._process.start()
        there.close()
        self.pid = self._process.pid
        self.heard = []
        """All that `progress` was told so far: stage and number of groups done."""

    def hear(self, *what):
        """Wait until `progress` is told this, or by default anything, and return what it is told."""
        while True:
            kind, said = self._receive()
            assert kind == "progress", said
            self.heard.append(said)
            if not what or said == what:
                return said

    def says_nothing(self, seconds):
        return not self._pipe.poll(seconds)

    def go_on(self):
        """From where it stopped."""
        self._pipe.send(None)

    def kill(self):
        self._process.kill()
        assert self.exit_code() == -signal.SIGKILL

    def exit_code(self):
        self._process.join(PATIENCE)
        return self._process.exitcode

    def result(self):
        """What the work returned, once it has; an InputError there is raised here."""
        while True:
            kind, said = self._receive()
            if kind == "progress":
                self.heard.append(said)
                continue
            assert self.exit_code() == 0
            if kind == "refused":
                raise InputError(said)
            assert kind == "returned", said
            return said

    def _receive(self):
        assert self._pipe.poll(PATIENCE), f"heard nothing after {self.heard}"
        return self._pipe.recv()


def _run(pipe, work, arguments, stop, room, fatal):
    def progress(stage, done, total):
        pipe.send(("progress", (stage, done)))
        if (stage, done) == stop:
            pipe.recv()

    try:
        if room is not None:
            warm_up()  # compiled code, when it is first called, may be written too
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if fatal else signal.SIG_IGN)
        pipe.send(("returned", work(progress, *arguments)))
    except InputError as error:
        pipe.send(("refused", str(error)))
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))


def make_screen(long_names=False):
    """That of the tests of the store; with long names its manifest, where each letter takes 6 bytes, is the largest."""
    screen = test_store.make_screen()
    if long_names:
        object.__setattr__(screen, "perturbations", tuple(name + "β" * 1000 for name in screen.perturbations))
    return screen


def assert_is_right(store, bin_counts):
    """All that the store holds against NumPy."""
    screen = make_screen()
    assert_holds_the_counts(store, screen, bin_counts)
    groups = np.split(screen.expression.toarray().astype(np.float64), screen.group_start[1:-1])
    np.testing.assert_allclose(store.moments.power_sums[1], [(cells**2).sum(axis=0) for cells in groups], rtol=1e-12)
    np.testing.assert_array_equal(store.moments.maximum, [cells.max(axis=0) for cells in groups])
    lowest, highest = store.moments.minimum.min(axis=0), store.moments.maximum.max(axis=0)
    edges = bin_edges(lowest, highest, REFERENCE_BINS).edges
    for fold in np.unique(FOLDS):
        cells = [groups[p + 1] for p in np.flatnonzero(fold == FOLDS)]
        expected = [[np.histogram(group[:, gene], on)[0] for gene, on in enumerate(edges)] for group in cells]
        np.testing.assert_array_equal(store.fold(int(fold), bin_counts[0]).held_out_reference, expected)


def folder_in(root):
    """Of the one store there."""
    (path,) = Path(root).iterdir()
    return path


def build(progress, root, bin_counts=BIN_COUNTS, long_names=False):
    """Build a store and compare what it holds; returns its folder."""
    assert_is_right(open_or_build(root, make_screen(long_names), FOLDS, bin_counts, progress), bin_counts)
    return folder_in(root)


def build_at_once(progress, root, barrier):
    """The same, started at the same time as others."""
    warm_up()
    barrier.wait(PATIENCE)
    return build(progress, root)


def build_twice(progress, root, bin_counts=BIN_COUNTS, long_names=False):
    """Build where there is too little room, and again when there is enough; returns what was said and left over."""
    try:
        build(progress, root, bin_counts, long_names)
    except InputError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        names = sorted(os.listdir(folder_in(root)))
        build(progress, root, bin_counts, long_names)
        return str(error), names
    return None, None


def read(progress, path, bin_counts):
    """Open a store, read all of it and compare it."""
    assert_is_right(HistogramStore(path), bin_counts)


def read_from_file(progress, path, folder, root=None):
    """Read a screen whose values go into a file in `folder`, and build its store."""
    screen = read_screen(path, space=WorkingSpace(0, folder))
    if root is not None:
        open_or_build(root, screen, FOLDS, BIN_COUNTS, progress)


def warm_up():
    """Load all code, so that what follows takes its own time only."""
    with tempfile.TemporaryDirectory() as folder:
        open_or_build(folder, make_screen(), FOLDS, [2])


# On small disks: a program of its own, for which `unshare` makes mounts that no other process sees.

SMALL_DISK = ("unshare", "--user", "--map-root-user", "--mount")


def run_on_small_disks(*arguments):
    """Call this module as a program; returns what it prints as JSON."""
    command = [*SMALL_DISK, sys.executable, __file__, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class SmallDisk:
    """A disk in memory at `folder` with room for some pages."""

    def __init__(self, folder, n_pages):
        self._folder = folder
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={n_pages * PAGE}", "none")

    def resize(self, n_pages):
        self._mount("-o", f"remount,size={n_pages * PAGE}")

    def n_used(self):
        """Pages that are taken."""
        found = os.statvfs(self._folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize // PAGE

    def _mount(self, *options):
        subprocess.run(["mount", *options, self._folder], check=True)


def _quiet(stage, done, total):
    pass


def new_stores(folder):
    """A store on disks of ever more pages until it fits: for each what was said, and what was left over."""
    found = []
    while True:
        n_pages = len(found) + 1
        root = folder / f"disk{n_pages}"
        disk = SmallDisk(root, n_pages)
        try:
            build(_quiet, root)
        except InputError as error:
            path = folder_in(root)
            found.append([str(error), sorted(os.listdir(path)), _refusal(path)])
            disk.resize(256)
            build(_quiet, root)
            assert not [name for name in os.listdir(path) if name.startswith(".")]
        else:
            return found


def larger_stores(folder):
    """A bin count is added to a store that fills its disk but for some pages: what was said, and what is there."""
    found = []
    while True:
        n_pages = len(found)
        root = folder / f"disk{n_pages}"
        disk = SmallDisk(root, 256)
        path = build(_quiet, root, BIN_COUNTS[:1])
        before = test_store.snapshot(path)
        disk.resize(disk.n_used() + n_pages)
        try:
            build(_quiet, root)
        except InputError as error:
            after = test_store.snapshot(path)
            changed = [name for name in before if name != "lock" and after[name] != before[name]]
            found.append([str(error), sorted(os.listdir(path)), changed])
            read(_quiet, path, BIN_COUNTS[:1])
            disk.resize(256)
            build(_quiet, root)
            after = test_store.snapshot(path)
            assert all(after[name] == before[name] for name in before if name.endswith(".arrow"))
        else:
            return found


def values_in_files(folder, screen):
    """A screen is read whose values lie on disks with little room: what was said, and what is left there."""
    found = []
    for n_pages in (1, 2):
        place = folder / f"disk{n_pages}"
        SmallDisk(place, n_pages)
        found.append([_refusal_of(read_from_file, screen, place), sorted(os.listdir(place))])
    return found


def _refusal(path):
    return _refusal_of(read, path, BIN_COUNTS)


def _refusal_of(work, *arguments):
    try:
        work(_quiet, *arguments)
    except InputError as error:
        return str(error)
    return None


if __name__ == "__main__":
    warm_up()
    what, *paths = sys.argv[1:]
    print(json.dumps(globals()[what](*map(Path, paths))))
