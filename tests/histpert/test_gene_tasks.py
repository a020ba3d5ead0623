import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cosine
from scipy.stats import kstest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from histpert.errors import InputError
from histpert.perturbert.gene_classes import class_cosines, cosines, map_of_genes
from histpert.perturbert.gene_properties import degree_features, label_scores, pair_features, pair_scores
from histpert.perturbert.gene_tasks import LabelTask, PairTask, TaskOptions, read_tasks

GENES = tuple(f"G{number:02d}" for number in range(60))


def planted(n_classes=3, noise=0.5, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(60) % n_classes
    centers = random.standard_normal((n_classes, 8))
    vectors = (centers[labels] + noise * random.standard_normal((60, 8))).astype(np.float32)
    return vectors, LabelTask("task", np.arange(60), labels, tuple(map(str, range(n_classes))))


# ---- reading


def read(tmp_path, name, content, given="{}", **options):
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        table = pd.DataFrame(content)
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return read_tasks(given.format(path), GENES, TaskOptions(**options), seed=0)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
@pytest.mark.parametrize("column", ["gene", "symbol"])
def test_labels_of_genes_that_all_sources_have(tmp_path, name, column):
    content = {column: ["G03", "G01", "X", "G02", "G05"], "label": ["b", "a", "a", "a", "b"]}
    (task,) = read(tmp_path, name, content, "Mine={}")
    assert (task.name, task.classes) == ("Mine", ("a", "b"))
    assert dict(zip(task.genes.tolist(), task.labels.tolist(), strict=True)) == {3: 1, 1: 0, 2: 0, 5: 1}
    assert task.notes == ("Mine: 1 of 5 genes have no embedding in all sources: X",)


def test_a_class_of_one_gene_is_named_and_left_out(tmp_path):
    (task,) = read(tmp_path, "t.csv", {"gene": GENES[:5], "label": list("aabbc")})
    assert task.classes == ("a", "b")
    assert "left out classes of one gene: c" in task.notes[0]


@pytest.mark.parametrize(("name", "nothing"), [("t.csv", ""), ("t.parquet", None)])
def test_genes_without_a_label_are_no_class(tmp_path, name, nothing):
    labels = ["a", "a", "b", "b", nothing, nothing, nothing]
    (task,) = read(tmp_path, name, {"gene": GENES[:7], "label": labels})
    assert (task.classes, task.genes.tolist()) == (("a", "b"), [0, 1, 2, 3])
    assert task.notes == ("t: 3 genes have no label",)


def test_pairs_that_contradict_each_other_are_left_out(tmp_path):
    pairs = [(1, 2, 1), (2, 1, 0), (3, 4, 1), (4, 3, 1), (5, 6, 0), (7, 8, 0), (9, 10, 1)]
    content = {name: [GENES[pair[side]] for pair in pairs] for side, name in enumerate(("gene_a", "gene_b"))}
    (task,) = read(tmp_path, "p.csv", content | {"label": [pair[2] for pair in pairs]})
    assert task.pairs.tolist() == [[3, 4], [5, 6], [7, 8], [9, 10]]
    assert task.labels.tolist() == [1, 0, 0, 1]
    assert task.notes[-1] == "p: left out 1 pairs that are labelled both 0 and 1"


def test_gene_sets_are_tasks_the_largest_first(tmp_path):
    sets = {"small": GENES[:4], "large": GENES[:9], "same": GENES[:9], "few": GENES[:2], "rest": (*GENES[9:14], "X")}
    lines = "\n".join("\t".join([name, "", *genes]) for name, genes in sets.items())
    tasks = read(tmp_path, "s.gmt", lines, min_genes=4)
    assert [task.name for task in tasks] == ["s: large", "s: rest", "s: small"]
    assert all(task.genes.tolist() == list(range(14)) for task in tasks)
    assert [int(task.labels.sum()) for task in tasks] == [9, 5, 4]
    assert len(read(tmp_path, "s.gmt", lines, min_genes=4, max_sets=2)) == 2


def test_pairs_are_taken_once_and_drawn_where_they_are_many(tmp_path):
    content = {
        "gene_a": ["G01", "G02", "G03", "G01", "G05", "G06"],
        "gene_b": ["G02", "G01", "G04", "X", "G05", "G07"],
        "interacts": [1, 1, 0, 1, 1, 1],
    }
    with pytest.raises(InputError, match="2 go together and 1 do not: a task needs two of each"):
        read(tmp_path, "p.csv", content)
    content = {name: [*values, extra] for (name, values), extra in zip(content.items(), ("G08", "G09", 0), strict=True)}
    (task,) = read(tmp_path, "p.csv", content)
    assert task.pairs.tolist() == [[1, 2], [3, 4], [6, 7], [8, 9]]
    assert task.labels.tolist() == [1, 0, 1, 0]
    every = [(a, b) for a in range(60) for b in range(a)]
    many = {"gene_a": [GENES[a] for a, _ in every], "gene_b": [GENES[b] for _, b in every]}
    many["label"] = [(a + b) % 2 for a, b in every]
    (task,) = read(tmp_path, "q.csv", many, max_pairs=100)
    assert task.pairs.shape == (100, 2)
    assert "100 of them are drawn" in task.notes[-1]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", {"gene": ["G01"], "class": ["a"]}, "has columns gene, class: it needs gene and label"),
        ("t.csv", {"gene": ["G01", "G01"], "label": ["a", "b"]}, "gene G01 stands there twice"),
        ("t.csv", {"gene": ["G01", "G02", "G03"], "label": list("aab")}, r"1 classes have two or more \(a 2, b 1\)"),
        (
            "t.csv",
            {"gene": ["X", "Y"], "label": list("ab")},
            r"none of its genes \(X, Y\) is one that all sources share",
        ),
        ("p.csv", {"gene_a": ["X"], "gene_b": ["Y"], "label": [1]}, r"share \(G00, G01, G02, .*\): name genes as the"),
        ("p.csv", {"gene_a": ["G01"], "gene_b": ["G02"]}, "pairs need a label, 0 or 1"),
        ("p.csv", {"gene_a": ["G01"], "gene_b": ["G02"], "label": ["2"]}, "label '2': it must be 0 or 1"),
        ("t.xlsx", "nothing", "labels are read from"),
        ("t.parquet", "nothing", "cannot be read"),
        ("s.gmt", "one\t\tG01\tG02\n", "no gene set has 20 of the 60 genes .* the largest has 2: lower --min-genes"),
    ],
)
def test_tasks_that_cannot_be_used(tmp_path, name, content, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path, name, content)


