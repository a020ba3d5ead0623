"""Settings of a model and its training; one home for each default. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isclose
from typing import NamedTuple

from histpert.errors import InputError
from histpert.metric_columns import MASS_FLOOR

__all__ = ["LARGEST_SEED", "Layers", "ModelSettings", "weight_triples"]

LARGEST_SEED = 2**32 - 1
"""That all generators of random numbers take."""

SMALL_SCREEN = 500
"""Training sets of fewer perturbations get the small network of the paper's Norman screen."""


def weight_triples() -> list[tuple[float, float, float]]:
    """The 15 loss weights of step 0.25 that add to 1: of cross-entropy, Wasserstein-1 and squared error of the mean."""
    return [(ce / 4, wass / 4, (4 - ce - wass) / 4) for ce in range(5) for wass in range(5 - ce)]


class Layers(NamedTuple):
    """A network between its input and its output."""

    hidden: tuple[int, ...]
    """Sizes of the hidden layers."""
    dropout: float
    """Share of hidden units dropped in training."""
    output_scale: float
    """Share of He's scale at which the output layer starts."""
    batch_size: int
    """The most perturbations of a step: so many rows of dropout are drawn, whether or not there are as many."""


@dataclass(frozen=True)
class ModelSettings:
    """Network, loss and training, with the paper's values (section 4.1).

    Raises:
        InputError: A value out of range, or loss weights that do not add to 1.
    """

    weight_ce: float = 0.0
    """Weight of the cross-entropy."""
    weight_wass: float = 0.75
    """Weight of the Wasserstein-1 distance."""
    weight_mse: float = 0.25
    """Weight of the squared error of the mean."""
    hidden: tuple[int, ...] | None = None
    """Sizes of the hidden layers; default: 128 64 below 500 training perturbations, else 1024 512 1024."""
    dropout: float = 0.2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    batch_size: int = 32
    """Perturbations per step."""
    epochs: int = 500
    control_smoothing: float = 1e-4
    """Uniform mass mixed into control histograms, so that empty bins have a logarithm (Eq. 2)."""
    # Measured on Papalexi 2021 (270 genes, 5 to 25 bins): at 1e-4 Ctrl Hist's RMAE of variance, skewness and kurtosis
    # are within 0.003 of those at 1e-6, and its NLL is 0.002 lower; 1e-3 moves them by up to 0.024 for another 0.003.
    output_scale: float = 0.01
    """The output layer starts at this share of He's scale, so that training starts near the control histogram."""
    nll_floor: float = MASS_FLOOR
    """Least predicted mass of a bin in the likelihood."""
    seed: int = 0

    def __post_init__(self):
        weights = (self.weight_ce, self.weight_wass, self.weight_mse)
        if min(weights) < 0 or not isclose(sum(weights), 1, abs_tol=1e-6):
            given = " + ".join(f"{weight:g}" for weight in weights)
            raise InputError(
                "--weight-ce, --weight-wass and --weight-mse must be 0 or more and add to 1, "
                f"but {given} = {sum(weights):g}"
            )
        for name, least in (("epochs", 0), ("batch_size", 1), ("learning_rate", 0), ("weight_decay", 0), ("seed", 0)):
            if not getattr(self, name) >= least:  # NaN is refused too
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be {least} or more")
        for name, most in (("learning_rate", inf), ("weight_decay", inf), ("seed", LARGEST_SEED + 1)):
            if getattr(self, name) >= most:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be below {most:,}")
        for name in ("dropout", "control_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be from 0 up to 1")
        for name in ("output_scale", "nll_floor"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be above 0, and 1 at most")
        if self.control_smoothing == 0:
            raise InputError(
                "--control-smoothing 0: empty bins of control would have no logarithm; give a small positive mass"
            )
        if self.hidden is not None and (not self.hidden or min(self.hidden) < 1):
            raise InputError(f"--hidden {self.hidden}: give one or more sizes of 1 or more")

    def layers(self, n_training: int) -> Layers:
        """Of the network for a training set of this many perturbations."""
        return Layers(self.hidden_sizes(n_training), self.dropout, self.output_scale, self.batch_size)

    def hidden_sizes(self, n_training: int) -> tuple[int, ...]:
        """Sizes of the hidden layers for a training set of this many perturbations."""
        if self.hidden is not None:
            return self.hidden
        return (128, 64) if n_training < SMALL_SCREEN else (1024, 512, 1024)
