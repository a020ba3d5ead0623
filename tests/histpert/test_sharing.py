"""Cells shared out in any way, and values that go through a file, are bit for bit those of the screen read in whole."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest import mock

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from histpert.errors import InputError
from histpert.histograms import bin_edges, count_shard, group_moments, merge, open_or_build
from histpert.screens import GroupedCells, ReadOptions, WorkingSpace, open_screen, read_screen
from histpert.screens import matrices as module
from histpert.screens.gathering import compacted
from histpert.screens.opened import ShareFacts
from histpert.screens.screen import for_each_group

ROOT = Path(__file__).parents[2]
RANDOM = np.random.default_rng(11)
N_GENES = 14
SIZES = {"control": 30, "A": 12, "B": 6, "C": 1, "D": 9, "E": 20, "F": 15, "G": 7}
"""100 cells: five of them are ODD_SHARE of all."""
LABELS = RANDOM.permutation(np.repeat(list(SIZES), list(SIZES.values())))
GROUPED = np.concatenate([np.flatnonzero(name == LABELS) for name in SIZES])
N_GROUPS = len(SIZES)
COUNTS = RANDOM.negative_binomial(1, 0.2, (100, N_GENES)) + (np.arange(N_GENES) == 0)
COUNTS[[2, 40]] = 0
COUNTS[:, 5] *= LABELS != "control"
COUNTS[7, 3] = 300
TOTALS = COUNTS.sum(axis=1)
LOGARITHMS = np.log1p(COUNTS / 3).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """So that files of few values have many."""
    with mock.patch.object(module, "BLOCK_VALUES", 60):
        yield


def cells_of(*names):
    return np.flatnonzero(np.isin(LABELS, names))


def with_values(values, changes):
    """Values with others in the place of some: of cells, or of one entry."""
    values = np.array(values, dtype=np.float64)
    for place, value in changes.items():
        values[place] = value
    return values


def whole_numbers_in(*names):
    """Logarithms, but 0, 1 and 2 in all cells of some perturbations."""
    return np.where(np.isin(LABELS, names)[:, None], np.minimum(COUNTS, 2), LOGARITHMS).astype(np.float32)


def sizes_with(value, *rows):
    sizes = 3.0 * TOTALS + 7
    sizes[list(rows)] = value
    return sizes


def with_stored_zeros(values, *names):
    """CSR; all zeros of some groups are stored."""
    stored = (values != 0) | np.isin(LABELS, names)[:, None]
    return sp.csr_matrix((values[stored], np.nonzero(stored)[1], [0, *np.cumsum(stored.sum(axis=1))]), values.shape)


def untidy(values, *names):
    """CSR; the columns of some groups from right to left, each value as two that add up to it."""
    rows = []
    for label, row in zip(LABELS, values, strict=True):
        columns = np.flatnonzero(row)
        halves = np.stack([row[columns] - row[columns] // 2, row[columns] // 2], axis=1)
        rows.append((np.repeat(columns, 2)[::-1], halves.ravel()[::-1]) if label in names else (columns, row[columns]))
    bounds = [0, *np.cumsum([len(columns) for columns, _ in rows])]
    columns_of, values_of = map(np.concatenate, zip(*rows, strict=True))
    return sp.csr_matrix((values_of, columns_of, bounds), values.shape)


class Case(NamedTuple):
    """A screen: its values, columns of obs, options, and what its cells are divided by (None: nothing)."""

    values: Any
    by: Any = np.maximum(TOTALS, 1)
    sizes: Any = None
    options: Mapping[str, Any] = MappingProxyType({})


FOUR, FIVE = cells_of("E")[:4], cells_of("E")[:5]
CASES = {
    "counts": Case(COUNTS),
    "some perturbations without counts": Case(np.where(np.isin(LABELS, ["B", "D"])[:, None], 0, COUNTS)),
    "logarithms": Case(LOGARITHMS, None),
    "logarithms that are whole numbers in some perturbations": Case(whole_numbers_in("A", "C", "F"), None),
    "logarithms that are whole numbers in control": Case(whole_numbers_in("control", "A", "G"), None),
    "logarithms that are whole numbers but for one cell": Case(whole_numbers_in(*(SIZES.keys() - {"C"})), None),
    "a library size": Case(COUNTS, 3.0 * TOTALS + 7, 3.0 * TOTALS + 7),
    "a library size that four of a hundred cells speak against": Case(
        COUNTS, sizes_with(1, *FOUR), sizes_with(1, *FOUR)
    ),
    "a library size that five of one perturbation refute": Case(COUNTS, sizes=sizes_with(1, *FIVE)),
    "a library size that five of five perturbations refute": Case(
        COUNTS, sizes=sizes_with(1, *(cells_of(name)[-1] for name in "ADEFG"))
    ),
    "a library size that one zero refutes": Case(COUNTS, sizes=sizes_with(0, cells_of("D")[3])),
    "a library size that one cell lacks": Case(COUNTS, sizes=sizes_with(np.nan, cells_of("C")[0])),
    "a library size that is no use for logarithms": Case(LOGARITHMS, None, sizes_with(0, cells_of("D")[3])),
    "a named library size": Case(
        COUNTS, sizes_with(2, *FIVE), sizes_with(2, *FIVE), {"library_size_column": "library_size"}
    ),
    "genes of control": Case(COUNTS, options={"min_control_detection": 0.5}),
    "genes of control, by logarithms that are whole numbers there": Case(
        whole_numbers_in("control"), None, options={"min_control_detection": 0.6}
    ),
    "stored zeros": Case(with_stored_zeros(COUNTS, "D")),
    "stored zeros in control, and genes of control": Case(
        with_stored_zeros(COUNTS, "control", "C"), options={"min_control_detection": 0.5}
    ),
    "stored zeros among logarithms": Case(with_stored_zeros(whole_numbers_in("A"), "A", "E"), None),
    "columns in no order": Case(untidy(COUNTS, "B")),
    "columns in no order, and a refuted library size": Case(untidy(COUNTS, "E"), sizes=sizes_with(1, *FIVE)),
    "columns in no order, and genes of control": Case(
        untidy(COUNTS, "control", "G"), options={"min_control_detection": 0.5}
    ),
    "columns in no order among logarithms": Case(untidy(whole_numbers_in("B", "C"), "B"), None),
}

LAYOUTS: dict[str, tuple[Callable[[Any], Any], str | None]] = {
    "CSR": (lambda values: values if sp.issparse(values) else sp.csr_matrix(values), None),
    "CSR in gzip": (lambda values: values if sp.issparse(values) else sp.csr_matrix(values), "gzip"),
    "CSC": (sp.csc_matrix, None),
    "dense": (lambda values: values.toarray() if sp.issparse(values) else np.asarray(values), None),
    "dense in gzip": (lambda values: values.toarray() if sp.issparse(values) else np.asarray(values), "gzip"),
}


def dense(values):
    return values.toarray() if sp.issparse(values) else np.asarray(values)


def written(path, values, sizes=None, compression=None):
    """A screen's file."""
    columns = {"perturbation": LABELS} | ({} if sizes is None else {"library_size": sizes})
    obs = pd.DataFrame(columns, index=[f"c{number}" for number in range(len(LABELS))])
    var = pd.DataFrame(index=[f"g{number}" for number in range(N_GENES)])
    anndata.AnnData(values, obs=obs, var=var).write_h5ad(path, compression=compression)
    return path


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """Path of a case's file, in a layout, and how it is read; written once."""
    folder, paths = tmp_path_factory.mktemp("screens"), {}

    def path(name, layout="CSR"):
        case, (arrange, compression) = CASES[name], LAYOUTS[layout]
        if (name, layout) not in paths:
            at = folder / f"{len(paths)}.h5ad"
            paths[name, layout] = written(at, arrange(case.values), case.sizes, compression)
        return paths[name, layout], ReadOptions(**case.options)

    return path


