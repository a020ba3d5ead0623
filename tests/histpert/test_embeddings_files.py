"""Files of embeddings: every layout gives the same embeddings, and one that cannot be used is named in one line."""

import gzip

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from histpert.embeddings import read_embeddings
from histpert.errors import InputError

GENES = ("STAT1", "JAK2", "MYC")
VECTORS = np.array([[1.0, 2.5], [-3.0, 0.25], [7.0, 0.0]])


def npz(folder, genes=GENES, vectors=VECTORS, name="source.npz"):
    np.savez(folder / name, genes=np.array(genes), emb=vectors)
    return folder / name


def parquet(folder, columns, index=None, name="source.parquet"):
    pd.DataFrame(columns, index=index).to_parquet(folder / name)
    return folder / name


def text(content, name="source.csv"):
    def write(folder):
        opened = gzip.open if name.endswith(".gz") else open
        with opened(folder / name, "wt", encoding="utf-8") as file:
            file.write(content)
        return folder / name

    return write


def raw(name, content):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def hdf5(folder, datasets, name="source.h5"):
    with h5py.File(folder / name, "w") as file:
        for key, data in datasets.items():
            file[key] = data
    return folder / name


def h5ad(folder, matrix=VECTORS, genes=GENES):
    anndata.AnnData(matrix, obs=pd.DataFrame(index=list(genes))).write_h5ad(folder / "source.h5ad")
    return folder / "source.h5ad"


PER_GENE = dict(zip(GENES, VECTORS, strict=True))
CSV = "gene,d1,d2\nSTAT1,1,2.5\nJAK2,-3,0.25\nMYC,7,0\n"
TSV = CSV.replace(",", "\t")

