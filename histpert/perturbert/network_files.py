"""A trained network in a folder: `network.pt` with its weights, `network.json` with what it needs besides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from histpert.errors import InputError
from histpert.perturbert.network import PerturBERT
from histpert.perturbert.settings import BertSettings
from histpert.results import write_atomically, write_json
from histpert.wording import reason

__all__ = ["WEIGHTS", "Trained", "read_network", "write_network"]

WEIGHTS = "network.pt"
_ABOUT = "network.json"


class Trained(NamedTuple):
    """A network, and what signatures become tokens by."""

    network: PerturBERT
    settings: BertSettings
    genes: tuple[str, ...]
    cell_lines: tuple[str, ...]
    bin_edges: Float[np.ndarray, "edge"]


def write_network(
    folder: Path,
    network: PerturBERT,
    settings: BertSettings,
    genes: Sequence[str],
    cell_lines: Sequence[str],
    bin_edges: Float[np.ndarray, "edge"],
) -> None:
    """Write both files, the weights last."""
    about = {"genes": list(genes), "cell_lines": list(cell_lines), "bin_edges": bin_edges.tolist()}
    write_json(folder / _ABOUT, about | {"settings": asdict(settings)})
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    write_atomically(folder / WEIGHTS, lambda beside: torch.save(state, beside))


def read_network(folder: Path) -> Trained:
    """Read a network back, on the CPU. Of the file of weights, tensors only are taken.

    Raises:
        InputError: A file is missing, or not what was written.
    """
    try:
        about: dict[str, Any] = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        settings = BertSettings(**about["settings"])
        network = PerturBERT(len(about["genes"]), len(about["cell_lines"]), settings)
        network.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds for a file that is damaged
        raise InputError(f"{folder} holds no network that can be read: {reason(error)}") from error
    names = tuple(about["genes"]), tuple(about["cell_lines"])
    return Trained(network.eval(), settings, *names, np.array(about["bin_edges"]))
