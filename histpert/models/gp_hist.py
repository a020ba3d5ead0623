"""GP+Hist: a Gaussian process on whole distributions, in closed form.

CRPS and energy distance are squared distances of CDFs, so that their best prediction is a mean of CDFs, and least
squares finds it without epochs. The CDFs of training perturbations are taken as

    CDF of p = mean + told(e_p) + untold_p + sampling_p,

`told` a Gaussian process in the embedding with one kernel for all genes, `untold_p` what no embedding tells, and
`sampling_p` the noise of n_p cells, known to vary by F (1 - F) / n_p. A prediction is then a weighted sum of the
training histograms: a conditional mean embedding (Song et al., ICML 2009) whose weights are those of kriging with an
unknown mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from histpert.checkpoints import Checkpoint
from histpert.models.interface import TrainingSet, smoothed
from histpert.predictions import Prediction, predicted_histograms
from histpert.settings import ModelSettings

__all__ = ["GPHist", "Kriging", "cramer_products", "kriging"]

LENGTHS = (None, 0.5, 1.0, 2.0)
"""Of the squared-exponential kernel, in median distances between embeddings; None is the linear kernel."""

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)
"""Of the variance between perturbations that embeddings tell, to choose from."""

STRENGTHS = (0.25, 1.0, 4.0)
"""Variance between perturbations beside its estimate from moments, which a few strong ones rule."""

LEAST_VARIANCE = 1e-6
"""Variance between perturbations, beside that of sampling, where the estimate is below: cells are pooled then."""

LEAST = 1e-9
"""Where embeddings do not differ, distances and kernels are divided by it instead of 0."""

BATCH = 16
"""Perturbations whose masses are held at a time."""


@dataclass(frozen=True)
class Kriging:
    """Weights of the training perturbations in predictions, `mean + kernel @ interpolation`.

    Attributes:
        mean: Those of the mean, adding to 1.
        interpolation: What a perturbation's covariances with the training ones are multiplied by; rows add to 0.
    """

    mean: Float[Tensor, "perturbation"]
    interpolation: Float[Tensor, "perturbation perturbation"]

    def error(self, products: Float[Tensor, "perturbation perturbation"]) -> float:
        """Mean squared distance of each perturbation from what the others predict of it (Dubrule, Math. Geol. 1983).

        Args:
            products: Inner products of the perturbations' values, from any origin.
        """
        residuals = (self.interpolation @ products * self.interpolation).sum(1)
        return (residuals / self.interpolation.diagonal() ** 2).mean().item()


def kriging(covariance: Float[Tensor, "perturbation perturbation"]) -> Kriging:
    """Best linear unbiased prediction of values with an unknown mean and this covariance, sampling included."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    sums = inverse.sum(1)
    return Kriging(sums / sums.sum(), inverse - torch.outer(sums, sums) / sums.sum())


def cramer_products(training: TrainingSet) -> Float[Tensor, "perturbation perturbation"]:
    """Inner products of the CDFs' differences from control's, integrated over expression and summed over genes.

    CDFs are compared at the edges of bins. Batch by batch, since not all fit into memory; float64.
    """
    n = len(training.n_cells)
    products = training.embeddings.new_zeros((n, n), dtype=torch.float64)
    root, control = training.width.double().sqrt()[:, None], training.control.cumsum(-1)[:, :-1]

    def differences(numbers: Tensor) -> Float[Tensor, "batch value"]:
        return ((training.masses[numbers].cumsum(-1)[..., :-1] - control) * root).flatten(1)

    batches = torch.arange(n, device=products.device).split(BATCH)
    for i, rows in enumerate(batches):
        of_rows = differences(rows)
        for columns in batches[i:]:
            block = of_rows @ differences(columns).T
            products[rows[:, None], columns] = block
            products[columns[:, None], rows] = block.T
    return products


