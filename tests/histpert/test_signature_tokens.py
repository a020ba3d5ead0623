import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from test_signatures import source

from histpert.errors import InputError
from histpert.perturbert.corpus import write_corpus
from histpert.perturbert.masking import drawn_genes, masked_batch, uniform
from histpert.perturbert.settings import N_BINS, BertSettings
from histpert.perturbert.tokens import ABSENT, MASK, UNCHANGED, bins_of, fit_edges, split_corpus, tokenize

EDGES = np.array([-8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8], float)


def corpus_of(tmp_path, z, lines=None, names=None):
    z = np.asarray(z, np.float32)
    names = names or [f"P{number}" for number in range(len(z))]
    each = [
        source(line, "".join(chr(65 + g) for g in range(z.shape[1])), [row], [name], line)
        for row, name, line in zip(z.tolist(), names, lines or ["K562"] * len(z), strict=True)
    ]
    return write_corpus(tmp_path / "c.arrow", each)


# ---- bins


@pytest.mark.parametrize(
    ("z", "bin_"), [(-99, 0), (-8.5, 0), (-8, 1), (-1.5, 7), (-1, 8), (0, 8), (1, 8), (1.5, 9), (8, 15), (8.1, 16)]
)
def test_a_value_is_in_the_bin_between_its_edges(z, bin_):
    assert bins_of(np.array([z], float), EDGES)[0] == bin_


def test_a_missing_value_is_absent():
    assert bins_of(np.array([np.nan]), EDGES)[0] == ABSENT


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_bins_rise_with_values_and_turn_with_their_sign(one, other):
    low, high = bins_of(np.sort([one, other]), EDGES)
    assert low <= high
    assert bins_of(np.array([-one]), EDGES)[0] == 2 * UNCHANGED - bins_of(np.array([one]), EDGES)[0]


def test_edges_are_quantiles_of_what_changes_in_training(tmp_path):
    z = np.random.default_rng(0).normal(0.3, 3, (400, 26))
    corpus = corpus_of(tmp_path, z[:40])
    edges = fit_edges(corpus, np.arange(30), 1.0, 0)
    training = corpus.z(np.arange(30)).ravel()
    share = np.bincount(bins_of(training, edges), minlength=N_BINS) / training.size
    assert share[UNCHANGED] == pytest.approx(np.mean(np.abs(training) <= 1))
    np.testing.assert_allclose(share[:UNCHANGED], np.mean(training < -1) / 8, atol=2 / training.size)
    np.testing.assert_allclose(share[UNCHANGED + 1 :], np.mean(training > 1) / 8, atol=2 / training.size)
    assert (np.diff(edges) > 0).all()


def test_edges_know_nothing_of_other_signatures(tmp_path):
    z = np.random.default_rng(0).normal(0, 3, (20, 5))
    first = fit_edges(corpus_of(tmp_path, z), np.arange(15), 1.0, 0)
    z[15:] *= 100
    np.testing.assert_array_equal(fit_edges(corpus_of(tmp_path, z), np.arange(15), 1.0, 0), first)


def test_responses_that_go_one_way_only(tmp_path):
    with pytest.raises(InputError, match="no response of the training signatures lies below -1 standard errors"):
        fit_edges(corpus_of(tmp_path, np.full((4, 3), 5.0)), np.arange(4), 1.0, 0)


def test_tokens_of_lines_that_are_not_trained_on(tmp_path):
    corpus = corpus_of(tmp_path, [[3, np.nan], [0, -3], [2, 2]], ["B", "A", "C"])
    tokens = tokenize(corpus, np.arange(3), EDGES, ("A", "B"))
    assert tokens.cell_lines.tolist() == [1, 0, 2]
    assert tokens.responses.tolist() == [[10, ABSENT], [UNCHANGED, 6], [9, 9]]


# ---- splits


@pytest.mark.parametrize("by", ["row", "perturbation", "cell_line"])
def test_a_split_holds_out_whole_units(tmp_path, by):
    names = [f"P{number % 10}" for number in range(60)]
    lines = [f"L{number % 6}" for number in range(60)]
    corpus = corpus_of(tmp_path, np.random.default_rng(0).normal(size=(60, 2)), lines, names)
    rows = np.arange(5, 60)
    parts = split_corpus(corpus, rows, by, 0.2, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), rows)
    labels = {"row": np.arange(60), "perturbation": corpus.perturbations, "cell_line": corpus.cell_lines}[by]
    units = [set(labels[part]) for part in parts]
    assert all(units)
    assert units[0].isdisjoint(units[1] | units[2])
    assert units[1].isdisjoint(units[2])
    expected = {"row": (33, 11, 11), "perturbation": (6, 2, 2), "cell_line": (4, 1, 1)}[by]
    assert tuple(map(len, units)) == expected
    again = split_corpus(corpus, rows, by, 0.2, 0)
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))
    other = split_corpus(corpus, rows, by, 0.2, 1)
    assert not all(np.array_equal(one, another) for one, another in zip(parts, other, strict=True))


