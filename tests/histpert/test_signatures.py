from itertools import pairwise

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import read_papalexi
from scipy.stats import norm, spearmanr, ttest_ind

from histpert.errors import InputError
from histpert.perturbert.corpus import Signatures, SignatureSource, read_corpus, write_corpus
from histpert.perturbert.gctx import gctx_signatures
from histpert.perturbert.reading import SignatureOptions, checked_signatures, read_signatures, read_vocabulary
from histpert.perturbert.screen_signatures import ScreenSignatureOptions, read_screen_signatures, screen_signatures
from histpert.perturbert.signature_tables import table_signatures
from histpert.screens import ReadOptions, Screen, group_cells


def source(
    name: str, genes: str, z: list[list[float]], perturbations: list[str], line: str = "K562"
) -> SignatureSource:
    part = Signatures(perturbations, [line] * len(z), np.array(z, np.float32))
    return SignatureSource(name, tuple(genes), lambda: iter([part]))


def all_of(source: SignatureSource) -> Signatures:
    parts = list(source.parts())
    return Signatures(
        [name for part in parts for name in part.perturbations],
        [line for part in parts for line in part.cell_lines],
        np.concatenate([part.z for part in parts]),
    )


def screen_of(sizes: dict[str, int], shift: float = 0.0, n_genes: int = 200, seed: int = 0) -> Screen:
    """Normal values, those of perturbations shifted in half of the genes; the control group is named ""."""
    random = np.random.default_rng(seed)
    labels = [name for name, n_cells in sizes.items() for _ in range(n_cells)]
    values = 5 + random.standard_normal((len(labels), n_genes))
    values[np.array([label != "" for label in labels])[:, None] & (np.arange(n_genes) % 2 == 0)] += shift
    genes = [f"G{number}" for number in range(n_genes)]
    return group_cells(sp.csr_matrix(values.astype(np.float32)), labels, genes, "screen")


# ---- corpus


def test_a_gene_that_a_source_does_not_measure_is_absent(tmp_path):
    corpus = write_corpus(
        tmp_path / "c.arrow",
        [source("one", "AB", [[1, 2], [3, 4]], ["X", "Y"]), source("two", "CB", [[5, 6]], ["X"], "RPE1")],
    )
    assert corpus.genes == ("A", "B", "C")
    expected = [[1, 2, np.nan], [3, 4, np.nan], [np.nan, 6, 5]]
    np.testing.assert_array_equal(corpus.z(np.arange(3)), expected)
    np.testing.assert_array_equal(corpus.z(np.array([2, 0, 2])), np.array(expected)[[2, 0, 2]])
    assert corpus.perturbations.tolist() == ["X", "Y", "X"]
    assert corpus.cell_lines.tolist() == ["K562", "K562", "RPE1"]
    assert corpus.sources.tolist() == ["one", "one", "two"]


def test_the_vocabulary_chooses_and_orders_genes(tmp_path):
    corpus = write_corpus(tmp_path / "c.arrow", [source("one", "ABC", [[1, 2, 3]], ["X"])], ["C", "Z", "A"])
    np.testing.assert_array_equal(corpus.z(np.arange(1)), [[3, np.nan, 1]])


def test_signatures_without_a_gene_of_the_vocabulary_are_left_out(tmp_path):
    z = [[np.nan, 1], [2, np.nan]]
    corpus = write_corpus(tmp_path / "c.arrow", [source("one", "AB", z, ["X", "Y"])], ["A"])
    assert corpus.perturbations.tolist() == ["Y"]


def test_held_out_targets_are_left_out_in_every_cell_line_and_combination(tmp_path):
    names = ["X", "Y", "X+Y", "Z", "XY", "Y+Z"]
    corpus = write_corpus(tmp_path / "c.arrow", [source("one", "A", [[1.0]] * 6, names)])
    assert corpus.perturbations[corpus.without(["X"])].tolist() == ["Y", "Z", "XY", "Y+Z"]
    # of a combination its genes alone may be known
    assert corpus.perturbations[corpus.without(["Y+X"])].tolist() == ["X", "Y", "Z", "XY", "Y+Z"]