class GPHist:
    """A weighted sum of the histograms of all training perturbations.

    Kernel, told share and strength are those of least squared distance to each training perturbation when it is left
    out. A sum may be a little below 0 in some bins: these are cut to 0. Kernels are of the embeddings' directions from
    their mean, and of mean 0 and variance 1 over the training perturbations.
    """

    version = 1
    n_parameters = 3

    def __init__(self, settings: ModelSettings):
        self._settings = settings

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Choose kernel, share and strength; there are no epochs."""
        self._training, n = training, len(training.n_cells)
        self._center = training.embeddings.double().mean(0)
        self._directions = self._direction(training.embeddings)
        products = cramer_products(training)
        sampling = self._sampling_variance()
        between = ((products.trace() - products.mean() * n) / max(n - 1, 1) - sampling.mean()).item()
        between = max(between, LEAST_VARIANCE * sampling.mean().item())
        least, one = torch.inf, torch.eye(n, dtype=torch.float64, device=products.device)
        for length in LENGTHS:
            kernel = self._kernel(length)
            told = kernel(self._directions)
            for variance in (between * strength for strength in STRENGTHS):
                for share in SHARES:
                    found = kriging(variance * (share * told + (1 - share) * one) + sampling.diag())
                    error = found.error(products) if n > 1 else 0.0
                    if error < least:
                        least, self.share = error, share
                        self._kriging, self._covariance = found, (kernel, variance * share)
        return iter(())

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """The smoothed weighted sum of training histograms for each perturbation."""
        training = self._training
        control = smoothed(training.control, self._settings.control_smoothing)
        return predicted_histograms(self.masses(embeddings), control, training.lower, training.width)

    def masses(self, embeddings: Float[Tensor, "query feature"]) -> Float[Tensor, "query gene bin"]:
        """Those of the predicted histograms alone, float64."""
        weights = self.weights(embeddings)
        summed = weights.new_zeros((len(embeddings), *self._training.control.shape))
        for numbers in torch.arange(weights.shape[1], device=weights.device).split(BATCH):
            summed += torch.einsum("qp,pgb->qgb", weights[:, numbers], self._training.masses[numbers].double())
        masses = torch.nn.functional.normalize(summed.clamp_min(0), p=1, dim=-1)
        return smoothed(masses, self._settings.control_smoothing)

    def weights(self, embeddings: Float[Tensor, "query feature"]) -> Float[Tensor, "query perturbation"]:
        """Of the training perturbations in each prediction, adding to 1; below 0 for some."""
        kernel, variance = self._covariance
        told = variance * kernel(self._direction(embeddings))
        return self._kriging.mean + told @ self._kriging.interpolation

    def _direction(self, embeddings: Float[Tensor, "query feature"]) -> Float[Tensor, "query feature"]:
        return torch.nn.functional.normalize(embeddings.double() - self._center, dim=1)

    def _kernel(self, length: float | None) -> Callable[[Tensor], Float[Tensor, "query perturbation"]]:
        """Covariances of directions with those of training, whose variance over the training perturbations is 1."""
        directions = self._directions

        def kernel(queries: Tensor) -> Float[Tensor, "query perturbation"]:
            if length is None:
                return queries @ directions.T
            return (torch.cdist(queries, directions) / (length * typical)).square().div(-2).exp()

        n = len(directions)
        apart = torch.pdist(directions)
        typical = apart.median().clamp_min(LEAST) if len(apart) else 1.0
        own = kernel(directions)
        variance = ((own.trace() - own.mean() * n) / max(n - 1, 1)).clamp_min(LEAST)
        return lambda queries: kernel(queries) / variance

    def _sampling_variance(self) -> Float[Tensor, "perturbation"]:
        """Of CDFs of so many cells, integrated over expression and summed over genes: F (1 - F) / n of pooled cells."""
        training = self._training
        n_cells, pooled = training.n_cells.double(), torch.zeros_like(training.control, dtype=torch.float64)
        for numbers in torch.arange(len(n_cells), device=pooled.device).split(BATCH):
            pooled += torch.einsum("p,pgb->gb", n_cells[numbers], training.masses[numbers].double())
        below = (pooled / n_cells.sum()).cumsum(-1)[:, :-1]
        spread = (training.width * (below * (1 - below)).sum(-1)).sum()
        return spread.clamp_min(torch.finfo(torch.float64).tiny) / n_cells