def test_one_cell_line_cannot_be_split_by_cell_lines(tmp_path):
    corpus = corpus_of(tmp_path, np.zeros((9, 2)))
    with pytest.raises(InputError, match="--split cell_line: the corpus has 1 cell lines"):
        split_corpus(corpus, np.arange(9), "cell_line", 0.1, 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 10, "heads": 4}, "--width 10: must be a multiple of --heads 4"),
        ({"masked": 1.0}, "--masked 1.0"),
        ({"held_out": 0.5}, "--held-out 0.5"),
        ({"learning_rate": float("nan")}, "--learning-rate nan"),
        ({"layers": 0}, "--layers 0"),
        ({"dropout": 1.0}, "--dropout 1.0"),
        ({"unchanged": -1.0}, "--unchanged"),
    ],
)
def test_settings_out_of_range(settings, said):
    with pytest.raises(InputError, match=said):
        BertSettings(**settings)


# ---- masks


def batch_of(n_signatures=2_000, n_genes=50, masked=0.4, key=(0, 0), true=UNCHANGED):
    responses = torch.full((n_signatures, n_genes), true, dtype=torch.uint8)
    rows = torch.arange(n_signatures)
    lines = torch.zeros(n_signatures, dtype=torch.int64)
    return masked_batch(responses, lines, rows, drawn_genes(responses, rows, 0, key), masked, key)


def test_the_hash_is_uniform_and_uncorrelated():
    values = uniform(torch.arange(1_000)[:, None], torch.arange(200)[None], (1, 2, 3)).numpy()
    assert 0 <= values.min() <= values.max() < 1
    assert kstest(values.ravel(), "uniform").pvalue > 1e-3
    assert kstest(values[:, 7], "uniform").pvalue > 1e-3
    for one, other in ((values[:, :-1], values[:, 1:]), (values[:-1], values[1:])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(one.size)


@pytest.mark.parametrize("key", [(0, 2, 3), (1, 1, 3), (1, 2, 2)])
def test_other_seeds_epochs_and_purposes_draw_other_numbers(key):
    known = torch.arange(100)[:, None], torch.arange(100)[None]
    one, other = uniform(*known, (1, 2, 3)).numpy(), uniform(*known, key).numpy()
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.04


def test_the_hash_is_that_of_splitmix64():
    def mixed(bits: int) -> int:
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = ((bits ^ (bits >> shift)) * factor) % 2**64
        return bits ^ (bits >> 31)

    golden, start = 0x9E3779B97F4A7C15, 0
    for part in (5, 6, 7):
        start = mixed(((start ^ part) * golden + part) % 2**64)
    expected = mixed((mixed((11 * golden + start) % 2**64) + 13 * golden) % 2**64) >> 40
    assert uniform(torch.tensor([[11]]), torch.tensor([[13]]), (5, 6, 7)).item() == expected / 2**24


def test_two_in_five_responses_are_masked_in_the_published_proportions():
    batch = batch_of()
    n = batch.is_masked.numel()
    n_masked = int(batch.is_masked.sum())
    assert chisquare([n_masked, n - n_masked], [0.4 * n, 0.6 * n]).pvalue > 1e-3
    seen = batch.responses[batch.is_masked]
    # a random bin is the true one once in 17
    is_mask, is_true = seen == MASK, seen == UNCHANGED
    kinds = [int(is_mask.sum()), int((~is_mask & ~is_true).sum()), int(is_true.sum())]
    random = 0.1 * (N_BINS - 1) / N_BINS
    assert chisquare(kinds, n_masked * np.array([0.8, random, 0.2 - random])).pvalue > 1e-3
    others = seen[~is_mask & ~is_true]
    counts = np.bincount(others.numpy(), minlength=N_BINS)
    assert chisquare(np.delete(counts, UNCHANGED)).pvalue > 1e-3


def test_what_is_not_masked_is_seen_as_it_is():
    batch = batch_of(true=3)
    assert (batch.responses[~batch.is_masked] == 3).all()
    assert (batch.true == 3).all()


def test_a_signature_is_masked_alike_in_whatever_batch():
    responses = torch.from_numpy(np.random.default_rng(0).integers(0, N_BINS, (30, 40), dtype=np.uint8))
    lines = torch.zeros(30, dtype=torch.int64)

    def masked(rows: torch.Tensor):
        genes = drawn_genes(responses[rows], rows, 10, (0, 4))
        return masked_batch(responses[rows], lines[rows], rows, genes, 0.4, (0, 4))

    every, some = masked(torch.arange(30)), masked(torch.tensor([17, 3]))
    for name in every._fields:
        assert torch.equal(getattr(every, name)[[17, 3]], getattr(some, name))


def test_absent_genes_are_never_masked_nor_drawn_before_others():
    responses = torch.full((50, 20), 8, dtype=torch.uint8)
    responses[:, ::2] = ABSENT
    rows = torch.arange(50)
    genes = drawn_genes(responses, rows, 10, (0, 0))
    assert (genes % 2 == 1).all()
    batch = masked_batch(responses, rows, rows, drawn_genes(responses, rows, 0, (0, 0)), 0.4, (0, 0))
    assert not batch.is_masked[:, ::2].any()
    assert torch.equal(batch.present, (responses != ABSENT))


def test_genes_are_drawn_evenly():
    responses, rows = torch.zeros((4_000, 20), dtype=torch.uint8), torch.arange(4_000)
    genes = drawn_genes(responses, rows, 5, (0, 0))
    assert (genes.sort(dim=1).values.diff(dim=1) > 0).all()
    assert chisquare(np.bincount(genes.numpy().ravel(), minlength=20)).pvalue > 1e-3
