"""Scores of predicted histograms against held-out perturbations, one value per perturbation."""

from histpert.metrics.evaluation import evaluate, evaluate_in_batches
from histpert.metrics.held_out import HeldOut

__all__ = ["HeldOut", "evaluate", "evaluate_in_batches"]
