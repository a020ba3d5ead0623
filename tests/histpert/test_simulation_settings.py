"""Settings of simulated screens: those that make no screen, the outermost that do, and the presets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated import EDGES, TINY, group_sizes

from histpert.errors import InputError
from histpert.screens.simulation import PRESETS, simulate_screen
from histpert.screens.simulation.drawing import draw_screen

BAD_SETTINGS = [
    ("n_perturbations", 0),
    ("n_perturbations", 31),
    ("n_genes", 0),
    ("n_genes", 7),
    ("n_pairs", -1),
    ("n_pairs", 29),
    ("n_control", 0),
    ("n_cells", 259),
    ("n_cells", 1061),
    ("min_cells", 0),
    ("min_cells", 63),
    ("min_cells", 200),
    ("max_cells", 62),
    ("n_programs", 0),
    ("cells_spread", -0.1),
    ("library_size", 0.0),
    ("library_size", np.inf),
    ("library_spread", -0.1),
    ("log_rate_mean", np.nan),
    ("log_rate_mean", 8.0),
    ("log_rate_spread", -1.0),
    ("log_rate_spread", 8.0),
    ("dispersion", 0.0),
    ("rare_dispersion", -0.1),
    ("program_spread", -0.5),
    ("program_spread", np.inf),
    ("null_share", 1.1),
    ("null_share", -0.1),
    ("told_share", 2.0),
    ("told_share", np.nan),
    ("epistatic_share", -1.0),
    ("effect_size", -0.1),
    ("effect_size", np.nan),
    ("effect_spread", np.inf),
    ("guide_efficiency", 0.0),
    ("guide_efficiency", 1.01),
    ("own_gene_fold", 0.0),
    ("dispersion_effect", -1.0),
    ("silencing_effect", -1.0),
    ("n_features", (0, 4)),
    ("n_features", (4, 0)),
    ("embedding_quality", (1.1, 0.5)),
    ("embedding_quality", (0.5, -0.1)),
    ("embedding_quality", (np.nan, 0.5)),
    ("embedding_quality", (0.5, np.nan)),
]
OTHER_OPTION = {
    ("n_genes", 7): "--n-perturbations",
    ("log_rate_mean", 8.0): "lower --log-rate-mean",
    ("log_rate_spread", 8.0): "or --log-rate-spread",
    ("min_cells", 63): "--n-cells",
    ("min_cells", 200): "--n-cells",
    ("max_cells", 62): "--n-cells",
}
"""What is wrong is how options fit together, and the message says so."""


@pytest.mark.parametrize(("option", "value"), BAD_SETTINGS, ids=str)
def test_a_setting_that_makes_no_screen_is_named(option, value):
    with pytest.raises(InputError) as failure:
        draw_screen(0, replace(TINY, **{option: value}))
    assert OTHER_OPTION.get((option, value), f"--{option.replace('_', '-')} ") in str(failure.value)
    assert len(str(failure.value).splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"n_perturbations": 30, "n_cells": 800},
        {"n_perturbations": 1, "n_cells": 220},
        {"n_pairs": 28, "n_cells": 900},
        {"n_cells": 260},
        {"n_cells": 1060},
        {"n_control": 1, "n_programs": 1, "n_features": (1, 1)},
        {"cells_spread": 0.0, "library_spread": 0.0, "log_rate_spread": 0.0, "program_spread": 0.0},
        {"null_share": 1.0, "told_share": 0.0, "guide_efficiency": 1.0, "embedding_quality": (1.0, 0.0)},
        {"effect_size": 0.0, "effect_spread": 0.0, "dispersion_effect": 0.0, "silencing_effect": 0.0},
        {"effect_size": 10.0, "dispersion_effect": 10.0, "silencing_effect": 10.0, "program_spread": 10.0},
    ],
    ids=",".join,
)
def test_the_outermost_settings_make_a_screen(changes):
    screen, embeddings, truth = simulate_screen(0, replace(TINY, **changes))
    assert screen.expression.shape == (screen.group_start[-1], 30)
    assert np.isfinite(screen.expression.data).all()
    assert all(np.isfinite(source.vectors).all() for source in embeddings.values())
    for name in ("control", truth.perturbations[0], truth.perturbations[-1]):
        assert np.isfinite(truth.moments(name).to_numpy()).all()
        np.testing.assert_allclose(truth.histogram(name, EDGES).sum(axis=1), 1, atol=1e-9)


PUBLISHED = {
    "papalexi": (25, 0, 303, 16_093),
    "easy": (90, 0, 200, 10_000),
    "norman": (102, 131, 5_045, 91_205),
    "replogle-k562": (1_092, 0, 5_000, 162_751),
    "replogle-rpe1": (1_543, 0, 5_000, 162_733),
}
"""Single perturbations, pairs, genes and cells."""


@pytest.mark.parametrize("preset", PUBLISHED)
def test_presets_have_the_sizes_of_the_published_screens(preset):
    assert set(PRESETS) == set(PUBLISHED)
    n_singles, n_pairs, n_genes, n_cells = PUBLISHED[preset]
    truth, embeddings = draw_screen(0, PRESETS[preset])
    assert len(truth.perturbations) == n_singles + n_pairs
    assert len(truth.interactions) == n_pairs
    assert len(truth.genes) == n_genes
    sizes = group_sizes(truth)
    assert sizes.sum() == n_cells
    assert sizes[0] == PRESETS[preset].n_control
    assert all(len(source.genes) == n_singles for source in embeddings.values())


@pytest.mark.parametrize(("preset", "zeros"), [("replogle-k562", 0.61), ("replogle-rpe1", 0.64)])
def test_control_cells_of_the_large_screens_have_the_published_zeros(preset, zeros):
    truth, _ = draw_screen(0, PRESETS[preset])
    assert truth.moments("control")["zeros"].mean() == pytest.approx(zeros, abs=0.015)
