"""What this device can do at best, measured on the spot: bytes and operations per second."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

__all__ = ["bytes_per_second", "operations_per_second"]

COPIED_BYTES = 256 << 20
"""More than a cache holds."""

REPEATS = 5


def bytes_per_second(device: torch.device) -> float:
    """Read and written, as one array is copied into another."""
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)


def operations_per_second(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Multiplications and additions of a product of two matrices."""
    size = 8_192 if device.type == "cuda" else 1_536
    first, second = torch.rand(2, size, size, device=device).to(dtype)
    product = torch.empty_like(first)
    return 2 * size**3 / _seconds(lambda: torch.mm(first, second, out=product), device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The least of some repeats, after a first one."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])
