from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_score
from test_signatures import source

from histpert.checkpoints import Checkpoint
from histpert.errors import InputError
from histpert.perturbert.corpus import Corpus, write_corpus
from histpert.perturbert.gene_vectors import contextual_embeddings, gene_table, principal_components
from histpert.perturbert.masking import Batch, drawn_genes, masked_batch
from histpert.perturbert.network import PerturBERT
from histpert.perturbert.network_files import read_network, write_network
from histpert.perturbert.pretraining import marginal_score, masked_loss, pretrain, rate_at, validation_score
from histpert.perturbert.settings import N_BINS, PRESETS, BertSettings
from histpert.perturbert.simulated import gene_modules, simulate_signatures
from histpert.perturbert.tokens import ABSENT, Tokens, fit_edges, split_corpus, tokenize


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other take longer than the work, where other tests run beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


TINY = BertSettings(
    width=16, layers=1, heads=2, feed_forward=32, epochs=3, batch_size=8, learning_rate=1e-3, warm_up_steps=2
)


def tokens_of(n_signatures=40, n_genes=12, absent=0.0, n_lines=2, seed=0) -> Tokens:
    random = np.random.default_rng(seed)
    responses = random.integers(0, N_BINS, (n_signatures, n_genes), dtype=np.uint8)
    responses[random.random(responses.shape) < absent] = ABSENT
    lines = tuple(f"L{number}" for number in range(n_lines))
    return Tokens(responses, random.integers(0, n_lines, n_signatures), lines)


def network_of(settings=TINY, n_genes=12, n_lines=2, seed=0) -> PerturBERT:
    torch.manual_seed(seed)
    return PerturBERT(n_genes, n_lines, settings)


def inputs(n_signatures=5, n_genes=12, seed=0):
    random = np.random.default_rng(seed)
    genes = torch.arange(n_genes).expand(n_signatures, -1)
    responses = torch.from_numpy(random.integers(0, N_BINS, (n_signatures, n_genes)))
    return genes, responses, torch.from_numpy(random.integers(0, 2, n_signatures))


# ---- shape


def test_the_published_shape_has_the_published_parameters():
    with torch.device("meta"):
        network = PerturBERT(932, 248, PRESETS["published"])
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    tables = counts["genes"] + counts["responses"] + counts["lines"]
    assert tables == (932 + 18 + 248) * 768
    # 57.62 million; the paper prints 57,623,048, eight more, which it does not explain
    assert tables + counts["encoder"] == 57_623_040 == 57_623_048 - 8
    # what BERT has besides: LayerNorm of the embeddings, and a head of 17 bins
    assert (counts["norm"], counts["head"]) == (2 * 768, 768 * 17 + 17)
    assert sum(counts.values()) == 57_623_040 + 14_609


def test_weights_start_as_published():
    network = network_of(BertSettings(width=96, layers=2, heads=4, feed_forward=192), 500, 3)
    for name, weight in network.named_parameters():
        if weight.dim() == 2:
            assert weight.std().item() == pytest.approx(0.02, rel=0.2), name
        elif "norm" in name and name.endswith("weight"):
            assert (weight == 1).all(), name
        else:
            assert (weight == 0).all(), name
    assert all(m.eps == 1e-12 for m in network.modules() if isinstance(m, torch.nn.LayerNorm))


# ---- sets


def test_the_order_of_genes_does_not_matter():
    network, (genes, responses, lines) = network_of().eval(), inputs()
    order = torch.randperm(12)
    one = network(genes, responses, lines)[:, order]
    torch.testing.assert_close(network(genes[:, order], responses[:, order], lines), one)


def test_absent_genes_and_padding_change_nothing():
    network, (genes, responses, lines) = network_of().eval(), inputs()
    alone = network(genes[:, :8], responses[:, :8], lines)
    present = torch.zeros(5, 12, dtype=torch.bool)
    present[:, :8] = True
    for filling in (0, 16):
        padded = responses.clone()
        padded[:, 8:] = filling
        torch.testing.assert_close(network(genes, padded, lines, present)[:, :8], alone)


def test_absent_genes_have_no_gradient():
    network, (genes, responses, lines) = network_of().eval(), inputs()
    present = torch.arange(12).expand(5, -1) < 8
    network(genes, responses, lines, present)[:, :8].sum().backward()
    gradient = network.genes.weight.grad
    assert (gradient[8:] == 0).all()
    assert (gradient[:8] != 0).any(dim=1).all()


