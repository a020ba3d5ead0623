"""Screens that several test files read."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from real_data import REAL_DATA
from simulated import CHECKED

from histpert.screens import ReadOptions, Screen, read_screen
from histpert.screens.simulation import ScreenTruth
from histpert.screens.simulation.drawing import draw_screen


@pytest.fixture(scope="module")
def one_thread():
    """Two threads on a busy machine wait for each other; a trial on a CPU uses one as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def read_papalexi(**options) -> Screen:
    """Papalexi 2021: 25 targets, raw counts, cells with one clear guide."""
    path = REAL_DATA / "papalexi_thp1_303genes.h5ad"
    if not path.is_file():
        pytest.skip(f"needs real data, which are not here: {path}")
    cell_filter = "guide_frac > 0.8 and guide_umi_max >= 5"
    return read_screen(path, ReadOptions(library_size_column="n_umi_full", cell_filter=cell_filter, **options))


@pytest.fixture(scope="session")
def papalexi() -> Screen:
    """Genes seen in more than 1% of control cells."""
    return read_papalexi(min_control_detection=0.01)


@pytest.fixture(scope="session")
def papalexi_273_genes() -> Screen:
    """Genes seen in more than 1% of all cells, as other implementations choose them."""
    screen = read_papalexi()
    kept = np.flatnonzero(screen.expression.getnnz(axis=0) > 0.01 * screen.expression.shape[0])
    genes = tuple(screen.genes[gene] for gene in kept)
    return replace(screen, expression=sp.csr_matrix(screen.expression[:, kept]), genes=genes)


@pytest.fixture(scope="session")
def checked() -> ScreenTruth:
    """The truth of a screen whose perturbations do all that perturbations can do."""
    return draw_screen(1, CHECKED)[0]
