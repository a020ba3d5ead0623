"""Ridge regression and a Gaussian process: mean shifts from embeddings, by scikit-learn, on the CPU.

Both see embeddings that are standardized over the training perturbations.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from histpert.checkpoints import Checkpoint
from histpert.models.interface import TrainingSet
from histpert.predictions import Prediction, predicted_means
from histpert.settings import ModelSettings

__all__ = ["GaussianProcess", "Ridge"]

PENALTIES = np.logspace(-2, 10, 13)
"""Of squared coefficients of standardized features, to choose from."""


class _Regression(ABC):
    """A regressor of scikit-learn behind the interface of methods."""

    version = 1

    def __init__(self, settings: ModelSettings):
        self._seed = settings.seed

    @abstractmethod
    def _regressor(self, n_features: int) -> Any:
        """What is fitted to standardized embeddings and shifts."""

    def fit(self, training: TrainingSet, checkpoint: Checkpoint | None = None) -> Iterator[Float[Tensor, ""]]:
        """Fit the shifts of the training perturbations; there are no epochs."""
        self._control_mean = training.control_mean
        numbers = torch.arange(len(training.embeddings), device=training.embeddings.device)
        shifts = (training.means[numbers] - training.control_mean).cpu().numpy().astype(np.float64)
        regressor = self._regressor(training.embeddings.shape[1])
        self._fitted = make_pipeline(StandardScaler(), regressor)
        with warnings.catch_warnings():
            # A kernel's hyperparameter at the end of its range: shifts that embeddings do not tell at all.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._fitted.fit(_float64(training.embeddings), shifts)
        return iter(())

    def predict(self, embeddings: Float[Tensor, "perturbation feature"]) -> Prediction:
        """Predicted means."""
        shifts = self._fitted.predict(_float64(embeddings))
        control_mean = self._control_mean.double()
        return predicted_means(control_mean + torch.from_numpy(shifts).to(control_mean.device), control_mean)


class Ridge(_Regression):
    """Linear in the embedding, with the penalty of least leave-one-out error over all genes."""

    def _regressor(self, n_features: int) -> RidgeCV:
        return RidgeCV(alphas=PENALTIES)

    @property
    def n_parameters(self) -> int:
        """Coefficients and intercepts."""
        regressor: Any = self._fitted[-1]
        return regressor.coef_.size + regressor.intercept_.size


class GaussianProcess(_Regression):
    """A Gaussian process with one squared-exponential kernel for all genes, its size, length and noise fitted.

    Genes are taken as independent given the kernel, so that the marginal likelihood is a product over them.
    """

    n_parameters = 3

    def _regressor(self, n_features: int) -> GaussianProcessRegressor:
        length = float(np.sqrt(n_features))  # standardized embeddings are about that far apart
        kernel = ConstantKernel(1.0, (1e-6, 1e3)) * RBF(length, (length / 30, length * 30)) + WhiteKernel(
            0.1, (1e-8, 1e3)
        )
        return GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=2, random_state=self._seed)


def _float64(tensor: Tensor) -> Float[np.ndarray, "perturbation feature"]:
    return tensor.cpu().numpy().astype(np.float64)
