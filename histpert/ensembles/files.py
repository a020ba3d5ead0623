"""An ensemble in one file: safetensors with JSON in its header. Nothing in it is run when it is read.

The header's metadata have one key, `histpert`, JSON of all that is no array: format, names of genes and perturbations,
settings, how the screen was read, versions, and the SHA-256 of everything else in the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import histpert
from histpert.embeddings import GeneEmbeddings
from histpert.ensembles.calibration import Calibration
from histpert.ensembles.ensemble import Ensemble, member_network
from histpert.ensembles.uncertainty import ErrorModel
from histpert.errors import InputError
from histpert.results import written_atomically
from histpert.settings import ModelSettings

__all__ = ["FORMAT", "read_ensemble", "write_ensemble"]

FORMAT = 1

_KEY = "histpert"
_ARRAYS = ("n_cells", "vectors", "held_out", "lower", "width", "constant", "control")
_OF_ERRORS = ("of_gene", "weights", "quantiles")
_OF_CALIBRATION = ("levels", "predicted", "observed", "distance", "ratio")
_WORDS = ("screen", "genes", "perturbations", "n_control", "n_bins")


def write_ensemble(path: Path, ensemble: Ensemble) -> None:
    """Write an ensemble of which errors are known, atomically.

    Raises:
        InputError: The file cannot be written.
    """
    tensors = _tensors(ensemble)
    about = {name: getattr(ensemble, name) for name in _WORDS}
    about |= {
        "format": FORMAT,
        "version": histpert.__version__,
        "settings": asdict(ensemble.settings),
        "embeddings": {"name": ensemble.embeddings.name, "genes": ensemble.embeddings.genes},
        "coverage": {name: shares.tolist() for name, shares in _calibration(ensemble).coverage.items()},
        "about": ensemble.about,
    }
    about["sha256"] = _digest(about, tensors)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as beside:
            beside.touch()
            mode = beside.stat().st_mode  # safetensors lets nobody else read what it writes
            save_file(tensors, beside, {_KEY: json.dumps(about, default=_listed)})
            beside.chmod(mode)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}): name another file") from error


def read_ensemble(path: str | Path) -> Ensemble:
    """Read what `write_ensemble` wrote. Weights and embeddings are mapped, not copied.

    Raises:
        InputError: The file is missing, is no model of histpert, is damaged, or was written by a newer version.
    """
    path = Path(path)
    about = _about(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        if _digest(about, tensors) == about["sha256"]:
            return _ensemble(about, tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        pass
    raise InputError(
        f"{path} is damaged: its content is not what was written; copy it again, or run histpert fit again"
    )


def _about(path: Path) -> dict[str, Any]:
    """The JSON of a file, of a format that this version reads."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: name a model that histpert fit wrote") from None
    except (SafetensorError, OSError) as error:
        if path.suffix == ".safetensors" and path.is_file():
            raise InputError(f"{path} is damaged or cut short: copy it again, or run histpert fit again") from error
        raise InputError(f"{path} is no model of histpert: name a .safetensors that histpert fit wrote") from error
    try:
        about = json.loads(metadata[_KEY])
        form, version = int(about["format"]), str(about["version"])
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path} was not written by histpert fit: it holds {', '.join(metadata) or 'tensors'} of another program"
        ) from None
    if form > FORMAT:
        raise InputError(
            f"{path} was written by histpert {version} (format {form}), this is {histpert.__version__} and reads "
            f"format {FORMAT}: install a newer histpert"
        )
    return about


def _calibration(ensemble: Ensemble) -> Calibration:
    assert ensemble.calibration is not None
    return ensemble.calibration


def _tensors(ensemble: Ensemble) -> dict[str, torch.Tensor]:
    arrays = {name: getattr(ensemble, name) for name in _ARRAYS}
    arrays |= {f"errors.{name}": getattr(ensemble.errors, name) for name in _OF_ERRORS}
    arrays |= {f"calibration.{name}": getattr(_calibration(ensemble), name) for name in _OF_CALIBRATION}
    arrays["embeddings"] = ensemble.embeddings.vectors
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    for member, network in enumerate(ensemble.networks):
        tensors |= {f"member.{member}.{name}": values for name, values in network.state_dict().items()}
    return tensors


def _ensemble(about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Ensemble:
    arrays = {name: tensor.numpy() for name, tensor in tensors.items() if not name.startswith("member.")}
    settings = about["settings"]
    settings = ModelSettings(**{**settings, "hidden": settings["hidden"] and tuple(settings["hidden"])})
    names = tuple(about["perturbations"])
    control, held_out = arrays["control"], arrays["held_out"]
    return Ensemble(
        screen=about["screen"],
        genes=tuple(about["genes"]),
        perturbations=names,
        n_control=about["n_control"],
        n_bins=about["n_bins"],
        **{name: arrays[name] for name in _ARRAYS},
        embeddings=GeneEmbeddings(
            about["embeddings"]["name"], tuple(about["embeddings"]["genes"]), arrays["embeddings"]
        ),
        settings=settings,
        networks=tuple(
            member_network(control, settings, int((~left_out).sum()), _member(tensors, number))
            for number, left_out in enumerate(held_out)
        ),
        errors=ErrorModel(*(arrays[f"errors.{name}"] for name in _OF_ERRORS)),
        calibration=Calibration(
            **{name: arrays[f"calibration.{name}"] for name in _OF_CALIBRATION},
            coverage={name: np.array(shares) for name, shares in about["coverage"].items()},
            perturbations=names,
        ),
        about=about["about"],
    )


def _member(tensors: Mapping[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    start = f"member.{number}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _digest(about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """Of names, numbers and words, so that what is read is what was written."""
    words = {key: value for key, value in about.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(words, sort_keys=True, default=_listed).encode())
    for name in sorted(tensors):
        values = tensors[name].contiguous().numpy()
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _listed(value: Any) -> Sequence[Any] | str:
    """What JSON has no word for: paths."""
    if isinstance(value, Path):
        return str(value)
    raise TypeError(type(value))
