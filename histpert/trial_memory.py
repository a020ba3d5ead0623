"""What a trial takes of a GPU's memory, by its shape, and how many trials fit at once."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from histpert.celltarnet.losses import DENOISED
from histpert.celltarnet.settings import FlowSettings
from histpert.metrics import joint
from histpert.metrics.held_out import SCORED_AT_ONCE
from histpert.models import celltarnet, gears
from histpert.models.celltarnet import CellSettings
from histpert.models.mlp_hist import n_parameters
from histpert.settings import ModelSettings

__all__ = [
    "CONTEXT_BYTES",
    "TrialShape",
    "gpu_share",
    "memory_fraction",
    "tensor_bytes",
    "trial_bytes",
    "whole_cell_bytes",
]

CONTEXT_BYTES = 800 << 20
"""What a process takes of a GPU before its first tensor: CUDA's context and libraries. Not measured here."""

LIBRARY_BYTES = 128 << 20
"""What torch allocates beside a trial's tensors: cuBLAS's workspaces, 32 MiB each on an H100, one for each of the two
threads that multiply, and its first segments, 20 MiB each. From torch's documentation and source, not measured here."""

ROOM = 1.1
"""Memory to tensors. Allocations counted at published shapes, replayed by the rules of torch's caching allocator, went
into 1.05 to 1.07 times their peak of 0.7 to 4 GB, and 1.12 times one of 0.23 GB. No GPU was asked."""

# What follows was counted on a CPU; tests/studies/test_packing.py fails where one is too small, or much too large.

WEIGHT = 4
"""Bytes of a parameter; its gradient takes as much, and AdamW's two moments twice that."""

LOSS_ARRAYS = 13
"""Float32 arrays of the size of a batch's logits, when the loss has been worked out: targets, logits, what autograd
keeps, and the first gradients. One less without cross-entropy, fewer at few bins."""

LOSS_ARRAYS_WITHOUT_WASSERSTEIN = 6
"""The same of the other two losses."""

DENSITIES = {"TG": (2, 64), "ZITG": (3, 84)}
"""Of methods that are trained on sums over cells, outputs a gene, and arrays a gene in the place of those of a loss."""

ON_MOMENTS = ("GEARS",)
"""Methods that are trained on moments of cells."""

GEARS_ARRAYS = 10
"""Of GEARS, arrays of the width of its embeddings per perturbation and gene in a step."""

ENCODER_ARRAYS, FLOW_ARRAYS, SAMPLE_ARRAYS = 14, (20, 9), 8
"""Of CellTARNet, arrays of the width of a token: in a layer of the encoder, in a layer of a block and beside a block's
layers; and numbers of each gene of a sampled cell."""

SUMS = 4
"""Numbers of 8 bytes per perturbation and gene that these read; others read one of them, the mean."""

STEP_ARRAYS = 2
"""The same when the last gradient of a weight has come."""

HELD_OUT_ARRAYS = 7.5
"""Float64 numbers per gene of each held-out perturbation: its statistics, and shifts that it is told from others by."""

SCORING_ARRAYS = 10.5, 48
"""Float64 numbers of the perturbations that are scored at once, per bin and per gene: what was observed and predicted,
and what their scores are worked out from."""

CELL_ARRAYS, DISTANCE_ARRAYS = 9, 12
"""Float64 arrays of the cells that are drawn of perturbations scored at once, and of distances between them."""

CONTROL_BYTES = 36
"""Of a bin of control: three float32, two float64, and 8 bytes for edges, of which there are four a gene."""


class TrialShape(NamedTuple):
    """What a trial's memory depends on beside its method and settings: the most of any fold."""

    n_bins: int
    n_genes: int
    n_perturbations: int
    n_features: int
    """Length of an embedding."""
    n_training: int
    n_held_out: int
    count_bytes: int
    """Of the counts in bins that a fold reads, all groups."""
    n_cells: int
    """Of the screen, control cells included."""
    with_cells: bool = False
    """Whether predictions are compared with the cells one by one too."""


