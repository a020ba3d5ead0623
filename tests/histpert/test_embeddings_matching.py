"""The genes of a screen and the genes of the embeddings: under the same name, another one, or none."""

import subprocess
import sys

import numpy as np
import pytest

from histpert.embeddings import GeneEmbeddings, match_genes
from histpert.errors import InputError

HGNC = """symbol\talias_symbol\tprev_symbol
MARCHF8\t"MIR|c-MIR"\tMARCH8
SEPTIN9\t"MSF|AF17q25"\t"MSF1|SEPT9"
TP53\t"p53|LFS1"\t
POU5F1\t"OCT3|Oct4"\tOTF3
CCN1\tGIG1\tCYR61
FOO1\tSHARED\t
FOO2\tSHARED\t
BAR\tSTAT1\t
STAT1\tISGF-3\tOLDSTAT
"""


@pytest.fixture
def hgnc(tmp_path):
    path = tmp_path / "hgnc.txt"
    path.write_text(HGNC, encoding="utf-8")
    return path


def embeddings(*genes):
    """The vector of a gene is its place."""
    numbers = np.arange(len(genes), dtype=np.float32)
    return GeneEmbeddings("some", genes, np.stack([numbers, numbers + 100], axis=1), ("as read",))


def used(matched, known):
    """By which name each gene was found, told from its vector."""
    return {gene: known.genes[int(matched.embeddings.lookup([gene])[0, 0])] for gene in matched.embeddings.genes}


def test_genes_are_found_under_their_own_names_in_the_order_wanted():
    known = embeddings("JAK2", "MYC", "STAT1")
    matched = match_genes(known, ["STAT1", "QQQQ", "JAK2", "STAT1"])
    assert used(matched, known) == {"STAT1": "STAT1", "JAK2": "JAK2"}
    assert matched.embeddings.genes == ("STAT1", "JAK2")
    assert matched.embeddings.name == "some"
    assert matched.embeddings.notes == ("as read",)
    assert matched.missing == ("QQQQ",)
    assert matched.notes == ()
    np.testing.assert_array_equal(matched.embeddings.vectors, [[2, 102], [0, 100]])


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("MARCH8", "MARCHF8"),
        ("MARCHF8", "MARCH8"),
        ("SEPT9", "SEPTIN9"),
        ("p53", "TP53"),
        ("TP53", "p53"),
        ("CYR61", "GIG1"),  # an earlier name and another name of CCN1
    ],
)
def test_another_symbol_of_the_same_gene_is_used_and_named(hgnc, wanted, name):
    known = embeddings("JAK2", name)
    matched = match_genes(known, [wanted, "JAK2"], hgnc)
    assert used(matched, known) == {wanted: name, "JAK2": "JAK2"}
    assert matched.missing == ()
    assert len(matched.notes) == 1
    assert f"{wanted} -> {name}" in matched.notes[0]


def test_nothing_is_replaced_without_a_table():
    matched = match_genes(embeddings("MARCHF8", "JAK2"), ["MARCH8", "JAK2"])
    assert matched.missing == ("MARCH8",)
    assert matched.notes == ("likely names of missing genes, not used: MARCH8 -> MARCHF8",)


def test_its_own_name_wins_over_another_symbol(hgnc):
    known = embeddings("MARCHF8", "MARCH8")
    matched = match_genes(known, ["MARCH8"], hgnc)
    assert used(matched, known) == {"MARCH8": "MARCH8"}
    assert matched.notes == ()


def test_the_approved_symbol_wins_over_other_symbols(hgnc):
    known = embeddings("GIG1", "CCN1")
    assert used(match_genes(known, ["CYR61"], hgnc), known) == {"CYR61": "CCN1"}


@pytest.mark.parametrize(
    ("wanted", "known", "named"),
    [
        ("SHARED", ("FOO1", "FOO2"), "SHARED (FOO1 or FOO2)"),
        ("SHARED", ("FOO1", "JAK2"), "SHARED (FOO1 or FOO2)"),
        ("SEPTIN9", ("SEPT9", "MSF1"), "SEPTIN9 (MSF1 or SEPT9)"),
    ],
)
def test_an_ambiguous_symbol_is_left_missing_and_named(hgnc, wanted, known, named):
    matched = match_genes(embeddings(*known), [wanted], hgnc)
    assert matched.missing == (wanted,)
    assert any(named in note for note in matched.notes)


@pytest.mark.parametrize(("wanted", "known"), [("FOO1", "SHARED"), ("BAR", "STAT1")])
def test_a_symbol_that_also_stands_for_another_gene_is_not_used(hgnc, wanted, known):
    assert match_genes(embeddings(known, "JAK2"), [wanted], hgnc).missing == (wanted,)


@pytest.mark.parametrize(
    ("wanted", "missing"), [(["MARCH8", "MARCHF8"], ("MARCH8",)), (["CYR61", "GIG1"], ("CYR61", "GIG1"))]
)
def test_two_wanted_names_of_one_gene_do_not_share_its_vector(hgnc, wanted, missing):
    matched = match_genes(embeddings("MARCHF8", "CCN1"), wanted, hgnc)
    assert matched.missing == missing
    assert any("another perturbation has the same gene" in note and missing[0] in note for note in matched.notes)


