"""Training an ensemble on all perturbations of a screen, and learning from those held out how far to trust it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from histpert.embeddings import GeneEmbeddings, match_perturbations
from histpert.ensembles.calibration import calibration_of
from histpert.ensembles.ensemble import Ensemble, member_network
from histpert.ensembles.members import Member, train_members
from histpert.ensembles.uncertainty import ErrorModel
from histpert.errors import InputError
from histpert.histograms import FoldCounts, open_or_build
from histpert.models.interface import smoothed
from histpert.models.mlp_hist import MLPHist
from histpert.perturbed_screen import check_any
from histpert.provenance import content_id, provenance
from histpert.screens import Screen, assign_folds
from histpert.settings import LARGEST_SEED, ModelSettings
from histpert.study_defaults import BINS, MEMBER_FOLDS, REPEATS
from histpert.tensors import masses_of
from histpert.threads import Progress, silent

__all__ = ["fit"]


def fit(
    screen: Screen,
    embeddings: GeneEmbeddings,
    settings: ModelSettings | None = None,
    *,
    n_bins: int = BINS,
    folds: int = MEMBER_FOLDS,
    repeats: int = REPEATS,
    aliases: Path | None = None,
    parts: Path | None = None,
    progress: Progress = silent,
    about: Mapping[str, Any] | None = None,
) -> Ensemble:
    """Train MLP+Hist on a screen, to predict perturbations that it does not have.

    Args:
        screen: Perturbations without an embedding are left out.
        embeddings: Of all genes that may be asked for; kept in the ensemble.
        settings: Of networks and training; the published ones by default.
        n_bins: Bins per gene.
        folds: Parts of the perturbations; each member is trained without one.
        repeats: How often the perturbations are parted anew, 2 or more; an ensemble has folds x repeats members.
        aliases: Table of gene symbols, as studies take it.
        parts: Folder in which trained members are kept, from which a fit that was stopped goes on; it stays.
        progress: Told what goes on.
        about: What to keep with the ensemble.

    Raises:
        InputError: Fewer perturbations with an embedding than folds, or settings that cannot be used.
    """
    settings = settings or ModelSettings()
    _check(settings, n_bins, folds, repeats)
    found = match_perturbations(embeddings, screen.perturbations, aliases)
    check_any(found, embeddings)
    screen = screen.with_perturbations(found.embeddings.genes)
    vectors = np.ascontiguousarray(found.embeddings.lookup(screen.perturbations))
    parted = np.stack([assign_folds(screen.perturbations, folds, settings.seed + repeat) for repeat in range(repeats)])
    held_out = (parted[:, None] == np.arange(folds)[:, None]).reshape(repeats * folds, -1)
    with tempfile.TemporaryDirectory() if parts is None else nullcontext(parts) as folder:
        never_held_out = np.ones(len(vectors), dtype=np.int64)
        store = open_or_build(Path(folder) / "store", screen, never_held_out, [n_bins], progress, option="--out")
        identity = {"screen": store.fingerprint, "embeddings": found.embeddings.fingerprint(), "n_bins": n_bins}
        members = _members(Path(folder), held_out, settings, identity)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        train_members(members, Path(str(store.folder)), vectors, n_bins, device, progress)
        ensemble = _ensemble(screen, embeddings, vectors, settings, store.fold(0, n_bins), held_out, members)
        observed = store.moments.power_sums[0][1:] / store.moments.n_cells[1:, None]
    predicted = ensemble.averaged(vectors, held_out, ensemble.n_cells, with_masses=False)
    error, at = observed - predicted.mean, predicted.circumstances
    return replace(
        ensemble,
        errors=ErrorModel.fitted(error, at),
        calibration=calibration_of(error, at, parted[0], screen.perturbations),
        about={**(about or {}), **identity, "folds": folds, "repeats": repeats, "device": device.type, **provenance()},
    )


def _check(settings: ModelSettings, n_bins: int, folds: int, repeats: int) -> None:
    if n_bins < 2:
        raise InputError(f"--bins {n_bins}: must be 2 or more")
    if repeats < 2:
        raise InputError(f"--repeats {repeats}: must be 2 or more, so that it can be told how far members differ")
    if settings.seed + folds * repeats > LARGEST_SEED:
        raise InputError(f"--seed {settings.seed}: must be {LARGEST_SEED - folds * repeats:,} or less")


def _members(folder: Path, held_out: np.ndarray, settings: ModelSettings, identity: Mapping[str, Any]) -> list[Member]:
    """Each with a seed and, by what it depends on, a file of its own."""
    found = []
    for number, left_out in enumerate(held_out):
        of_member = replace(settings, seed=settings.seed + number)
        training = np.flatnonzero(~left_out)
        content = {**identity, "version": MLPHist.version, "settings": asdict(of_member), "training": training.tolist()}
        found.append(Member(folder / f"{content_id(content)}.safetensors", training, of_member))
    return found


def _ensemble(
    screen: Screen,
    embeddings: GeneEmbeddings,
    vectors: np.ndarray,
    settings: ModelSettings,
    counts: FoldCounts,
    held_out: np.ndarray,
    members: Sequence[Member],
) -> Ensemble:
    """The members side by side; of their errors nothing is known yet."""
    masses = masses_of(counts.control_counts, torch.float32, torch.device("cpu"))
    control = smoothed(masses, settings.control_smoothing).numpy()
    # What is read is mapped: a folder of parts that goes would take it along.
    weights = [{name: values.clone() for name, values in load_file(member.path).items()} for member in members]
    return Ensemble(
        screen=screen.name,
        genes=screen.genes,
        perturbations=screen.perturbations,
        n_cells=screen.n_cells[1:],
        n_control=int(screen.n_cells[0]),
        vectors=vectors,
        embeddings=embeddings,
        n_bins=counts.edges.n_bins,
        settings=settings,
        held_out=held_out,
        lower=counts.edges.lower,
        width=counts.edges.width,
        constant=counts.edges.constant,
        control=control / control.sum(axis=-1, keepdims=True, dtype=np.float64),
        networks=tuple(
            member_network(control, settings, len(member.training), of_member)
            for member, of_member in zip(members, weights, strict=True)
        ),
    )