def test_the_cell_line_matters_and_an_unknown_one_is_the_mean_of_all():
    network, (genes, responses, _) = network_of().eval(), inputs()
    of_line = [network(genes, responses, torch.full((5,), line)) for line in range(3)]
    assert not torch.allclose(of_line[0], of_line[1])
    with torch.no_grad():
        network.lines.weight[:] = network.lines.weight.mean(dim=0)
    torch.testing.assert_close(network(genes, responses, torch.zeros(5, dtype=torch.int64)), of_line[2])


# ---- loss


def batch_of(tokens: Tokens, masked=0.4) -> Batch:
    responses, rows = torch.from_numpy(tokens.responses), torch.arange(len(tokens))
    genes = drawn_genes(responses, rows, 0, (0, 0))
    return masked_batch(responses, torch.from_numpy(tokens.cell_lines), rows, genes, masked, (0, 0))


def test_the_loss_is_of_masked_positions_only():
    batch = batch_of(tokens_of(absent=0.3))
    logits = torch.randn(40, 12, N_BINS, dtype=torch.float64, requires_grad=True)
    loss = masked_loss(logits, batch)
    probabilities = torch.softmax(logits.detach()[batch.is_masked], dim=-1).numpy()
    n_masked = int(batch.is_masked.sum())
    expected = log_loss(batch.true[batch.is_masked].numpy(), probabilities, labels=range(N_BINS)) * n_masked
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    loss.backward()
    assert (logits.grad[~batch.is_masked] == 0).all()
    assert (logits.grad[batch.is_masked] != 0).all()


def test_what_is_under_a_mask_is_not_seen():
    tokens = tokens_of()
    batch = batch_of(tokens)
    hidden = batch.is_masked & (batch.responses == N_BINS)
    changed = tokens.responses.copy()
    changed[hidden.numpy()] = (changed[hidden.numpy()] + 5) % N_BINS
    again = batch_of(replace(tokens, responses=changed))
    assert torch.equal(again.responses, batch.responses)
    assert not torch.equal(again.true, batch.true)


def test_marginal_frequencies_by_hand():
    training, held_out = tokens_of(60, absent=0.2), tokens_of(20, absent=0.2, seed=1)
    batch_settings = replace(TINY, seed=3)
    responses, rows = torch.from_numpy(held_out.responses), torch.arange(20)
    batch = masked_batch(
        responses, rows, rows, drawn_genes(responses, rows, 0, (3, -1)), batch_settings.masked, (3, -1)
    )
    losses, right = [], []
    for signature, gene in zip(*batch.is_masked.nonzero(as_tuple=True), strict=True):
        known = training.responses[:, gene]
        known = known[known != ABSENT]
        share = (np.bincount(known, minlength=N_BINS) + 1 / N_BINS) / (len(known) + 1)
        true = held_out.responses[signature, gene]
        losses.append(-np.log(share[true]))
        right.append(share[true] == share.max())
    found = marginal_score(training, held_out, batch_settings)
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-6)
    assert found.accuracy <= np.mean(right) + 1e-9  # of several bins as likely, the first counts


@pytest.mark.parametrize(("step", "rate"), [(0, 1 / 200), (99, 0.5), (199, 1.0), (200, 1.0), (600, 0.5), (999, 0.0)])
def test_the_rate_rises_in_a_line_and_falls_as_a_cosine(step, rate):
    assert rate_at(step, 1000, 200) == pytest.approx(rate, abs=1e-5)


# ---- training


def run(settings=TINY, checkpoint=None, training=None, validation=None):
    network = network_of(settings)
    training, validation = training or tokens_of(absent=0.1), validation or tokens_of(10, seed=1)
    return network, list(pretrain(network, training, validation, settings, checkpoint))


def losses(epochs) -> list[tuple]:
    return [(epoch.epoch, epoch.training_loss, *epoch.validation) for epoch in epochs]


