"""Methods: sizes, starting point, learning, repeatability, and the two floors against pooled cells."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from histpert.cell_sums import CellSums
from histpert.coexpression import Coexpression
from histpert.errors import InputError
from histpert.grouped_expression import GroupedExpression
from histpert.histograms import BinEdges, group_moments, open_or_build
from histpert.histograms.cells_apart import CellsApart, limits
from histpert.losses import wasserstein1
from histpert.models import METHODS, ModelSettings, TrainingSet
from histpert.models.mlp_hist import HistogramNetwork
from histpert.screens import PRESETS, assign_folds, simulate_screen
from histpert.targets import training_targets

QUICK = ModelSettings(epochs=3, hidden=(32, 16), batch_size=8)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Two threads on a busy machine wait for each other; a trial on a CPU uses one as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cells_of(masses, lower, width, n_cells=50):
    """Cells in the centres of bins, a few off them, drawn as the masses say: each row of them a group."""
    random = np.random.default_rng(0)
    n_bins = masses.shape[-1]
    edges = BinEdges(lower.double().numpy(), width.double().numpy(), n_bins, np.zeros(len(lower), dtype=bool))
    places = (masses.cumsum(-1).numpy()[:, None] < random.random((n_cells, len(lower), 1))).sum(-1).clip(max=n_bins - 1)
    values = (edges.lower + edges.width * (places + 0.5)).reshape(-1, len(lower))
    values[random.random(values.shape) < 0.1] = edges.width.min() / 4
    cells, start = sp.csr_matrix(values.astype(np.float32)), np.arange(len(masses) + 1) * n_cells
    keep = limits(edges, np.arange(len(lower)), len(lower))
    kept = [keep(cells[first : first + n_cells]) for first in start[:-1]]
    apart = CellsApart(
        np.cumsum([0, *(len(gene) for gene, _ in kept)]),
        *(np.concatenate(arrays) for arrays in zip(*kept, strict=True)),
    )
    moments = group_moments(cells, start)
    return CellSums(np.arange(len(masses)), moments, apart, edges, torch.device("cpu"), torch.float32)


def expression_of(masses, control, centres, n_cells=40):
    """Cells in the centres of bins, drawn as the masses say."""
    random = np.random.default_rng(0)
    groups = torch.cat([control[None], masses])
    below = groups.cumsum(-1).numpy()[:, None] < random.random((len(groups), n_cells, masses.shape[1], 1))
    places = torch.from_numpy(below.sum(-1)).clamp(max=masses.shape[-1] - 1)
    gene = torch.arange(masses.shape[1])
    cells = centres.expand(masses.shape[1:])[gene, places].flatten(0, 1).numpy().astype(np.float32)
    start, numbers = np.arange(len(groups) + 1) * n_cells, np.arange(1, len(groups))
    return GroupedExpression(cells, start, numbers, torch.device("cpu"))


def problem(n_perturbations=24, n_genes=6, n_bins=7, n_features=8):
    """Histograms that follow from the embeddings without noise."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n_perturbations, n_features, generator=generator)
    control = torch.randn(n_genes, n_bins, generator=generator)
    effect = torch.randn(n_features, n_genes * n_bins, generator=generator) / 2
    masses = ((embeddings @ effect).view(n_perturbations, n_genes, n_bins) + control).softmax(-1)
    width = torch.linspace(0.1, 0.6, n_genes)
    centres, lower, one = torch.arange(n_bins) * width[:, None], -width / 2, torch.tensor([0])

    def spread(masses):
        offset = centres - (masses * centres).sum(-1, keepdim=True)
        return torch.stack([(masses * offset**power).sum(-1) for power in (2, 3, 4)], dim=-2)

    return TrainingSet(
        embeddings=embeddings,
        masses=masses,
        means=(masses * centres).sum(-1),
        n_cells=torch.full((n_perturbations,), 50.0),
        control=control.softmax(-1),
        control_mean=(control.softmax(-1) * centres).sum(-1),
        lower=lower,
        width=width,
        cells=lambda: cells_of(masses, lower, width),
        control_cells=lambda: cells_of(control.softmax(-1)[None], lower, width)[one],
        spread=lambda: spread(masses),
        control_spread=lambda: spread(control.softmax(-1)),
        expression=lambda: expression_of(masses, control.softmax(-1), centres),
        coexpression=lambda: Coexpression(np.arange(n_genes)[:, None], np.ones((n_genes, 1), dtype=np.float32)),
    )