def sent(value):
    """As it is in another process."""
    return pickle.loads(pickle.dumps(value))


class InShares(GroupedCells):
    """Cells in shares, of which only pickled values leave."""

    def __init__(self, path, options=None, cuts=(), order=None, space=None, kept=None):
        with open_screen(path, options, space) as opened:
            here = opened if kept is None else opened.with_perturbations(kept)
            bounds = [0, *cuts, len(here.perturbations) + 1]
            shares = [here.share(slice(first, end)) for first, end in pairwise(bounds)]
            facts = [sent(share.facts) for share in shares]
            decision = here.decision(ShareFacts.joined(facts[number] for number in order or range(len(facts))))
            settled = [share.on(sent(decision)) for share in shares]
        self.parts = [
            (expression, share.group_start, share.first) for (expression, _), share in zip(settled, shares, strict=True)
        ]
        largest = max(largest for _, largest in settled)
        self.name, self.genes, self.perturbations = here.name, here.genes(decision), here.perturbations
        self.notes, self._n_cells = here.notes_on(decision, largest), np.diff(here.groups.start)

    @property
    def n_cells(self):
        return self._n_cells

    def for_each_group(self, work, done):
        pickled = pickle.dumps(work)
        for expression, group_start, first in reversed(self.parts):
            results = {}
            for_each_group(expression, group_start, pickle.loads(pickled), results.__setitem__)
            for group, result in sent(results).items():
                done(first + group, result)


