"""What was found, as one object for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from histpert.doctor.examination import Examined
from histpert.doctor.forecast import Forecast
from histpert.doctor.machine import Machine

__all__ = ["as_content"]


def as_content(found: Examined, command: str) -> dict[str, Any]:
    """The same, sizes in bytes and times in seconds."""
    coverage, outlook = found.coverage, found.outlook
    content: dict[str, Any] = {
        "can_run": not found.reasons,
        "reasons": found.reasons,
        "next": command,
        "screen": asdict(found.facts) if found.facts else None,
        "doubts": [doubt._asdict() for doubt in found.doubts],
        "embeddings": None,
        "folds": asdict(found.folds) if found.folds else None,
        "pair_folds": asdict(found.pair_folds) if found.pair_folds else None,
        "machine": asdict(outlook.machine) if outlook else None,
        "studies": [_of_study(each, outlook.machine) for each in outlook.here] if outlook else [],
        "gpu": outlook.gpu._asdict() if outlook and outlook.gpu else None,
        "studies_on_gpu": [asdict(each) for each in outlook.there] if outlook else [],
    }
    if coverage is not None:
        content["embeddings"] = {
            "name": coverage.name,
            "n_features": coverage.features.shape[1],
            "found": coverage.perturbations,
            "missing": coverage.missing,
            "learned_from": coverage.learned_from,
            "notes": coverage.notes,
        }
    return content


def _of_study(each: Forecast, machine: Machine) -> dict[str, Any]:
    return {**asdict(each), "memory_bytes": each.memory_bytes, "lacks": each.lacks(machine)}