def test_the_same_seed_gives_the_same_weights():
    (one, first), (other, second) = run(), run()
    assert losses(first) == losses(second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert losses(run(replace(TINY, seed=1))[1]) != losses(first)


def test_training_goes_on_from_a_checkpoint_to_the_same_end(tmp_path):
    whole, every = run()
    path = tmp_path / "c.pt"
    network = network_of()
    epochs = pretrain(network, tokens_of(absent=0.1), tokens_of(10, seed=1), TINY, Checkpoint(path, 0.0))
    first = [next(epochs), next(epochs)]
    epochs.close()
    again, rest = run(checkpoint=Checkpoint(path, 0.0))
    assert losses(first) == losses(every)[:2]
    assert losses(rest) == losses(every)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_the_last_epoch_is_scored_on_the_network_as_it_is():
    network, epochs = run()
    assert validation_score(network, tokens_of(10, seed=1), TINY) == epochs[-1].validation


def test_a_step_is_adamw_of_the_clipped_gradient():
    settings = replace(TINY, epochs=1, batch_size=64, dropout=0.0, warm_up_steps=0, clip=0.05, weight_decay=0.1)
    tokens = tokens_of()
    network, _ = run(settings, training=tokens)
    by_hand = network_of(settings)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=1e-3, weight_decay=0.1)
    batch = batch_of(tokens)
    loss = masked_loss(by_hand(batch.genes, batch.responses, batch.cell_lines), batch) / batch.is_masked.sum()
    loss.backward()
    assert torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 0.05) > 0.05
    optimizer.step()
    for one, other in zip(network.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)


def test_a_loss_that_is_no_number_ends_training():
    with pytest.raises(FloatingPointError, match="lower --learning-rate"):
        run(replace(TINY, learning_rate=1e30, warm_up_steps=0, epochs=30))


# ---- a corpus of known modules


@pytest.fixture(scope="module")
def modules(tmp_path_factory) -> tuple[Corpus, np.ndarray]:
    """40 genes in 4 modules, which perturbations move together."""
    module = gene_modules(40, 4, 0)
    genes = [f"G{number:02d}" for number in range(40)]
    found = simulate_signatures(genes, np.eye(4)[module], n_perturbations=200, seed=0)
    return write_corpus(tmp_path_factory.mktemp("corpus") / "c.arrow", [found]), module


LEARNS = replace(TINY, width=32, feed_forward=64, epochs=20, batch_size=32, learning_rate=5e-3)


@pytest.fixture(scope="module")
def learned(modules):
    corpus, _ = modules
    parts = split_corpus(corpus, np.arange(len(corpus)), "row", 0.1, 0)
    edges = fit_edges(corpus, parts.training, 1.0, 0)
    training, validation = (tokenize(corpus, part, edges, ("A", "B")) for part in parts[:2])
    network = network_of(LEARNS, 40)
    *_, last = pretrain(network, training, validation, LEARNS)
    return network, training, validation, last, parts.training


def module_auc(vectors: np.ndarray, module: np.ndarray) -> float:
    vectors = (vectors - vectors.mean(axis=0)) / (vectors.std(axis=0) + 1e-9)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(max_iter=5_000)
    return float(
        np.mean([cross_val_score(model, vectors, module == k, cv=folds, scoring="roc_auc").mean() for k in range(4)])
    )


def test_masked_bins_are_found_better_than_by_marginal_frequencies(learned):
    _, training, validation, last, _ = learned
    assert last.validation.loss < 0.9 * marginal_score(training, validation, LEARNS).loss


@pytest.mark.parametrize("kind", ["table", "contextual"])
def test_embeddings_tell_modules(learned, modules, kind):
    network, training, *_ = learned
    vectors = gene_table(network) if kind == "table" else contextual_embeddings(network, training, LEARNS)
    random = np.random.default_rng(0).standard_normal(vectors.shape)
    assert module_auc(vectors, modules[1]) > module_auc(random, modules[1]) + 0.1


def test_so_do_principal_components(learned, modules):
    corpus, module = modules
    assert module_auc(principal_components(corpus, learned[-1], 10), module) > 0.9


# ---- files


