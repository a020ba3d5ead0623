"""Networks that are trained as one: each equals, to rounding, the one trained alone."""

from collections import deque
from dataclasses import replace

import pytest
import torch

from histpert.models import MLPHist, TrainingSet
from histpert.settings import ModelSettings, weight_triples

N_GENES, N_BINS, N_FEATURES = 5, 6, 7
SETTINGS = ModelSettings(epochs=6, hidden=(9, 8), batch_size=8, dropout=0.3)


def training_set(n_perturbations: int, seed: int, dtype: torch.dtype = torch.float64) -> TrainingSet:
    random = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=random, dtype=dtype)

    masses, control = drawn(n_perturbations, N_GENES, N_BINS), drawn(N_GENES, N_BINS)
    return TrainingSet(
        embeddings=drawn(n_perturbations, N_FEATURES) - 0.5,
        masses=masses / masses.sum(-1, keepdim=True),
        means=drawn(n_perturbations, N_GENES),
        n_cells=torch.ones(n_perturbations),
        cells=lambda: None,
        control=control / control.sum(-1, keepdim=True),
        control_mean=drawn(N_GENES),
        lower=-drawn(N_GENES),
        width=drawn(N_GENES) + 0.1,
        control_cells=lambda: None,
        spread=lambda: None,
        control_spread=lambda: None,
        coexpression=lambda: None,
        expression=lambda: None,
    )


@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_float64")
def test_each_of_a_stack_equals_the_one_trained_alone():
    # Folds of other sizes, of which the last batch is not full, with several weights of the losses.
    folds = [training_set(size, seed) for seed, size in enumerate((20, 19, 17))]
    jobs = [
        (fold, replace(SETTINGS, weight_ce=ce, weight_wass=wass, weight_mse=mse))
        for ce, wass, mse in weight_triples()[::3]
        for fold in folds
    ]
    alone = [MLPHist(settings) for _, settings in jobs]
    losses = [torch.stack(list(model.fit(fold))) for model, (fold, _) in zip(alone, jobs, strict=True)]
    together = [MLPHist(settings) for _, settings in jobs]
    found = torch.stack(list(MLPHist.fit_together(together, [fold for fold, _ in jobs])))
    assert found.shape == (SETTINGS.epochs, 15)
    torch.testing.assert_close(found, torch.stack(losses, dim=1), rtol=1e-10, atol=1e-12)
    embeddings = folds[0].embeddings
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other.masses(embeddings), one.masses(embeddings), rtol=0, atol=1e-10)
    assert len({round(loss.item(), 9) for loss in found[-1]}) == 15


def test_what_goes_together_has_the_same_steps_and_settings():
    def key(n_training: int = 20, **changed: object):
        return MLPHist.stack_key(replace(SETTINGS, **changed), n_training)

    assert key() == key(17) == key(24)
    assert key() == key(weight_ce=1.0, weight_wass=0.0, weight_mse=0.0)
    assert len({key(), key(25), key(16), key(dropout=0.1), key(seed=1), key(hidden=(9,)), key(epochs=3)}) == 7
    assert MLPHist.stack_key(ModelSettings(), 499) != MLPHist.stack_key(ModelSettings(), 500)


def test_the_generator_is_left_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fold = training_set(10, 0, torch.float32)
    deque(MLPHist.fit_together([MLPHist(SETTINGS), MLPHist(SETTINGS)], [fold, fold]), maxlen=0)
    assert torch.equal(torch.rand(3), expected)
