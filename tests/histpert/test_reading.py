"""Screens read from .h5ad files: files written here against dense references, and two real ones."""

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from histpert.errors import InputError
from histpert.screens import ReadOptions, WorkingSpace, group_cells, open_screen, read_screen

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
GENES = ("g1", "g2", "g3", "g4")
LABELS = ("B", "control", "A", "B", "control", "A", "A", "control")
COUNTS = 1 + np.random.default_rng(0).poisson(1.5, (8, 4))
GROUPED = [1, 4, 7, 2, 5, 6, 0, 3]
"""Rows of LABELS: control, A, B, each in the order of the file."""


def screen_file(folder, values=COUNTS, genes=GENES, as_categories=True, **obs):
    """Path of a file with these values and columns of obs; by default a small valid screen."""
    columns = obs or {"perturbation": LABELS}
    n_cells = len(next(iter(columns.values())))
    obs_table = pd.DataFrame(columns, index=[f"cell{number}" for number in range(n_cells)])
    data = anndata.AnnData(values, obs=obs_table, var=pd.DataFrame(index=list(genes)))
    path = folder / "screen.h5ad"
    data.write_h5ad(path, convert_strings_to_categoricals=as_categories)
    return path


def normalized(counts):
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 10_000)


def real_file(name):
    if not (REAL_DATA / name).is_file():
        pytest.skip(f"needs real data, which are not here: {REAL_DATA / name}")
    return REAL_DATA / name


@pytest.mark.parametrize("as_categories", [True, False], ids=["categories", "strings"])
def test_cells_are_grouped_with_control_first_in_the_order_of_the_file(tmp_path, as_categories):
    screen = read_screen(screen_file(tmp_path, as_categories=as_categories))
    assert screen.name == "screen"
    assert screen.genes == GENES
    assert screen.perturbations == ("A", "B")
    assert screen.group_start.tolist() == [0, 3, 6, 8]
    assert screen.n_cells.tolist() == [3, 3, 2]
    np.testing.assert_allclose(screen.expression.toarray(), normalized(COUNTS)[GROUPED], rtol=1e-6)
    np.testing.assert_array_equal(screen.control.toarray(), screen.expression.toarray()[:3])


@pytest.mark.parametrize(
    ("column", "labels", "rows"),
    [
        ("perturbation", ("A", "control", "B", "control"), {"": [1, 3], "A": [0], "B": [2]}),
        ("perturbation", ("A", "ctrl", "B", "ctrl"), {"": [1, 3], "A": [0], "B": [2]}),
        ("condition", ("A+ctrl", "ctrl", "B+ctrl", "ctrl+A", "A+B", "ctrl"), {"": [1, 5], "A": [0, 3], "B": [2]}),
        ("condition", ("A+B", "control", "B", "B+A", "A"), {"": [1], "A": [4], "B": [2]}),
        ("condition", ("ctrl", "ctrl+ctrl", "A", "A+A", "A + ctrl"), {"": [0, 1], "A": [2, 3, 4]}),
    ],
)
def test_conventions_for_single_perturbations_and_control(tmp_path, column, labels, rows):
    counts = COUNTS[: len(labels)]
    screen = read_screen(screen_file(tmp_path, counts, **{column: labels}))
    assert ("", *screen.perturbations) == tuple(rows)
    assert screen.n_cells.tolist() == [len(group) for group in rows.values()]
    in_order = [row for group in rows.values() for row in group]
    np.testing.assert_allclose(screen.expression.toarray(), normalized(counts)[in_order], rtol=1e-6)


def test_a_named_column_and_label_go_before_the_conventions(tmp_path):
    targets = ("NT", "X", "NT", "Y", "X", "NT", "Y", "Y")
    path = screen_file(tmp_path, perturbation=LABELS, target=targets)
    screen = read_screen(path, ReadOptions(perturbation_column="target", control_label="NT"))
    assert screen.perturbations == ("X", "Y")
    assert screen.n_cells.tolist() == [3, 2, 3]


def test_a_column_without_control_cells_gives_way_to_the_next_convention(tmp_path):
    screen = read_screen(screen_file(tmp_path, perturbation=["drug"] * 8, condition=LABELS))
    assert screen.perturbations == ("A", "B")
    assert any("'condition'" in note and "'control'" in note for note in screen.notes)


