"""Gene embeddings: several sources scaled and joined, looked up, and named by tables of ids."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histpert.embeddings import EmbeddingOptions, read_embeddings
from histpert.errors import InputError

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
GENES = ("STAT1", "JAK2", "MYC")
VECTORS = np.array([[1.0, 2.5], [-3.0, 0.25], [7.0, 0.0]])


def scaled(vectors):
    """The definition, written out value by value."""
    columns = list(zip(*vectors, strict=True))
    means = [sum(column) / len(column) for column in columns]
    squares = [(value - mean) ** 2 for column, mean in zip(columns, means, strict=True) for value in column]
    deviation = (sum(squares) / len(squares)) ** 0.5
    return [[value / deviation for value in row] for row in vectors]


def npz(folder, genes=GENES, vectors=VECTORS, name="source.npz"):
    np.savez(folder / name, genes=np.array(genes), emb=vectors)
    return folder / name


def parquet(folder, columns, index=None, name="source.parquet"):
    pd.DataFrame(columns, index=index).to_parquet(folder / name)
    return folder / name


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
    # MYC and JAK2 lie 2 and 10 either side of their means
    np.testing.assert_array_equal(joined.vectors, np.array([[1 / 2, 2 / 2, 30 / 10], [5 / 2, 6 / 2, 10 / 10]], "f4"))
    assert joined.notes == ("2 genes are in all embedding files: 3 in text.npz, 3 in protein.parquet",)


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
        if len(shared) < 2:
            with pytest.raises(InputError, match="one gene only" if shared else "share no gene"):
                read_embeddings(paths)
            return
        joined = read_embeddings(paths)
    assert joined.genes == tuple(shared)
    blocks = [scaled([vector_of[number][gene] for gene in shared]) for number in range(3)]
    np.testing.assert_allclose(joined.vectors, np.hstack(blocks), rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6), st.floats(-100, 100))
def test_joined_sources_have_equal_mean_variance_per_feature(seed, size, offset):
    rng = np.random.default_rng(seed)
    genes = [f"G{number}" for number in range(30)]
    with tempfile.TemporaryDirectory() as folder:
        first = npz(Path(folder), genes, size * rng.normal(offset, 3, (30, 7)), "first.npz")
        second = npz(Path(folder), genes[5:], rng.gamma(2, rng.uniform(0.1, 9, 4), (25, 4)), "second.npz")
        vectors = read_embeddings([first, second]).vectors
    assert vectors.shape == (25, 11)
    variances = vectors.astype(float).var(axis=0)
    np.testing.assert_allclose([variances[:7].mean(), variances[7:].mean()], 1, rtol=1e-4)


@pytest.mark.parametrize("factor", [1000, 1e-3, 1e-30, 1e200, 1e-200])
def test_the_size_of_a_source_changes_nothing(tmp_path, factor):
    rng = np.random.default_rng(1)
    vectors = rng.normal(0.3, 2, (3, 5))
    plain = read_embeddings([npz(tmp_path, vectors=vectors)])
    resized = read_embeddings([npz(tmp_path, vectors=factor * vectors)])
    np.testing.assert_allclose(resized.vectors, plain.vectors, rtol=1e-6)


def test_scaling_keeps_the_ratios_of_all_values(tmp_path):
    vectors = read_embeddings([npz(tmp_path)]).vectors
    np.testing.assert_allclose(vectors / vectors[0, 0], VECTORS, rtol=1e-6)
    assert vectors.dtype == np.float32


def test_lookup_follows_the_order_asked_for(tmp_path):
    embeddings = read_embeddings([npz(tmp_path)])
    found = embeddings.lookup(["MYC", "STAT1", "MYC"])
    np.testing.assert_allclose(found, np.array(scaled(VECTORS))[[2, 0, 2]], rtol=1e-6)
    with pytest.raises(KeyError, match="TP53"):
        embeddings.lookup(["MYC", "TP53"])


def test_saved_embeddings_are_read_back_as_they_were(tmp_path):
    embeddings = read_embeddings([npz(tmp_path)])
    embeddings.save(tmp_path / "saved.npz")
    again = read_embeddings([tmp_path / "saved.npz"])
    assert again.genes == embeddings.genes
    np.testing.assert_allclose(again.vectors, embeddings.vectors, rtol=1e-6)


def test_sources_without_a_shared_gene_are_named(tmp_path):
    paths = [npz(tmp_path, name="human.npz"), npz(tmp_path, ("Stat1", "Jak2", "Myc"), name="mouse.npz")]
    with pytest.raises(InputError, match=r"share no gene: .*human\.npz has STAT1.*mouse\.npz has Stat1"):
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
    assert embeddings.vectors.astype(float).var(axis=0).mean() == pytest.approx(1, abs=1e-5)
    with np.load(path) as archive:
        row = archive["emb"][archive["genes"].tolist().index("MARCHF8")]
    found = embeddings.lookup(["MARCHF8"])[0]
    np.testing.assert_allclose(found / found[2], row / row[2], rtol=1e-4, atol=1e-6)


HGNC = """hgnc_id\tsymbol\talias_symbol\tprev_symbol\tensembl_gene_id\tuniprot_ids
HGNC:1\tSTAT1\t"ISGF-3|STAT91"\t\tENSG1\tP42224
HGNC:2\tMYC\t\t\tENSG2\t"P01106|A0A087"
HGNC:3\tH4C1\t\tHIST1H4A\tENSG3\tP62805
HGNC:4\tH4C2\t\tHIST1H4I\tENSG4\tP62805
HGNC:5\tNORNA\t\t\tENSG5\t
"""


def ids(folder, content=HGNC, name="hgnc.txt"):
    (folder / name).write_text(content, encoding="utf-8")
    return EmbeddingOptions(embedding_ids=folder / name)


def test_accessions_become_gene_symbols_by_the_table_of_hgnc(tmp_path):
    accessions = ("A0A087", "Q99999", "P62805", "P01106", "P42224")
    vectors = np.array([[9.0, 9.0], [50.0, 0.0], [3.0, 4.0], [1.0, 2.0], [5.0, -6.0]])
    embeddings = read_embeddings([npz(tmp_path, accessions, vectors)], ids(tmp_path))
    assert embeddings.genes == ("STAT1", "MYC", "H4C1", "H4C2")
    expected = scaled([[5.0, -6.0], [1.0, 2.0], [3.0, 4.0], [3.0, 4.0]])
    np.testing.assert_allclose(embeddings.vectors, expected, rtol=1e-6)
    counted, several = embeddings.notes
    assert "4 of 5 names belong to 4 genes of hgnc.txt" in counted
    assert "MYC P01106 (not A0A087)" in several


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.csv", "id,name,length\nENSG9,STAT1,5\nENSG7,JAK2,3\nENSG8,MYC,9\n"),
        ("ids.tsv", "Gene stable ID\tGene name\nENSG9\tSTAT1\nENSG7\tJAK2\nENSG8\tMYC\nENSG6\t\n"),
    ],
)
def test_two_columns_are_a_table_of_ids(tmp_path, name, content):
    path = npz(tmp_path, ("ENSG9", "ENSG7", "ENSG8"))
    embeddings = read_embeddings([path], ids(tmp_path, content, name))
    assert embeddings.genes == GENES
    np.testing.assert_array_equal(embeddings.vectors, read_embeddings([npz(tmp_path)]).vectors)


def test_a_source_that_is_named_by_symbols_is_left_as_it_is(tmp_path):
    text = npz(tmp_path, ("MYC", "STAT1", "OTHER"), name="text.npz")
    protein = npz(tmp_path, ("P42224", "P01106", "P62805"), name="protein.npz")
    joined = read_embeddings([text, protein], ids(tmp_path))
    assert joined.genes == ("MYC", "STAT1")
    assert any("text.npz is named by gene symbols already" in note for note in joined.notes)


def test_options_hold_whole_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere")
    options = EmbeddingOptions(embedding_ids=Path("ids.tsv"), aliases=Path("~/hgnc.txt"))
    assert options.embedding_ids == tmp_path / "ids.tsv"
    assert options.aliases == Path("/somewhere/hgnc.txt")


BAD_TABLES = {
    "missing": (lambda folder: EmbeddingOptions(embedding_ids=folder / "gone.csv"), ("gone.csv", "does not exist")),
    "other kind": (lambda folder: ids(folder, "a", "ids.xlsx"), ("ids.xlsx", ".tsv")),
    "empty": (lambda folder: ids(folder, "", "ids.csv"), ("ids.csv",)),
    "header only": (lambda folder: ids(folder, "id,gene\n", "ids.csv"), ("ids.csv", "rows")),
    "tabs in a csv": (lambda folder: ids(folder, "id\tgene\nENSG1\tMYC\n", "ids.csv"), ("ids.csv", "commas")),
    "no header": (lambda folder: ids(folder, "STAT1,A\nJAK2,B\n", "ids.csv"), ("ids.csv", "'STAT1'", "header")),
    "none of the names": (
        lambda folder: ids(folder, "id,gene\nENSG1,TP53\n", "ids.csv"),
        ("source.npz", "STAT1", "ids.csv", "ENSG1"),
    ),
    "no symbols": (lambda folder: ids(folder, "id,gene\nSTAT1,\n", "ids.csv"), ("ids.csv", "no row")),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_table_of_ids_that_cannot_be_used_is_named_in_one_line(tmp_path, case):
    make, words = BAD_TABLES[case]
    with pytest.raises(InputError) as failure:
        read_embeddings([npz(tmp_path)], make(tmp_path))
    message = str(failure.value)
    assert len(message.splitlines()) == 1
    for word in ("--embedding-ids", *words):
        assert word in message
