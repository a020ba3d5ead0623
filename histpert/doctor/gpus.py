"""GPUs as their vendor's data sheets have them: memory, its bandwidth, the rate of products. Nothing is measured."""

from __future__ import annotations

from typing import NamedTuple

from histpert.errors import InputError

__all__ = ["GPUS", "Gpu", "gpu_named"]


class Gpu(NamedTuple):
    """What a data sheet says."""

    name: str
    gigabytes: float
    """Memory, of 10^9 bytes."""
    bytes_per_second: float
    """Of memory, at its peak."""
    operations_per_second: float
    """Of products in float32 outside tensor cores, as torch multiplies by default."""

    @property
    def n_bytes(self) -> int:
        """Memory."""
        return int(self.gigabytes * 1e9)


GPUS = (
    Gpu("H200", 141, 4.8e12, 67e12),
    Gpu("H100", 80, 3.35e12, 67e12),
    Gpu("A100-80", 80, 2.039e12, 19.5e12),
    Gpu("A100-40", 40, 1.555e12, 19.5e12),
    Gpu("L40S", 48, 0.864e12, 91.6e12),
    Gpu("A10", 24, 0.6e12, 31.2e12),
    Gpu("RTX4090", 24, 1.008e12, 82.6e12),
    Gpu("V100", 32, 0.9e12, 15.7e12),
    Gpu("T4", 16, 0.32e12, 8.1e12),
)
"""NVIDIA's data sheets of the SXM modules of H200, H100 (80 GB), A100 and V100 (32 GB), and of the boards of L40S, A10
and T4; of the RTX 4090 the whitepaper of the Ada architecture."""


def gpu_named(name: str) -> Gpu:
    """The GPU of this name, in any spelling: `rtx 4090`, `A100-80GB`.

    Raises:
        InputError: It is not in the table.
    """
    spelt = {_plain(gpu.name): gpu for gpu in GPUS}
    gpu = spelt.get(_plain(name).removesuffix("gb")) or spelt.get(_plain(name))
    if gpu is None:
        raise InputError(f"--gpu {name}: give one of {', '.join(gpu.name for gpu in GPUS)}")
    return gpu


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum()).removeprefix("nvidia")
