"""Matrices in every layout, type and block size read as scanpy has them; damaged ones are named, and cost no memory."""

import json
import shutil
import subprocess
import sys
from functools import cache
from itertools import product
from unittest import mock

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
import zarr
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from histpert.errors import InputError
from histpert.screens import ReadOptions, read_screen
from histpert.screens import matrices as module
from histpert.screens.matrices import CellMatrix
from histpert.screens.normalization import log_normalize

pytestmark = pytest.mark.filterwarnings(
    "ignore:Some cells have zero counts",
    "ignore:Writing zarr v2 data",
    "ignore:Consolidated metadata",
    "ignore:zarr v3 autosharding",
)

N_CELLS, N_GENES, N_RAW_GENES = 61, 30, 37
GENES = [f"GENE{number}" for number in range(N_RAW_GENES)]
TARGETS = np.random.default_rng(5).choice(["control", "B", "A"], N_CELLS)
DROPPED = np.isin(np.arange(N_CELLS), [3, *range(15, 40), 58])
"""Cells that a filter leaves out, more than a block of them one after the other."""
SHAPES = {"csr", "csc", "dense"}


def some_counts(n_genes):
    """A row larger than small blocks; empty ones at the start, in the middle and at the end."""
    random = np.random.default_rng(n_genes)
    counts = random.poisson(random.uniform(0, 3, (N_CELLS, 1)), (N_CELLS, n_genes))
    counts[7] = random.integers(1, 120, n_genes)  # no zeros, and no type of whole number that cannot have it
    counts[[0, 1, 20, *range(30, 38), N_CELLS - 2, N_CELLS - 1]] = 0
    return counts


COUNTS, RAW_COUNTS = some_counts(N_GENES), some_counts(N_RAW_GENES)
KIND_OF_PLACE = {"X": None, "layers/counts": "counts", "raw/X": "raw"}


def scanpy_says(counts, kept=None):
    """Of the cells that are kept, by group."""
    rows = np.arange(N_CELLS) if kept is None else np.flatnonzero(kept)
    rows = np.concatenate([rows[TARGETS[rows] == name] for name in ("control", "A", "B")])
    data = anndata.AnnData(np.array(counts[rows], dtype=np.float64))
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    return np.asarray(data.X)


