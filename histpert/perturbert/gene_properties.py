"""What gene embeddings tell about genes: logistic regression on frozen embeddings, cross-validated."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, precision_score, recall_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histpert.errors import InputError
from histpert.perturbert.gene_tasks import LabelTask, PairTask

__all__ = ["FORMS", "SPLITS", "Form", "PairSplit", "degree_features", "label_scores", "pair_features", "pair_scores"]

Form = Literal["symmetric", "concatenated"]
PairSplit = Literal["random", "gene-disjoint"]
FORMS: tuple[Form, ...] = ("symmetric", "concatenated")
SPLITS: tuple[PairSplit, ...] = ("random", "gene-disjoint")

MOST_ITERATIONS = 5_000


def label_scores(
    vectors: Float[np.ndarray, "shared feature"], task: LabelTask, n_folds: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Scores of each fold of a task of labels (PerturBERT's paper, appendix D).

    Folds are stratified and shuffled, as many as the smallest class has genes where those are fewer. Features are
    standardized on a fold's training genes, which the paper does not say: the penalty would choose between sources by
    their scale otherwise.

    Args:
        vectors: Of all shared genes.
        task: Classes of some.
        n_folds: The most folds.
        seed: Of the folds.

    Yields:
        `fold`, `n_train`, `n_test`, `roc_auc`, `accuracy`, `precision`, `recall`; of several classes averages weighted
        by their numbers, each against the rest.
    """
    features, labels = vectors[task.genes], task.labels
    n_folds = min(n_folds, int(np.bincount(labels).min()))
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(features, labels)
    for fold, (training, test) in enumerate(folds):
        yield {"fold": fold, **_fit_and_score(features[training], labels[training], features[test], labels[test])}


def pair_scores(
    vectors: Float[np.ndarray, "shared feature"] | None,
    task: PairTask,
    form: Form,
    split: PairSplit,
    n_folds: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Scores of each fold of a task of pairs.

    Args:
        vectors: Of all shared genes; without them, what is known of a gene is how often it is in a training pair of
            each kind.
        task: Pairs.
        form: How two vectors become one.
        split: `random` folds are stratified; with `gene-disjoint` ones, no gene of a test pair is in a training pair.
        n_folds: Folds. One without both kinds of pairs, in training or test, is passed over.
        seed: Of the folds.

    Yields:
        As `label_scores`.

    Raises:
        InputError: No fold has both kinds.
    """
    n_scored = 0
    for fold, (training, test) in enumerate(_pair_folds(task, split, n_folds, seed)):
        if min(len(set(task.labels[part].tolist())) for part in (training, test)) < 2:
            continue
        known = vectors
        if known is None:
            known = degree_features(task.pairs[training], task.labels[training], int(task.pairs.max()) + 1)
        features = [pair_features(known, task.pairs[part], form) for part in (training, test)]
        scores = _fit_and_score(features[0], task.labels[training], features[1], task.labels[test])
        yield {"fold": fold, **scores}
        n_scored += 1
    if not n_scored:
        raise InputError(
            f"{task.name}: none of {n_folds} {split} folds has both kinds of pairs to train and to test on: give more "
            "pairs, or fewer --pair-folds"
        )


def _pair_folds(
    task: PairTask, split: PairSplit, n_folds: int, seed: int
) -> Iterator[tuple[Int[np.ndarray, "training"], Int[np.ndarray, "test"]]]:
    if split == "random":
        n_folds = min(n_folds, int(np.bincount(task.labels).min()))
        yield from StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(task.pairs, task.labels)
        return
    genes = np.unique(task.pairs)
    part = np.zeros(genes[-1] + 1, int)
    part[genes] = np.random.default_rng([seed, 8]).permutation(np.arange(len(genes)) % n_folds)
    for fold in range(n_folds):
        inside: Bool[np.ndarray, "pair 2"] = part[task.pairs] == fold
        yield np.flatnonzero(~inside.any(axis=1)), np.flatnonzero(inside.all(axis=1))


def pair_features(
    vectors: Float[np.ndarray, "shared feature"], pairs: Int[np.ndarray, "pair 2"], form: Form
) -> Float[np.ndarray, "pair twice"]:
    """Features of pairs: sum and product of both vectors, which do not tell their order, or one after the other."""
    one, other = vectors[pairs[:, 0]], vectors[pairs[:, 1]]
    return np.concatenate([one + other, one * other] if form == "symmetric" else [one, other], axis=1)


def degree_features(
    pairs: Int[np.ndarray, "pair 2"], labels: Int[np.ndarray, "pair"], n_genes: int
) -> Float[np.ndarray, "shared 2"]:
    """How often each gene is in a pair that goes together, and in one that does not, as log1p."""
    counts = [np.bincount(pairs[labels == kind].ravel(), minlength=n_genes) for kind in (1, 0)]
    return np.log1p(np.stack(counts, axis=1)).astype(np.float64)


def _fit_and_score(
    training: Float[np.ndarray, "training feature"],
    labels: Int[np.ndarray, "training"],
    test: Float[np.ndarray, "test feature"],
    true: Int[np.ndarray, "test"],
) -> dict[str, Any]:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MOST_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at the published number of iterations
        model.fit(training, labels)
    chances, found = model.predict_proba(test), model.predict(test)
    several = chances.shape[1] > 2
    average = {"average": "weighted" if several else "binary", "zero_division": 0}
    area: dict[str, Any] = {"multi_class": "ovr", "average": "weighted", "labels": model.classes_} if several else {}
    return {
        "n_train": len(labels),
        "n_test": len(true),
        "roc_auc": float(roc_auc_score(true, chances if several else chances[:, 1], **area)),
        "accuracy": float(accuracy_score(true, found)),
        "precision": float(precision_score(true, found, **average)),
        "recall": float(recall_score(true, found, **average)),
    }