# ---- scores of labels


def test_scores_are_those_of_scikit_learn_by_hand():
    vectors, task = planted(2, noise=3.0)
    found = pd.DataFrame(label_scores(vectors, task, 5, seed=3))
    folds = StratifiedKFold(5, shuffle=True, random_state=3).split(vectors, task.labels)
    for row, (training, test) in zip(found.itertuples(), folds, strict=True):
        mean, deviation = vectors[training].mean(axis=0), vectors[training].std(axis=0)
        model = LogisticRegression(max_iter=5_000).fit((vectors[training] - mean) / deviation, task.labels[training])
        chance = model.predict_proba((vectors[test] - mean) / deviation)[:, 1]
        true, said = task.labels[test] == 1, chance > 0.5
        assert row.roc_auc == pytest.approx(roc_auc_score(true, chance))
        assert row.accuracy == pytest.approx((true == said).mean())
        assert row.precision == pytest.approx((true & said).sum() / max(said.sum(), 1))
        assert row.recall == pytest.approx((true & said).sum() / true.sum())
        assert (row.n_train, row.n_test) == (len(training), len(test))


def test_scores_of_several_classes_are_weighted_by_their_sizes():
    vectors, task = planted(3, noise=2.0)
    labels = np.where(np.arange(60) < 30, 0, task.labels)
    found = pd.DataFrame(label_scores(vectors, LabelTask("t", task.genes, labels, task.classes), 4, seed=0))
    # the weighted recall of all classes is the accuracy
    np.testing.assert_allclose(found["recall"], found["accuracy"])
    folds = StratifiedKFold(4, shuffle=True, random_state=0).split(vectors, labels)
    for value, (training, test) in zip(found["roc_auc"], folds, strict=True):
        mean, deviation = vectors[training].mean(axis=0), vectors[training].std(axis=0)
        model = LogisticRegression(max_iter=5_000).fit((vectors[training] - mean) / deviation, labels[training])
        chances, true = model.predict_proba((vectors[test] - mean) / deviation), labels[test]
        each = []
        for kind in range(3):  # how often a gene of the class is set above one that is not
            above = chances[true == kind, kind][:, None] - chances[true != kind, kind]
            each.append(((above > 0) + (above == 0) / 2).mean())
        assert value == pytest.approx(np.average(each, weights=np.bincount(true)))