def test_a_network_is_read_back_as_it_was(tmp_path):
    settings, edges = replace(TINY, seed=3, split="perturbation"), np.arange(16.0)
    network = network_of(settings).eval()
    write_network(tmp_path, network, settings, "ABCDEFGHIJKL", ["K562", "RPE1"], edges)
    found = read_network(tmp_path)
    assert (found.settings, found.genes, found.cell_lines) == (settings, tuple("ABCDEFGHIJKL"), ("K562", "RPE1"))
    np.testing.assert_array_equal(found.bin_edges, edges)
    assert torch.equal(found.network(*inputs()), network(*inputs()))
    (tmp_path / "network.pt").write_bytes((tmp_path / "network.pt").read_bytes()[:200])
    with pytest.raises(InputError, match="holds no network that can be read"):
        read_network(tmp_path)
    with pytest.raises(InputError, match="holds no network that can be read"):
        read_network(tmp_path / "nowhere")


# ---- embeddings out


@pytest.mark.parametrize("n_genes", [0, 5])
def test_contextual_embeddings_are_means_over_signatures(n_genes):
    settings = replace(TINY, genes_per_signature=n_genes)
    tokens, network = tokens_of(9, absent=0.4), network_of()
    tokens.responses[:, 3] = ABSENT
    found = contextual_embeddings(network, tokens, settings)
    assert (found[3] == 0).all()
    if n_genes:
        assert (np.abs(np.delete(found, 3, axis=0)).sum(axis=1) > 0).all()
        return
    total, number = np.zeros((12, 16)), np.zeros(12)
    network.eval()
    for signature, line in zip(tokens.responses, tokens.cell_lines, strict=True):
        genes = np.flatnonzero(signature != ABSENT)
        hidden = network.hidden(
            torch.from_numpy(genes)[None], torch.from_numpy(signature[genes]).long()[None], torch.tensor([line])
        )
        total[genes] += hidden[0].detach().numpy()
        number[genes] += 1
    np.testing.assert_allclose(
        np.delete(found, 3, 0), np.delete(total / np.maximum(number, 1)[:, None], 3, 0), atol=1e-5
    )


def test_principal_components_are_those_of_scikit_learn(tmp_path):
    z = np.random.default_rng(0).standard_normal((30, 8)) * np.arange(1, 9)
    z[0, 0], z[1, 1] = 50, np.nan
    corpus = write_corpus(tmp_path / "c.arrow", [source("one", "ABCDEFGH", z.tolist(), ["P"] * 30)])
    found = principal_components(corpus, np.arange(20), 3)
    model = PCA(3).fit(np.clip(np.nan_to_num(z[:20].astype(np.float32)), -10, 10))
    expected = model.components_.T * np.sqrt(model.explained_variance_ * 19 / 20)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-4, atol=1e-5)
    assert (found.sum(axis=0) >= 0).all()


def test_what_is_held_out_changes_nothing_in_the_embeddings(tmp_path):
    """Signatures of a held-out target, in another cell line and source, are changed, and then taken away."""
    random = np.random.default_rng(0)
    genes = "ABCDEFGHIJKL"
    names = [f"P{number % 8}" for number in range(60)]
    here, there = random.normal(0, 2, (60, 12)), random.normal(0, 2, (24, 12))

    def vectors(here, there, kept_here, kept_there):
        sources = [
            source("screen", genes, here[kept_here].tolist(), [names[row] for row in kept_here], "K562"),
            source("other", genes, there[kept_there].tolist(), [names[row] for row in kept_there], "RPE1"),
        ]
        corpus = write_corpus(tmp_path / "c.arrow", sources)
        rows = corpus.without(["P3"])
        parts = split_corpus(corpus, rows, "row", 0.1, 0)
        edges = fit_edges(corpus, parts.training, 1.0, 0)
        training, validation = (tokenize(corpus, part, edges, ("K562", "RPE1")) for part in parts[:2])
        network, _ = run(TINY, training=training, validation=validation)
        return (
            gene_table(network),
            contextual_embeddings(network, training, TINY),
            principal_components(corpus, parts.training, 4),
        )

    every = np.arange(60), np.arange(24)
    first = vectors(here, there, *every)
    others = [np.array([row for row in rows if names[row] != "P3"]) for rows in every]
    changed_here, changed_there = here.copy(), there.copy()
    for changed in (changed_here, changed_there):
        changed[[row for row in range(len(changed)) if names[row] == "P3"]] *= -7
    for again in (vectors(changed_here, changed_there, *every), vectors(here, there, *others)):
        assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    other_changed = here.copy()
    other_changed[[row for row in range(60) if names[row] == "P0"]] *= -7  # which is not held out
    assert not np.array_equal(first[0], vectors(other_changed, there, *every)[0])
