"""The forecast of a trial's memory on a GPU, held against a count of what the trial has in tensors."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from histpert import targets
from histpert.celltarnet.settings import FlowSettings
from histpert.losses import composed_loss
from histpert.metrics import joint
from histpert.models import METHODS, WHOLE_CELLS, mlp_hist
from histpert.models.celltarnet import CellSettings
from histpert.observed_cells import HeldOutCells
from histpert.output_layer import OutputLayer
from histpert.settings import ModelSettings
from histpert.trial_memory import CONTEXT_BYTES, gpu_share, memory_fraction
from studies import trial
from studies.data import prepare
from studies.options import StudyOptions
from studies.packing import tensor_bytes, trial_bytes
from studies.plan import OBSERVED, Job, Plan
from studies.trial import open_store, run_trial

GPUS = {"24 GB": 24 * 10**9, "80 GB": 80 * 10**9, "141 GB": 141 * 10**9}

SHAPES = {
    "counts": (30, ModelSettings(epochs=1, hidden=(1,), batch_size=2)),
    "weights": (30, ModelSettings(epochs=1, hidden=(512, 256, 512))),
    "a step": (30, ModelSettings(epochs=1, hidden=(8,))),
    "scoring": (2, ModelSettings(epochs=1, hidden=(8,), batch_size=1)),
}
"""What takes most, the folds of 90 perturbations x 200 genes, and settings."""


class DeviceMemory(TorchDispatchMode):
    """Counts bytes of live storages, those that autograd keeps included, each in blocks of 512 as CUDA's."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()
        self._on_host = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not self._on_host:
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self._hold(leaf, leaf.untyped_storage().nbytes())
        return result

    def sent(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """The same, worked out on the host; of what comes back, each tensor is copied to the device."""

        def made(*args):
            self._on_host = True
            result = make(*args)
            self._on_host = False
            for tensor in tensors_in(result):
                self._hold(tensor, tensor.numel() * tensor.element_size())
            return result

        return made

    def _hold(self, tensor: Tensor, n_bytes: int) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        n_bytes = -(-n_bytes // 512) * 512
        self._known.add(storage._cdata)
        self.live += n_bytes
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._let_go, storage._cdata, n_bytes).atexit = False

    def _let_go(self, storage: int, n_bytes: int) -> None:
        self._known.remove(storage)
        self.live -= n_bytes


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    else:
        for inside in value if isinstance(value, tuple) else getattr(value, "__dict__", {}).values():
            yield from tensors_in(inside)


@contextmanager
def as_on_a_gpu() -> Iterator[DeviceMemory]:
    """Trials inside do on a CPU what they do on a GPU: mapped counts are copied, losses composed, gradients kept."""
    memory = DeviceMemory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp_hist, "weighted_loss", composed_loss)
        patch.setattr(OutputLayer, "begin", lambda layer, settings: False)
        for name in ("training_targets", "held_out_targets"):
            patch.setattr(trial, name, memory.sent(getattr(trial, name)))
        patch.setattr(targets, "CellSums", memory.sent(targets.CellSums))
        patch.setattr(HeldOutCells, "positions", memory.sent(HeldOutCells.positions))
        with memory:
            yield memory


def measured_and_forecast(plan: Plan, job: Job) -> tuple[int, int]:
    with as_on_a_gpu() as memory:
        entry = run_trial(plan, job, torch.device("cpu"))
    assert entry["trial"]["status"] == "ok", entry["trial"]
    return memory.peak, tensor_bytes(plan, job, open_store(plan.data.store))


def test_what_autograd_keeps_is_counted_until_it_is_let_go():
    with DeviceMemory() as memory:
        total = torch.zeros(1000, requires_grad=True).exp().sum()
        assert memory.live == 4096 + 4096 + 512
        del total
    assert (memory.live, memory.peak) == (0, 4096 + 4096 + 512)


@pytest.fixture(scope="module")
def plans(tmp_path_factory) -> dict[int, Plan]:
    out = tmp_path_factory.mktemp("out")

    def plan(n_folds: int) -> Plan:
        data = prepare(StudyOptions(out=out, folds=n_folds), [5, 35], apart=[5], with_coexpression=True)
        return Plan("test", data, n_folds, 1, Path("unused"), 3600.0)

    return {n_folds: plan(n_folds) for n_folds in (2, 30)}


@pytest.mark.parametrize("n_bins", [5, 35])
@pytest.mark.parametrize("dominant", SHAPES)
def test_a_trial_needs_what_was_forecast_and_not_much_less(plans, dominant, n_bins):
    n_folds, settings = SHAPES[dominant]
    measured, forecast = measured_and_forecast(plans[n_folds], Job("MLP+Hist", n_bins, 0, settings))
    assert measured <= forecast <= 1.25 * measured


