"""Do gene embeddings predict which genes a cell line depends on? As PerturBERT's paper asks it (5.3, appendix D).

A row is a gene in a line: principal components of the line's expression, those of the gene's embedding, and the gene's
symbol, from which LightGBM predicts the effect. Most of the variance is between genes, and a gene's mean over training
lines, which no embedding is needed for, has it: so what differs between lines is scored apart, and genes are held out.

All of DepMap is 1,683 lines and some 900 genes: 1.2 million training rows of some 450 features, 2.2 GB in float32, made
once, given up when LightGBM has them in bins. A fit takes 4.2 GB at its peak, and a tree 0.65 s of a core (measured).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.decomposition import PCA

from histpert.errors import InputError

__all__ = ["GENE_MEAN", "ONE_HOT", "PARAMETERS", "SPLITS", "Parts", "Problem", "Split"]
__all__ += ["bootstrap_scores", "fit_and_score", "gene_features", "line_features", "make_split", "require_lightgbm"]

ONE_HOT = "one-hot"
"""The source without vectors. Columns of zeros and a one would say again what the categorical symbol says."""

GENE_MEAN = "Per-gene mean"
"""The mean effect of a gene over training lines. Of a gene that is held out: the mean of those of training genes."""

SPLITS = ("lines", "genes")
"""What is held out: lines, as published, of all genes; or genes, in lines that are held out too.

Of a gene that is held out the symbol tells nothing, and trees that part training genes by it leave embeddings nothing
to explain (early stopping then ends after a tree or two): there it is no feature, and `ONE_HOT` has expression alone.
"""

VARIANCE, N_COMPONENTS = 0.9, 50
"""Kept of the lines' expression, and of embeddings."""

