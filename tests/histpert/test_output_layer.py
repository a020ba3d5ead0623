"""The output layer's own update, and whole trainings, beside torch's optimizer and a plain loop."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from histpert import output_layer
from histpert.losses import weighted_loss
from histpert.models import MLPHist, TrainingSet
from histpert.models.mlp_hist import HistogramNetwork
from histpert.output_layer import OutputLayer
from histpert.settings import ModelSettings
from histpert.training import train

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from plain_loop import plain_network, plain_steps

N_GENES, N_BINS, BATCH, N_FEATURES, HIDDEN = 6, 7, 16, 9, (12, 10)
SETTINGS = ModelSettings(
    epochs=50, hidden=HIDDEN, dropout=0.0, batch_size=BATCH, weight_ce=0.25, weight_wass=0.5, weight_mse=0.25
)


@pytest.mark.parametrize("n_rows", [1, 7, 20, 42, 1000])
def test_the_update_is_that_of_adamw_however_the_rows_are_split(monkeypatch, n_rows):
    monkeypatch.setattr(output_layer, "BLOCK_BYTES", n_rows * 10 * 8)
    torch.manual_seed(0)
    layer, plain = OutputLayer(10, 42).double(), nn.Linear(10, 42).double()
    plain.load_state_dict(layer.state_dict())
    settings = ModelSettings(learning_rate=0.01, weight_decay=0.1)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.1)
    assert layer.begin(settings)
    of_bias = torch.optim.AdamW([layer.bias], lr=0.01, weight_decay=0.1)
    for _ in range(20):
        hidden, target = torch.randn(5, 10, dtype=torch.float64), torch.randn(5, 42, dtype=torch.float64)
        gradients = []
        for each, steps in ((layer, of_bias), (plain, optimizer)):
            given = hidden.clone().requires_grad_()
            steps.zero_grad()
            ((each(given) - target) ** 2).mean().backward()
            steps.step()
            gradients.append(given.grad)
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    layer.end()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[name], value, rtol=0, atol=1e-12)
    assert layer.state_dict().keys() == plain.state_dict().keys()


def data(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    masses, control = torch.rand(BATCH, N_GENES, N_BINS, dtype=dtype), torch.rand(N_GENES, N_BINS, dtype=dtype)
    return {
        "embeddings": torch.randn(BATCH, N_FEATURES, dtype=dtype),
        "masses": masses / masses.sum(-1, keepdim=True),
        "means": torch.rand(BATCH, N_GENES, dtype=dtype),
        "log_control": (control / control.sum(-1, keepdim=True)).log(),
        "lower": -torch.rand(N_GENES, dtype=dtype),
        "width": torch.rand(N_GENES, dtype=dtype) + 0.1,
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_losses_are_step_by_step_those_of_a_plain_loop(monkeypatch, dtype, tolerance):
    monkeypatch.setattr(output_layer, "BLOCK_BYTES", 300)
    given = data(dtype)
    network = HistogramNetwork(given["log_control"].exp(), N_FEATURES, SETTINGS.layers(BATCH)).to(dtype)
    plain = plain_network(N_FEATURES, HIDDEN, N_GENES, N_BINS, 0.0).to(dtype)
    for ours, theirs in zip(network.shift.parameters(), plain.parameters(), strict=True):
        theirs.data.copy_(ours.data)
    weights = SETTINGS.weight_ce, SETTINGS.weight_wass, SETTINGS.weight_mse

    def loss_of(logits, batch):
        targets = given["masses"][batch], given["means"][batch]
        return weighted_loss(logits, *targets, given["lower"], given["width"], weights)

    found = [loss.item() for loss in train(network, loss_of, given["embeddings"], SETTINGS)]
    steps = plain_steps(plain, given, BATCH, SETTINGS.learning_rate, SETTINGS.weight_decay, weights)
    expected = [next(steps) for _ in found]
    assert expected[-1] < 0.9 * expected[0]  # it learns
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=tolerance, atol=0)


def test_nothing_of_a_training_is_left_in_the_network():
    given = data(torch.float32)
    control = given["log_control"].exp()
    training = TrainingSet(
        **{name: given[name] for name in ("embeddings", "masses", "means", "lower", "width")},
        n_cells=torch.ones(BATCH),
        cells=lambda: None,
        control=control,
        control_mean=given["means"][0],
        control_cells=lambda: None,
        spread=lambda: None,
        control_spread=lambda: None,
        coexpression=lambda: None,
        expression=lambda: None,
    )
    model = MLPHist(ModelSettings(epochs=2, hidden=HIDDEN))
    losses = list(model.fit(training))
    assert len(losses) == 2
    names = model.network.state_dict().keys()
    assert not [name for name in names if "moment" in name or "steps" in name]
    assert not model.network.shift[-1]._buffers
