"""What this machine has, and what processes take of its memory while they run."""

from __future__ import annotations

import resource
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from histpert.memory import available_bytes
from histpert.threads import n_cores

__all__ = ["Machine", "Memory", "memory_of", "sampled"]

EVERY = 0.1
"""Seconds between two looks at the memory of processes."""


@dataclass(frozen=True)
class Machine:
    """What a study may take.

    Attributes:
        cores: That this process may use.
        memory_bytes: Free memory.
        disk_bytes: Free space where studies that are started here write.
        gpu: Name of its GPU; empty where there is none that torch sees.
        gpu_bytes: Memory of the GPU.
    """

    cores: int
    memory_bytes: int
    disk_bytes: int
    gpu: str = ""
    gpu_bytes: int = 0

    @staticmethod
    def here() -> Machine:
        """This one."""
        import torch  # noqa: PLC0415 (takes a while, and a screen may be found unfit before)

        cores, disk = n_cores(), shutil.disk_usage(Path.cwd()).free
        if not torch.cuda.is_available():
            return Machine(cores, available_bytes(), disk)
        gpu = torch.cuda.get_device_properties(0)
        return Machine(cores, available_bytes(), disk, gpu.name, gpu.total_memory)


class Memory(NamedTuple):
    """Memory that processes take at a time."""

    at: float
    """When, by `time.time`."""
    own: int
    """Bytes that nothing else has."""
    files: int
    """Bytes of mapped files and libraries, divided by the processes that share them."""


def memory_of(processes: Iterable[int]) -> Memory:
    """What these processes take now; 0 of those that have ended. On Linux; elsewhere the most that this one took."""
    if not sys.platform.startswith("linux"):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Memory(time.time(), most, 0)
    own = files = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines[1:])}
        own += 1024 * sizes["Pss_Anon"]
        files += 1024 * (sizes["Pss"] - sizes["Pss_Anon"])
    return Memory(time.time(), own, files)


@contextmanager
def sampled(processes: Iterable[int]) -> Iterator[list[Memory]]:
    """What these processes take, over and over, for the length of the block; one look at least."""
    seen, known, ended = [memory_of(processes)], list(processes), threading.Event()

    def look() -> None:
        while not ended.wait(EVERY):
            seen.append(memory_of(known))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()
        seen.append(memory_of(known))