def test_a_label_is_looked_for_in_the_usual_columns(tmp_path):
    labels = ["NT" if label == "control" else label for label in LABELS]
    screen = read_screen(screen_file(tmp_path, condition=labels), ReadOptions(control_label="NT"))
    assert screen.perturbations == ("A", "B")


def test_a_control_label_may_contain_a_plus(tmp_path):
    labels = ["neg+neg" if label == "control" else label for label in LABELS]
    screen = read_screen(screen_file(tmp_path, perturbation=labels), ReadOptions(control_label="neg+neg"))
    assert screen.n_cells.tolist() == [3, 3, 2]


def test_labels_that_are_numbers_are_read_as_names(tmp_path):
    numbers = [{"control": 0, "A": 7, "B": 8}[label] for label in LABELS]
    options = ReadOptions(perturbation_column="target", control_label="0")
    screen = read_screen(screen_file(tmp_path, target=numbers), options)
    assert screen.perturbations == ("7", "8")
    assert screen.n_cells.tolist() == [3, 3, 2]


def test_combinations_and_unlabelled_cells_are_left_out_and_counted(tmp_path):
    labels = pd.Categorical(["A", "A+B", None, "control", "B+A", "C+B", None, ""])
    screen = read_screen(screen_file(tmp_path, perturbation=labels))
    assert screen.perturbations == ("A",)
    np.testing.assert_allclose(screen.expression.toarray(), normalized(COUNTS)[[3, 0]], rtol=1e-6)
    notes = "\n".join(screen.notes)
    assert "3 cells without a label" in notes
    assert "(3 cells)" in notes


def test_a_combination_is_one_in_either_order(tmp_path):
    labels = ("A", "A+B", "B+A", "control", "C+B", "A", "A", "A")
    screen = read_screen(screen_file(tmp_path, perturbation=labels))
    assert any("2 combinations of perturbations (3 cells)" in note for note in screen.notes)


@pytest.mark.parametrize("layout", ["dense", "csc", "dense float64", "csc float64", "csr int16", "csr_array"])
def test_every_layout_reads_to_the_same_screen(tmp_path, layout):
    counts = np.random.default_rng(1).poisson(0.7, (8, 4))
    counts[3] = 0
    layouts = {
        "dense": counts,
        "csc": sp.csc_matrix(counts),
        "dense float64": counts.astype(np.float64),
        "csc float64": sp.csc_matrix(counts, dtype=np.float64),
        "csr int16": sp.csr_matrix(counts, dtype=np.int16),
        "csr_array": sp.csr_array(counts.astype(np.float32)),
    }
    reference = read_screen(screen_file(tmp_path, sp.csr_matrix(counts, dtype=np.float32)))
    screen = read_screen(screen_file(tmp_path, layouts[layout]))
    assert screen.expression.dtype == np.float32
    assert screen.fingerprint() == reference.fingerprint()


def test_stored_zeros_and_entries_stored_twice_change_nothing(tmp_path):
    data = np.array([1, 2, 0, 3, 4, 1, 5], dtype=np.float32)
    columns, starts = np.array([2, 0, 1, 3, 1, 1, 0]), np.array([0, 3, 4, 6, 7])
    untidy = sp.csr_matrix((data, columns, starts), shape=(4, 4))
    tidy = np.array([[2, 0, 1, 0], [0, 0, 0, 3], [0, 5, 0, 0], [5, 0, 0, 0]])
    labels = ("control", "A", "control", "A")
    screen = read_screen(screen_file(tmp_path, untidy, perturbation=labels))
    np.testing.assert_allclose(screen.expression.toarray(), normalized(tidy)[[0, 2, 1, 3]], rtol=1e-6)
    assert screen.fingerprint() == read_screen(screen_file(tmp_path, tidy, perturbation=labels)).fingerprint()