def test_a_fingerprint_depends_on_the_rows_it_is_of(tmp_path):
    z = np.random.default_rng(0).standard_normal((4, 2)).tolist()
    first = write_corpus(tmp_path / "a.arrow", [source("one", "AB", z, list("WXYZ"))])
    z[3][1] += 1
    second = write_corpus(tmp_path / "b.arrow", [source("one", "AB", z, list("WXYZ"))])
    assert first.fingerprint() != second.fingerprint()
    assert first.fingerprint(np.arange(3)) == second.fingerprint(np.arange(3))


def test_a_corpus_is_read_as_a_source_again(tmp_path):
    path = tmp_path / "first.arrow"
    z = [[1.0, np.nan], [2.0, 3.0]]
    write_corpus(path, [source("one", "AB", z, ["X", "Y"])])
    again = read_signatures(str(path), SignatureOptions(), seed=0)
    np.testing.assert_array_equal(all_of(again).z, z)
    assert again.genes == ("A", "B")


@pytest.mark.parametrize("content", [b"", b"no arrow", None])
def test_a_file_that_is_no_corpus(tmp_path, content):
    path = tmp_path / "c.arrow"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"c\.arrow cannot be read as a corpus"):
        read_corpus(path)


def test_sources_outside_the_vocabulary(tmp_path):
    with pytest.raises(InputError, match="one has no gene of the vocabulary: it has A, B, the vocabulary C"):
        write_corpus(tmp_path / "c.arrow", [source("one", "AB", [[1, 2]], ["X"])], ["C"])
    assert not (tmp_path / "c.arrow").exists()


# ---- tables


def write(path, rows: dict) -> None:
    table = pd.DataFrame(rows)
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_what_a_sparse_table_does_not_list_is_unchanged(tmp_path, suffix):
    rows = {
        "perturbation": ["P", "P", "Q", "P"],
        "gene": ["A", "B", "B", "C"],
        "z_score": [4.0, -5.0, 6.0, 1.0],
        "cell_line": ["K562", "K562", "K562", "RPE1"],
    }
    write(tmp_path / f"t{suffix}", rows)
    found = table_signatures(tmp_path / f"t{suffix}", "unused")
    assert found.genes == ("A", "B", "C")
    signatures = all_of(found)
    assert list(zip(signatures.cell_lines, signatures.perturbations, strict=True)) == [
        ("K562", "P"),
        ("K562", "Q"),
        ("RPE1", "P"),
    ]
    # C is listed in RPE1 only: in K562 nobody says that it was measured
    np.testing.assert_array_equal(signatures.z, [[4, -5, np.nan], [0, 6, np.nan], [np.nan, np.nan, 1]])


def test_ranks_become_normal_quantiles(tmp_path):
    write(tmp_path / "t.csv", {"perturbation": list("PPQ"), "gene": list("ABC"), "rank": [1, 2, 1]})
    signatures = all_of(table_signatures(tmp_path / "t.csv", "K562"))
    of_rank = {rank: norm.ppf(1 - (rank - 0.5) / 3) for rank in (1, 2)}
    np.testing.assert_allclose(signatures.z, [[of_rank[1], of_rank[2], 0], [0, 0, of_rank[1]]], rtol=1e-6, atol=1e-7)
    assert signatures.cell_lines == ["K562", "K562"]


def test_rows_without_a_perturbation_are_counted(tmp_path):
    write(tmp_path / "t.parquet", {"perturbation": ["P", None], "gene": ["A", "B"], "z_score": [1.0, 2.0]})
    found = table_signatures(tmp_path / "t.parquet", "K562")
    assert found.genes == ("A",)
    assert "1 rows name no perturbation" in found.notes[0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"perturbation": ["P"], "z_score": [1.0]}, "has no column gene; it has perturbation, z_score"),
        ({"perturbation": ["P"], "gene": ["A"], "score": [1.0]}, "has no column z_score"),
        ({"perturbation": ["P"], "gene": ["A"], "z_score": ["high"]}, "'high' for P, gene A"),
        ({"perturbation": list("PP"), "gene": list("AA"), "z_score": [1.0, 2.0]}, "gene A stands twice for P"),
        ({"perturbation": ["P"], "gene": ["A"], "rank": [0]}, "ranks run from 0"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, rows, said):
    write(tmp_path / "t.csv", rows)
    with pytest.raises(InputError, match=said):
        all_of(table_signatures(tmp_path / "t.csv", "K562"))


# ---- L1000


