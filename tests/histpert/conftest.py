"""Screens that several test files read."""

from pathlib import Path

import pytest

from histpert.screens import ReadOptions, read_screen

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def papalexi():
    """Papalexi 2021: 25 targets, raw counts; 25 targets and control after the filters on guides."""
    path = REAL_DATA / "papalexi_thp1_303genes.h5ad"
    if not path.is_file():
        pytest.skip(f"needs real data, which are not here: {path}")
    options = ReadOptions(
        library_size_column="n_umi_full",
        cell_filter="guide_frac > 0.8 and guide_umi_max >= 5",
        min_control_detection=0.01,
    )
    return read_screen(path, options)
