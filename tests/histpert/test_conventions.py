"""One small screen, written in the layout of each collection of screens, reads to the same screen."""

import gzip

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp

from histpert.errors import InputError
from histpert.screens import ReadOptions, group_cells, read_screen
from histpert.screens.matrices import CellMatrix
from histpert.screens.normalization import log_normalize

GENES = [f"GENE{number}" for number in range(12)]
ENSEMBL = [f"ENSG{number:011d}.3" for number in range(12)]
TARGETS = ["", "GENE1", ("GENE1", "GENE2"), "GENE2", "", None, "GENE3", "", "GENE3", ("GENE2", "GENE3"), "GENE1", ""]
CELLS = [f"CELL{number}-1" for number in range(len(TARGETS))]
COUNTS = np.random.default_rng(0).poisson(1.5, (len(TARGETS), len(GENES))).astype(np.float32)


def expected():
    single = [target if not isinstance(target, tuple) else None for target in TARGETS]
    return group_cells(log_normalize(CellMatrix.of(COUNTS), None)[0], single, GENES, "expected")


def labels(control, several="{0}+{1}", single="{0}", unknown=None):
    words = {"": control, None: unknown}
    return [
        several.format(*target) if isinstance(target, tuple) else words.get(target, single.format(target))
        for target in TARGETS
    ]


def write(path, columns, *, var=None, counts=COUNTS, layers=None, raw=False):
    obs = pd.DataFrame(columns, index=CELLS)
    var = pd.DataFrame(index=GENES) if var is None else var
    data = anndata.AnnData(sp.csr_matrix(counts), obs=obs, var=var, layers=layers)
    if raw:
        data.raw = anndata.AnnData(sp.csr_matrix(COUNTS), obs=obs, var=var)
    (data.write_zarr if path.suffix == ".zarr" else data.write_h5ad)(path)
    return path


def gears(folder):
    """Singles in either order; the cell line in names that are never read for labels; genes by Ensembl id."""
    conditions = labels("ctrl", single="{0}+ctrl")
    conditions[3] = f"ctrl+{TARGETS[3]}"
    columns = {
        "condition": conditions,
        "cell_type": "A549",
        "condition_name": [f"A549_{name}_1+1" for name in conditions],
        "control": [int(name == "ctrl") for name in conditions],
    }
    return write(folder / "s.h5ad", columns, var=pd.DataFrame({"gene_name": GENES}, index=ENSEMBL)), {}


def scperturb(folder):
    columns = {
        "perturbation": labels("control", "{0}_{1}"),
        "nperts": [len(target) if isinstance(target, tuple) else int(bool(target)) for target in TARGETS],
    }
    return write(folder / "s.h5ad", columns), {}


def perturbench(folder):
    columns = {"condition": labels("control"), "perturbation_type": "CRISPRa", "dose": "1"}
    return write(folder / "s.h5ad", columns), {}


def cell_eval(folder):
    return write(folder / "s.h5ad", {"target_gene": labels("non-targeting")}), {}


def cell_eval_target(folder):
    return write(folder / "s.h5ad", {"target": labels("non-targeting"), "gene": "unused"}), {}


def replogle(folder):
    columns = {"gene": labels("non-targeting"), "gene_transcript": "0_X_P1P2", "UMI_count": 5.0}
    return write(folder / "s.h5ad", columns, var=pd.DataFrame({"gene_name": GENES}, index=ENSEMBL)), {}


def guides(folder):
    words = labels("NTg1", "{0}g1+{1}g2", "{0}g2", unknown=None)
    table = {word: target for word, target in zip(words, labels("non-targeting"), strict=True) if word}
    pd.DataFrame({"target": table.values(), "guide": table.keys()}).to_csv(folder / "guides.csv", index=False)
    path = write(folder / "s.h5ad", {"guide": words})
    return path, {"guide_table": folder / "guides.csv"}


def other_names(folder):
    path = write(folder / "s.h5ad", {"treatment": labels("mock")})
    return path, {"perturbation_column": "treatment", "control_label": "mock"}


def zarr(folder):
    return write(folder / "s.zarr", {"perturbation": labels("control")}), {}


def layer(folder):
    path = write(folder / "s.h5ad", {"perturbation": labels("control")}, counts=COUNTS - 1, layers={"counts": COUNTS})
    return path, {"layer": "counts"}


def raw(folder):
    path = write(folder / "s.h5ad", {"perturbation": labels("control")}, counts=COUNTS - 1, raw=True)
    return path, {"layer": "raw"}