def write_gctx(path, z: np.ndarray, **meta: dict[str, list[str]]) -> None:
    with h5py.File(path, "w") as file:
        file["0/DATA/0/matrix"] = z
        for where, fields in meta.items():
            for name, values in fields.items():
                file[f"0/META/{where}/{name}"] = np.array(values, dtype="S")


IDS = {"ROW": {"id": ["10", "20", "30"]}, "COL": {"id": ["s1", "s2"]}}
Z = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


def test_names_inside_a_gctx(tmp_path):
    row = IDS["ROW"] | {"pr_gene_symbol": list("ABC")}
    column = IDS["COL"] | {"cmap_name": ["drug", "KRAS"], "cell_iname": ["A375", "MCF7"]}
    write_gctx(tmp_path / "l.gctx", Z, ROW=row, COL=column)
    found = read_signatures(str(tmp_path / "l.gctx"), SignatureOptions(), seed=0, genes=["C", "A", "Z"])
    assert found.genes == ("A", "C")
    assert all_of(found)[:2] == (["drug", "KRAS"], ["A375", "MCF7"])
    np.testing.assert_array_equal(all_of(found).z, Z[:, [0, 2]])


def test_names_from_the_tables_beside_it(tmp_path):
    write_gctx(tmp_path / "l.gctx", Z, **IDS)
    (tmp_path / "genes.txt").write_text("pr_gene_id\tpr_gene_symbol\tpr_is_lm\n20\tB\t1\n10\tA\t1\n")
    (tmp_path / "sigs.txt").write_text("sig_id\tpert_iname\tcell_id\ns2\tKRAS\tMCF7\ns1\t-666\tMCF7\n")
    found = gctx_signatures(tmp_path / "l.gctx", tmp_path / "sigs.txt", tmp_path / "genes.txt")
    assert found.genes == ("A", "B")
    assert all_of(found)[:2] == (["KRAS"], ["MCF7"])
    np.testing.assert_array_equal(all_of(found).z, [[4, 5]])
    assert "1 signatures name no perturbation" in found.notes[0]


def test_a_large_gctx_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("histpert.perturbert.gctx.ROWS_AT_ONCE", 4)
    z = np.random.default_rng(0).standard_normal((11, 3)).astype(np.float32)
    column = {"id": [f"s{n}" for n in range(11)], "pert_iname": [f"P{n}" for n in range(11)], "cell_id": ["A"] * 11}
    write_gctx(tmp_path / "l.gctx", z, ROW=IDS["ROW"] | {"gene_symbol": list("ABC")}, COL=column)
    found = gctx_signatures(tmp_path / "l.gctx")
    assert [len(part.z) for part in found.parts()] == [4, 4, 3]
    corpus = write_corpus(tmp_path / "c.arrow", [found])
    rows = np.array([9, 0, 5])
    np.testing.assert_array_equal(corpus.z(rows), z[rows])
    assert corpus.perturbations[rows].tolist() == ["P9", "P0", "P5"]


def test_gctx_files_that_cannot_be_used(tmp_path):
    path = tmp_path / "l.gctx"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"l\.gctx cannot be read as \.gctx"):
        gctx_signatures(path)
    with h5py.File(path, "w") as file:
        file["X"] = Z
    with pytest.raises(InputError, match="has no field 0/DATA/0/matrix"):
        gctx_signatures(path)
    write_gctx(path, Z.T, **IDS)
    with pytest.raises(InputError, match="the matrix is 3 x 2, for 2 signatures of 3 genes"):
        gctx_signatures(path)
    write_gctx(path, Z, **IDS)
    with pytest.raises(InputError, match=r"no field pr_gene_symbol or gene_symbol: name the table .* with --gene-info"):
        gctx_signatures(path)
    (tmp_path / "genes.txt").write_text("gene_id\tgene_symbol\n99\tA\n")
    with pytest.raises(InputError, match="names none of the ids"):
        gctx_signatures(path, None, tmp_path / "genes.txt")


# ---- screens


def test_z_is_students_statistic():
    screen = screen_of({"": 100, "P": 30, "Q": 30}, shift=0.5)
    found = all_of(screen_signatures([screen], "K562", ScreenSignatureOptions(30), seed=0))
    cells = screen.expression.toarray().astype(float)
    expected = [ttest_ind(cells[group], cells[:100])[0] for group in (slice(100, 130), slice(130, 160))]
    np.testing.assert_allclose(found.z, expected, rtol=1e-5, atol=1e-6)
    assert (found.perturbations, found.cell_lines) == (["P", "Q"], ["K562"] * 2)


