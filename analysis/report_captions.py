"""What figures and tables are called on a page, by the names of their files."""

from __future__ import annotations

__all__ = ["FIGURES", "HEADINGS", "TABLES", "parted"]

FIGURES = {
    "rmae_by_bins": (
        "Line charts of RMAE of mean, variance, skewness and kurtosis against the number of bins, a line per method",
        "Relative error (RMAE) against the number of bins: mean over folds, band of one standard deviation. Lower is"
        " better; predicting control scores 1 in the mean shift. Observed Hist is what binning alone costs.",
    ),
    "pearson_by_bins": (
        "Line charts of Pearson correlations over 20, 50 and 100 genes against the number of bins, a line per method",
        "Correlation of predicted and observed mean shifts over the genes that change most, against the number of bins:"
        " mean over folds, band of one standard deviation. Higher is better.",
    ),
    "methods": (
        "Dot plots, a panel per metric and a row per method, with floors and references as vertical lines",
        "All methods at a glance: a small dot per fold, a large one for their mean; arrows say which way is better.",
    ),
    "calibration": (
        "Line charts of measured against nominal coverage of central predicted intervals, a line per method",
        "Share of cells inside central predicted intervals, and the same less the nominal share.",
    ),
    "loss_weights": (
        "Triangles of loss weights, one per metric, with a hexagon per triple of weights coloured by its score",
        "Every triple of loss weights; at the corners one term alone. Marked are the best and what ties with it.",
    ),
    "combinations": (
        "Dot plots of held-out pairs, a panel per metric and a row per method",
        "Methods on held-out pairs: a dot per fold, and their mean.",
    ),
    "embedding_sources": (
        "Dot plots, a panel per metric and a row per method and source of embeddings",
        "Sources of embeddings with each method: a dot per fold, and their mean.",
    ),
    "search": (
        "Scatter plots of the score of each configuration, in the order tried and against each setting",
        "The score of each configuration in the search's own cross-validation; the star is the one that was chosen.",
    ),
    "pretraining": (
        "Line charts of cross-entropy and accuracy over epochs, beside what marginal frequencies give",
        "Training and validation, epoch by epoch, beside what the frequencies of each gene's bins give.",
    ),
    "gene_properties": (
        "Dot plots of ROC-AUC, a panel per task and a row per source of embeddings",
        "What sources tell about genes: ROC-AUC of each fold, and their mean; the dashed line is chance.",
    ),
    "gene_classes": (
        "For each source a map of genes with one class marked, and a heat map of cosines",
        "Genes of one class in each source: on a map of all genes, and their cosines with each other and with others.",
    ),
    "dependency": (
        "Dot plots, a panel per score and split, a row per source of embeddings",
        "Gene dependency predicted from each source: a dot per fit, and their mean.",
    ),
    "screens": (
        "Distributions of two screens: zeros, moments and correlations of genes, sizes and effects of perturbations",
        "Both screens: genes in control cells above, pairs of genes and perturbations below.",
    ),
    "zero_bin": (
        "Difference in likelihood of two methods, split into the zeros and the rest",
        "How much of the difference in likelihood lies in the zeros.",
    ),
}
"""What is drawn, and how to read it; in the order of a page."""

TABLES = {
    "resolution": "Errors, likelihood and correlations by number of bins and method",
    "methods_distributions": "Predicted distributions, by method",
    "methods_means": "Predicted mean shifts, by method",
    "methods_resources": "Costs of training per fold, by method",
    "methods_paired": "Each method less MLP+Hist, on the same held-out perturbations",
    "loss_weights": "Every triple of loss weights; bold: best of its column, \u2020: ties with it",
    "open_choices": "Each choice, and its difference from the default",
    "combinations": "Held-out pairs, by method",
    "combinations_paired": "CellTARNet less each other method, on the same held-out pairs",
    "embedding_sources": "Each source of embeddings, and its difference from random vectors",
    "search": "The chosen configuration beside the given settings, on perturbations the search did not see",
    "pretraining": "The last epoch of each training",
    "roc_auc": "ROC-AUC by task and source of embeddings",
    "gene_properties": "All scores by task and source of embeddings",
    "against_random": "ROC-AUC of each source less that of random embeddings, on the same folds",
    "gene_classes": "Cosines within and between classes of genes",
    "dependency": "Gene dependency, by source of embeddings",
    "dependency_floors": "Each source less the floors, and less the best",
    "resources": "Time, memory and distance from the device's floor",
    "screens": "Quantiles of both screens, and the distance of their distributions",
    "zero_bin": "Likelihood of zeros and of the rest, gene by gene",
}

HEADINGS = {
    "n_bins": "Bins",
    "n": "Pairs",
    "p": "p",
    "p_holm": "p (Holm)",
    "weight_ce": "CE weight",
    "weight_wass": "W1 weight",
    "weight_mse": "MSE weight",
    "roc_auc": "ROC-AUC",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R\u00b2",
    "r_within_gene": "Within-gene r",
    "n_train": "Training rows",
    "n_test": "Scored rows",
    "n_training": "Training signatures",
    "train_minutes": "Minutes",
    "peak_memory_mb": "Memory (MB)",
    "Unnamed: 0": "Row",
}
"""Of columns whose names do not read as headings."""

_PARTS = {"_apart": ", for the targets set apart", "_rest": ", for all other targets"}


def parted(name: str) -> tuple[str, str]:
    """Of a file's name what is drawn, and in words of which targets where it is of some."""
    end = next((end for end in _PARTS if name.endswith(end)), "")
    return name.removesuffix(end), _PARTS.get(end, "")