LAYOUTS = {
    "npz": npz,
    "npz float32": lambda folder: npz(folder, vectors=VECTORS.astype(np.float32)),
    "npz of names in bytes": lambda folder: npz(folder, np.array(GENES, dtype="S")),
    "npz in capitals": lambda folder: npz(folder).rename(folder / "source.NPZ"),
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
    "csv": text(CSV),
    "csv.gz": text(CSV, "source.csv.gz"),
    "tsv": text(TSV, "source.tsv"),
    "tsv.gz": text(TSV, "source.tsv.gz"),
    "csv of pandas": text(pd.DataFrame(VECTORS, index=GENES).to_csv()),
    "tsv of R": text(TSV.removeprefix("gene\t"), "source.tsv"),
    "csv of Windows": text("\ufeff" + CSV.replace("\n", "\r\n")),
    "quoted": text('"gene","d1","d2"\n"STAT1",1,2.5\n"JAK2",-3,0.25\n"MYC",7,0\n'),
    "names in the middle": text("d1,gene,d2\n1,STAT1,2.5\n-3,JAK2,0.25\n7,MYC,0\n"),
    "h5 per gene": lambda folder: hdf5(folder, PER_GENE),
    "hdf5 per gene float16": lambda folder: hdf5(
        folder, {gene: vector.astype("f2") for gene, vector in PER_GENE.items()}, "source.hdf5"
    ),
    "h5 of two": lambda folder: hdf5(folder, {"names": list(GENES), "vectors": VECTORS}),
    "h5 of two, bytes": lambda folder: hdf5(folder, {"a": VECTORS, "b": np.array(GENES, dtype="S")}),
    "h5ad": h5ad,
    "h5ad sparse": lambda folder: h5ad(folder, sparse.csr_matrix(VECTORS)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_embeddings(tmp_path, layout):
    embeddings = read_embeddings([LAYOUTS[layout](tmp_path)])
    expected = read_embeddings([npz(tmp_path, name="plain.npz")])
    assert embeddings.name == "source"
    assert sorted(embeddings.genes) == sorted(GENES)
    assert embeddings.vectors.dtype == np.float32
    found = embeddings.lookup(GENES)
    np.testing.assert_array_equal(found, expected.vectors)
    np.testing.assert_allclose(found / found[0, 0], VECTORS, rtol=1e-6)
    if "per gene" not in layout:  # HDF5 lists datasets by name
        assert embeddings.fingerprint() == expected.fingerprint()


def test_genes_that_read_like_missing_values_keep_their_names(tmp_path):
    path = text("gene,d1\nNA,1\nNAN,2\nINF2,3\nnull,4\n1-Mar,5\n007,6\n")(tmp_path)
    assert read_embeddings([path]).genes == ("NA", "NAN", "INF2", "null", "1-Mar", "007")


def test_vectors_of_whole_numbers_are_read(tmp_path):
    vectors = np.array([[1, 2], [3, -4], [5, 6]], dtype=np.int8)
    expected = read_embeddings([npz(tmp_path, vectors=vectors.astype(float))])
    assert read_embeddings([npz(tmp_path, vectors=vectors)]).fingerprint() == expected.fingerprint()


def test_per_protein_embeddings_of_half_precision_are_read(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 0.05, (4, 1024)).astype(np.float16)
    path = hdf5(tmp_path, dict(zip(["A0A087", "P01106", "P42224", "Q99999"], vectors, strict=True)), "per-protein.h5")
    embeddings = read_embeddings([path])
    assert embeddings.name == "per-protein"
    assert embeddings.vectors.shape == (4, 1024)
    assert np.corrcoef(embeddings.lookup(["P42224"])[0], vectors[2].astype(float))[0, 1] == pytest.approx(1)


def one_array(folder):
    with (folder / "source.npz").open("wb") as file:
        np.save(file, VECTORS)
    return folder / "source.npz"


def pickled(folder):
    np.savez(folder / "source.npz", genes=np.array(GENES, dtype=object), emb=VECTORS)
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


def cut(make, n_bytes=50):
    def write(folder):
        path = make(folder)
        path.write_bytes(path.read_bytes()[:-n_bytes])
        return path

    return write


def linked(folder):
    path = hdf5(folder, PER_GENE)
    hdf5(folder, {"TP53": VECTORS[0]}, "other.h5")
    with h5py.File(path, "a") as file:
        file["TP53"] = h5py.ExternalLink("other.h5", "/TP53")
    return path


def without_x(folder):
    anndata.AnnData(obs=pd.DataFrame(index=list(GENES))).write_h5ad(folder / "source.h5ad")
    return folder / "source.h5ad"


def folder_named_npz(folder):
    (folder / "source.npz").mkdir()
    return folder / "source.npz"


NOT_FINITE = np.array([[1.0, 2.0], [3.0, np.nan], [np.inf, 6.0]])

BAD_FILES = {
    "missing": (lambda folder: folder / "gone.npz", ("gone.npz", "does not exist")),
    "folder": (folder_named_npz, ("source.npz", "is a folder")),
    "unknown suffix": (raw("genes.txt", b"gene,1\n"), ("genes.txt", ".npz", ".parquet", ".csv")),
    "no suffix": (raw("genes", b"gene"), ("genes", "without suffix")),
    "gene twice": (lambda folder: npz(folder, ("MYC", "JAK2", "MYC")), ("source.npz", "'MYC'", "more than once")),
    "NaN": (lambda folder: npz(folder, vectors=NOT_FINITE), ("source.npz", "'JAK2'", "NaN")),
    "infinite": (lambda folder: npz(folder, vectors=NOT_FINITE[[0, 2, 0]]), ("source.npz", "'JAK2'", "infinite")),
    "all vectors equal": (
        lambda folder: npz(folder, vectors=np.full((3, 4), 0.1)),
        ("source.npz", "the same vector for all 3 genes"),
    ),
    "one gene": (lambda folder: npz(folder, GENES[:1], VECTORS[:1]), ("source.npz", "one gene only")),
    "no features": (lambda folder: npz(folder, vectors=np.zeros((3, 0))), ("source.npz", "no features")),
    "one number per gene": (lambda folder: npz(folder, vectors=VECTORS[:, 0]), ("source.npz", "emb float64 (3,)")),
    "blank name": (lambda folder: npz(folder, ("MYC", " ", "JAK2")), ("source.npz", "row 2", "no gene name")),
    "barely different": (
        lambda folder: npz(folder, vectors=np.array([[1.0, 1e-300], [1.0, 2e-300], [1.0, 3e-300]])),
        ("source.npz", "differ too little"),
    ),
    "arrays of unlike length": (
        lambda folder: npz(folder, GENES[:2]),
        ("source.npz", "genes <U5 (2,)", "emb float64 (3, 2)"),
    ),
    "two arrays of vectors": (three_arrays, ("source.npz", "text float64 (3, 2)", "protein float64 (3, 2)")),
    "pickled names": (pickled, ("source.npz", "allow_pickle")),
    "one array": (one_array, ("source.npz",)),
    "text as npz": (raw("source.npz", b"gene\t1\t2\n"), ("source.npz", "cannot be read as .npz")),
    "empty npz": (raw("source.npz", b""), ("source.npz", "cannot be read as .npz")),
    "damaged npz": (damaged, ("source.npz", "cannot be read as .npz")),
    "truncated npz": (cut(npz), ("source.npz", "cannot be read as .npz")),
    "no rows": (lambda folder: npz(folder, np.array([], dtype="U5"), np.zeros((0, 2))), ("source.npz", "no rows")),
    "null in a column": (
        lambda folder: parquet(folder, {"gene": GENES, "d1": [1.0, None, 2.0]}),
        ("source.parquet", "'JAK2'", "NaN"),
    ),
    "null among names": (
        lambda folder: parquet(folder, {"gene": ["MYC", None, "JAK2"], "d1": [1.0, 3.0, 2.0]}),
        ("source.parquet", "row 2", "no gene name"),
    ),
    "text as parquet": (raw("source.parquet", b"gene\t1\t2\n"), ("source.parquet", "cannot be read as .parquet")),
    "empty parquet": (raw("source.parquet", b""), ("source.parquet", "cannot be read as .parquet")),
    "two columns of names": (
        lambda folder: parquet(folder, {"gene": GENES, "ensembl": GENES, "d1": VECTORS[:, 0]}),
        ("source.parquet", "gene, ensembl, d1", "where gene, ensembl hold text"),
    ),
    "names without vectors": (lambda folder: parquet(folder, {"gene": GENES}), ("source.parquet", "has gene")),
    "no names": (lambda folder: parquet(folder, {"d1": VECTORS[:, 0]}), ("source.parquet", "no gene names")),
    "lists beside numbers": (
        lambda folder: parquet(folder, {"gene": GENES, "vector": VECTORS.tolist(), "rank": [1, 2, 3]}),
        ("source.parquet", "gene, vector, rank"),
    ),
    "lists of unlike length": (
        lambda folder: parquet(folder, {"gene": GENES, "vector": [[1.0, 2.0], [3.0], [4.0, 5.0]]}),
        ("source.parquet", "2 values for gene 'STAT1', 1 for 'JAK2'"),
    ),
    "a list that is missing": (
        lambda folder: parquet(folder, {"gene": GENES, "vector": [[1.0, 2.0], None, [4.0, 5.0]]}),
        ("source.parquet", "'vector'", "'JAK2'"),
    ),
    "lists of words": (
        lambda folder: parquet(folder, {"gene": GENES, "terms": [["a", "b"], ["c", "d"], ["e", "f"]]}),
        ("source.parquet", "'STAT1'", "list of numbers"),
    ),
    "times": (
        lambda folder: parquet(folder, {"gene": GENES, "d1": pd.to_timedelta([1, 2, 3], unit="s")}),
        ("source.parquet", "'d1'", "numbers"),
    ),
    "text in a column": (text(CSV.replace("0.25", "low")), ("source.csv", "'d2'", "'low'", "'JAK2'")),
    "decimal commas": (text(TSV.replace("2.5", "2,5"), "source.tsv"), ("source.tsv", "'d2'", "'2,5'", "'STAT1'")),
    "truth in a column": (text("gene,d1\nA,True\nB,False\n"), ("source.csv", "'d1'", "'True'")),
    "gap in a column": (text(CSV.replace("0.25", "")), ("source.csv", "'JAK2'", "NaN")),
    "short row": (text(CSV.replace("-3,0.25", "-3")), ("source.csv", "'JAK2'", "NaN")),
    "long row": (text(CSV.replace("0.25", "0.25,9")), ("source.csv", "line 3")),
    "blank cell among names": (text(CSV.replace("JAK2", "")), ("source.csv", "row 2", "no gene name")),
    "gene twice in a table": (text(CSV.replace("JAK2", "MYC")), ("source.csv", "'MYC'", "more than once")),
    "tabs in a csv": (text(TSV), ("source.csv", "separated by commas")),
    "commas in a tsv": (text(CSV, "source.tsv"), ("source.tsv", "separated by tabs")),
    "no header": (text("STAT1,1.5,2.5\nJAK2,-3.5,0.25\n"), ("source.csv", "header")),
    "only a header": (text("gene,d1\n"), ("source.csv", "no rows")),
    "empty csv": (text(""), ("source.csv", "no rows")),
    "numbers only": (text("a,b\n1,2\n3,4\n"), ("source.csv", "no column of gene names", "'a'")),
    "names only": (text("gene\nMYC\nJAK2\n"), ("source.csv", "one column")),
    "header of another width": (text("gene\nMYC,1,2\nJAK2,3,4\n"), ("source.csv", "1 columns", "first row has 3")),
    "no text": (raw("source.csv", b"gene,d1\n\xff\xfe\xfa,1\n"), ("source.csv", "cannot be read as a table")),
    "no gzip": (raw("source.csv.gz", CSV.encode()), ("source.csv.gz", "cannot be read as a table")),
    "truncated gzip": (cut(text(CSV, "source.csv.gz"), 12), ("source.csv.gz", "cannot be read as a table")),
    "text as h5": (raw("source.h5", b"gene"), ("source.h5", "cannot be read as .h5")),
    "empty h5": (lambda folder: hdf5(folder, {}), ("source.h5", "no rows")),
    "per residue": (
        lambda folder: hdf5(folder, {"P01106": np.ones((450, 4))}),
        ("source.h5", "'P01106'", "(450, 4)", "not per residue"),
    ),
    "h5 of unlike lengths": (
        lambda folder: hdf5(folder, {"A": [1.0, 2.0], "B": [1.0]}),
        ("source.h5", "2 values for gene 'A', 1 for 'B'"),
    ),
    "h5 of text": (lambda folder: hdf5(folder, {"A": [1.0], "B": ["x"]}), ("source.h5", "'B'")),
    "h5 with more names": (
        lambda folder: hdf5(folder, {"names": list(GENES), "vectors": VECTORS[:2]}),
        ("source.h5", "3 gene names and 2 vectors"),
    ),
    "infinite half precision": (
        lambda folder: hdf5(folder, {"A": np.array([1, 2], "f2"), "B": np.array([np.inf, 2], "f2")}),
        ("source.h5", "'B'", "infinite"),
    ),
    "groups": (lambda folder: hdf5(folder, {"human/MYC": [1.0]}), ("source.h5", "'human'", "group")),
    "a link to another file": (linked, ("source.h5", "'TP53'", "link")),
    "h5ad under another name": (lambda folder: h5ad(folder).rename(folder / "source.h5"), ("source.h5", ".h5ad")),
    "text as h5ad": (raw("source.h5ad", b"gene"), ("source.h5ad", "cannot be read as .h5ad")),
    "h5ad without X": (without_x, ("source.h5ad", "no matrix X")),
    "gene twice in obs": (
        lambda folder: h5ad(folder, genes=("MYC", "A", "MYC")),
        ("source.h5ad", "'MYC'", "more than once"),
    ),
}


@pytest.mark.filterwarnings("ignore:Observation names are not unique")  # when such a file is made
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
