"""Methods behind one interface: fit on training perturbations, predict others.

`METHODS` maps the name that tables and figures show to a constructor; adding a method is one file and one line.
"""

from collections.abc import Mapping

from histpert.models.additive import Additive
from histpert.models.celltarnet import CellTARNet
from histpert.models.control_hist import ControlHist
from histpert.models.gears import GEARS
from histpert.models.gp_hist import GPHist
from histpert.models.gp_mlp_hist import GPMLPHist
from histpert.models.interface import Method, TrainingSet
from histpert.models.mlp_hist import MLPHist
from histpert.models.mlp_hist_copula import MLPHistCopula
from histpert.models.mlp_mean import MLPMean
from histpert.models.neighbors import Neighbors, NeighborsMean
from histpert.models.pooled_hist import PooledHist
from histpert.models.pooled_mean import PooledMean
from histpert.models.regression import GaussianProcess, Ridge
from histpert.models.truncated import TruncatedGaussian, ZeroInflatedTruncatedGaussian
from histpert.settings import ModelSettings

__all__ = ["METHODS", "OF_COMBINATIONS", "WHOLE_CELLS", "Method", "ModelSettings", "TrainingSet"]

METHODS: Mapping[str, type[Method]] = {
    "Ctrl Hist": ControlHist,
    "Non-Ctrl Hist": PooledHist,
    "TG": TruncatedGaussian,
    "ZITG": ZeroInflatedTruncatedGaussian,
    "MLP+Hist": MLPHist,
    "Neighbors Hist": Neighbors,
    "GP+Hist": GPHist,
    "GP+MLP+Hist": GPMLPHist,
    "Non-Ctrl Mean": PooledMean,
    "Neighbors Mean": NeighborsMean,
    "MLP+Mean": MLPMean,
    "Ridge": Ridge,
    "GP": GaussianProcess,
    "GEARS": GEARS,
    "MLP+Hist copula": MLPHistCopula,
    "CellTARNet": CellTARNet,
}
"""Those of histograms first, then those of means, and those of whole cells, which take many times as long."""

OF_COMBINATIONS: Mapping[str, type[Method]] = {"Additive": Additive}
"""Those that predict combinations of perturbations that were seen alone, and nothing else."""

WHOLE_CELLS = ("MLP+Hist copula", "CellTARNet")
"""Methods that are trained on cells one by one."""
