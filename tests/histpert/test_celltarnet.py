"""CellTARNet around its flow: scale of cells, attention prior, losses; and what the whole learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from test_models import QUICK, problem

from histpert.celltarnet.flow import CellFlow
from histpert.celltarnet.losses import CellBatch, contrastive_loss, info_nce, projection, training_loss
from histpert.celltarnet.prior import attention_prior, network_prior
from histpert.celltarnet.scale import CellScale
from histpert.celltarnet.settings import FlowSettings
from histpert.correlations import pearson_correlations
from histpert.errors import InputError
from histpert.models.celltarnet import CellSettings, CellTARNet, n_parameters

SMALL = FlowSettings(width=16, blocks=2, samples=400)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sparse_cells(n_cells=2_000, seed=0):
    random = np.random.default_rng(seed)
    counts = random.poisson([3.0, 0.5, 0.05, 0.0], (n_cells, 4))
    return torch.from_numpy(np.log1p(counts * random.uniform(0.5, 2, (n_cells, 1)))).float()


def test_cells_come_back_from_the_scale_of_the_flow_zeros_exact():
    cells = sparse_cells()
    scale = CellScale(cells)
    values = scale.to_flow(cells, torch.rand(cells.shape))
    torch.testing.assert_close(scale.to_cells(values), cells, rtol=1e-5, atol=1e-5)
    assert torch.equal(scale.to_cells(values) == 0, cells == 0)
    assert (scale.to_cells(values + 100) <= cells.amax(0)).all()


def test_on_the_scale_of_the_flow_training_cells_are_standard_normal():
    cells = sparse_cells(200_000)
    values = CellScale(cells).to_flow(cells, torch.rand(cells.shape))
    assert values.mean(0).abs().max() < 0.01
    assert (values[:, :3].std(0) - 1).abs().max() < 0.02
    assert len(values[:, 3].unique()) > 1_000  # a gene without a count has a density too
    for gene in values.T:
        assert kstest(gene.numpy(), "norm").statistic < 0.01
    for gene in range(3):
        order = values[:, gene].argsort()
        assert cells[order, gene].diff().min() > -1e-5


def test_values_that_many_cells_have_in_common_are_spread():
    cells = sparse_cells(20_000)[:, :2].round()
    scale = CellScale(cells)
    values = scale.to_flow(cells, torch.rand(cells.shape))
    torch.testing.assert_close(scale.to_cells(values).round(), cells)
    assert (values.std(0) - 1).abs().max() < 0.05
    assert len(values[cells[:, 0] == 1, 0].unique()) > 1_000


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_the_scale_takes_genes_that_are_seen_never_once_and_always(value):
    cells = torch.zeros(50, 2)
    cells[0, 1] = 2.0
    cells[:, 0] = value
    scale = CellScale(cells)
    values = scale.to_flow(cells, torch.rand(cells.shape))
    assert values.isfinite().all()
    assert torch.equal(scale.to_cells(values), cells)
    assert torch.equal(scale.to_cells(torch.full((1, 2), -9.0)), torch.tensor([[value, 0.0]]))


def test_correlations_are_those_of_numpy():
    cells = sparse_cells()
    expected = np.corrcoef(cells.double().numpy()[:, :3].T)
    found = pearson_correlations(cells)
    np.testing.assert_allclose(found[:3, :3], expected, rtol=1e-6)
    assert (found[3, :3] == 0).all()


def test_the_prior_has_the_largest_entries_of_both_parts():
    random = np.random.default_rng(0)
    correlation = torch.from_numpy(np.corrcoef(random.normal(size=(12, 40))))
    u, s, vt = np.linalg.svd(correlation.numpy())
    low_rank = (u[:, :2] * s[:2]) @ vt[:2]

    def largest(part, k):
        size = np.abs(np.asarray(part).copy())
        np.fill_diagonal(size, -1)
        return {(row, column) for row in range(12) for column in np.argsort(-size[row])[:k]}

    def found(**settings):
        attended = attention_prior(correlation, FlowSettings(rank=2, **settings))
        return {tuple(place) for place in attended.nonzero().tolist()}

    assert found(sparse_k=3, low_rank_k=0) == largest(correlation, 3)
    assert found(sparse_k=0, low_rank_k=2) == largest(low_rank, 2)
    assert found(sparse_k=3, low_rank_k=2) == largest(correlation, 3) | largest(low_rank, 2)
    assert len(found(sparse_k=0, low_rank_k=0)) == 144


def test_a_network_in_a_file_is_a_prior_too(tmp_path):
    path = tmp_path / "edges.tsv"
    path.write_text("regulator\ttarget\tweight\nA\tB\t1\nC\tX\t1\nB\tB\t2\n")
    attended = network_prior(path, ["A", "B", "C"])
    assert attended.nonzero().tolist() == [[0, 1], [1, 0]]
    with pytest.raises(InputError, match="no edge is between two of the screen's genes; it names A, C, B"):
        network_prior(path, ["TP53", "MYC"])


def test_info_nce_is_the_formula():
    anchor, positive, negatives = torch.randn(5, 8), torch.randn(5, 8), torch.randn(5, 3, 8)

    def cosine(one, other):
        return (one @ other) / one.norm() / other.norm()

    expected = []
    for e, plus, minus in zip(anchor, positive, negatives, strict=True):
        top = (cosine(e, plus) / 0.3).exp()
        expected.append(-(top / (top + sum((cosine(e, other) / 0.3).exp() for other in minus))).log())
    torch.testing.assert_close(info_nce(anchor, positive, negatives, 0.3), torch.stack(expected).mean())


def batch_of(n_perturbations=4, n_genes=5):
    perturbation = torch.eye(n_perturbations).repeat_interleave(2, dim=0)
    return CellBatch(*torch.randn(2, 2 * n_perturbations, n_genes), perturbation, 2)


def test_the_contrast_is_between_the_pairs_that_the_paper_names():
    batch = batch_of()
    torch.manual_seed(1)
    flow, project = CellFlow(5, 4, SMALL), projection(5)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    context = flow.encoder(batch.control, batch.perturbation)

    def latent(cell, of):
        return project(flow(batch.perturbed[cell : cell + 1], context[of : of + 1])[0])[0]

    losses = []
    for anchor, others in ((0, (2, 4)), (2, (4, 0)), (4, (0, 2))):
        negatives = [latent(anchor, other) for other in others] + [latent(other, anchor) for other in others]
        parts = latent(anchor, anchor), latent(anchor + 1, anchor), torch.stack(negatives)
        losses.append(info_nce(*(part[None] for part in parts), SMALL.temperature))
    found = contrastive_loss(flow, project, batch, context, 3, SMALL)
    torch.testing.assert_close(found, torch.stack(losses).mean())


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.1), (0.5, 0.1)])
def test_the_loss_is_the_weighted_sum(weights):
    settings = replace(SMALL, denoise_weight=weights[0], contrast_weight=weights[1], contrast_cells=3)
    torch.manual_seed(2)
    flow, project, batch, noise = CellFlow(5, 4, settings), projection(5), batch_of(), torch.randn(8, 5)
    context = flow.encoder(batch.control + noise, batch.perturbation)
    without = flow.encoder((batch.control + noise)[:1], torch.zeros(1, 4))  # an eighth of the cells
    expected = -flow.log_density(batch.perturbed, context).mean() / 5
    expected = expected - weights[0] * flow.log_density(batch.control[:1], without).mean() / 5
    expected = expected + weights[1] * contrastive_loss(flow, project, batch, context, 3, settings)
    torch.testing.assert_close(training_loss(flow, project, batch, noise, settings), expected)


def test_what_perturbations_do_to_whole_cells_is_learned():
    """Half of the perturbations raise the first gene, and turn round how the next two go together."""
    random, training = np.random.default_rng(0), problem(n_perturbations=16, n_genes=3, n_bins=7)
    raised = np.arange(16) % 2

    def cells(is_raised):
        latent = random.normal(size=(300, 1))
        sign = -1 if is_raised else 1
        values = np.concatenate([random.normal(size=(300, 1)) + 2 * is_raised, latent, sign * latent], axis=1)
        return torch.from_numpy(5 + values + 0.3 * random.normal(size=(300, 3))).float()

    groups, control = [cells(one) for one in raised], cells(0)

    class Expression:
        def of_control(self):
            return control

        def of(self, number):
            return groups[number]

    embeddings = torch.from_numpy(np.column_stack([raised, 1 - raised])).float()
    edges = torch.full((3,), 0.5), torch.full((3,), 10 / 7)
    training = replace(
        training,
        embeddings=embeddings,
        expression=Expression,
        control_mean=control.mean(0),
        lower=edges[0],
        width=edges[1],
    )
    model = CellTARNet(CellSettings(epochs=250, batch_size=16, learning_rate=3e-3, flow=SMALL))
    losses = [loss.item() for loss in model.fit(training)]
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.1
    as_control, as_raised = model.sample(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 600)
    assert (as_raised[:, 0].mean() - as_control[:, 0].mean()).item() == pytest.approx(2, abs=0.4)
    assert torch.corrcoef(as_control.T)[1, 2] > 0.6
    assert torch.corrcoef(as_raised.T)[1, 2] < -0.6
    found = model.predict(embeddings[:2])
    torch.testing.assert_close(found.masses.sum(-1), torch.ones(2, 3, dtype=torch.float64))
    torch.testing.assert_close(found.moments.mean, found.cells(4_000).double().mean(1), rtol=0, atol=0.15)
    untrained = CellTARNet(CellSettings(epochs=0, flow=SMALL))
    list(untrained.fit(training))
    seen = torch.cat([control, *groups]).mean(0)
    errors = [
        (untrained.sample(embeddings[:1], 400, is_mirrored).mean((0, 1)) - seen).abs().mean()
        for is_mirrored in (True, False)
    ]
    assert errors[0] < 0.2 * errors[1]


def test_parameters_are_counted():
    training = problem(n_perturbations=9)
    model = CellTARNet(CellSettings(**{**QUICK.__dict__, "epochs": 0}, flow=SMALL))
    list(model.fit(training))
    assert model.n_parameters == n_parameters(8, 6, SMALL)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 31}, "--width 31: must be a multiple of --heads 2"),
        ({"blocks": 0}, "--blocks 0"),
        ({"temperature": 0.0}, "--temperature 0"),
        ({"noise": -1.0}, "--noise -1"),
        ({"cells_per_perturbation": 1}, "--cells-per-perturbation 2 or more"),
    ],
)
def test_settings_out_of_range_are_named(options, words):
    with pytest.raises(InputError, match=words):
        FlowSettings(**options)
