"""Gene sets and the graph that they make, beside SciPy and the formulas."""

import numpy as np
import pytest
from real_data import REAL_DATA
from scipy.spatial.distance import jaccard

from histpert.errors import InputError
from histpert.gene_sets import gene_graph, read_gene_sets, write_gene_sets
from histpert.screens import PRESETS, simulate_screen, simulated_gene_sets

SETS = {"one": ("A", "B", "C"), "two": ("B", "C"), "three": ("C", "D", "X"), "other": ("Y",)}


def test_sets_are_read_as_they_were_written(tmp_path):
    write_gene_sets(tmp_path / "s.gmt", SETS)
    assert read_gene_sets(tmp_path / "s.gmt") == SETS


def test_what_enrichr_writes_is_read(tmp_path):
    (tmp_path / "s.gmt").write_text("one\thttp://x\tA,1.0\tB,0.5\t\tA,1.0\n\n")
    assert read_gene_sets(tmp_path / "s.gmt") == {"one": ("A", "B")}


@pytest.mark.parametrize(("name", "n_sets"), [("go_biological_process_2021.gmt", 6_036), ("kegg_2016.gmt", 293)])
def test_real_sets_are_as_many_as_published(name, n_sets):
    if not (REAL_DATA / name).is_file():
        pytest.skip(f"needs real data, which are not here: {REAL_DATA / name}")
    sets = read_gene_sets(REAL_DATA / name)
    assert len(sets) == n_sets
    assert min(map(len, sets.values())) > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("one A B\n", "line 1: no genes"),
        ("one\t\tA\none\t\tB\n", "line 2: a second set named one"),
        ("\n", "is empty"),
        (b"\xff\xfe\x00", "cannot be read"),
        (None, "cannot be read: .*No such file"),
    ],
)
def test_what_is_no_file_of_sets_is_refused_in_a_line(tmp_path, content, words):
    path = tmp_path / "s.gmt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words) as raised:
        read_gene_sets(path)
    assert "\n" not in str(raised.value)


def test_the_graph_is_that_of_jaccard_indices():
    genes = ["A", "B", "C", "D", "Z"]
    member = np.array([[gene in names for names in SETS.values()] for gene in genes])
    weights = np.array([[1 - jaccard(one, other) if one.any() else 0 for other in member] for one in member])
    degree = weights.sum(1)
    found = gene_graph(SETS, genes)
    assert (found[4] == 0).all()
    assert (found[:, 4] == 0).all()
    np.testing.assert_allclose(found[:4, :4], (weights / np.sqrt(np.outer(degree, degree) + 1e-30))[:4, :4], rtol=1e-6)
    # A symmetric graph that is so normalized has 1 as its largest eigenvalue (Chung 1997).
    assert np.linalg.eigvalsh(found[:4, :4]).max() == pytest.approx(1, abs=1e-6)


def test_a_gene_has_twenty_neighbours_at_most():
    genes = [f"G{number}" for number in range(60)]
    found = gene_graph({"all": genes, **{gene: [gene] for gene in genes}}, genes)
    assert ((found > 0).sum(1) == 21).all()
    assert (np.diag(found) > 0).all()


def test_simulated_sets_tell_what_embeddings_tell():
    embeddings = simulate_screen(0, PRESETS["easy"]).embeddings["good"]
    sets = simulated_gene_sets(embeddings)
    assert sets == simulated_gene_sets(embeddings)
    together = gene_graph(sets, embeddings.genes)
    cosine = np.corrcoef(embeddings.vectors - embeddings.vectors.mean(0))
    others = ~np.eye(len(cosine), dtype=bool)
    assert cosine[others & (together > 0.05)].mean() > 0.3
    assert cosine[others & (together == 0)].mean() < 0