def cell_table(folder):
    rows = pd.DataFrame({"barcode": CELLS, "perturbation": labels("control", unknown="")})
    rows.iloc[::-1].to_csv(folder / "cells.tsv", sep="\t", index=False)
    return {"cell_table": folder / "cells.tsv"}


WITH_GUIDES = sp.csc_matrix(np.column_stack([COUNTS, np.ones(len(CELLS))]).astype(np.int32))
"""10x counts guides beside genes."""
FEATURES = {
    "id": [*ENSEMBL, "g1"],
    "name": [*GENES, "guide 1"],
    "feature_type": [*["Gene Expression"] * len(GENES), "CRISPR Guide Capture"],
}


def ten_x_h5(folder):
    by_gene = sp.csc_matrix(WITH_GUIDES.T)
    with h5py.File(folder / "s.h5", "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(by_gene, name)
        group["shape"] = np.array(by_gene.shape)
        group["barcodes"] = np.array(CELLS, dtype="S")
        for name, values in FEATURES.items():
            group[f"features/{name}"] = np.array(values, dtype="S")
    return folder / "s.h5", cell_table(folder)


def ten_x_folder(folder, compressed=True):
    place = folder / "filtered_feature_bc_matrix"
    place.mkdir()
    lines = {"features.tsv": zip(*FEATURES.values(), strict=True), "barcodes.tsv": ((cell,) for cell in CELLS)}
    for name, rows in lines.items():
        content = "".join("\t".join(row) + "\n" for row in rows).encode()
        (place / f"{name}{'.gz' * compressed}").write_bytes(gzip.compress(content) if compressed else content)
    scipy.io.mmwrite(place / "matrix.mtx", WITH_GUIDES.T)
    if compressed:
        matrix = place / "matrix.mtx"
        (place / "matrix.mtx.gz").write_bytes(gzip.compress(matrix.read_bytes()))
        matrix.unlink()
    return place, cell_table(folder)


def ten_x_plain(folder):
    place, options = ten_x_folder(folder, compressed=False)
    return place / "matrix.mtx", options


LAYOUTS = (
    *(gears, scperturb, perturbench, cell_eval, cell_eval_target, replogle, guides, other_names),
    *(zarr, layer, raw, ten_x_h5, ten_x_folder, ten_x_plain),
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_every_layout_reads_to_the_same_screen(layout, tmp_path):
    path, options = layout(tmp_path)
    screen = read_screen(path, ReadOptions(**options))
    assert screen.perturbations == ("GENE1", "GENE2", "GENE3")
    assert screen.genes == tuple(GENES)
    np.testing.assert_array_equal(screen.n_cells, [4, 2, 1, 2])
    assert screen.fingerprint() == expected().fingerprint()


@pytest.mark.parametrize(
    "layout", [gears, scperturb, perturbench, replogle, guides], ids=lambda layout: layout.__name__
)
def test_guesses_and_what_is_left_out_are_noted(layout, tmp_path):
    path, options = layout(tmp_path)
    notes = "\n".join(read_screen(path, ReadOptions(**options)).notes)
    assert "perturbation column" in notes
    assert "control label" in notes
    assert "left out 2 combinations of perturbations (2 cells)" in notes
    assert "left out 1 cells without a label" in notes
    assert ("'gene_name' of var" in notes) == (layout in (gears, replogle))


def test_an_underscore_in_the_name_of_a_gene_is_no_combination(tmp_path):
    words = ["control", "control", "HLA_A", "HLA_A", "HLA_A_GENE1"]
    data = anndata.AnnData(
        sp.csr_matrix(COUNTS[:5]),
        obs=pd.DataFrame({"perturbation": words, "nperts": [0, 0, 1, 1, 2]}, index=CELLS[:5]),
        var=pd.DataFrame(index=GENES),
    )
    data.write_h5ad(tmp_path / "s.h5ad")
    assert read_screen(tmp_path / "s.h5ad").perturbations == ("HLA_A",)


def test_all_names_of_control_count_as_control(tmp_path):
    words = labels("control")
    words[0] = "non-targeting"
    words[4] = "Control"
    path = write(tmp_path / "s.h5ad", {"perturbation": words})
    assert read_screen(path).fingerprint() == expected().fingerprint()


def test_genes_that_share_a_symbol_are_told_apart(tmp_path):
    symbols = [*GENES[:10], GENES[0], ""]
    path = write(
        tmp_path / "s.h5ad", {"gene": labels("non-targeting")}, var=pd.DataFrame({"gene_name": symbols}, index=ENSEMBL)
    )
    screen = read_screen(path)
    assert screen.genes == (*GENES[:10], "GENE0-1", ENSEMBL[11])  # as scanpy's var_names_make_unique does
    assert any("GENE0-1" in note for note in screen.notes)


def test_genes_that_got_a_number_are_listed_and_no_others(tmp_path):
    # NKX2-1 is a gene of its own, and NKX2 the second time is not taken for it.
    symbols = ["NKX2-1", "GENE0", "HLA-A", "NKX2", "GENE1", "GENE0", "NKX2", "GENE0", *GENES[8:]]
    path = write(
        tmp_path / "s.h5ad", {"gene": labels("non-targeting")}, var=pd.DataFrame({"gene_name": symbols}, index=ENSEMBL)
    )
    screen = read_screen(path)
    numbered = ["GENE0-1", "NKX2-2", "GENE0-2"]
    assert screen.genes == ("NKX2-1", "GENE0", "HLA-A", "NKX2", "GENE1", *numbered, *GENES[8:])
    (note,) = [note for note in screen.notes if "got a number" in note]
    assert note == f"3 genes share a name with another and got a number: {', '.join(numbered)}"


def test_unique_names_that_end_in_a_number_are_no_cause_for_a_note(tmp_path):
    symbols = ["NKX2-1", "NKX2-2", *GENES[2:]]
    path = write(
        tmp_path / "s.h5ad", {"gene": labels("non-targeting")}, var=pd.DataFrame({"gene_name": symbols}, index=ENSEMBL)
    )
    screen = read_screen(path)
    assert screen.genes == tuple(symbols)
    assert not any("got a number" in note for note in screen.notes)


def test_what_is_often_a_mistake_is_noted(tmp_path):
    words = labels("control")
    words[1] = words[10] = "ELSEWHERE"
    notes = "\n".join(read_screen(write(tmp_path / "s.h5ad", {"perturbation": words})).notes)
    assert "1 of 3 perturbed genes are not among the genes measured: ELSEWHERE" in notes
    assert "3 perturbations have fewer than 10 cells: ELSEWHERE, GENE2, GENE3" in notes


BAD = {
    "layer": ({"layer": "count"}, "no layer 'count'"),
    "gene column": ({"gene_column": "symbol"}, "no column 'symbol' in var"),
    "missing guide table": ({"guide_table": "none.csv"}, "none.csv does not exist"),
    "guides of another screen": ({"guide_table": "other.csv"}, "has none of the guides"),
    "a guide with two targets": ({"guide_table": "twice.csv"}, "guide 'g1' has more than one target"),
    "one column": ({"guide_table": "one.csv"}, "rows of two columns or more"),
    "empty table": ({"guide_table": "empty.csv"}, "cannot be read as a table"),
    "table of another kind": ({"guide_table": "s.h5ad"}, "tables are read from .csv, .tsv"),
    "cells of another screen": ({"cell_table": "other.csv"}, "names none of the cells"),
    "a cell that stands twice": ({"cell_table": "cell_twice.csv"}, "cell 'CELL0-1' stands there more than once"),
}


@pytest.mark.parametrize("case", BAD)
def test_input_that_cannot_be_used_is_named_in_one_line(case, tmp_path):
    tables = {
        "other.csv": "guide,target\nx1,X\n",
        "twice.csv": "guide,target\ng1,X\ng1,Y\n",
        "one.csv": "guide\nx1\n",
        "empty.csv": "",
        "cell_twice.csv": "cell,perturbation\nCELL0-1,A\nCELL0-1,control\n",
    }
    for name, content in tables.items():
        (tmp_path / name).write_text(content)
    path = write(tmp_path / "s.h5ad", {"perturbation": labels("control")})
    options, said = BAD[case]
    options = {name: tmp_path / value if name.endswith("table") else value for name, value in options.items()}
    with pytest.raises(InputError) as failure:
        read_screen(path, ReadOptions(**options))
    assert said in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("name", ["s.h5", "s.mtx", "s.zarr", "folder", "s.loom", "missing.h5ad"])
def test_a_file_of_another_kind_is_named_in_one_line(name, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "s.zarr").mkdir()
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["counts"] = COUNTS
    for other in ("s.mtx", "s.loom"):
        (tmp_path / other).write_text("not a matrix")
    with pytest.raises(InputError) as failure:
        read_screen(tmp_path / name)
    assert str(failure.value).startswith(str(tmp_path))
    assert "\n" not in str(failure.value)
