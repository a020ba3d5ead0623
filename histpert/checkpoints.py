"""State of a training, kept now and then, so that it goes on when its process has died."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from histpert.results import written_atomically

__all__ = ["Checkpoint"]

LARGEST_SHARE = 0.05
"""Of the time that may go into keeping checkpoints, where one takes long."""


class Checkpoint:
    """A file with the last state of a training.

    Args:
        path: The file; its folder is made where it is missing.
        seconds: Time between states, longer where keeping one takes more than a twentieth of it.

    Attributes:
        seconds_before: What processes that died had trained for, up to the state that was loaded.
    """

    def __init__(self, path: Path, seconds: float):
        self._path, self._seconds = path, seconds
        self._start = self._kept = time.monotonic()
        self.seconds_before = 0.0

    def load(self) -> dict[str, Any] | None:
        """The last state, on the CPU; None where there is none. A damaged one is named and counts as none."""
        try:
            # Of a pickle, tensors and plain values only are taken.
            state = torch.load(self._path, map_location="cpu", weights_only=True)
            self.seconds_before = state["seconds"]
        except FileNotFoundError:
            return None
        except Exception as error:  # torch raises many kinds for a file that is damaged
            print(
                f"checkpoint {self._path} cannot be read ({type(error).__name__}): its training starts anew", flush=True
            )
            return None
        return state

    def keep(self, state: Callable[[], dict[str, Any]]) -> None:
        """Keep the state, if the last one is old enough; a disk that is full costs the checkpoint, not the training."""
        start = time.monotonic()
        if start - self._kept < self._seconds:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with written_atomically(self._path) as beside:
                torch.save(state() | {"seconds": self.seconds_before + start - self._start}, beside)
        except OSError as error:
            print(f"checkpoint {self._path} cannot be kept ({error.strerror}); the training goes on", flush=True)
        self._kept = time.monotonic()
        self._seconds = max(self._seconds, (self._kept - start) / LARGEST_SHARE)

    def remove(self) -> None:
        """The training has ended, and its result is kept; what a process that died was writing goes too."""
        for path in (self._path, *self._path.parent.glob(f".{self._path.name}.*")):
            path.unlink(missing_ok=True)