def test_there_are_as_many_folds_as_the_smallest_class_has_genes():
    vectors, task = planted(2)
    labels = (np.arange(60) < 3).astype(int)
    assert len(list(label_scores(vectors, LabelTask("t", task.genes, labels, ("0", "1")), 20, 0))) == 3


def test_the_scale_of_embeddings_does_not_matter():
    vectors, task = planted(3, noise=2.0)
    one, other = (list(label_scores(scaled, task, 5, 0)) for scaled in (vectors, 1_000 * vectors + 7))
    assert [row["accuracy"] for row in one] == [row["accuracy"] for row in other]


def test_a_class_that_is_never_predicted_has_precision_zero():
    random = np.random.default_rng(0)
    labels = (np.arange(60) < 4).astype(int)
    task = LabelTask("t", np.arange(60), labels, ("0", "1"))
    rows = list(label_scores(random.standard_normal((60, 1)), task, 4, 0))
    assert {row["precision"] for row in rows} == {0.0}


def test_embeddings_that_tell_score_higher_than_random_ones():
    vectors, task = planted(3, noise=1.0)
    random = np.random.default_rng(1).standard_normal(vectors.shape)
    told, chance = (np.mean([row["roc_auc"] for row in label_scores(each, task, 5, 0)]) for each in (vectors, random))
    assert told > 0.9
    assert 0.3 < chance < 0.7


# ---- pairs