@pytest.mark.parametrize("dtype", ["float64", "Int64"])
def test_the_cell_filter_leaves_out_cells_without_a_value(tmp_path, dtype):
    quality = pd.array([9, 2, None, 8, 7, 6, 3, 9], dtype=dtype)
    path = screen_file(tmp_path, perturbation=LABELS, quality=quality, batch=list("xxxxxxyx"))
    screen = read_screen(path, ReadOptions(cell_filter="quality > 2.5 and quality != 7 and batch == 'x'"))
    np.testing.assert_allclose(screen.expression.toarray(), normalized(COUNTS)[[7, 5, 0, 3]], rtol=1e-6)
    assert any("4 of 8 cells" in note for note in screen.notes)


def test_a_column_of_true_and_false_is_a_filter(tmp_path):
    path = screen_file(tmp_path, perturbation=LABELS, doublet=[False, True, False, False, False, True, False, False])
    screen = read_screen(path, ReadOptions(cell_filter="not doublet"))
    np.testing.assert_allclose(screen.expression.toarray(), normalized(COUNTS)[[4, 7, 2, 6, 0, 3]], rtol=1e-6)


def test_genes_are_chosen_on_control_cells_alone(tmp_path):
    labels = ["control"] * 4 + ["A"] * 4
    counts = np.ones((8, 4), dtype=int)
    counts[:4, 0] = 0  # seen in no control cell and in every other cell
    counts[:2, 1] = 0  # seen in half of the control cells
    counts[0, 2] = 0  # seen in three quarters
    counts[4:, 3] = 0  # seen in control cells only
    path = screen_file(tmp_path, counts, perturbation=labels)
    screen = read_screen(path, ReadOptions(min_control_detection=0.5))
    assert screen.genes == ("g3", "g4")
    np.testing.assert_allclose(screen.expression.toarray(), normalized(counts)[:, 2:], rtol=1e-6)
    assert any("2 of 4 genes" in note for note in screen.notes)
    assert read_screen(path, ReadOptions(min_control_detection=0.49)).genes == ("g2", "g3", "g4")
    assert read_screen(path).genes == GENES


def test_only_control_cells_that_pass_the_filter_choose_genes(tmp_path):
    labels, good = ["control"] * 4 + ["A"] * 4, [True, True, False, False, True, True, True, True]
    counts = np.ones((8, 4), dtype=int)
    counts[:2, 0] = 0
    path = screen_file(tmp_path, counts, perturbation=labels, good=good)
    assert read_screen(path, ReadOptions(min_control_detection=0.4)).genes == GENES
    assert read_screen(path, ReadOptions(min_control_detection=0.4, cell_filter="good")).genes == GENES[1:]


def without_matrix(folder):
    path = folder / "screen.h5ad"
    obs = pd.DataFrame({"perturbation": LABELS}, index=list("abcdefgh"))
    anndata.AnnData(obs=obs, var=pd.DataFrame(index=list(GENES))).write_h5ad(path)
    return path


def text_file(folder):
    (folder / "notes.h5ad").write_text("this is\nno HDF5 file\n")
    return folder / "notes.h5ad"


def truncated_file(folder):
    path = screen_file(folder)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def with_quality(folder):
    return screen_file(folder, perturbation=LABELS, quality=np.arange(8.0))