def fitted(settings, training, method="MLP+Hist"):
    model = METHODS[method](settings)
    losses = [loss.item() for loss in model.fit(training)]
    return model, losses


def predictions(settings, training):
    return fitted(settings, training)[0].predict(training.embeddings).masses.numpy().tobytes()


def test_the_network_of_the_published_shape_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = HistogramNetwork(torch.ones(5_000, 15), 2_560, ModelSettings().layers(1_000))
    assert sum(parameter.numel() for parameter in network.parameters()) == 80_552_696


def test_a_fitted_model_counts_its_parameters():
    model, _ = fitted(replace(QUICK, epochs=0, hidden=(5, 3)), problem(n_genes=2, n_bins=4, n_features=7))
    # Weights, biases, LayerNorm's scale and offset: 7 x 5 + 5 + 10, then 5 x 3 + 3 + 6, then 3 x 8 + 8.
    assert model.n_parameters == 50 + 24 + 32


def test_training_starts_at_the_smoothed_control():
    training = problem(n_perturbations=100, n_genes=50, n_bins=15, n_features=64)
    model, losses = fitted(ModelSettings(epochs=0), training)
    control = 0.9999 * training.control + 1e-4 / 15
    prediction = model.predict(training.embeddings)
    centres = training.lower[:, None] + training.width[:, None] * (torch.arange(15) + 0.5)
    torch.testing.assert_close(prediction.control_mean.float(), (control * centres).sum(-1))
    distance = (model.predict(training.embeddings).masses - control).abs().sum(-1) / 2
    assert losses == []
    assert distance.mean() > 0
    assert distance.flatten().quantile(0.99) < 1e-2


def test_a_problem_without_noise_is_learned():
    training = problem()
    settings = ModelSettings(epochs=300, dropout=0.0, hidden=(64, 32), batch_size=8)
    model, losses = fitted(settings, training)
    assert len(losses) == 300
    assert np.mean(losses[-10:]) < np.mean(losses[45:55]) < np.mean(losses[:10])

    def distance(predicted):
        return wasserstein1(predicted, training.masses, training.width).mean().item()

    untrained = distance(training.control.expand_as(training.masses))
    assert distance(model.predict(training.embeddings).masses) < 0.1 * untrained


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_each_loss_alone_goes_down(weights):
    settings = ModelSettings(*weights, epochs=40, dropout=0.0, hidden=(32,), batch_size=8)
    _, losses = fitted(settings, problem())
    assert np.mean(losses[-5:]) < 0.95 * losses[0]


def test_the_same_settings_give_the_same_bytes():
    assert predictions(QUICK, problem()) == predictions(QUICK, problem())


def test_another_seed_gives_another_prediction():
    assert predictions(QUICK, problem()) != predictions(replace(QUICK, seed=1), problem())


def test_dropout_is_on_in_training():
    assert predictions(replace(QUICK, dropout=0.0), problem()) != predictions(replace(QUICK, dropout=0.5), problem())


def test_random_numbers_drawn_between_epochs_change_nothing():
    training = problem()
    expected = predictions(QUICK, training)
    torch.manual_seed(99)
    model = METHODS["MLP+Hist"](QUICK)
    for _ in model.fit(training):
        torch.rand(5)
        np.random.random(5)
    assert model.predict(training.embeddings).masses.numpy().tobytes() == expected


@pytest.mark.parametrize("method", METHODS)
def test_fitting_leaves_the_global_random_state_as_it_was(method):
    state = torch.get_rng_state()
    fitted(QUICK, problem(), method)
    assert torch.equal(torch.get_rng_state(), state)


def test_predicting_twice_gives_the_same_masses():
    training = problem()
    model, _ = fitted(QUICK, training)
    first = model.predict(training.embeddings).masses
    assert torch.equal(model.predict(training.embeddings).masses, first)
    torch.testing.assert_close(model.predict(training.embeddings[3:4]).masses, first[3:4])