def store(group, name, counts, kind="csr", dtype="f4", index="i4", bounds="i8", chunks=None, **how):
    """Put a matrix in an HDF5 or zarr group, as anndata's description of its format says."""

    def put(to, key, values, shape=None):
        if isinstance(to, h5py.Group):
            return to.create_dataset(key, data=values, chunks=shape, **how)
        return to.create_array(key, data=np.ascontiguousarray(values), **({"chunks": shape} if shape else {}), **how)

    if kind == "dense":
        rows = chunks and max(1, min(chunks // 10, counts.shape[0]))
        element = put(group, name, counts.astype(dtype), chunks and (rows, min(counts.shape[1], 10)))
        element.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        return
    matrix = {"csr": sp.csr_matrix, "csc": sp.csc_matrix}[kind](counts)
    element = group.create_group(name)
    shape = np.array(counts.shape) if isinstance(group, h5py.Group) else list(counts.shape)
    element.attrs.update({"encoding-type": f"{kind}_matrix", "encoding-version": "0.1.0", "shape": shape})
    for key, values in (
        ("data", matrix.data.astype(dtype)),
        ("indices", matrix.indices.astype(index)),
        ("indptr", matrix.indptr.astype(bounds)),
    ):
        put(element, key, values, chunks and (max(1, min(chunks, len(values))),))


@cache
def start(folder, suffix, version):
    """A screen with other counts everywhere."""
    path = folder / f"v{version}{suffix}"
    obs = pd.DataFrame({"perturbation": TARGETS, "good": ~DROPPED}, index=[f"cell{row}" for row in range(N_CELLS)])
    var, raw_var = (pd.DataFrame(index=GENES[:size]) for size in (N_GENES, N_RAW_GENES))
    data = anndata.AnnData(sp.csr_matrix(COUNTS + 1.0), obs=obs, var=var, layers={"other": COUNTS + 2})
    data.layers["counts"] = COUNTS + 3
    data.raw = anndata.AnnData(sp.csr_matrix(RAW_COUNTS + 4.0), obs=obs, var=raw_var)
    with anndata.settings.override(zarr_write_format=version):
        (data.write_zarr if suffix == ".zarr" else data.write_h5ad)(path)
    return path


def screen_file(folder, place="X", kind="csr", suffix=".h5ad", version=2, counts=None, **how):
    """Path of a screen with its counts in one place, and others in the other places."""
    path = folder / f"screen{suffix}"
    (shutil.copytree if suffix == ".zarr" else shutil.copy)(start(folder.parent, suffix, version), path)
    with h5py.File(path, "r+") if suffix == ".h5ad" else mock.MagicMock() as opened:
        file = opened if suffix == ".h5ad" else zarr.open_group(path, mode="r+", use_consolidated=False)
        del file[place]
        parent, name = place.rsplit("/", 1) if "/" in place else ("/", place)
        store(file[parent], name, COUNTS if counts is None else counts, kind, **how)
    if suffix == ".zarr":
        zarr.consolidate_metadata(path)
    return path


@pytest.fixture(params=[7, 2**19], ids=["small blocks", "one block"])
def block_values(request, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_VALUES", request.param)
    return request.param


# --- Equal to scanpy -------------------------------------------------------------------------------------------------

TYPES = ("f2", "f4", "f8", ">f4", ">f8", "i1", "i2", "i4", "i8", ">i4", "u1", "u2", "u4", "u8", "?")


@pytest.mark.parametrize(("kind", "dtype"), [*product(sorted(SHAPES), TYPES)])
def test_any_type_of_number_reads_as_scanpy_has_it(tmp_path, kind, dtype, block_values):
    if kind == "csc" and dtype in ("f2", ">f4", ">f8", ">i4"):
        pytest.skip("SciPy, which transposes, has no such type")
    screen = read_screen(screen_file(tmp_path, kind=kind, dtype=dtype))
    expected = scanpy_says(COUNTS.astype(dtype))
    np.testing.assert_allclose(screen.expression.toarray(), expected, rtol=1e-6)
    assert screen.expression.dtype == np.float32
    assert screen.expression.nnz == np.count_nonzero(expected)


STORED = {
    "contiguous": {},
    "gzip": {"compression": "gzip"},
    "gzip, shuffled, checked": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf"},
    "chunks": {"chunks": 50},
    "chunks smaller than a block": {"chunks": 3, "compression": "gzip"},
    "chunks of one value": {"chunks": 1},
    "chunks larger than all": {"chunks": 10_000, "compression": "lzf"},
    "int64 columns": {"index": "i8"},
    "int64 columns, int32 bounds": {"index": "i8", "bounds": "i4"},
    "int32 bounds": {"bounds": "i4"},
    "other types of columns and bounds": {"index": "u2", "bounds": ">u4"},
    "big-endian columns": {"index": ">i4", "bounds": ">i8"},
}


@pytest.mark.parametrize(("kind", "how"), [*product(sorted(SHAPES), STORED)])
def test_any_way_to_store_reads_as_scanpy_has_it(tmp_path, kind, how, block_values):
    if kind == "csc" and "endian" in how:
        pytest.skip("SciPy, which transposes, has no such type")
    screen = read_screen(screen_file(tmp_path, kind=kind, **STORED[how]))
    np.testing.assert_allclose(screen.expression.toarray(), scanpy_says(COUNTS), rtol=1e-6)


FILES = {".h5ad": {}, ".zarr v2": {"version": 2}, ".zarr v3": {"version": 3}}


@pytest.mark.parametrize(
    ("file", "place", "kind", "chunks"), [*product(FILES, KIND_OF_PLACE, sorted(SHAPES), [None, 20])]
)
def test_any_place_in_a_file_reads_as_scanpy_has_it(tmp_path, monkeypatch, file, place, kind, chunks):
    monkeypatch.setattr(module, "BLOCK_VALUES", 7)
    counts = RAW_COUNTS if place == "raw/X" else COUNTS
    path = screen_file(tmp_path, place, kind, file.split()[0], counts=counts, chunks=chunks, **FILES[file])
    screen = read_screen(path, ReadOptions(layer=KIND_OF_PLACE[place], cell_filter="good"))
    np.testing.assert_allclose(screen.expression.toarray(), scanpy_says(counts, ~DROPPED), rtol=1e-6)
    assert screen.genes == tuple(GENES[: counts.shape[1]])
    assert screen.perturbations == ("A", "B")


@pytest.mark.parametrize(("file", "kind"), [*product(FILES, sorted(SHAPES))])
def test_a_matrix_without_a_stored_value_is_named_in_one_line(tmp_path, file, kind, block_values):
    one_line(
        screen_file(tmp_path, kind=kind, suffix=file[:5].strip(), counts=0 * COUNTS, **FILES[file]), "all values are 0"
    )


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_of_zeros_that_zarr_does_not_store_are_no_damage(tmp_path, version):
    path = screen_file(tmp_path, suffix=".zarr", version=version, chunks=3)  # the first cells are empty: bounds of 0
    np.testing.assert_allclose(read_screen(path).expression.toarray(), scanpy_says(COUNTS), rtol=1e-6)


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_a_few_cells_far_apart_can_be_taken(tmp_path, kind, block_values):
    path = screen_file(tmp_path, kind=kind)
    first = [int(np.flatnonzero(name == TARGETS)[which]) for name, which in (("control", 0), ("A", -1))]
    kept = np.isin(np.arange(N_CELLS), [*first, 7])
    assert 2 <= kept.sum() <= 3
    screen = read_screen(path, ReadOptions(cell_filter=f"index in {[f'cell{row}' for row in np.flatnonzero(kept)]}"))
    np.testing.assert_allclose(screen.expression.toarray(), scanpy_says(COUNTS, kept), rtol=1e-6)


def legacy_file(folder):
    """As anndata wrote it in 2018: tables of compound type, categories in `uns`, sparse matrices of h5sparse."""
    path = folder / "legacy.h5ad"
    names = np.unique(TARGETS)
    obs = np.empty(N_CELLS, dtype=[("index", "S8"), ("perturbation", "i1"), ("n_umi", "f4")])
    obs["index"] = [f"cell{row}" for row in range(N_CELLS)]
    obs["perturbation"], obs["n_umi"] = np.searchsorted(names, TARGETS), COUNTS.sum(axis=1)
    var = np.array([(name.encode(),) for name in GENES[:N_GENES]], dtype=[("index", "S8")])
    matrix = sp.csr_matrix(COUNTS.astype(np.float32))
    with h5py.File(path, "w") as file:
        file["obs"], file["var"] = obs, var
        file["uns/perturbation_categories"] = names.astype("S8")
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", matrix.shape
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
    return path


@pytest.mark.filterwarnings("ignore")  # anndata's, that the file is old
def test_a_file_of_2018_reads_to_the_same_screen(tmp_path, block_values):
    old, new = read_screen(legacy_file(tmp_path)), read_screen(screen_file(tmp_path))
    assert old.fingerprint() == new.fingerprint()
    assert (old.genes, old.perturbations) == (new.genes, new.perturbations)
    np.testing.assert_array_equal(old.expression.toarray(), new.expression.toarray())


# --- Any numbers -----------------------------------------------------------------------------------------------------


def closed_form(counts, sizes=None):
    totals = counts.sum(axis=1) if sizes is None else sizes
    return np.log1p(counts / np.maximum(totals, 1e-300)[:, None] * 10_000)


def blocks_of(size):
    return mock.patch.object(module, "BLOCK_VALUES", size)


@st.composite
def taken_cells(draw, elements):
    """A small matrix, and some of its rows in any order."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7))
    values = draw(hnp.arrays(np.float64, shape, elements=elements, fill=st.just(0)))
    rows = draw(st.permutations(range(shape[0])))[: draw(st.integers(0, shape[0]))]
    return values, np.array(rows, dtype=np.int64)


WHOLE = st.integers(0, 40) | st.integers(0, 1_000_000)
BLOCKS = st.integers(1, 20)
LAYOUTS = st.sampled_from([sp.csr_matrix, sp.csc_matrix, sp.coo_matrix, sp.csr_array, np.asarray, np.asfortranarray])


@given(taken_cells(WHOLE), BLOCKS, LAYOUTS, st.booleans())
def test_any_cells_in_any_order_are_normalized_by_the_closed_form(cells, block, layout, with_sizes):
    counts, rows = cells
    assume(counts[rows].any())
    sizes = np.arange(1.0, len(rows) + 1) * 1000 if with_sizes else None
    with blocks_of(block):
        expression, _ = log_normalize(CellMatrix.of(layout(counts)), sizes, rows=rows)
    np.testing.assert_allclose(expression.toarray(), closed_form(counts[rows], sizes), rtol=1e-6)
    assert expression.nnz == np.count_nonzero(counts[rows])
    expression.check_format()
    assert expression.has_canonical_format


@st.composite
def untidy(draw, values, dtypes=("f4", "i4", "i2")):
    """Rows with columns in any order, some twice, and zeros that are stored; and the sums, dense."""
    n_rows, n_genes = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    rows = draw(st.lists(st.lists(st.tuples(st.integers(0, n_genes - 1), values)), min_size=n_rows, max_size=n_rows))
    entries = [entry for row in rows for entry in row]
    columns, data = (np.array([entry[which] for entry in entries]) for which in (0, 1))
    bounds = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    dense = np.zeros((n_rows, n_genes))
    np.add.at(dense, (np.repeat(np.arange(n_rows), np.diff(bounds)), columns.astype(int)), data)
    data, columns = (
        data.astype(draw(st.sampled_from(dtypes))),
        columns.astype(draw(st.sampled_from(["i4", "i8", "u1"]))),
    )
    return (data, columns, bounds, (n_rows, n_genes), "values"), dense


@given(st.data(), BLOCKS)
def test_what_is_stored_twice_is_summed_and_stored_zeros_vanish(data, block):
    with blocks_of(block):
        arrays, counts = data.draw(untidy(st.integers(0, 20) | st.just(0)))
        assume(counts.any())
        rows = np.array(data.draw(st.permutations(range(len(counts)))))
        expression, note = log_normalize(CellMatrix.of_csr(*arrays), None, rows=rows)
    np.testing.assert_allclose(expression.toarray(), closed_form(counts[rows]), rtol=1e-6)
    assert expression.nnz == np.count_nonzero(counts)
    assert expression.has_sorted_indices
    assert "raw counts" in note


@given(st.data(), BLOCKS, LAYOUTS)
def test_log_normalized_values_are_kept_also_in_cells_with_whole_numbers_only(data, block, layout):
    n_genes = data.draw(st.integers(1, 4))
    fraction = st.integers(1, 60).map(lambda value: value / 4)  # exact in float32
    cell = st.one_of(
        st.just([0.0] * n_genes),
        st.lists(st.sampled_from([0.0, 1.0, 2.0, 19.0]), min_size=n_genes, max_size=n_genes),
        st.lists(st.just(0.0) | fraction, min_size=n_genes, max_size=n_genes),
    )
    values = np.array([*data.draw(st.lists(cell, max_size=6)), [2.5] * n_genes])
    rows = np.array(data.draw(st.permutations(range(len(values)))))
    with blocks_of(block):
        expression, note = log_normalize(CellMatrix.of(layout(values)), None, rows=rows)
    np.testing.assert_array_equal(expression.toarray(), values[rows].astype(np.float32))
    assert expression.nnz == np.count_nonzero(values)
    assert "log-normalized already" in note


@given(st.data(), BLOCKS)
def test_untidy_log_normalized_values_are_summed_and_kept(data, block):
    with blocks_of(block):
        arrays, values = data.draw(untidy(st.integers(0, 12).map(lambda value: value / 4), dtypes=("f4", "f8")))
        assume((values != np.rint(values)).any() and values.max() < 20)
        expression, note = log_normalize(CellMatrix.of_csr(*arrays), None)
    np.testing.assert_array_equal(expression.toarray(), values.astype(np.float32))
    assert expression.nnz == np.count_nonzero(values)
    assert "log-normalized already" in note


@pytest.mark.parametrize("kind", ["csr", "dense"])
def test_log_normalized_values_of_a_file_are_kept_where_some_cells_have_whole_numbers_only(
    tmp_path, kind, block_values
):
    values = np.minimum(COUNTS, 9).astype(np.float64)
    values[5] /= 4
    screen = read_screen(screen_file(tmp_path, kind=kind, counts=values))
    order = np.argsort(np.select([TARGETS == "control", TARGETS == "A"], [0, 1], 2), kind="stable")
    np.testing.assert_array_equal(screen.expression.toarray(), values[order].astype(np.float32))


def test_of_what_is_read_nothing_is_changed():
    counts = sp.csr_matrix(COUNTS.astype(np.float32))
    before = counts.copy()
    log_normalize(CellMatrix.of(counts), None)
    assert (counts != before).nnz == 0


@pytest.mark.parametrize("tidy", [True, False], ids=["in order", "columns out of order"])
def test_a_value_that_is_missing_is_named_by_its_row_in_the_file(tmp_path, tidy):
    path = screen_file(tmp_path)
    row = np.flatnonzero((COUNTS > 0).sum(axis=1) > 2)[-1]
    with h5py.File(path, "r+") as file:
        first = file["X/indptr"][row]
        file["X/data"][first] = np.nan
        if not tidy:
            file["X/indices"][first : first + 2] = file["X/indices"][first : first + 2][::-1]
    with pytest.raises(InputError, match=f"first in row {row} "):
        read_screen(path)


# --- What is not asked for is not read -------------------------------------------------------------------------------


def flip_bytes(path, dataset):
    """Change bytes in the middle of a dataset's first chunk."""
    with h5py.File(path) as file:
        chunk = file[dataset].id.get_chunk_info(0)
        start = chunk.byte_offset + chunk.size // 2
    with path.open("r+b") as file:
        file.seek(start)
        old = file.read(8)
        file.seek(start)
        file.write(bytes(255 - byte for byte in old))


@pytest.mark.parametrize(("place", "kind"), [*product(KIND_OF_PLACE, sorted(SHAPES))])
def test_nothing_is_read_that_is_not_asked_for(tmp_path, place, kind):
    counts = RAW_COUNTS if place == "raw/X" else COUNTS
    path = screen_file(tmp_path, place, kind, counts=counts)
    with h5py.File(path, "r+") as file:
        damaged = [other for other in (*KIND_OF_PLACE, "layers/other") if other != place]
        for other in damaged:
            del file[other]
            store(file, other, RAW_COUNTS if other == "raw/X" else COUNTS, "dense", compression="gzip", chunks=100)
        file["obsm"].create_dataset("huge", shape=(N_CELLS, 10**12), dtype="f8", chunks=(N_CELLS, 100))
        file["obsm"].create_group("unknown").attrs["encoding-type"] = "of the future"
        file["uns"].create_group("unknown").attrs["encoding-type"] = "of the future"
        file["layers"].create_dataset("huge", shape=(N_CELLS, 10**12), dtype="f8", chunks=(N_CELLS, 100))
    for other in damaged:
        flip_bytes(path, other)
        with h5py.File(path) as file, pytest.raises(OSError, match="read"):
            file[other][:]
    screen = read_screen(path, ReadOptions(layer=KIND_OF_PLACE[place]))
    np.testing.assert_allclose(screen.expression.toarray(), scanpy_says(counts), rtol=1e-6)


# --- Damage ----------------------------------------------------------------------------------------------------------


def one_line(path, *words, layer=None):
    with pytest.raises(InputError) as failure:
        read_screen(path, ReadOptions(layer=layer))
    message = str(failure.value)
    assert len(message.splitlines()) == 1
    for word in (str(path), *words):
        assert word in message


def at(key, entry, value):
    def damage(element):
        element[key][entry] = value

    return damage


def instead(key, make, dtype=None):
    def damage(element):
        values = make(element[key][:])
        del element[key]
        element.create_dataset(key, data=values, dtype=dtype)

    return damage


def far_column_out_of_order(element):
    columns = element["indices"][:].astype(np.int64)
    columns[:2] = columns[1::-1]
    columns[5] += 2**32
    instead("indices", lambda _: columns)(element)


CSR_DAMAGE = {
    "bounds fall": at("indptr", 8, 10**6),
    "bounds fall below zero": at("indptr", 4, -3),
    "bounds do not start at zero": at("indptr", slice(0, 3), 1),
    "bounds end beyond the values": at("indptr", -1, 10**6),
    "bounds too few": instead("indptr", lambda values: values[:-1]),
    "bounds missing": instead("indptr", lambda values: values[:0]),
    "columns too few": instead("indices", lambda values: values[:-1]),
    "values too few": instead("data", lambda values: values[:-1]),
    "a gene beyond": at("indices", -1, N_GENES),
    "a gene far beyond": at("indices", 40, 2**30),
    "a negative gene": at("indices", 0, -1),
    "a negative gene amid": at("indices", 40, -(2**30)),
    "a gene beyond 32 bits": instead("indices", lambda values: np.concatenate([values[:-1], [2**32 + 29]]), "i8"),
    "a gene beyond 32 bits, out of order": far_column_out_of_order,
    "columns that are no number": instead("indices", lambda values: np.where(values == 5, np.nan, values), "f8"),
    "columns that are words": instead("indices", lambda values: np.full(len(values), b"gene")),
    "values in two columns": instead("data", lambda values: np.column_stack([values, values])),
    "values that are words": instead("data", lambda values: np.full(len(values), b"many")),
    "values that are complex": instead("data", lambda values: values * 1j),
}


@pytest.mark.parametrize(("case", "place"), [*product(CSR_DAMAGE, ["X", "layers/counts"])])
def test_damage_in_a_csr_matrix_is_named_in_one_line(tmp_path, case, place, block_values):
    path = screen_file(tmp_path, place)
    with h5py.File(path, "r+") as file:
        CSR_DAMAGE[case](file[place])
    one_line(path, place, layer=KIND_OF_PLACE[place])


CSC_DAMAGE = {
    "bounds fall": at("indptr", 8, 2**28),
    "bounds end beyond the values": at("indptr", -1, 10**6),
    "bounds too few": instead("indptr", lambda values: values[:-1]),
    "a cell beyond": at("indices", -1, N_CELLS),
    "a cell far beyond": at("indices", 40, 2**28),
    "a negative cell": at("indices", 40, -(2**26)),
}


def in_its_own_process(code, *arguments):
    """What code prints, as JSON; for what may end the process."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-1000:]}"
    return json.loads(done.stdout)


READ_ALL = """
import json, sys
from histpert.errors import InputError
from histpert.screens import read_screen
said = []
for path in sys.argv[1:]:
    print(path, file=sys.stderr, flush=True)
    try:
        read_screen(path)
        said.append("nothing")
    except InputError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def test_damage_in_a_csc_matrix_is_named_in_one_line(tmp_path):
    paths = []
    for case, damage in CSC_DAMAGE.items():
        (tmp_path / case).mkdir()
        paths.append(screen_file(tmp_path / case, kind="csc"))
        with h5py.File(paths[-1], "r+") as file:
            damage(file["X"])
    for path, message in zip(paths, in_its_own_process(READ_ALL, *paths), strict=True):
        assert len(message.splitlines()) == 1
        assert message.startswith(f"{path}: X")


@pytest.mark.parametrize(("kind", "place"), [*product(["csr", "dense"], ["X", "layers/counts"])])
def test_bytes_that_changed_are_named_in_one_line(tmp_path, kind, place, block_values):
    path = screen_file(tmp_path, place, kind, compression="gzip", chunks=10_000)
    flip_bytes(path, place if kind == "dense" else f"{place}/data")
    one_line(path, f"{path}: {place} cannot be read", "damaged", layer=KIND_OF_PLACE[place])


@pytest.mark.parametrize("key", ["indices", "indptr"])
def test_bytes_that_changed_in_columns_or_bounds_are_named_in_one_line(tmp_path, key):
    path = screen_file(tmp_path, compression="gzip", chunks=10_000)
    flip_bytes(path, f"X/{key}")
    one_line(path, "read")


def test_a_zarr_chunk_that_changed_is_named_in_one_line(tmp_path, block_values):
    path = screen_file(tmp_path, kind="dense", suffix=".zarr", chunks=600)
    chunk = path / "X" / "0" / "0"
    chunk = chunk if chunk.exists() else path / "X" / "0.0"
    chunk.write_bytes(b"\0" * 9 + chunk.read_bytes()[9:-9])
    one_line(path, f"{path}: X cannot be read", "damaged")


@pytest.mark.parametrize("left", [0.5, 0.95, 0.9999])
def test_a_file_that_was_cut_short_is_named_in_one_line(tmp_path, left):
    path = screen_file(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    one_line(path, "cannot be read")


def without(*parts):
    def damage(file):
        for part in parts:
            del file[part]

    return damage


def x_of(make):
    def damage(file):
        del file["X"]
        file["X"] = make()
        file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})

    return damage


def of_shape(*shape):
    return lambda file: file["X"].attrs.create("shape", np.array(shape))


def wrong_kind(file):
    file["X"].attrs["encoding-type"] = "dataframe"


FILE_DAMAGE = {
    "obs missing": (without("obs"), ["'obs'", "X"]),
    "var missing": (without("var"), ["'var'"]),
    "X missing": (without("X"), ["X", "--layer", "counts"]),
    "X without values": (without("X/data"), ["data"]),
    "X without columns": (without("X/indices"), ["indices"]),
    "X of one dimension": (x_of(lambda: COUNTS[0]), ["X", "1 dimensions"]),
    "X of three dimensions": (x_of(lambda: COUNTS[None]), ["X", "3 dimensions"]),
    "X of words": (x_of(lambda: COUNTS.astype("S5")), ["X", "numbers"]),
    "X of records": (x_of(lambda: COUNTS.astype([("count", "f4")])), ["X", "numbers"]),
    "X is a number": (x_of(lambda: 3.0), ["X", "dimensions"]),
    "X is a table": (wrong_kind, ["X", "dataframe"]),
    "X with more cells": (lambda file: (without("X")(file), store(file, "X", np.ones((62, N_GENES)))), ["62", "61"]),
    "X with fewer genes": (lambda file: (without("X")(file), store(file, "X", COUNTS[:, :29])), ["29", "30"]),
    "shape with more cells": (of_shape(N_CELLS + 1, N_GENES), ["X", "62"]),
    "shape with fewer genes": (of_shape(N_CELLS, N_GENES - 1), ["29", "30"]),
    "shape with more genes": (of_shape(N_CELLS, N_GENES + 1), ["31", "30"]),
    "shape of three": (of_shape(N_CELLS, N_GENES, 1), []),
    "shape missing": (lambda file: file["X"].attrs.pop("shape"), ["shape"]),
}


@pytest.mark.parametrize("case", FILE_DAMAGE)
def test_a_file_with_parts_that_do_not_fit_is_named_in_one_line(tmp_path, case):
    damage, words = FILE_DAMAGE[case]
    path = screen_file(tmp_path)
    with h5py.File(path, "r+") as file:
        damage(file)
    one_line(path, *words)


# --- Memory ----------------------------------------------------------------------------------------------------------

MOST = """
import json, os, re, sys
from pathlib import Path
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # blocks at a time go with cores
from histpert.screens import ReadOptions, matrices, read_screen
matrices.BLOCK_VALUES = 2**16
def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
small, path, cell_filter = sys.argv[1:]
read_screen(small)  # compile
before = memory("VmRSS")
screen = read_screen(path, ReadOptions(cell_filter=cell_filter or None))
print(json.dumps({"more": memory("VmHWM") - before, "shape": screen.expression.shape, "nnz": screen.expression.nnz}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory is told in /proc")
@pytest.mark.parametrize(("kind", "share"), [("csr", 0.05), ("dense", 0.05), ("csr", 1.0)])
def test_no_more_is_in_memory_than_the_result_and_a_few_blocks(tmp_path, kind, share):
    """Fifteen million values other than zero: 114 MB as CSR, 95 MB dense."""
    n_cells, n_genes, stored = 50_000, 500, 300
    counts = np.zeros((n_cells, n_genes), dtype=np.float32)
    counts[:, :stored] = np.random.default_rng(0).integers(1, 50, stored)
    matrix = sp.csr_matrix(counts) if kind == "csr" else counts
    n_kept = int(share * n_cells)
    good = np.arange(n_cells) < n_kept
    obs = pd.DataFrame({"perturbation": ["control", "A"] * (n_cells // 2), "good": good})
    obs.index = obs.index.astype(str)
    big = tmp_path / "big.h5ad"
    anndata.AnnData(matrix, obs=obs).write_h5ad(big, compression="lzf")
    found = in_its_own_process(MOST, screen_file(tmp_path, kind=kind), big, "good" if share < 1 else "")
    assert found["shape"] == [n_kept, n_genes]
    assert found["nnz"] == n_kept * stored
    result = found["nnz"] * 8 / 2**20
    assert found["more"] < 1.2 * result + 60