BAD_INPUTS = {
    "missing file": (lambda folder: folder / "gone.h5ad", {}, ("gone.h5ad", "does not exist")),
    "folder": (lambda folder: folder, {}, ("is a folder",)),
    "text file": (text_file, {}, ("notes.h5ad", "cannot be read as .h5ad: ")),
    "truncated file": (truncated_file, {}, ("screen.h5ad", "cannot be read as .h5ad: ")),
    "no matrix": (without_matrix, {}, ("screen.h5ad", "X")),
    "gene twice": (
        lambda folder: screen_file(folder, genes=("g1", "g2", "g1", "g3")),
        {},
        ("screen.h5ad", "gene 'g1'", "var_names"),
    ),
    "missing column": (
        with_quality,
        {"perturbation_column": "target"},
        ("screen.h5ad", "'target'", "perturbation, quality"),
    ),
    "no column recognized": (
        lambda folder: screen_file(folder, guide=LABELS, batch=["x"] * 8),
        {},
        ("screen.h5ad", "--perturbation-column", "guide, batch"),
    ),
    "no column at all": (
        lambda folder: screen_file(folder, quality=np.arange(8.0)),
        {"control_label": "NT"},
        ("--perturbation-column", "quality"),
    ),
    "no control cells": (
        lambda folder: screen_file(folder, perturbation=["mock", "mock", "A", "mock", "B", "C", "D", "B"]),
        {},
        ("screen.h5ad", "'perturbation'", "'control'", "--control-label", "most common: mock, B, "),
    ),
    "control label misspelt": (screen_file, {"control_label": "NT"}, ("'NT'", "--control-label", "A, control, B")),
    "control label misspelt in a named column": (
        screen_file,
        {"control_label": "Control", "perturbation_column": "perturbation"},
        ("'Control'", "--control-label", "A, control, B"),
    ),
    "only control cells": (
        lambda folder: screen_file(folder, perturbation=["control"] * 8),
        {},
        ("screen", "no cell with a single perturbation"),
    ),
    "only combinations": (
        lambda folder: screen_file(folder, perturbation=["control", "A+B"] * 4),
        {},
        ("screen", "no cell with a single perturbation"),
    ),
    "filter on an unknown column": (
        with_quality,
        {"cell_filter": "qualty > 3"},
        ("--cell-filter 'qualty > 3'", "perturbation, quality"),
    ),
    "filter that is no expression": (with_quality, {"cell_filter": "quality >"}, ("--cell-filter 'quality >'",)),
    "filter over two lines": (with_quality, {"cell_filter": "quality > 2\nand"}, ("--cell-filter",)),
    "filter on unlike types": (with_quality, {"cell_filter": "perturbation > 3"}, ("--cell-filter",)),
    "filter that is a number": (with_quality, {"cell_filter": "quality * 2"}, ("--cell-filter", "comparison")),
    "filter that assigns": (with_quality, {"cell_filter": "quality = 2"}, ("--cell-filter", "comparison")),
    "filter that keeps nothing": (
        with_quality,
        {"cell_filter": "quality > 100"},
        ("--cell-filter 'quality > 100'", "none of the 8 cells", "screen.h5ad"),
    ),
    "filter that keeps no control cell": (
        with_quality,
        {"cell_filter": "perturbation != 'control'"},
        ("control",),
    ),
    "detection below 0": (screen_file, {"min_control_detection": -0.1}, ("--min-control-detection -0.1",)),
    "detection of 1": (screen_file, {"min_control_detection": 1.0}, ("--min-control-detection 1.0",)),
    "detection that no gene has": (
        lambda folder: screen_file(folder, np.eye(8, dtype=int)[:, [1, 4, 7, 0]]),
        {"min_control_detection": 0.9},
        ("--min-control-detection 0.9", "no gene"),
    ),
}


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("case", BAD_INPUTS)
def test_input_that_cannot_be_used_is_named_in_one_line(tmp_path, case):
    make, options, words = BAD_INPUTS[case]
    path = make(tmp_path)
    with pytest.raises(InputError) as failure:
        read_screen(path, ReadOptions(**options))
    message = str(failure.value)
    assert message.strip() == message
    assert len(message.splitlines()) == 1, message
    assert not message.endswith(":"), message
    for word in words:
        assert word in message


any_labels = st.lists(st.sampled_from([None, "", "A", "B", "CC"]), min_size=2, max_size=30)


@settings(deadline=None)
@given(any_labels.filter(lambda labels: "" in labels and set(labels) - {None, ""}))
def test_grouping_keeps_every_labelled_cell_in_its_group(labels):
    values = np.arange(1, len(labels) + 1, dtype=np.float32)[:, None] * np.float32([1, 0, 2])
    screen = group_cells(sp.csr_matrix(values), labels, ["x", "y", "z"], "any")
    groups = ["", *sorted(set(labels) - {None, ""})]
    assert screen.perturbations == tuple(groups[1:])
    assert screen.n_cells.tolist() == [labels.count(group) for group in groups]
    rows = [row for group in groups for row, label in enumerate(labels) if label == group]
    np.testing.assert_array_equal(screen.expression.toarray(), values[rows])


def small_screen(values=None, genes=GENES, labels=LABELS):
    """A screen with its dense values; LABELS as in the files above."""
    values = (np.random.default_rng(2).poisson(0.8, (8, 4)) if values is None else values).astype(np.float32)
    return group_cells(sp.csr_matrix(values), ["" if label == "control" else label for label in labels], genes, "small")


