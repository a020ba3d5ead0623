"""What no step of a training can do without: bytes of memory read and written, and arithmetic. No torch."""

from __future__ import annotations

__all__ = ["bytes_per_step", "operations_per_step"]

PASSES, PASSES_UPDATED = 10, 7
"""Times that a step reads or writes a weight's worth of bytes: to multiply forward and backward, to write a gradient,
and for AdamW to read weight, gradient and moments and write all but the gradient. Where the update is part of the
backward pass there is no gradient, and weights are read once for both."""


def bytes_per_step(n_weights: int, n_outputs: int, batch_size: int, n_updated: int = 0) -> int:
    """Bytes that a step of AdamW in float32 reads and writes.

    Args:
        n_weights: Of the network.
        n_outputs: Of the network, for a perturbation.
        batch_size: Perturbations of the step.
        n_updated: Weights that are updated within the backward pass, as the output layer's are on a CPU.
    """
    return 4 * (PASSES * (n_weights - n_updated) + PASSES_UPDATED * n_updated + 4 * batch_size * n_outputs)


def operations_per_step(n_weights: int, batch_size: int) -> int:
    """Multiplications and additions of a step, forward and backward."""
    return 6 * batch_size * n_weights