def assert_same_bits(one, other):
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.data.dtype == other.data.dtype == np.float32
    assert one.data.tobytes() == other.data.tobytes()
    assert one.shape == other.shape
    assert one.has_canonical_format == other.has_canonical_format


def assert_same_screen(shares, whole):
    parts = [part for part, _, _ in shares.parts]
    assert all(part.has_canonical_format for part in parts)
    assert_same_bits(sp.vstack(parts, format="csr"), whole.expression)
    assert (shares.genes, shares.notes) == (whole.genes, whole.notes)
    assert shares.n_cells.tolist() == whole.n_cells.tolist()
    assert shares.fingerprint() == whole.fingerprint()


def shardings(n_groups=N_GROUPS):
    """Cuts between groups, and the order in which facts come in."""
    cuts = st.sets(st.integers(1, n_groups - 1)).map(sorted)
    return cuts.flatmap(lambda at: st.tuples(st.just(at), st.permutations(range(len(at) + 1))))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_a_share_for_each_group_gives_what_dense_arithmetic_and_reading_in_whole_give(file_of, tmp_path, name, layout):
    path, options = file_of(name, layout)
    case, whole = CASES[name], read_screen(path, options)
    values = dense(case.values).astype(np.float64)
    values = values if case.by is None else np.log1p(values / case.by[:, None] * 10_000)
    seen = np.mean(dense(case.values)[LABELS == "control"] != 0, axis=0) > options.min_control_detection
    genes = seen if options.min_control_detection else np.ones(N_GENES, dtype=bool)
    assert whole.genes == tuple(f"g{gene}" for gene in np.flatnonzero(genes))
    np.testing.assert_allclose(whole.expression.toarray(), values[GROUPED][:, genes], rtol=1e-6)
    assert whole.expression.nnz == np.count_nonzero(values[:, genes])
    for space, order in [(WorkingSpace(), range(N_GROUPS)), (WorkingSpace(0, tmp_path), range(N_GROUPS)[::-1])]:
        assert_same_screen(InShares(path, options, range(1, N_GROUPS), order, space), whole)
    assert_same_bits(read_screen(path, options, WorkingSpace(0, tmp_path)).expression, whole.expression)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=40)
@given(st.sampled_from([*CASES]), st.sampled_from([*LAYOUTS]), shardings(), st.sampled_from([None, 0, 500, 5_000]))
def test_any_shares_give_what_reading_in_whole_gives(file_of, name, layout, sharding, limit):
    path, options = file_of(name, layout)
    shares = InShares(path, options, *sharding, space=WorkingSpace(limit, path.parent / "values"))
    assert_same_screen(shares, read_screen(path, options))


@settings(max_examples=15)
@given(st.sets(st.sampled_from("ABCDEFG"), min_size=1), st.data())
def test_shares_of_some_perturbations_give_what_reading_these_gives(file_of, kept, data):
    path, options = file_of("a library size that five of one perturbation refute")
    sharding = data.draw(shardings(len(kept) + 1))
    with open_screen(path, options) as opened:
        whole = opened.with_perturbations(kept).read()
    assert_same_screen(InShares(path, options, *sharding, kept=kept), whole)


def files_of(store):
    return {path.name: path.read_bytes() for path in sorted(Path(str(store.folder)).iterdir()) if path.name != "lock"}


FOLDS = np.array([0, 1, 2, 0, 1, 2, 0])


@settings(max_examples=10)
@given(
    st.sampled_from(["counts", "genes of control", "logarithms that are whole numbers in some perturbations"]),
    shardings(),
)
def test_any_shares_build_the_same_files_of_the_store(file_of, tmp_path_factory, name, sharding):
    path, options = file_of(name)
    folder = tmp_path_factory.mktemp("stores")
    whole = open_or_build(folder / "whole", read_screen(path, options), FOLDS, [3, 8])
    shared = open_or_build(folder / "shared", InShares(path, options, *sharding), FOLDS, [3, 8])
    assert shared.fingerprint == whole.fingerprint
    assert Path(str(shared.folder)).name == Path(str(whole.folder)).name
    assert files_of(shared) == files_of(whole)
    assert len(files_of(whole)) == 6


@settings(max_examples=25)
@given(st.lists(st.integers(0, 100), max_size=6).map(sorted), st.sampled_from([2, 5, 12]), st.data())
def test_rows_cut_anywhere_are_counted_as_the_whole(file_of, cuts, n_bins, data):
    path, _ = file_of("counts")
    whole = read_screen(path)
    cells = whole.expression.toarray().astype(np.float64)
    edges = bin_edges(cells[:50].min(axis=0), cells[:50].max(axis=0), n_bins)
    shards = [
        (whole.expression[first:end], np.clip(whole.group_start - first, 0, end - first))
        for first, end in pairwise([0, *cuts, 100])
    ]
    shards = data.draw(st.permutations(shards))
    counts, merged = (
        count_shard(whole.expression, whole.group_start, edges),
        merge(count_shard(*shard, edges) for shard in shards),
    )
    np.testing.assert_array_equal(merged.in_bin, counts.in_bin)
    np.testing.assert_array_equal(merged.outside, counts.outside)
    moments = merge(group_moments(*shard) for shard in shards)
    for group, (first, end) in enumerate(pairwise(whole.group_start)):
        here = cells[first:end]
        for power, sums in enumerate(moments.power_sums, start=1):
            np.testing.assert_allclose(sums[group], (here**power).sum(axis=0), rtol=1e-12)
        np.testing.assert_array_equal(moments.minimum[group], here.min(axis=0))
        np.testing.assert_array_equal(moments.maximum[group], here.max(axis=0))
        np.testing.assert_array_equal(moments.n_detected[group], np.count_nonzero(here, axis=0))
    np.testing.assert_array_equal(moments.n_cells, whole.n_cells)


EARLY, LATE = cells_of("G"), cells_of("A")
ODD_CELLS = {(EARLY.min(), 3): np.nan, (LATE[EARLY.min() < LATE][0], 1): np.inf, (LATE.max(), 2): np.nan}
"""The first odd row is of the last group."""
BAD = {
    "NaN in two shares": Case(with_values(COUNTS, ODD_CELLS)),
    "NaN in one share": Case(with_values(LOGARITHMS, {(cells_of("C")[0], 3): np.nan})),
    "negative counts in two shares": Case(with_values(COUNTS, {(LATE[2], 1): -2, (EARLY[1], 4): -7})),
    "negative logarithms in one share": Case(with_values(LOGARITHMS, {(EARLY[1], 4): -1.5})),
    "NaN in one share, negative values in another": Case(with_values(COUNTS, {(LATE[2], 1): -2} | ODD_CELLS)),
    "all zeros": Case(COUNTS * 0),
    "stored zeros only": Case(with_stored_zeros(COUNTS * 0, "D")),
    "no gene in all of control": Case(
        np.where(np.arange(100)[:, None] == GROUPED[0], 0, COUNTS), options={"min_control_detection": 0.99}
    ),
    "neither in one share": Case(with_values(COUNTS, {(LATE[0], 1): 250.5})),
    "neither, told by another share": Case(with_values(COUNTS, {(LATE[0], 1): 0.5, (EARLY[0], 1): 250})),
    "neither in two shares": Case(with_values(COUNTS, {(LATE[0], 1): 450.5, (EARLY[0], 1): 900.5})),
    "a named library size of no use": Case(
        LOGARITHMS, sizes=TOTALS + 1, options={"library_size_column": "library_size"}
    ),
    "a named library size of no use, and neither": Case(
        with_values(LOGARITHMS, {(EARLY[0], 1): 900.5}),
        sizes=TOTALS + 1,
        options={"library_size_column": "library_size"},
    ),
}


def errors_of(path, options, sharding):
    with pytest.raises(InputError) as whole:
        read_screen(path, options)
    with pytest.raises(InputError) as shared:
        InShares(path, options, *sharding)
    return str(shared.value), str(whole.value)


@pytest.mark.parametrize("name", BAD)
def test_values_that_cannot_be_used_are_told_as_when_they_are_read_in_whole(tmp_path, name):
    case = BAD[name]
    path = written(tmp_path / "bad.h5ad", LAYOUTS["CSR"][0](case.values), case.sizes)
    for sharding in [(range(1, N_GROUPS), range(N_GROUPS)[::-1]), ([4], [1, 0]), ([1, 7], [0, 2, 1])]:
        shared, whole = errors_of(path, ReadOptions(**case.options), sharding)
        assert shared == whole


@settings(max_examples=12)
@given(st.sampled_from([name for name in BAD if "in two shares" in name and "neither" not in name]), shardings())
def test_any_shares_tell_the_first_odd_row_and_the_number_of_cells_of_all(tmp_path_factory, name, sharding):
    path = written(tmp_path_factory.mktemp("bad") / "bad.h5ad", sp.csr_matrix(BAD[name].values))
    shared, whole = errors_of(path, None, sharding)
    assert shared == whole
    if name == "NaN in two shares":
        assert f"in 3 cells, first in row {EARLY.min()} " in whole


@pytest.mark.parametrize("beside", ["", "NaN", "columns in no order"])
@pytest.mark.parametrize("column", [N_GENES, -1, 2**31 - 1])
def test_columns_of_no_gene_in_one_share_are_told_as_when_they_are_read_in_whole(tmp_path, column, beside):
    values = untidy(COUNTS, "B") if beside else sp.csr_matrix(COUNTS)
    path = written(tmp_path / "bad.h5ad", values.astype(np.float32))
    with h5py.File(path, "a") as file:
        bounds = file["X/indptr"][...]
        file["X/indices"][bounds[cells_of("E")[2]]] = column
        if beside == "NaN":
            file["X/data"][bounds[cells_of("A")[2]]] = np.nan
    for sharding in [(range(1, N_GROUPS), None), ([4], [1, 0])]:
        shared, whole = errors_of(path, ReadOptions(min_control_detection=0.1), sharding)
        assert shared == whole
        assert "it has values of more than its 14 genes" in whole


