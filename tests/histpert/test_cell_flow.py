"""The flow of CellTARNet: inverse, Jacobian, what depends on what, and known densities."""

import pytest
import torch
from scipy.stats import multivariate_normal
from torch.autograd.functional import jacobian

from histpert.celltarnet.flow import CellFlow, normal_log_density
from histpert.celltarnet.settings import FlowSettings

N_GENES, N_FEATURES = 7, 3


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_mask(n_genes=N_GENES):
    """Some genes may attend to others; the last to none."""
    mask = torch.rand(n_genes, n_genes, generator=torch.Generator().manual_seed(4)) < 0.5
    mask[-1] = False
    return mask


def made(dtype=torch.float64, attended=None, n_genes=N_GENES, **settings):
    """A flow whose weights are all somewhere, cells and their contexts."""
    torch.manual_seed(0)
    settings = FlowSettings(**{"width": 16, "layers": 2, "blocks": 3, **settings})
    flow = CellFlow(n_genes, N_FEATURES, settings, attended).to(dtype)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    cells, control, perturbation = (torch.randn(5, n, dtype=dtype) for n in (n_genes, n_genes, N_FEATURES))
    return flow, cells, flow.encoder(control, perturbation).detach()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("attended", [None, random_mask()], ids=["all", "some"])
def test_the_inverse_is_the_inverse(dtype, tolerance, attended):
    flow, cells, context = made(dtype, attended)
    noise, _ = flow(cells, context)
    assert (noise - cells).abs().max() > 0.1
    torch.testing.assert_close(flow.inverse(noise, context), cells, rtol=0, atol=tolerance)
    torch.testing.assert_close(flow(flow.inverse(cells, context), context)[0], cells, rtol=0, atol=tolerance)


def test_the_log_determinant_is_that_of_the_jacobian():
    flow, cells, context = made(attended=random_mask())
    _, scale = flow(cells, context)
    for number in range(len(cells)):
        one = jacobian(lambda cell, row=number: flow(cell[None], context[row : row + 1])[0][0], cells[number])
        torch.testing.assert_close(torch.linalg.slogdet(one).logabsdet, scale[number])


@pytest.mark.parametrize("block", [0, 1, 2])
def test_parameters_move_with_the_genes_before_that_the_mask_names_and_no_others(block):
    mask = random_mask()
    flow, cells, context = made(attended=mask)
    step = flow.blocks[block]
    order = step.order
    assert sorted(order.tolist()) == list(range(N_GENES))
    moved = jacobian(lambda ordered: torch.stack(step.parameters_all(ordered[None], context[:1])), cells[0])
    moves = moved.abs().amax((0, 1)) > 0
    before = torch.ones(N_GENES, N_GENES, dtype=torch.bool).tril(-1)
    assert torch.equal(moves, before & mask[order][:, order])
    assert torch.isfinite(moved).all()  # also of the gene that attends to none


def test_orders_alternate():
    flow, *_ = made()
    assert torch.equal(flow.blocks[0].order, flow.blocks[1].order.flip(0))
    assert torch.equal(flow.blocks[0].order, flow.blocks[2].order)


def test_parameters_move_with_the_control_cell_and_the_perturbation():
    flow, cells, _ = made()
    control, perturbation = torch.randn(2, N_GENES).double(), torch.randn(2, N_FEATURES).double()

    def noise(control, perturbation):
        return flow(cells[:2], flow.encoder(control, perturbation))[0]

    for moved in jacobian(noise, (control, perturbation)):
        assert (moved[0, :, 0].abs().amax(-1) > 0).all()
        assert (moved[0, :, 1] == 0).all()  # another cell's context is nothing to this one


def test_the_flow_starts_as_the_identity():
    flow = CellFlow(N_GENES, N_FEATURES, FlowSettings())
    cells = torch.randn(4, N_GENES)
    context = flow.encoder(torch.randn(4, N_GENES), torch.randn(4, N_FEATURES))
    noise, scale = flow(cells, context)
    assert torch.equal(noise, cells)
    assert (scale == 0).all()
    expected = torch.distributions.Normal(0, 1).log_prob(cells).sum(1)
    torch.testing.assert_close(flow.log_density(cells, context), expected)


def test_every_weight_of_the_encoder_has_a_gradient():
    flow, cells, _ = made()
    context = flow.encoder(torch.randn(5, N_GENES).double(), torch.randn(5, N_FEATURES).double())
    flow.log_density(cells, context).sum().backward()
    without = [
        name for name, parameter in flow.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


def test_the_density_adds_to_one():
    flow, _, context = made(n_genes=2)
    ends = torch.linspace(-12, 12, 481, dtype=torch.float64)
    with torch.no_grad():
        rows = [torch.cartesian_prod(end[None], ends) for end in ends]
        mass = sum(flow.log_density(row, context[:1].expand(len(row), -1, -1)).exp().sum() for row in rows)
    assert mass * (ends[1] - ends[0]) ** 2 == pytest.approx(1, abs=1e-3)


def mixture(n_dimensions):
    random = torch.Generator().manual_seed(1)
    means = torch.randn(3, n_dimensions, generator=random)
    spread = 0.3 * torch.randn(3, n_dimensions, n_dimensions, generator=random) / n_dimensions**0.5
    spread = spread + 0.5 * torch.eye(n_dimensions)
    parts = torch.distributions.MultivariateNormal(means, spread @ spread.mT)
    return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.tensor([0.5, 0.3, 0.2])), parts)


@pytest.mark.parametrize(("n_dimensions", "blocks"), [(2, 6), pytest.param(8, 4, marks=pytest.mark.chaos)])
def test_a_known_mixture_is_learned(n_dimensions, blocks):
    truth = mixture(n_dimensions)
    n_steps = 150 if n_dimensions == 2 else 300
    torch.manual_seed(0)
    flow = CellFlow(n_dimensions, 1, FlowSettings(blocks=blocks, heads=1))
    optimizer = torch.optim.AdamW(flow.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)

    def excess(n_cells):
        """Of the flow's likelihood over the true one, in nats a dimension."""
        cells = truth.sample((n_cells,))
        context = flow.encoder(torch.zeros(1, n_dimensions), torch.zeros(1, 1)).expand(n_cells, -1, -1)
        return (truth.log_prob(cells) - flow.log_density(cells, context)).mean() / n_dimensions

    assert excess(4_000) > 0.1
    for _ in range(n_steps):
        optimizer.zero_grad()
        excess(256).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        assert excess(8_000) < 0.05


def test_the_density_of_noise_is_that_of_scipy():
    noise = torch.randn(6, 4, dtype=torch.float64)
    torch.testing.assert_close(
        normal_log_density(noise), torch.from_numpy(multivariate_normal(mean=[0] * 4).logpdf(noise))
    )
