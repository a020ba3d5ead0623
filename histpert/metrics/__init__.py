"""Scores of predicted histograms against held-out perturbations, one value per perturbation."""

from histpert.metrics.evaluation import HeldOut, evaluate

__all__ = ["HeldOut", "evaluate"]