def pairs_within(labels: np.ndarray, n_pairs=800, seed=0) -> PairTask:
    random = np.random.default_rng(seed)
    pairs = np.unique(np.sort(random.integers(len(labels), size=(n_pairs, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return PairTask("pairs", pairs, (labels[pairs[:, 0]] == labels[pairs[:, 1]]).astype(int))


def auc(*arguments) -> float:
    return float(np.mean([row["roc_auc"] for row in pair_scores(*arguments, 4, 0)]))


def test_the_symmetric_form_does_not_tell_the_order_and_the_other_does():
    vectors, pairs = planted()[0], np.array([[1, 2], [5, 3]])
    for form, same in (("symmetric", True), ("concatenated", False)):
        one, other = pair_features(vectors, pairs, form), pair_features(vectors, pairs[:, ::-1].copy(), form)
        assert np.array_equal(one, other) is same
        assert one.shape == (2, 16)


@pytest.mark.parametrize("split", ["random", "gene-disjoint"])
def test_pairs_of_a_class_are_found(split):
    vectors, task = planted(3)
    assert auc(vectors, pairs_within(task.labels), "symmetric", split) > 0.9


def test_no_gene_of_a_test_pair_is_in_a_gene_disjoint_training_pair(monkeypatch):
    seen = []

    def spy(pairs, labels, n_genes):
        seen.append(pairs)
        return degree_features(pairs, labels, n_genes)

    monkeypatch.setattr("histpert.perturbert.gene_properties.degree_features", spy)
    task = pairs_within(planted(2)[1].labels)
    rows = list(pair_scores(None, task, "symmetric", "gene-disjoint", 4, 0))
    assert len(rows) == len(seen) == 4
    for pairs, row in zip(seen, rows, strict=True):
        inside = np.isin(task.pairs, pairs)
        assert (~inside).all(axis=1).sum() >= row["n_test"] > 0
        assert len(pairs) == row["n_train"]


@pytest.mark.parametrize("form", ["symmetric", "concatenated"])
def test_what_is_learned_of_genes_apart_tells_nothing_of_genes_that_were_never_seen(form):
    random = np.random.default_rng(0)
    pairs = np.array([(a, b) for a in range(60) for b in range(a)])
    task = PairTask(
        "hubs", pairs, (random.random(len(pairs)) < (random.random(60) ** 3)[pairs].mean(axis=1)).astype(int)
    )
    one_hot = np.eye(60)
    assert auc(one_hot, task, form, "random") > 0.6
    # a gene that is in no training pair has no weight: all are alike, but for rounding in matrix products
    areas = [row["roc_auc"] for row in pair_scores(one_hot, task, form, "gene-disjoint", 4, 0)]
    assert areas == pytest.approx([0.5] * 4, abs=0.02)


def test_pairs_of_which_no_fold_can_be_scored():
    task = PairTask("few", np.array([(0, 1), (2, 3), (4, 5), (6, 7)]), np.array([1, 0, 1, 0]))
    with pytest.raises(InputError, match="few: none of 4 gene-disjoint folds has both kinds of pairs"):
        list(pair_scores(planted()[0], task, "symmetric", "gene-disjoint", 4, 0))


def test_how_often_a_gene_is_in_a_pair_tells_nothing_of_genes_that_were_never_seen():
    random = np.random.default_rng(0)
    hubs = random.random(60) ** 3
    pairs = np.array([(a, b) for a in range(60) for b in range(a)])
    labels = (random.random(len(pairs)) < hubs[pairs].sum(axis=1) / 2 + 0.1).astype(int)
    task = PairTask("hubs", pairs, labels)
    assert auc(None, task, "symmetric", "random") > 0.7
    assert auc(None, task, "symmetric", "gene-disjoint") == 0.5


def test_degrees_by_hand():
    found = degree_features(np.array([[0, 1], [0, 2], [1, 2]]), np.array([1, 1, 0]), 4)
    np.testing.assert_allclose(np.expm1(found), [[2, 0], [1, 1], [1, 1], [0, 0]])


# ---- classes of genes


def test_mean_cosines_by_hand():
    vectors, task = planted(3, noise=2.0)
    member = task.labels == 1
    centered = vectors.astype(float) - vectors.astype(float).mean(axis=0)
    similar = np.array([[1 - cosine(one, other) for other in centered] for one in centered])
    np.testing.assert_allclose(cosines(vectors), similar, atol=1e-6)
    inside = similar[np.ix_(member, member)]
    found = class_cosines(vectors, member, 200, 0)
    assert found.within == pytest.approx(inside[~np.eye(len(inside), dtype=bool)].mean())
    assert found.between == pytest.approx(similar[np.ix_(member, ~member)].mean())
    assert found.p == 1 / 201


def test_of_labels_that_mean_nothing_p_is_uniform():
    p = []
    for seed in range(150):
        random = np.random.default_rng(seed)
        member = random.permutation(np.arange(30) < 8)
        p.append(class_cosines(random.standard_normal((30, 5)), member, 199, seed).p)
    assert kstest(p, "uniform").pvalue > 1e-3


def test_a_class_needs_two_genes_and_another_outside():
    for size in (1, 60):
        with pytest.raises(InputError, match=f"a class of {size} of 60 genes"):
            class_cosines(planted()[0], np.arange(60) < size, 10, 0)


@pytest.mark.chaos  # UMAP compiles for 20 s
def test_a_map_keeps_classes_together_and_is_the_same_again():
    vectors, task = planted(3, noise=0.2)
    xy = map_of_genes(vectors, 0)
    assert xy.shape == (60, 2)
    np.testing.assert_array_equal(xy, map_of_genes(vectors, 0))
    distances = torch.cdist(torch.from_numpy(xy), torch.from_numpy(xy)).numpy() + 1e9 * np.eye(60)
    assert (task.labels[distances.argmin(axis=1)] == task.labels).mean() > 0.95