@pytest.mark.parametrize("space", [WorkingSpace(), WorkingSpace(0)], ids=["in memory", "in a file"])
@pytest.mark.parametrize("names", ["", "A", "B", "AB"])
def test_part_of_a_screen_is_that_part_of_its_values(tmp_path, names, space):
    path = screen_file(tmp_path, COUNTS)
    whole = read_screen(path)
    with open_screen(path, space=space) as opened:
        assert opened.perturbations == ("A", "B")
        part = opened.with_perturbations(names).read()
    rows = [0, 1, 2, *([3, 4, 5] if "A" in names else []), *([6, 7] if "B" in names else [])]
    assert part.perturbations == tuple(names)
    assert part.genes == whole.genes
    assert part.n_cells.tolist() == [3, *([3] if "A" in names else []), *([2] if "B" in names else [])]
    np.testing.assert_array_equal(part.expression.toarray(), whole.expression.toarray()[rows])


@settings(deadline=None)
@given(st.integers(0, 7), st.integers(0, 3), st.integers(0, 5))
def test_the_fingerprint_changes_with_any_value(row, column, value):
    values = np.random.default_rng(2).poisson(0.8, (8, 4))
    changed = values.copy()
    changed[row, column] = value
    same = small_screen(changed).fingerprint() == small_screen(values).fingerprint()
    assert same == (values[row, column] == value)


@pytest.mark.parametrize(
    "changes",
    [
        {"genes": ("g1", "g2", "g3", "g5")},
        {"genes": ("g2", "g1", "g3", "g4")},
        {"labels": tuple("C" if label == "B" else label for label in LABELS)},
        {"labels": ("B", "control", "A", "B", "A", "A", "A", "control")},
        {"labels": ("B", "control", "A", "B", "control", "A", "B", "control")},
    ],
    ids=["gene renamed", "genes swapped", "perturbation renamed", "control cell moved", "perturbed cell moved"],
)
def test_the_fingerprint_changes_with_names_and_groups(changes):
    assert small_screen(**changes).fingerprint() != small_screen().fingerprint()


def test_the_fingerprint_does_not_depend_on_notes():
    assert replace(small_screen(), notes=("read on a Tuesday",)).fingerprint() == small_screen().fingerprint()


def test_the_papalexi_screen_is_read_as_described():
    options = ReadOptions(library_size_column="n_umi_full", cell_filter="guide_frac > 0.8 and guide_umi_max >= 5")
    screen = read_screen(real_file("papalexi_thp1_303genes.h5ad"), options)
    assert screen.expression.shape == (16_093, 303)
    assert len(screen.perturbations) == 25
    assert {"IFNGR1", "JAK2", "STAT1", "SMAD4"} < set(screen.perturbations)
    assert any("16,093 of 20,729 cells" in note for note in screen.notes)

    data = anndata.read_h5ad(real_file("papalexi_thp1_303genes.h5ad"))
    passes = ((data.obs["guide_frac"] > 0.8) & (data.obs["guide_umi_max"] >= 5)).to_numpy()
    stat1 = data[passes & (data.obs["perturbation"] == "STAT1").to_numpy()]
    expected = np.log1p(stat1.X.toarray() / stat1.obs["n_umi_full"].to_numpy()[:, None] * 10_000)
    group = screen.perturbations.index("STAT1") + 1
    cells = screen.expression[screen.group_start[group] : screen.group_start[group + 1]]
    np.testing.assert_allclose(cells.toarray(), expected, rtol=1e-5)


def test_the_norman_slice_is_read_as_described():
    screen = read_screen(real_file("norman_k562_slice.h5ad"))
    assert len(screen.perturbations) == 18
    assert len(screen.genes) == 500
    assert any("15 combinations" in note for note in screen.notes)
    data = anndata.read_h5ad(real_file("norman_k562_slice.h5ad"))
    control = data[(data.obs["condition"] == "control").to_numpy()].X
    control = control.toarray() if sp.issparse(control) else control
    np.testing.assert_array_equal(screen.control.toarray(), control.astype(np.float32))