def test_perturbations_that_share_one_vector_are_named():
    vectors = np.array([[0, 1], [2, 3], [0, 1], [4, 5], [2, 3], [2, 3], [4, 5]], dtype=np.float32)
    known = GeneEmbeddings("some", ("JAK2", "CALM1", "MYC", "STAT1", "CALM2", "CALM3", "TP53"), vectors)
    # TP53 is not wanted: no other perturbation has the vector of STAT1.
    matched = match_genes(known, ["CALM3", "STAT1", "JAK2", "CALM1", "MYC", "CALM2"])
    (note,) = matched.notes
    assert note.startswith("2 vectors stand for several perturbations")
    assert note.endswith(": CALM3 = CALM1 = CALM2, JAK2 = MYC")
    assert len(note.splitlines()) == 1
    assert matched.missing == ()
    np.testing.assert_array_equal(matched.embeddings.vectors, vectors[[5, 3, 0, 1, 2, 4]])


def test_many_shared_vectors_are_cut_short_and_counted():
    genes = tuple(f"GENE{number}" for number in range(40))
    vectors = np.repeat(np.arange(20, dtype=np.float32), 2)[:, None]
    (note,) = match_genes(GeneEmbeddings("some", genes, vectors), genes).notes
    assert note.startswith("20 vectors")
    assert "GENE0 = GENE1, GENE2 = GENE3, " in note
    assert "GENE38" not in note
    assert "(20 in all)" in note


def test_vectors_that_differ_a_little_are_not_named_as_shared():
    vectors = np.ones((3, 4), dtype=np.float32)
    vectors[1, 3] = np.nextafter(np.float32(1), np.float32(2))
    vectors[2] = [2, 1, 1, 1]
    known = GeneEmbeddings("some", ("JAK2", "MYC", "STAT1"), vectors)
    assert match_genes(known, ["STAT1", "MYC", "JAK2"]).notes == ()


def test_a_gene_wanted_twice_shares_its_vector_with_no_other():
    assert match_genes(embeddings("JAK2", "MYC"), ["JAK2", "MYC", "JAK2"]).notes == ()


def test_genes_of_which_none_is_found_are_all_missing(hgnc):
    matched = match_genes(embeddings("JAK2", "MYC"), ["Q1", "Q2"], hgnc)
    assert matched.missing == ("Q1", "Q2")
    assert matched.embeddings.vectors.shape == (0, 2)


KNOWN = [
    "STAT1",
    "STAT2",
    "MARCHF1",
    "MARCHF8",
    "MTARC1",
    "SEPTIN9",
    "DELEC1",
    "IER5",
    "KMT2A",
    "NKX2-1",
    "TP53",
    "ENSG00000115415",
    "HLA-A",
    "ENSG00000136997.21",
    "RPL10A",
    "ZBTB25",
]


@pytest.mark.parametrize(
    ("wanted", "likely"),
    [
        ("stat1", "STAT1"),
        (" STAT1 ", "STAT1"),
        ("Stat2", "STAT2"),
        ("STATT1", "STAT1"),
        ("1-Mar", "MARCHF1 or MTARC1"),
        ("Mar-01", "MARCHF1 or MTARC1"),
        ("8-Mar", "MARCHF8"),
        ("2023-03-08 00:00:00", "MARCHF8"),
        ("MARCH8", "MARCHF8"),
        ("MARCH1", "MARCHF1"),
        ("MARC1", "MTARC1"),
        ("SEPT9", "SEPTIN9"),
        ("9-Sep", "SEPTIN9"),
        ("Dec-01", "DELEC1"),
        ("DEC1", "DELEC1"),
        ("ENSG00000115415.21", "ENSG00000115415"),
        ("ENSG00000136997", "ENSG00000136997.21"),
        ("HLA.A", "HLA-A"),
        ("IER5L", "IER5"),
        ("KMT2D", None),  # members of a family are other genes
        ("STAT3", None),
        ("IRF1", None),
        ("ZBTB1", None),
        ("7-Mar", None),
        ("Q", None),
    ],
)
def test_likely_names_are_proposed_and_not_used(wanted, likely):
    matched = match_genes(embeddings(*KNOWN), [wanted, "TP53"])
    assert matched.embeddings.genes == ("TP53",)
    assert matched.missing == (wanted,)
    told = f"likely names of missing genes, not used: {wanted.strip()} -> {likely}"
    assert [" ".join(note.split()) for note in matched.notes] == ([] if likely is None else [told])


def test_damaged_names_of_the_embeddings_are_proposed_too():
    notes = match_genes(embeddings("9-Sep", "JAK2"), ["SEPTIN9"]).notes
    assert notes == ("likely names of missing genes, not used: SEPTIN9 -> 9-Sep",)


def test_many_proposals_are_cut_short_and_counted():
    genes = [f"GENE{number}" for number in range(500)]
    (note,) = match_genes(embeddings(*genes), [gene.lower() for gene in genes]).notes
    assert "gene19 -> GENE19, ... (500 in all)" in note


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.tsv", None, ("does not exist",)),
        ("hgnc.xlsx", "x", (".tsv",)),
        ("hgnc.tsv", "symbol\tprev_symbol\nA\tB\n", ("no column alias_symbol", "symbol, prev_symbol")),
        ("hgnc.tsv", "", ("cannot be read",)),
        ("hgnc.tsv", "symbol,prev_symbol\nA,B\n", ("tabs",)),
    ],
)
def test_a_table_of_aliases_that_cannot_be_used_is_named_in_one_line(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as failure:
        match_genes(embeddings("A"), ["Z"], tmp_path / name)
    message = str(failure.value)
    assert len(message.splitlines()) == 1
    for word in ("--aliases", name, *words):
        assert word in message


def test_embeddings_need_no_torch():
    code = "import sys, histpert.embeddings; print(*{'torch', 'ray', 'anndata'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == []
