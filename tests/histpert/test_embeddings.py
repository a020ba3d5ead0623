"""Gene embeddings: files of every layout, joined and looked up, and files that cannot be used."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histpert.embeddings import read_embeddings
from histpert.errors import InputError

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
GENES = ("STAT1", "JAK2", "MYC")
VECTORS = np.array([[1.0, 2.5], [-3.0, 0.25], [7.0, 0.0]])


def npz(folder, genes=GENES, vectors=VECTORS, name="source.npz"):
    np.savez(folder / name, genes=np.array(genes), emb=vectors)
    return folder / name


def parquet(folder, columns, index=None, name="source.parquet"):
    pd.DataFrame(columns, index=index).to_parquet(folder / name)
    return folder / name


LAYOUTS = {
    "npz": npz,
    "npz float32": lambda folder: npz(folder, vectors=VECTORS.astype(np.float32)),
    "numeric columns": lambda folder: parquet(folder, {"gene": GENES, "d1": VECTORS[:, 0], "d2": VECTORS[:, 1]}),
    "columns around the names": lambda folder: parquet(
        folder, {"d1": VECTORS[:, 0], "symbol": GENES, "d2": VECTORS[:, 1]}
    ),
    "names in the index": lambda folder: parquet(folder, {"d1": VECTORS[:, 0], "d2": VECTORS[:, 1]}, index=GENES),
    "a column of lists": lambda folder: parquet(folder, {"gene": GENES, "vector": VECTORS.tolist()}),
    "lists, names in the index": lambda folder: parquet(folder, {"vector": VECTORS.tolist()}, index=GENES),
    "names that are categories": lambda folder: parquet(
        folder, {"gene": pd.Categorical(GENES), "d1": VECTORS[:, 0], "d2": VECTORS[:, 1]}
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_embeddings(tmp_path, layout):
    embeddings = read_embeddings([LAYOUTS[layout](tmp_path)])
    assert embeddings.name == "source"
    assert embeddings.genes == GENES
    assert embeddings.vectors.dtype == np.float32
    np.testing.assert_array_equal(embeddings.vectors, VECTORS)
    assert embeddings.fingerprint() == read_embeddings([npz(tmp_path)]).fingerprint()


def test_the_fingerprint_changes_with_values_and_names(tmp_path):
    fingerprints = {
        read_embeddings([npz(tmp_path, genes, vectors)]).fingerprint()
        for genes, vectors in [
            (GENES, VECTORS),
            (GENES, np.where(VECTORS == 0.25, 0.75, VECTORS)),
            (("STAT1", "JAK2", "MYCN"), VECTORS),
            (("JAK2", "STAT1", "MYC"), VECTORS),
        ]
    }
    assert len(fingerprints) == 4


def test_sources_are_joined_over_shared_genes_in_the_order_of_the_first(tmp_path):
    first = npz(tmp_path, ("MYC", "STAT1", "JAK2"), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "text.npz")
    second = parquet(tmp_path, {"gene": ["JAK2", "TP53", "MYC"], "d": [10.0, 20.0, 30.0]}, name="protein.parquet")
    joined = read_embeddings([first, second])
    assert joined.name == "text+protein"
    assert joined.genes == ("MYC", "JAK2")
    np.testing.assert_array_equal(joined.vectors, [[1, 2, 30], [5, 6, 10]])


some_genes = st.lists(st.sampled_from("ABCDEFGH"), min_size=1, unique=True)


@settings(max_examples=30, deadline=None)
@given(st.tuples(some_genes, some_genes, some_genes))
def test_any_sources_are_joined_gene_by_gene(sources):
    vector_of = [{gene: [100.0 * number + ord(gene)] * (number + 1) for gene in "ABCDEFGH"} for number in range(3)]
    shared = [gene for gene in sources[0] if all(gene in genes for genes in sources)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            npz(Path(folder), genes, [vector_of[number][gene] for gene in genes], f"{number}.npz")
            for number, genes in enumerate(sources)
        ]
        if not shared:
            with pytest.raises(InputError, match="share no gene"):
                read_embeddings(paths)
            return
        joined = read_embeddings(paths)
    assert joined.genes == tuple(shared)
    expected = [[value for number in range(3) for value in vector_of[number][gene]] for gene in shared]
    np.testing.assert_array_equal(joined.vectors, expected)


def test_lookup_follows_the_order_asked_for(tmp_path):
    embeddings = read_embeddings([npz(tmp_path)])
    np.testing.assert_array_equal(embeddings.lookup(["MYC", "STAT1", "MYC"]), VECTORS[[2, 0, 2]])
    with pytest.raises(KeyError, match="TP53"):
        embeddings.lookup(["MYC", "TP53"])


def pickled(folder):
    np.savez(folder / "source.npz", genes=np.array(GENES, dtype=object), emb=VECTORS)
    return folder / "source.npz"


def raw(name, content):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def one_array(folder):
    with (folder / "source.npz").open("wb") as file:
        np.save(file, VECTORS)
    return folder / "source.npz"


def three_arrays(folder):
    np.savez(folder / "source.npz", genes=np.array(GENES), text=VECTORS, protein=VECTORS)
    return folder / "source.npz"


def damaged(folder):
    path = npz(folder, [f"gene{number}" for number in range(1000)], np.ones((1000, 8)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    return path


def truncated(folder):
    path = npz(folder)
    path.write_bytes(path.read_bytes()[:-50])
    return path


NOT_FINITE = np.array([[1.0, 2.0], [3.0, np.nan], [np.inf, 6.0]])

BAD_FILES = {
    "missing": (lambda folder: folder / "gone.npz", ("gone.npz", "does not exist")),
    "unknown suffix": (raw("genes.csv", b"gene,1\n"), ("genes.csv", ".npz", ".parquet")),
    "no suffix": (raw("genes", b"gene"), ("genes", "without suffix")),
    "gene twice": (lambda folder: npz(folder, ("MYC", "JAK2", "MYC")), ("source.npz", "'MYC'")),
    "NaN": (lambda folder: npz(folder, vectors=NOT_FINITE), ("source.npz", "'JAK2'", "NaN")),
    "infinite": (lambda folder: npz(folder, vectors=NOT_FINITE[[0, 2, 0]]), ("source.npz", "'JAK2'", "infinite")),
    "null in a column": (
        lambda folder: parquet(folder, {"gene": GENES, "d1": [1.0, None, 2.0]}),
        ("source.parquet", "'JAK2'", "NaN"),
    ),
    "arrays of unlike length": (
        lambda folder: npz(folder, GENES[:2]),
        ("source.npz", "genes <U5 (2,)", "emb float64 (3, 2)"),
    ),
    "vectors of whole numbers": (lambda folder: npz(folder, vectors=VECTORS.astype(int)), ("source.npz", "int64")),
    "two arrays of vectors": (three_arrays, ("source.npz", "text float64 (3, 2)", "protein float64 (3, 2)")),
    "pickled names": (pickled, ("source.npz", "allow_pickle")),
    "one array": (one_array, ("source.npz",)),
    "text as npz": (raw("source.npz", b"gene\t1\t2\n"), ("source.npz", "cannot be read as .npz")),
    "empty npz": (raw("source.npz", b""), ("source.npz", "cannot be read as .npz")),
    "damaged npz": (damaged, ("source.npz", "cannot be read as .npz")),
    "truncated npz": (truncated, ("source.npz", "cannot be read as .npz")),
    "text as parquet": (raw("source.parquet", b"gene\t1\t2\n"), ("source.parquet", "cannot be read as .parquet")),
    "empty parquet": (raw("source.parquet", b""), ("source.parquet", "cannot be read as .parquet")),
    "two columns of names": (
        lambda folder: parquet(folder, {"gene": GENES, "ensembl": GENES, "d1": VECTORS[:, 0]}),
        ("source.parquet", "gene, ensembl, d1"),
    ),
    "names without vectors": (lambda folder: parquet(folder, {"gene": GENES}), ("source.parquet", "has gene")),
    "lists beside numbers": (
        lambda folder: parquet(folder, {"gene": GENES, "vector": VECTORS.tolist(), "rank": [1, 2, 3]}),
        ("source.parquet", "gene, vector, rank"),
    ),
    "lists of unlike length": (
        lambda folder: parquet(folder, {"gene": GENES, "vector": [[1.0, 2.0], [3.0], [4.0, 5.0]]}),
        ("source.parquet", "'vector'", "1 to 2"),
    ),
    "a list that is missing": (
        lambda folder: parquet(folder, {"gene": GENES, "vector": [[1.0, 2.0], None, [4.0, 5.0]]}),
        ("source.parquet", "'vector'"),
    ),
    "lists of words": (
        lambda folder: parquet(folder, {"gene": GENES, "terms": [["a", "b"], ["c", "d"], ["e", "f"]]}),
        ("source.parquet", "terms"),
    ),
    "no rows": (
        lambda folder: npz(folder, np.array([], dtype="U5"), np.zeros((0, 2))),
        ("source.npz",),
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path, case):
    make, words = BAD_FILES[case]
    path = make(tmp_path)
    with pytest.raises(InputError) as failure:
        read_embeddings([path])
    message = str(failure.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message


def test_sources_without_a_shared_gene_are_named(tmp_path):
    paths = [npz(tmp_path, name="human.npz"), npz(tmp_path, ("Stat1", "Jak2", "Myc"), name="mouse.npz")]
    with pytest.raises(InputError, match=r"share no gene: .*human\.npz, .*mouse\.npz"):
        read_embeddings(paths)


def test_no_source_at_all_is_refused():
    with pytest.raises(InputError, match="--embeddings"):
        read_embeddings([])


def test_the_go_embeddings_are_read_as_described():
    path = REAL_DATA / "gene_embeddings_gobp_svd128.npz"
    if not path.is_file():
        pytest.skip(f"needs real data, which are not here: {path}")
    embeddings = read_embeddings([path])
    assert embeddings.vectors.shape == (14_472, 128)
    with np.load(path) as archive:
        row = archive["genes"].tolist().index("MARCHF8")
        np.testing.assert_array_equal(embeddings.lookup(["MARCHF8"])[0], archive["emb"][row])
