"""One training on several workers that Ray Train starts, each with its part of every batch."""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from histpert.errors import InputError
from histpert.results import write_json

__all__ = ["on_workers"]

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def on_workers(
    work: Callable[[], list[dict[str, Any]]],
    n_workers: int,
    folder: Path,
    n_threads: int,
    uses_gpu: bool,
    _: Any = None,
) -> list[dict[str, Any]]:
    """Call `work` in each worker, where torch.distributed is set up; returns the rows of the first.

    A worker that dies starts all of them again: `work` goes on from its checkpoint.

    Args:
        work: What each does.
        n_workers: How many.
        folder: One that all workers see.
        n_threads: CPUs of each.
        uses_gpu: Whether each has a GPU.

    Raises:
        InputError: The folder is not one that all see.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig, TorchTrainer

    class SetUpByUs(TorchConfig):
        """Ray would have torch listen on every interface."""

        @property
        def backend_cls(self) -> type[Backend]:  # pyright: ignore[reportIncompatibleMethodOverride]
            return type("WithGPUs", (Backend,), {"share_cuda_visible_devices": True})

    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "rows.json"
    told.unlink(missing_ok=True)
    trainer = TorchTrainer(
        _in_group,
        train_loop_config={"work": work, "told": told, "backend": "nccl" if uses_gpu else "gloo"},
        torch_config=SetUpByUs(),
        scaling_config=ScalingConfig(num_workers=n_workers, use_gpu=uses_gpu, resources_per_worker={"CPU": n_threads}),
        run_config=RunConfig(
            name=folder.name, storage_path=str(folder / "ray_train"), failure_config=FailureConfig(max_failures=2)
        ),
    )
    trainer.fit()
    try:
        rows = json.loads(told.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{told} was not written by the workers: name an --out that all nodes see") from None
    shutil.rmtree(folder / "ray_train", ignore_errors=True)
    told.unlink()
    return rows


def _in_group(config: dict[str, Any]) -> None:
    """In each worker: meet the others by a file, of which nobody outside can be one, and work."""
    import ray
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero

    if ray.util.get_node_ip_address().startswith("127."):
        os.environ |= {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
    if config["backend"] == "nccl":
        torch.cuda.set_device(get_context().get_local_rank())
    meeting = config["told"].with_name(f"meeting-{broadcast_from_rank_zero(uuid.uuid4().hex)}")
    distributed.init_process_group(
        config["backend"],
        init_method=f"file://{meeting}",
        rank=get_context().get_world_rank(),
        world_size=get_context().get_world_size(),
    )
    try:
        rows = config["work"]()
        if distributed.get_rank() == 0:
            write_json(config["told"], rows)
    finally:
        distributed.destroy_process_group()
        meeting.unlink(missing_ok=True)
