"""Steps that a GPU records once and replays, with a recorder that a CPU has: the numbers are those of plain steps."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from histpert import training
from histpert.settings import ModelSettings
from histpert.training import WARM_UP, Replayed, Steps, batch_orders, rate_at, train

SETTINGS = ModelSettings(epochs=6, batch_size=8)


class Recorder:
    """Takes the step again on what is in the tensor it was recorded on, as a CUDA graph does."""

    def __init__(self):
        self.n_recorded = self.n_replayed = 0

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        self.n_recorded += 1

        def replay() -> None:
            self.n_replayed += 1
            step()

        return replay


def problem() -> tuple[nn.Module, Callable[[torch.Tensor, torch.Tensor], torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3))
    targets, embeddings = torch.randn(20, 3), torch.randn(20, 5)
    return network, lambda found, batch: ((found - targets[batch]) ** 2).mean(), embeddings


def test_each_size_is_recorded_once_after_its_first_steps_and_none_is_taken_twice():
    recorder, taken = Recorder(), []
    step = Replayed(lambda batch: taken.append(batch.tolist()), recorder)
    batches = [list(range(n, n + size)) for n, size in enumerate((4, 4, 2, 4, 4, 2, 2, 4, 2, 2, 4))]
    for batch in batches:
        step(torch.tensor(batch))
    assert taken == batches
    assert recorder.n_recorded == 2
    assert recorder.n_replayed == len(batches) - 2 * WARM_UP


def test_a_training_of_replayed_steps_has_the_losses_and_weights_of_a_plain_one(monkeypatch):
    network, loss_of, embeddings = problem()
    expected = list(train(network, loss_of, embeddings, SETTINGS))
    weights = [parameter.detach().clone() for parameter in network.parameters()]
    recorder = Recorder()
    monkeypatch.setattr(training, "Steps", lambda *of: Replayed(Steps(*of), recorder))
    monkeypatch.setattr(Replayed, "total", property(lambda self: self._step.total), raising=False)
    network, loss_of, embeddings = problem()
    found = list(train(network, loss_of, embeddings, SETTINGS))
    assert recorder.n_recorded == 2  # 20 perturbations: batches of 8 and one of 4
    assert found == expected
    for parameter, value in zip(network.parameters(), weights, strict=True):
        torch.testing.assert_close(parameter, value, rtol=0, atol=0)


def test_an_epoch_yields_the_mean_over_its_perturbations():
    _, loss_of, embeddings = problem()
    frozen = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    settings = ModelSettings(epochs=1, batch_size=8, learning_rate=0.0, weight_decay=0.0)
    (loss,) = train(frozen, loss_of, embeddings, settings)
    order = batch_orders(20, settings)[0]
    with torch.no_grad():
        assert loss.item() == pytest.approx(loss_of(frozen(embeddings[order]), order).item(), rel=1e-6)


def test_a_decayed_rate_rises_to_the_whole_and_falls_as_torch_has_it():
    rates = [rate_at(epoch, 100) for epoch in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 95)
    for rate in rates[5:]:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        schedule.step()
    assert [rate_at(epoch, 2) for epoch in range(2)] == [1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_a_recorded_step_is_the_step_on_a_gpu(monkeypatch):
    device, losses = torch.device("cuda"), []
    for is_static in (False, True):
        network, _, embeddings = problem()
        targets = torch.linspace(-1, 1, 60, device=device).view(20, 3)

        def loss_of(found, batch, targets=targets):
            return ((found - targets[batch]) ** 2).mean()

        network.to(device)[1].p = 0.0
        how = network, loss_of, embeddings.to(device), ModelSettings(epochs=50, batch_size=8)
        losses.append(torch.stack(list(train(*how, is_static=is_static))))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6)