@pytest.mark.parametrize("ce", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("wass", [0.0, 0.25, 0.75])
def test_weights_of_the_losses_are_seen(plans, ce, wass):
    weights = {"weight_ce": ce * (1 - wass), "weight_wass": wass, "weight_mse": (1 - ce) * (1 - wass)}
    settings = ModelSettings(epochs=1, hidden=(8,), **weights)
    measured, forecast = measured_and_forecast(plans[30], Job("MLP+Hist", 35, 0, settings))
    assert measured <= forecast <= 1.4 * measured


@pytest.mark.parametrize("batch_size", [2, 45])
@pytest.mark.parametrize("method", ["TG", "ZITG"])
def test_methods_on_sums_need_what_was_forecast_and_not_much_less(plans, method, batch_size):
    settings = ModelSettings(epochs=1, hidden=(8,), batch_size=batch_size)
    measured, forecast = measured_and_forecast(plans[2], Job(method, 5, 0, settings))
    assert measured <= forecast <= 1.3 * measured


@pytest.mark.parametrize("batch_size", [2, 45])
def test_gears_needs_what_was_forecast_and_not_much_less(plans, batch_size):
    measured, forecast = measured_and_forecast(
        plans[2], Job("GEARS", 5, 0, ModelSettings(epochs=1, batch_size=batch_size))
    )
    assert measured <= forecast <= 1.3 * measured


@pytest.fixture
def plan_of_cells(tmp_path, monkeypatch) -> Plan:
    """Ten cells of a perturbation are scored, for drawing them gene by gene is slow to count."""
    monkeypatch.setattr(joint, "MOST_CELLS", 10)
    data = prepare(StudyOptions(out=tmp_path, folds=30), [5], with_cells=True)
    return Plan("test", data, 30, 1, Path("unused"), 3600.0)


def test_scores_of_whole_cells_need_what_was_forecast(tmp_path):
    data = prepare(StudyOptions(out=tmp_path, folds=9), [5], with_cells=True)
    plan = Plan("test", data, 9, 1, Path("unused"), 3600.0)
    measured, forecast = measured_and_forecast(plan, Job("MLP+Hist", 5, 0, ModelSettings(epochs=1, hidden=(8,))))
    assert measured <= forecast <= 1.6 * measured


@pytest.mark.parametrize("batch_size", [4, 45])
def test_whole_cells_need_what_was_forecast_and_not_much_less(plan_of_cells, batch_size):
    settings = CellSettings(epochs=1, batch_size=batch_size, flow=FlowSettings(samples=2))
    measured, forecast = measured_and_forecast(plan_of_cells, Job("CellTARNet", 5, 0, settings))
    assert measured <= forecast <= 1.6 * measured


@pytest.mark.parametrize("method", [OBSERVED, *(method for method in METHODS if method not in WHOLE_CELLS)])
def test_no_method_needs_more(plans, method):
    measured, forecast = measured_and_forecast(plans[2], Job(method, 5, 0, ModelSettings(epochs=1, hidden=(8,))))
    assert measured <= forecast


def test_a_batch_is_no_larger_than_the_training_set(plans):
    settings = ModelSettings(epochs=1, hidden=(8,), batch_size=1000)
    measured, forecast = measured_and_forecast(plans[30], Job("MLP+Hist", 5, 0, settings))
    assert measured <= forecast <= 1.25 * measured


@pytest.mark.parametrize("learning_rate", [1e-3, 1e30])
def test_nothing_of_a_trial_stays_for_the_next_one_in_its_process_however_it_ended(plans, learning_rate):
    settings = ModelSettings(epochs=2, hidden=(8,), learning_rate=learning_rate)
    with as_on_a_gpu() as memory:
        run_trial(plans[30], Job("MLP+Hist", 5, 0, settings), torch.device("cpu"))
    gc.collect()  # the first trial of a process imports parts of torch, which leave frames in cycles
    assert memory.peak > 0
    assert memory.live == 0


def test_the_forecast_is_the_same_for_all_folds(plans):
    store, settings = open_store(plans[30].data.store), ModelSettings()
    assert len({trial_bytes(plans[30], Job("MLP+Hist", 5, fold, settings), store) for fold in range(30)}) == 1


def on_a_gpu(share: float) -> int:
    """Trials that Ray runs at once, by its fixed-point count."""
    units = share * 10_000
    assert units == pytest.approx(round(units), abs=1e-6)
    return 10_000 // round(units)


n_bytes_of_trials = st.integers(1, 300 * 10**9)
n_bytes_of_gpus = st.one_of(st.sampled_from(list(GPUS.values())), st.integers(10**9, 300 * 10**9))


@given(n_bytes=n_bytes_of_trials, gpu_bytes=n_bytes_of_gpus)
def test_each_trial_is_let_have_its_forecast_and_all_together_never_more_than_the_gpu(n_bytes, gpu_bytes):
    share = gpu_share(n_bytes, gpu_bytes)
    n_trials, cap = on_a_gpu(share), memory_fraction(share, gpu_bytes) * gpu_bytes
    if n_trials > 1:
        assert cap >= n_bytes - 1
        assert n_trials * (cap + CONTEXT_BYTES) <= gpu_bytes + 1
    else:
        assert share == 1


@given(n_bytes=n_bytes_of_trials, gpu_bytes=n_bytes_of_gpus)
def test_one_trial_more_would_not_fit(n_bytes, gpu_bytes):
    more = on_a_gpu(gpu_share(n_bytes, gpu_bytes)) + 1
    assert more * (n_bytes + CONTEXT_BYTES + gpu_bytes / 10_000) > gpu_bytes  # to what Ray can tell apart


@pytest.mark.parametrize("gpu_bytes", [0, CONTEXT_BYTES // 2, 2 * CONTEXT_BYTES])
def test_what_fits_on_no_gpu_is_tried_on_a_whole_one(gpu_bytes):
    share = gpu_share(2 * CONTEXT_BYTES, gpu_bytes)
    assert share == 1
    assert memory_fraction(share, gpu_bytes) == 1


@pytest.mark.parametrize("gpu_bytes", GPUS.values(), ids=GPUS)
@pytest.mark.parametrize("share", [0.5, 0.25, 0.125])
def test_a_share_that_was_asked_for_is_kept_too(share, gpu_bytes):
    cap = memory_fraction(share, gpu_bytes) * gpu_bytes
    assert 0 < on_a_gpu(share) * (cap + CONTEXT_BYTES) <= gpu_bytes + 1


def test_torch_takes_the_fraction_of_a_share_too_small_for_a_context():
    assert 0 < memory_fraction(0.001, 24 * 10**9) <= 1