def test_a_large_group_gives_several_signatures_of_cells_apart():
    screen = screen_of({"": 50, "P": 67, "Q": 19})
    values = np.zeros((136, 200), np.float32)
    values[:, 0] = 2.0 ** (np.arange(136) % 20)
    screen = Screen("s", sp.csr_matrix(values), screen.genes, screen.perturbations, screen.group_start)
    found = screen_signatures([screen], "K562", ScreenSignatureOptions(20), seed=0)
    assert all_of(found).perturbations == ["P"] * 3
    assert "3 signatures of 20 cells each, of 1 perturbations" in found.notes[-2]
    assert "1 perturbations have fewer cells and no signature: Q" in found.notes[-1]


def test_cells_of_two_signatures_are_never_the_same():
    screen = screen_of({"": 10, "P": 40}, n_genes=40)
    one_cell_a_gene = sp.vstack([sp.csr_matrix((10, 40), dtype=np.float32), sp.eye(40, dtype=np.float32)]).tocsr()
    screen = Screen("s", one_cell_a_gene, screen.genes, screen.perturbations, screen.group_start)
    found = all_of(screen_signatures([screen], "K562", ScreenSignatureOptions(13), seed=0))
    without = all_of(screen_signatures([screen], "K562", ScreenSignatureOptions(13), seed=1))
    seen = found.z > 0
    np.testing.assert_array_equal(seen.sum(axis=1), 13)
    assert seen.sum(axis=0).max() == 1
    assert not np.array_equal(found.z, without.z)


def test_a_rare_gene_that_few_cells_lack_is_not_taken_for_silenced():
    """Of 2% of all cells, perturbed or not: most signatures of 20 cells have none, and no variance of their own."""
    random = np.random.default_rng(0)
    screen = screen_of({"": 1_000, "P": 1_000})
    cells = sp.csr_matrix((random.random((2_000, 200)) < 0.02).astype(np.float32))
    rare = Screen("s", cells, screen.genes, screen.perturbations, screen.group_start)
    z = all_of(screen_signatures([rare], "K562", ScreenSignatureOptions(20), seed=0)).z
    assert z.std() == pytest.approx(1, abs=0.1)
    assert z.min() > -2


def test_genes_that_do_not_vary_do_not_respond():
    screen = screen_of({"": 30, "P": 30}, n_genes=3)
    cells = screen.expression.toarray()
    cells[:, 0], cells[:, 1] = 0.0, 1.1
    screen = Screen("s", sp.csr_matrix(cells), screen.genes, screen.perturbations, screen.group_start)
    z = all_of(screen_signatures([screen], "K562", ScreenSignatureOptions(30), seed=0)).z
    np.testing.assert_array_equal(z[:, :2], 0)
    assert z[0, 2] != 0


@pytest.mark.parametrize("shift", [0.0, 0.4])
@pytest.mark.parametrize("n_replicates", [1, 3])
def test_bins_do_not_tell_the_size_of_a_group(shift, n_replicates):
    sizes = {"": 2000} | {f"P{number:02d}": 40 * (1 + number) for number in range(20)}
    screens = [screen_of(sizes, shift, seed=seed) for seed in range(n_replicates)]
    found = all_of(screen_signatures(screens, "K562", ScreenSignatureOptions(40), seed=0))
    strength = pd.Series(np.abs(found.z).mean(axis=1)).groupby(found.perturbations).mean()
    size = [sizes[name] for name in strength.index]
    assert abs(spearmanr(size, strength)[0]) < 0.4
    # and what all cells give does, where there is something to find
    cells = screens[0].expression.toarray()
    of_all = [
        np.abs(ttest_ind(cells[a:b], cells[:2000])[0]).mean() for a, b in list(pairwise(screens[0].group_start))[1:]
    ]
    if shift:
        assert spearmanr(size, of_all)[0] > 0.9