PARAMETERS: Mapping[str, Any] = {
    "objective": "rmse",
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
"""Of LightGBM, as published, its defaults otherwise; without a `bagging_freq` it would not bag at all."""

STOP_AFTER = 100
"""Trees without a better validation error."""

_CONSTANT = 1e-7  # of its size: what varies less over lines is rounding


class Parts(NamedTuple):
    """Places of what is trained on, of what says when to stop, and of what is scored."""

    training: Int[np.ndarray, "training"]
    validation: Int[np.ndarray, "validation"]
    test: Int[np.ndarray, "test"]


@dataclass(frozen=True)
class Split:
    """Rows of a part are its genes in its lines. Without genes held out, each part has all of them."""

    lines: Parts
    genes: Parts
    holds_out_genes: bool


@dataclass(frozen=True)
class Problem:
    """What fits share.

    Attributes:
        effects: NaN where none was measured.
        of_line: Components of expression.
        of_gene: Components of embeddings, by source and split; of `ONE_HOT` there are none.
        splits: By name.
    """

    effects: Float[np.ndarray, "line gene"]
    of_line: Float[np.ndarray, "line component"]
    of_gene: Mapping[tuple[str, str], Float[np.ndarray, "gene _"]]
    splits: Mapping[str, Split]


def make_split(name: str, n_lines: int, n_genes: int, seed: int) -> Split:
    """Draw 80% for training, and 10% each, rounded down, for validation and test; lines are the same in all splits.

    Raises:
        InputError: There are fewer than ten genes to hold some out.
    """
    lines, everything = _drawn(n_lines, seed, 0), np.arange(n_genes)
    if name == "lines":
        return Split(lines, Parts(everything, everything, everything), False)
    if n_genes < 10:
        raise InputError(f"{n_genes} genes have effects and embeddings: ten are needed to hold some of them out")
    return Split(lines, _drawn(n_genes, seed, 1), True)


def _drawn(n: int, seed: int, number: int) -> Parts:
    order, n_held_out = np.random.default_rng([seed, number]).permutation(n), n // 10
    n_training = n - 2 * n_held_out
    return Parts(*map(np.sort, np.split(order, [n_training, n_training + n_held_out])))


def line_features(
    expression: Float[np.ndarray, "line expressed"], training: Int[np.ndarray, "training"]
) -> Float[np.ndarray, "line component"]:
    """Principal components that keep 90% of the variance of training lines, fitted on those alone."""
    fitted = PCA(VARIANCE, svd_solver="full").fit(expression[training])
    return fitted.transform(expression).astype(np.float32)


def gene_features(
    vectors: Float[np.ndarray, "gene feature"], training: Int[np.ndarray, "training"]
) -> Float[np.ndarray, "gene component"]:
    """The first 50 principal components of embeddings, or as many as there are, fitted on training genes."""
    n_components = min(N_COMPONENTS, len(training) - 1, vectors.shape[1])  # n centred vectors span n - 1 dimensions
    fitted = PCA(n_components, svd_solver="full").fit(vectors[training])
    return fitted.transform(vectors).astype(np.float32)


def require_lightgbm() -> Any:
    """The module; InputError where it is not installed."""
    try:
        import lightgbm  # noqa: PLC0415 (of an extra that nothing else needs)
    except ImportError as error:
        raise InputError("lightgbm is not installed: pip install 'histpert[genes]'") from error
    return lightgbm


def fit_and_score(
    problem: Problem,
    *,
    source: str,
    split: str,
    fit_seed: int,
    draw_seed: int,
    n_trees: int,
    n_replicates: int,
    n_threads: int,
) -> list[dict[str, Any]]:
    """Rows of scores: those of the test rows, `replicate` 0, and those of bootstrap samples of what is held out.

    Lines are drawn with replacement, and genes where they are held out. All sources and fits have the same draws, so
    that their differences can be taken replicate by replicate.

    Args:
        problem: What fits share.
        source: Name; `GENE_MEAN` is no fit.
        split: Name.
        fit_seed: What LightGBM draws rows and features by.
        draw_seed: What the bootstrap draws by.
        n_trees: The most trees.
        n_replicates: Bootstrap samples.
        n_threads: Of LightGBM.
    """
    held = problem.splits[split]
    observed = problem.effects[np.ix_(held.lines.test, held.genes.test)].astype(np.float64)
    if source == GENE_MEAN:
        predicted, n_used = np.tile(_gene_means(problem.effects, held), (len(observed), 1)), 0
    else:
        predicted, n_used = _fitted(problem, source, split, fit_seed, n_trees, n_threads)
    rng = np.random.default_rng([draw_seed, 2])
    line_weights, gene_weights = (_draws(rng, n, n_replicates) for n in observed.shape)
    if not held.holds_out_genes:
        gene_weights = np.ones_like(gene_weights)
    scores = bootstrap_scores(observed, predicted, line_weights, gene_weights)
    training = problem.effects[np.ix_(held.lines.training, held.genes.training)]
    sizes = {"n_train": int(np.isfinite(training).sum()), "n_test": int(np.isfinite(observed).sum()), "n_trees": n_used}
    columns = {name: values.tolist() for name, values in scores.items()}
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return [{"replicate": number, **sizes, **row} for number, row in enumerate(rows)]


def _gene_means(effects: np.ndarray, split: Split) -> Float[np.ndarray, "gene"]:
    """Of each test gene."""
    known = effects[split.lines.training].astype(np.float64)
    n_known = np.isfinite(known).sum(axis=0)
    means = np.divide(np.nansum(known, axis=0), n_known, out=np.full(effects.shape[1], np.nan), where=n_known > 0)
    among = np.nanmean(means[split.genes.training])
    test = split.genes.test
    return np.full(len(test), among) if split.holds_out_genes else np.where(n_known > 0, means, among)[test]


def _draws(rng: np.random.Generator, n: int, n_replicates: int) -> Float[np.ndarray, "replicate n"]:
    """How often each is in a sample with replacement; in the first, each is there once."""
    return np.concatenate([np.ones((1, n)), rng.multinomial(n, np.full(n, 1 / n), size=n_replicates)])


def _fitted(
    problem: Problem, source: str, split: str, seed: int, n_trees: int, n_threads: int
) -> tuple[Float[np.ndarray, "line gene"], int]:
    """What is predicted for test rows, NaN where no effect was measured, and the number of trees."""
    lgb, held = require_lightgbm(), problem.splits[split]
    vectors = problem.of_gene.get((source, split), np.zeros((problem.effects.shape[1], 0), dtype=np.float32))
    parameters: dict[str, Any] = {**PARAMETERS, "seed": seed, "num_threads": n_threads}
    symbol = [] if held.holds_out_genes else [problem.of_line.shape[1] + vectors.shape[1]]
    for place in symbol:
        # By default LightGBM joins the rarest 1% of categories into one, of 900 genes nine that it cannot tell apart.
        parameters["max_bin_by_feature"] = [255] * place + [problem.effects.shape[1] + 2]

    def rows(part: str) -> tuple[np.ndarray, np.ndarray]:
        return _rows(problem, vectors, getattr(held.lines, part), getattr(held.genes, part), bool(symbol))

    # Nothing here holds on to the training rows once they are binned.
    data = lgb.Dataset(*rows("training"), categorical_feature=symbol, params=parameters).construct()
    stop = lgb.early_stopping(STOP_AFTER, verbose=False)
    booster = lgb.train(parameters, data, n_trees, [data.create_valid(*rows("validation"))], callbacks=[stop])
    observed = problem.effects[np.ix_(held.lines.test, held.genes.test)]
    predicted = np.full(observed.shape, np.nan)
    predicted[np.isfinite(observed)] = booster.predict(rows("test")[0], num_threads=n_threads)
    return predicted, booster.best_iteration


def _rows(
    problem: Problem, vectors: np.ndarray, lines: np.ndarray, genes: np.ndarray, with_symbol: bool
) -> tuple[Float[np.ndarray, "row feature"], Float[np.ndarray, "row"]]:
    """Features and effects of the rows that were measured, line by line; the last feature is the gene's number."""
    effects = problem.effects[np.ix_(lines, genes)]
    measured = np.isfinite(effects)
    n_line, n_gene = problem.of_line.shape[1], vectors.shape[1]
    features = np.empty((int(measured.sum()), n_line + n_gene + with_symbol), dtype=np.float32)
    start = 0
    for line, is_there in zip(lines, measured, strict=True):
        own = genes[is_there]
        rows = features[start : start + len(own)]
        rows[:, :n_line], rows[:, n_line : n_line + n_gene] = problem.of_line[line], vectors[own]
        if with_symbol:
            rows[:, -1] = own
        start += len(own)
    return features, effects[measured]


def bootstrap_scores(
    observed: Float[np.ndarray, "line gene"],
    predicted: Float[np.ndarray, "line gene"],
    line_weights: Float[np.ndarray, "replicate line"],
    gene_weights: Float[np.ndarray, "replicate gene"],
) -> dict[str, Shaped[np.ndarray, "replicate"]]:
    """Scores of samples in which lines and genes stand as often as their weights say.

    `rmse`, `mae` and `r2` are over all rows. `r_within_gene` is the mean over genes of the Pearson correlation across
    lines, in which the mean of a gene has no part. A prediction that does not vary over lines tells nothing about
    them: it counts as 0, so that all sources are averaged over the same genes, and `n_genes_constant` counts it. Genes
    whose observed effects do not vary are left out; where all are, it is NaN.

    Args:
        observed: NaN where none was measured.
        predicted: Of the same genes in the same lines.
        line_weights: Of each sample.
        gene_weights: Likewise.
    """
    there = np.isfinite(observed)
    error = np.where(there, predicted - observed, 0)
    from_mean = np.where(there, observed - observed[there].mean(), 0)

    def total(values: np.ndarray) -> np.ndarray:
        return ((line_weights @ values) * gene_weights).sum(axis=1)

    n, squared = total(there), total(np.square(error))
    variation = total(np.square(from_mean)) - np.square(total(from_mean)) / n
    r, constant, known = _within_genes(observed, predicted, there, line_weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "n_genes_constant": (constant & known & (gene_weights > 0)).sum(axis=1),
            "rmse": np.sqrt(squared / n),
            "mae": total(np.abs(error)) / n,
            "r2": 1 - squared / variation,
            "r_within_gene": (r * known * gene_weights).sum(axis=1) / (known * gene_weights).sum(axis=1),
        }


def _within_genes(
    observed: np.ndarray, predicted: np.ndarray, there: np.ndarray, line_weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each sample and gene the correlation, whether the prediction is constant, and whether observations vary."""
    y, x = _centred(observed, there), _centred(predicted, there)
    n, sum_x, sum_y = line_weights @ there, line_weights @ x, line_weights @ y

    def spread(centred: np.ndarray, sums: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        squares = line_weights @ np.square(centred) - np.square(sums) / np.maximum(n, 1)
        size = np.abs(np.where(there, values, 0)).max(axis=0)
        return squares, squares > n * np.square(_CONSTANT * size)

    (of_x, varies), (of_y, known) = spread(x, sum_x, predicted), spread(y, sum_y, observed)
    covariance = line_weights @ (x * y) - sum_x * sum_y / np.maximum(n, 1)
    r = np.divide(covariance, np.sqrt(np.abs(of_x * of_y)), out=np.zeros_like(covariance), where=varies & known)
    return r, ~varies, known


def _centred(values: np.ndarray, there: np.ndarray) -> Float[np.ndarray, "line gene"]:
    """Less the mean of each gene, 0 where nothing is there, so that sums of squares lose no digits."""
    known = np.where(there, values, 0)
    means = known.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    return np.where(there, values - means, 0)
