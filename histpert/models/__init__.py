"""Methods behind one interface: fit on training perturbations, predict histograms for others.

`METHODS` maps the name that tables and figures show to a constructor; adding a method is one file and one line.
"""

from collections.abc import Mapping

from histpert.models.control_hist import ControlHist
from histpert.models.interface import HistogramModel, TrainingSet
from histpert.models.mlp_hist import MLPHist
from histpert.models.pooled_hist import PooledHist
from histpert.settings import ModelSettings

__all__ = ["METHODS", "HistogramModel", "ModelSettings", "TrainingSet"]

METHODS: Mapping[str, type[HistogramModel]] = {
    "Ctrl Hist": ControlHist,
    "Non-Ctrl Hist": PooledHist,
    "MLP+Hist": MLPHist,
}