def test_on_a_measured_screen_bins_do_not_tell_the_size_of_a_group():
    """Groups of unlike size, all of cells of one strong perturbation: what differs between them is their size alone."""
    screen = read_papalexi(min_control_detection=0.01)
    group = screen.perturbations.index("STAT1") + 1
    cells = np.random.default_rng(0).permutation(screen.n_cells[group]) + screen.group_start[group]
    sizes = {"A": 40, "B": 80, "C": len(cells) - 120}
    assert sizes["C"] > 200
    rows = np.concatenate([np.arange(screen.n_cells[0]), cells])
    start = np.cumsum([0, screen.n_cells[0], *sizes.values()])
    groups = Screen("s", screen.expression[rows], screen.genes, tuple(sizes), start)
    found = all_of(screen_signatures([groups], "THP-1", ScreenSignatureOptions(40), seed=0))
    strength = pd.Series(np.abs(found.z).mean(axis=1)).groupby(found.perturbations).mean()
    values = groups.expression.toarray().astype(float)
    control = values[: start[1]]
    of_all = [np.nan_to_num(np.abs(ttest_ind(values[a:b], control)[0])).mean() for a, b in pairwise(start[1:])]
    assert of_all[2] > 1.4 * of_all[0]
    assert strength["C"] == pytest.approx(strength["A"], rel=0.15)
    assert strength["B"] == pytest.approx(strength["A"], rel=0.15)


def test_replicates_are_compared_with_their_own_control():
    # a replicate in which everything is higher, control too, has no effect
    screens = [screen_of({"": 200, "P": 40, "Q": 40}, seed=seed) for seed in range(3)]
    lifted = screens[1].expression.toarray() + 3
    screens[1] = Screen("s", sp.csr_matrix(lifted), screens[1].genes, screens[1].perturbations, screens[1].group_start)
    z = all_of(screen_signatures(screens, "K562", ScreenSignatureOptions(40), seed=0)).z
    assert np.abs(z).mean() < 1.2
    shifts = np.stack(
        [
            [
                screen.expression[group].toarray().mean(axis=0) - screen.control.toarray().mean(axis=0)
                for group in groups
            ]
            for screen in screens
            for groups in [(slice(200, 240), slice(240, 280))]
        ]
    )
    expected = shifts.mean(axis=0) / np.sqrt(shifts.var(axis=0, ddof=1).mean(axis=0) / 3)
    np.testing.assert_allclose(z, expected, rtol=1e-3, atol=1e-4)


def test_replicates_of_a_file(tmp_path):
    screen = screen_of({"": 60, "P": 30, "Q": 30}, n_genes=5)
    obs = pd.DataFrame({"perturbation": ["control"] * 60 + ["P"] * 30 + ["Q"] * 30, "bio_rep": ["r1", "r2"] * 60})
    obs.index = obs.index.astype(str)
    data = anndata.AnnData(screen.expression, obs, pd.DataFrame(index=list(screen.genes)))
    data.write_h5ad(tmp_path / "s.h5ad")
    options = ScreenSignatureOptions(15, "bio_rep")
    found = read_screen_signatures(tmp_path / "s.h5ad", "K562", ReadOptions(), options, 0)
    assert all_of(found).perturbations == ["P", "Q"]
    assert "in each of 2 replicates" in found.notes[-1]
    with pytest.raises(InputError, match="has no column 'batch'"):
        read_screen_signatures(tmp_path / "s.h5ad", "K562", ReadOptions(), ScreenSignatureOptions(15, "batch"), 0)
    with pytest.raises(InputError, match="no perturbation has 16 cells in each of 2 replicates, the largest has 15"):
        read_screen_signatures(tmp_path / "s.h5ad", "K562", ReadOptions(), ScreenSignatureOptions(16, "bio_rep"), 0)


# ---- what a user names


def test_files_and_cell_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checked_signatures(["K562=a.csv", "b.gctx"]) == (f"K562={tmp_path}/a.csv", f"{tmp_path}/b.gctx")
    for given in ("K562=", "=a.csv", ""):
        with pytest.raises(InputError, match="give FILE, or CELL_LINE=FILE"):
            checked_signatures([given])


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_signatures(str(tmp_path / "a.csv"), SignatureOptions(), 0)
    (tmp_path / "a.xlsx").touch()
    with pytest.raises(InputError, match=r"a\.xlsx: signatures are read from \.h5ad"):
        read_signatures(str(tmp_path / "a.xlsx"), SignatureOptions(), 0)
    (tmp_path / "v.txt").touch()
    with pytest.raises(InputError, match="names no gene"):
        read_vocabulary(tmp_path / "v.txt")
