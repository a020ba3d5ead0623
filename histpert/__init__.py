"""Predict whole gene expression distributions after unseen genetic perturbations.

Names are loaded when first used, so that `import histpert` needs neither torch nor the readers of screens.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "InputError": "histpert.errors",
    "Screen": "histpert.screens",
    "assign_folds": "histpert.screens",
    "read_screen": "histpert.screens",
    "simulate_screen": "histpert.screens",
    "Simulation": "histpert.screens",
    "ScreenTruth": "histpert.screens",
    "GeneEmbeddings": "histpert.embeddings",
    "read_embeddings": "histpert.embeddings",
    "HistogramStore": "histpert.histograms",
    "METHODS": "histpert.models",
    "ReadOptions": "histpert.screens",
    "ModelSettings": "histpert.settings",
    "fit": "histpert.ensembles.fitting",
    "predict": "histpert.ensembles.predicting",
    "beside": "histpert.ensembles.beside",
    "read_ensemble": "histpert.ensembles.files",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'histpert' has no attribute {name!r}")