def test_floors_are_the_pooled_and_the_control_cells():
    random = np.random.default_rng(0)
    edges = np.arange(7) * 0.5 - 0.25
    cells = [random.choice([0, 0.4, 1.1, 2.3], (n_cells, 3)) for n_cells in (20, 35, 80, 15)]

    def histograms(some):
        return np.stack([np.histogram(some[:, gene], edges)[0] / len(some) for gene in range(3)])

    control, *perturbed = cells
    training = replace(
        problem(n_perturbations=3, n_genes=3, n_bins=6),
        masses=torch.from_numpy(np.stack([histograms(some) for some in perturbed])).float(),
        n_cells=torch.tensor([35.0, 80.0, 15.0]),
        control=torch.from_numpy(histograms(control)).float(),
    )
    for method, some in (("Ctrl Hist", control), ("Non-Ctrl Hist", np.concatenate(perturbed))):
        model, losses = fitted(ModelSettings(control_smoothing=0.01), training, method)
        expected = np.broadcast_to(0.99 * histograms(some) + 0.01 / 6, (5, 3, 6))
        np.testing.assert_allclose(model.predict(torch.zeros(5, 8)).masses, expected, atol=1e-6)
        centres = training.lower[:, None] + training.width[:, None] * (torch.arange(6) + 0.5)
        mean = ((0.99 * torch.from_numpy(histograms(control)) + 0.01 / 6) * centres).sum(-1)
        np.testing.assert_allclose(model.predict(torch.zeros(5, 8)).control_mean, mean, atol=1e-6)
        assert losses == []
        assert model.n_parameters == 0


@pytest.mark.parametrize(
    "method", ["MLP+Hist", "Ctrl Hist", "Non-Ctrl Hist", "Neighbors Hist", "GP+Hist", "GP+MLP+Hist", "TG", "ZITG"]
)
def test_predictions_on_a_screen_are_histograms_without_empty_bins(method, tmp_path):
    simulation = replace(
        PRESETS["easy"], n_perturbations=12, n_genes=20, n_control=60, n_cells=300, min_cells=15, max_cells=25
    )
    screen, embeddings, _ = simulate_screen(0, simulation)
    store = open_or_build(tmp_path, screen, assign_folds(screen.perturbations, 3, 0), [10], apart=[10])
    counts, vectors = store.fold(1, 10), embeddings["good"].lookup(screen.perturbations)
    model, _ = fitted(QUICK, training_targets(counts, store.moments, vectors, torch.device("cpu")), method)
    predicted = model.predict(torch.from_numpy(vectors[counts.held_out])).masses
    assert predicted.shape == (4, 20, 10)
    assert predicted.min() > 0
    torch.testing.assert_close(predicted.sum(-1).float(), torch.ones(4, 20))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"weight_wass": 0.5}, "--weight-wass.*add to 1"),
        ({"weight_ce": 0.5, "weight_wass": 0.75, "weight_mse": -0.25}, "--weight-mse.*0 or more"),
        ({"weight_ce": float("nan")}, "--weight-ce"),
        ({"dropout": 1.0}, "--dropout 1"),
        ({"dropout": -0.1}, "--dropout -0.1"),
        ({"hidden": ()}, "--hidden"),
        ({"hidden": (64, 0)}, "--hidden"),
        ({"epochs": -1}, "--epochs -1"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"learning_rate": -1e-3}, "--learning-rate"),
        ({"control_smoothing": 0.0}, "--control-smoothing 0"),
        ({"control_smoothing": 1.0}, "--control-smoothing 1"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(wrong, named):
    with pytest.raises(InputError, match=named):
        ModelSettings(**wrong)


@pytest.mark.parametrize("weights", [(0.0, 0.0, 1.0), (1 / 3, 1 / 3, 1 / 3), (0.1, 0.2, 0.7)])
def test_weights_that_add_to_one_are_taken(weights):
    settings = ModelSettings(*weights)
    assert (settings.weight_ce, settings.weight_wass, settings.weight_mse) == weights


def test_small_screens_get_the_small_network():
    assert ModelSettings().hidden_sizes(90) == (128, 64)
    assert ModelSettings().hidden_sizes(499) == (128, 64)
    assert ModelSettings().hidden_sizes(1_000) == (1024, 512, 1024)
    assert ModelSettings(hidden=(10,)).hidden_sizes(1_000) == (10,)