@settings(max_examples=60)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=st.sampled_from([0, 1, 2.5])),
    st.data(),
)
def test_leaving_out_genes_and_zeros_in_place_is_what_scipy_does(values, data):
    stored = data.draw(hnp.arrays(bool, values.shape)) | (values != 0)
    bounds = np.array([0, *np.cumsum(stored.sum(axis=1))], dtype=np.int32)
    matrix = sp.csr_matrix((values[stored], np.nonzero(stored)[1].astype(np.int32), bounds), values.shape)
    genes = data.draw(st.none() | hnp.arrays(bool, values.shape[1]))
    expected = matrix.copy() if genes is None else matrix[:, genes]
    expected.eliminate_zeros()
    assert matrix.has_canonical_format
    small = compacted(matrix, genes)
    assert_same_bits(small, expected)
    assert small.has_canonical_format


@pytest.mark.parametrize(
    ("n_kept", "dtype"),
    [
        (12, np.int32),
        (3, np.int32),
        (12, np.int64),
    ],
)
def test_leaving_out_genes_copies_no_values(n_kept, dtype):
    """Columns of 64 bits are those of more values than 32 bits count, of which fewer may be left."""
    matrix = sp.csr_matrix(COUNTS.astype(np.float32))
    matrix.indices, matrix.indptr = matrix.indices.astype(dtype), matrix.indptr.astype(dtype)
    assert matrix.has_canonical_format
    small = compacted(matrix, np.arange(N_GENES) < n_kept)
    np.testing.assert_array_equal(small.toarray(), COUNTS[:, :n_kept])
    assert np.shares_memory(small.data, matrix.data)
    assert np.shares_memory(small.indices, matrix.indices)


def test_a_group_is_handed_out_as_a_view_of_its_values(file_of):
    screen, of_group = read_screen(file_of("counts")[0]), {}

    def views(cells):
        return np.shares_memory(cells.data, screen.expression.data), np.shares_memory(
            cells.indices, screen.expression.indices
        )

    screen.for_each_group(views, of_group.__setitem__)
    assert set(of_group.values()) == {(True, True)}


# Reads a screen with less memory to take than its values need; the limit is of what no file backs.
WITH_LITTLE_MEMORY = """
import os, resource, sys
from pathlib import Path
from histpert.screens import ReadOptions, WorkingSpace, read_screen
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # each thread has blocks of its own
path, limit = Path(sys.argv[1]), None if sys.argv[2] == "memory" else 0
space, options = WorkingSpace(limit, path.parent), ReadOptions(min_control_detection=float(sys.argv[4]))
read_screen(path.with_name("small.h5ad"), options, space)  # compiles what it needs
taken = next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (taken + int(sys.argv[3]), resource.RLIM_INFINITY))
screen = read_screen(path, options, space)
print(screen.expression.nnz, screen.expression.shape[1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is one of Linux")
@pytest.mark.parametrize(("layout", "least"), [("CSR", 0), ("dense", 0), ("CSR", 0.1)])
def test_values_in_a_file_take_hardly_any_memory(tmp_path, layout, least):
    """16 million values take 128 MB; what is allowed is 80."""
    n_cells, n_genes = 8_000, 2_000
    labels = pd.DataFrame({"perturbation": np.where(np.arange(n_cells) % 2, "A", "control")})
    labels.index = labels.index.astype(str)
    genes = pd.DataFrame(index=[f"g{number}" for number in range(n_genes)])
    values = np.ones((n_cells, n_genes), dtype=np.float32)
    values[:, 0] = labels["perturbation"] == "A"
    for name, rows in {"small": slice(0, 20), "large": slice(0, n_cells)}.items():
        matrix = values[rows] if layout == "dense" else sp.csr_matrix(values[rows])
        anndata.AnnData(matrix, obs=labels[rows], var=genes).write_h5ad(tmp_path / f"{name}.h5ad")

    def run(where):
        command = [sys.executable, "-c", WITH_LITTLE_MEMORY, tmp_path / "large.h5ad", where, "80000000", str(least)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)

    n_left, through_file = n_genes - (least > 0), run("file")
    assert through_file.stdout.split() == [str(n_cells * (n_genes - 1) + (n_cells // 2) * (least == 0)), str(n_left)], (
        through_file.stderr
    )
    in_memory = run("memory")
    assert in_memory.returncode
    assert "MemoryError" in in_memory.stderr
