"""How much memory there is to take, and what becomes of memory that is freed."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

__all__ = ["available_bytes", "keep_freed_memory"]

CGROUPS = (
    ("memory.max", "memory.current", Path("/sys/fs/cgroup")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", Path("/sys/fs/cgroup/memory")),
)
"""Where Linux says what a container, or a job of Slurm, may take and has taken: cgroups of version 2 and of 1."""


def available_bytes() -> int:
    """What this process may take now without another losing it; where the system does not say, all that there is."""
    of_machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        of_machine = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        pass
    return min([of_machine, *_of_cgroups()])


def _of_cgroups() -> list[int]:
    left = []
    for limit, taken, root in CGROUPS:
        for folder in _folders(root):
            try:
                most = (folder / limit).read_text(encoding="ascii").strip()
                if most != "max":
                    used = int((folder / taken).read_text(encoding="ascii"))
                    left.append(max(0, int(most) - used + _reclaimable(folder)))
            except (OSError, ValueError):
                continue
    return left


def _folders(root: Path) -> list[Path]:
    """The cgroup of this process and those around it."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    of_memory = [line.split(":", 2) for line in lines]
    own = [path for _, kinds, path in of_memory if kinds == "" or "memory" in kinds.split(",")]
    return [root / part for path in own for part in (path.lstrip("/"), *map(str, Path(path.lstrip("/")).parents))]


def _reclaimable(folder: Path) -> int:
    """Files in memory, which are counted as taken and make room when it is needed."""
    counted = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    return int(counted.get("total_inactive_file", counted.get("inactive_file", 0)))


KEPT_BYTES = 256 << 20
"""Of freed memory that this process keeps: more than a training step's arrays at the published shape, 60 MB."""


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, up to `KEPT_BYTES`; elsewhere nothing is done.

    A training step frees its arrays and the next one asks for as much. By default glibc gives them back to the system
    in between, and each page is provided anew: at the published shape a step took 387 ms then, and 229 with this, on a
    virtual machine that gives freed pages back to its host.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        mallopt(trim_threshold, KEPT_BYTES)
        mallopt(mmap_threshold, 32 << 20)  # the most that glibc takes