def tensor_bytes(method: str, settings: ModelSettings, shape: TrialShape) -> int:
    """The most that MLP+Hist, TG, ZITG or GEARS has in tensors at a time, in whichever fold; others need less.

    What is trained on and compared with lies on the GPU throughout. Beside it are first weights, moments of AdamW and
    arrays of the loss; then gradients in the place of those; last weights, gradients and arrays of scoring.
    """
    n_bins, n_genes, n_perturbations, n_features, n_training, n_held_out, count_bytes, n_cells, with_cells = shape
    loss_arrays = (LOSS_ARRAYS if settings.weight_wass else LOSS_ARRAYS_WITHOUT_WASSERSTEIN) * n_bins
    outputs, loss_arrays = DENSITIES.get(method, (n_bins, loss_arrays))

    sums = 8 * n_genes * (n_perturbations + 1) * (SUMS if method in (*DENSITIES, *ON_MOMENTS) else 1)
    embeddings_and_orders = 4 * n_perturbations * n_features + 8 * n_training * settings.epochs
    held_out = ceil(8 * HELD_OUT_ARRAYS * n_held_out * n_genes)
    throughout = count_bytes + sums + embeddings_and_orders + held_out + CONTROL_BYTES * n_genes * n_bins

    of_bins, of_genes = SCORING_ARRAYS
    n_scored = min(SCORED_AT_ONCE, n_held_out)
    scored = ceil(8 * n_scored * n_genes * (of_bins * n_bins + of_genes))
    if with_cells:
        scored += 8 * joint.MOST_CELLS * (n_scored * n_genes * CELL_ARRAYS + joint.MOST_CELLS * DISTANCE_ARRAYS)
    if method == "CellTARNet":
        return throughout + whole_cell_bytes(settings, n_genes, n_cells, n_features, n_training) + scored
    if method in ON_MOMENTS:
        weights = WEIGHT * gears.n_parameters(n_features, n_genes)
        step = 4 * min(settings.batch_size, n_training) * n_genes * gears.WIDTH * GEARS_ARRAYS
        return throughout + 5 * weights + max(step, scored)  # the best weights lie beside weights and moments

    weights = WEIGHT * n_parameters(n_features, settings.hidden_sizes(n_training), n_genes * outputs)
    array = 4 * min(settings.batch_size, n_training) * n_genes
    loss, step = 3 * weights + loss_arrays * array, 4 * weights + STEP_ARRAYS * outputs * array
    return throughout + max(loss, step, 2 * weights + scored)


def whole_cell_bytes(settings: ModelSettings, n_genes: int, n_cells: int, n_features: int, n_training: int) -> int:
    """Of CellTARNet cells, weights, and arrays of a step or of what is sampled."""
    flow = settings.flow if isinstance(settings, CellSettings) else FlowSettings()
    batch_size = min(settings.batch_size, n_training)
    weights = WEIGHT * celltarnet.n_parameters(n_features, n_genes, flow)
    in_step = ceil(batch_size * flow.cells_per_perturbation * (1 + bool(flow.denoise_weight) * DENOISED))
    contrasted = bool(flow.contrast_weight) * 6 * min(flow.contrast_cells, batch_size)
    of_flow = flow.blocks * (flow.layers * FLOW_ARRAYS[0] + FLOW_ARRAYS[1])
    tokens = 4 * (n_genes + 2) * flow.width
    of_member = in_step * flow.context_layers * ENCODER_ARRAYS + (in_step + contrasted) * of_flow
    step = tokens * flow.members * of_member
    at_once = min(SCORED_AT_ONCE * flow.samples, celltarnet.SAMPLED_AT_ONCE)
    sampled = tokens * at_once * (ENCODER_ARRAYS + 4 * flow.layers)
    masks = flow.members * flow.blocks * n_genes * (n_genes + 1)
    samples = 8 * SCORED_AT_ONCE * flow.samples * n_genes * SAMPLE_ARRAYS
    return 4 * n_cells * n_genes + 4 * weights + masks + max(step, sampled, samples)


def trial_bytes(method: str, settings: ModelSettings, shape: TrialShape) -> int:
    """What torch must be let allocate for a trial."""
    return ceil(ROOM * tensor_bytes(method, settings, shape)) + LIBRARY_BYTES


def gpu_share(n_bytes: int, gpu_bytes: int) -> float:
    """Share of a GPU of this size for a trial, so that as many run at once as fit; 1 where not even one is sure to."""
    if n_bytes + CONTEXT_BYTES >= gpu_bytes:
        return 1.0
    needed = ceil(10_000 * (n_bytes + CONTEXT_BYTES) / gpu_bytes)  # Ray counts in ten-thousandths
    n_trials = 10_000 // needed
    return (10_000 // n_trials) / 10_000


def memory_fraction(share: float, gpu_bytes: int) -> float:
    """What torch may allocate of a GPU in a process that has this share of it.

    Where a share was asked for that not even a context fits into, a hundredth: nobody can tell what is left.
    """
    if share >= 1:
        return 1.0
    fraction = share - CONTEXT_BYTES / gpu_bytes
    return fraction if fraction > 0 else 0.01
