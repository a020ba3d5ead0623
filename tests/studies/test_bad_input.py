"""Every bad input is one line on standard error and exit status 2, before anything is trained; odd input is read."""

import gzip
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from bad_files import (
    CELL_TABLE,
    CELLS,
    COUNTS,
    EMBEDDED,
    ENSEMBL,
    GENES,
    GUIDE_TABLE,
    GUIDES,
    LABELS,
    TARGETS,
    VECTOR_TABLE,
    VECTORS,
    Calls,
    Make,
    after,
    changed,
    content,
    cut,
    embeddings,
    h5,
    h5ad_embeddings,
    nested_tuples,
    npy_header,
    old_layout,
    parquet,
    pickled,
    put,
    screen,
    spoiled,
    table,
    ten_x_folder,
    ten_x_h5,
    with_value,
    zarr_without,
    zipped,
)

from histpert.screens import ReadOptions, read_screen
from studies import bin_sweep, compare_screens, rerun, search
from studies.options import run_script

ROOT = Path(__file__).parents[2]
NOWHERE = "127.0.0.1:1"
"""An address where no Ray is: what should have been refused trains nothing."""


class Case(NamedTuple):
    """Bad input: how its files are made, what is asked for, and what the line must name. `{f}` is their folder."""

    make: Make
    said: tuple[str, ...]
    arguments: tuple[str, ...]
    script: str = "bin_sweep"
    address: str = NOWHERE


def same(folder: Path) -> None:
    """The files as they are."""


def of(make: Make, *said: str, screen: str = "screen.h5ad", emb: str = "emb.npz", ask: str = "", more=()) -> Case:
    """A small bin sweep of the screen and embeddings of these names."""
    names = ("--smoke", "--screen", f"{{f}}/{screen}", "--embeddings", f"{{f}}/{emb}")
    return Case(make, said, (*names, *ask.split(), *more))


def asked(arguments: str, *said: str, script: str = "bin_sweep", make: Make = same) -> Case:
    """Nothing but these arguments."""
    return Case(make, said, tuple(arguments.split()), script)


def shaped(arguments: str, *said: str) -> Case:
    """A screen that is as it should be, and settings that are not."""
    return Case(same, said, ("--screen", "{f}/screen.h5ad", "--embeddings", "{f}/emb.npz", *arguments.split()))


def filtered(expression: str, *said: str) -> Case:
    make = screen(perturbation=LABELS, n=np.arange(80), word=["a"] * 80, none=[np.nan] * 80)
    return of(make, "--cell-filter", *said, more=("--cell-filter", expression))


def guides(text: str | bytes, *said: str, name: str = "guides.csv") -> Case:
    return of(after(screen(guide=GUIDES), content(name, text)), name, *said, ask=f"--guide-table {{f}}/{name}")


def cells(text: str | bytes, *said: str, name: str = "cells.csv") -> Case:
    return of(after(screen(batch=["a"] * 80), content(name, text)), *said, ask=f"--cell-table {{f}}/{name}")


def ids(text: str, *said: str) -> Case:
    return of(content("ids.csv", text), "ids.csv", *said, ask="--embedding-ids {f}/ids.csv")


def ten_x(make: Make, *said: str, name: str = "screen.h5") -> Case:
    return of(make, *said, screen=name, ask="--cell-table {f}/cells.csv")


def vectors(values, *said: str) -> Case:
    return of(embeddings(vectors=values), "emb.npz", *said)


def text(written: str | bytes, *said: str, name: str = "emb.csv") -> Case:
    return of(content(name, written), name, *said, emb=name)


def pickle_of(value, *said: str, protocol: int = 4) -> Case:
    return of(pickled(value, protocol), "emb.pkl", *said, emb="emb.pkl")


SCREEN = "--screen {f}/screen.h5ad"
CSR, CSC = sp.csr_matrix(COUNTS), sp.csc_matrix(COUNTS)
SEEN_ONCE = np.where(CSR.data > 0, "x", "").astype("S1")
BAD: dict[str, dict[str, Case]] = {
    "file": {
        "missing": of(same, "no.h5ad does not exist", screen="no.h5ad"),
        "a link to nothing": of(lambda f: (f / "on.h5ad").symlink_to("no"), "on.h5ad does not exist", screen="on.h5ad"),
        "truncated": of(cut("screen.h5ad"), "screen.h5ad cannot be read", "truncated"),
        "without its last bytes": of(cut("screen.h5ad", 0.999), "screen.h5ad cannot be read", "truncated"),
        "of zero bytes": of(content("screen.h5ad", ""), "screen.h5ad cannot be read"),
        "text": of(content("screen.h5ad", CELL_TABLE), "screen.h5ad cannot be read"),
        "gzipped under its name": of(content("screen.h5ad", gzip.compress(b"x")), "screen.h5ad cannot be read"),
        "gzipped": of(content("screen.h5ad.gz", b""), "screen.h5ad.gz", "unpack it", screen="screen.h5ad.gz"),
        "a table": of(content("screen.csv", CELL_TABLE), "screen.csv", ".h5ad, .zarr", screen="screen.csv"),
        "without suffix": of(content("screen", b""), "screen: a screen is read from .h5ad", screen="screen"),
        "a folder": of(lambda f: (f / "s.h5ad").mkdir(), "s.h5ad is a folder without matrix.mtx", screen="s.h5ad"),
        "a name too long": of(same, "too long", screen="a" * 300 + ".h5ad"),
        "of other HDF5": of(h5("other.h5ad", a=[1, 2]), "other.h5ad has no 'obs'", "it holds: a", screen="other.h5ad"),
        "without cells": of(spoiled(lambda f: f.__delitem__("obs")), "screen.h5ad has no 'obs'"),
        "without genes": of(spoiled(lambda f: f.__delitem__("var")), "screen.h5ad has no 'var'"),
        "without names of cells": of(spoiled(lambda f: f["obs"].__delitem__("_index")), "screen.h5ad", "_index"),
        "with a column cut short": of(spoiled(put("obs/perturbation/codes", lambda c: c[:70])), "screen.h5ad"),
        "with labels of no category": of(spoiled(put("obs/perturbation/codes", lambda c: c + 50)), "screen.h5ad"),
    },
    "damaged matrix": {
        "bounds cut short": of(spoiled(put("X/indptr", CSR.indptr[:-1]), CSR), "X is damaged", "80 rows"),
        "bounds that fall": of(spoiled(put("X/indptr", CSR.indptr[::-1].copy()), CSR), "X is damaged"),
        "bounds beyond the values": of(spoiled(put("X/indptr", CSR.indptr * 2), CSR), "X is damaged"),
        "bounds missing": of(spoiled(lambda f: f["X"].__delitem__("indptr"), CSR), "screen.h5ad", "indptr"),
        "values missing": of(spoiled(lambda f: f["X"].__delitem__("data"), CSR), "screen.h5ad", "data"),
        "columns cut short": of(spoiled(put("X/indices", CSR.indices[:-3]), CSR), "X is damaged"),
        "columns of no gene": of(spoiled(put("X/indices", CSR.indices + 5), CSR), "damaged", "its 12 genes"),
        "negative columns": of(spoiled(put("X/indices", CSR.indices - 1), CSR), "damaged", "its 12 genes"),
        "columns as fractions": of(
            spoiled(put("X/indices", CSR.indices.astype(float)), CSR), "damaged", "whole numbers"
        ),
        "columns of text": of(spoiled(put("X/indices", SEEN_ONCE), CSR), "screen.h5ad", "X"),
        "columns in two dimensions": of(spoiled(put("X/indices", CSR.indices[:, None]), CSR), "screen.h5ad", "X"),
        "values in two dimensions": of(spoiled(put("X/data", CSR.data[:, None]), CSR), "screen.h5ad", "X"),
        "fewer genes than named": of(spoiled(put("X", COUNTS[:, :11])), "80 x 11", "12 genes in var"),
        "one dimension": of(spoiled(put("X", COUNTS[:, 0])), "X has 1 dimensions"),
        "10x without values": ten_x(ten_x_h5(lambda f: f["matrix"].__delitem__("data")), "screen.h5", "data"),
        "10x without features": ten_x(ten_x_h5(lambda f: f["matrix"].__delitem__("features")), "screen.h5", "features"),
        "10x of fewer barcodes": ten_x(ten_x_h5(put("matrix/barcodes", lambda b: b[:-1])), "screen.h5", "79"),
        "no 10x file": ten_x(ten_x_h5(lambda f: f.move("matrix", "hg19")), "no 10x file", "it holds hg19"),
        "mtx cut short": ten_x(after(ten_x_folder(), cut("tenx/matrix.mtx", 0.9)), "tenx", name="tenx"),
        "mtx without barcodes": ten_x(ten_x_folder(barcodes__tsv=None), "tenx has no barcodes.tsv", name="tenx"),
        "mtx of other barcodes": ten_x(ten_x_folder(barcodes__tsv=b"c1\nc2\n"), "tenx", "80", "2 rows", name="tenx"),
        "mtx without features": ten_x(ten_x_folder(features__tsv__gz=None), "no features.tsv", name="tenx"),
        "mtx of ragged features": ten_x(ten_x_folder(features__tsv__gz=gzip.compress(b"a\tb\nc")), "tenx", name="tenx"),
        "zarr of an empty folder": of(lambda f: (f / "s.zarr").mkdir(), "s.zarr cannot be read", screen="s.zarr"),
        "zarr without values": of(zarr_without("X/data/[0-9]*", "X/data/c/*"), "screen.zarr", screen="screen.zarr"),
        "zarr without columns": of(
            zarr_without("X/indices/[0-9]*", "X/indices/c/*"), "screen.zarr", screen="screen.zarr"
        ),
        "zarr without bounds": of(zarr_without("X/indptr/[0-9]*", "X/indptr/c/*"), "screen.zarr", screen="screen.zarr"),
    },
    "matrix": {
        "NaN": of(screen(with_value(np.nan)), "NaN or infinite", "1 cells", "row 5", "--cell-filter"),
        "NaN in CSR": of(screen(sp.csr_matrix(with_value(np.nan))), "NaN or infinite", "row 5"),
        "infinite": of(screen(with_value(np.inf)), "NaN or infinite", "row 5"),
        "negative": of(screen(with_value(-1)), "negative", "-1"),
        "scaled": of(screen((COUNTS - COUNTS.mean(0)) / COUNTS.std(0)), "negative", "not scaled ones"),
        "counts per million": of(screen(COUNTS * 1e5 + 0.5), "neither whole counts nor log-normalized", "--layer"),
        "all zeros": of(screen(COUNTS * 0), "screen.h5ad", "all values are 0"),
        "no genes": of(screen(COUNTS[:, :0]), "screen.h5ad", "genes"),
        "no cells": of(screen(COUNTS[:0], labels=[]), "screen.h5ad", "no", "cells"),
        "text": of(spoiled(put("X", COUNTS.astype("S3"))), "X: expression is stored as |S3"),
        "complex": of(screen(COUNTS.astype(complex)), "X: expression is stored as complex128"),
        "none": of(changed(lambda d: setattr(d, "X", None)), "no expression matrix in X", "--layer"),
        "missing layer": of(same, "no layer 'counts'", "--layer", "there are: none", ask="--layer counts"),
        "missing raw": of(same, "no layer 'raw'", "--layer", ask="--layer raw"),
        "a layer of another shape": of(
            after(
                changed(lambda d: d.layers.update(counts=COUNTS)), spoiled(put("layers/counts", COUNTS[:, :5].copy()))
            ),
            "80 x 5",
            "12 genes",
            ask="--layer counts",
        ),
    },
    "labels": {
        "no column": of(screen(batch=["a"] * 80), "--perturbation-column", "columns of obs: batch"),
        "missing column": of(same, "'target'", "columns there: perturbation", ask="--perturbation-column target"),
        "no control": of(screen(labels=["G6"] * 20 + TARGETS), "'perturbation'", "--control-label", "most common: G6"),
        "no such control": of(same, "no control cells labelled 'NT'", "--control-label", ask="--control-label NT"),
        "control of no cell": of(
            screen(labels=pd.Categorical(["G6"] * 20 + TARGETS, sorted({"control", "G6", *TARGETS}))),
            "no control cells labelled 'control'",
        ),
        "only control": of(screen(labels=["control"] * 80), "no cell with a single perturbation"),
        "one perturbation": of(screen(labels=["control"] * 20 + ["G1"] * 60), "1 perturbations cannot fill 3 folds"),
        "only combinations": of(screen(labels=["control"] * 20 + ["G1+G2"] * 60), "no cell with a single perturbation"),
        "numbers": of(screen(labels=np.repeat(range(8), 10)), "'perturbation'", "--control-label", "most common: 0"),
        "true and false": of(screen(labels=np.arange(80) < 20), "--control-label", "False, True"),
        "all missing": of(screen(labels=[np.nan] * 80), "'perturbation'", "no control cells"),
        "only a plus": of(screen(labels=["+"] * 20 + TARGETS), "no control cells"),
        "two columns of one name": of(
            spoiled(lambda f: f["obs"].attrs.__setitem__("column-order", np.array(["perturbation"] * 2, dtype=object))),
            "screen.h5ad",
            "perturbation",
        ),
        "missing library size": of(same, "'n_umi'", "--library-size-column", ask="--library-size-column n_umi"),
        "library size of zero": of(
            screen(perturbation=LABELS, n=[0.0] * 80), "'n'", "80 cells", ask="--library-size-column n"
        ),
        "library size of text": of(
            screen(perturbation=LABELS, n=["a"] * 80), "'n'", "80 cells", ask="--library-size-column n"
        ),
        "infinite library size": of(
            screen(perturbation=LABELS, n=[np.inf] + [100.0] * 79), "'n'", "1 cells", ask="--library-size-column n"
        ),
    },
    "guides": {
        "missing table": of(same, "--guide-table", "no.csv does not exist", ask="--guide-table {f}/no.csv"),
        "folder": of(lambda f: (f / "g.csv").mkdir(), "--guide-table", "is a folder", ask="--guide-table {f}/g.csv"),
        "of another kind": guides(GUIDE_TABLE, "--guide-table", ".csv, .tsv", name="guides.xlsx"),
        "empty": guides("", "--guide-table"),
        "header only": guides("guide,target\n", "--guide-table", "needs a header, and rows"),
        "tabs in csv": guides(GUIDE_TABLE.replace(",", "\t"), "--guide-table", "separated by commas"),
        "Latin-1": guides(GUIDE_TABLE.replace(",G1", ",Gé").encode("latin-1"), "--guide-table", "utf-8"),
        "no gzip": guides(GUIDE_TABLE, "--guide-table", "gzip", name="guides.csv.gz"),
        "of other guides": guides("guide,target\na,b\n", "none of the guides", "--perturbation-column"),
        "more fields than columns": guides("guide,target\na,b,c\nd,e\n", "--guide-table", "line 2 has 3 cells"),
        "two targets": guides(GUIDE_TABLE + "G1_0,G2\n", "'G1_0' has more than one target"),
        "no control": of(
            after(screen(guide=GUIDES), content("g.csv", GUIDE_TABLE.replace(",control", ",safe"))),
            "'guide'",
            "no control cells",
            "--control-label",
            ask="--guide-table {f}/g.csv",
        ),
    },
    "cell table": {
        "missing": of(same, "--cell-table", "no.csv does not exist", ask="--cell-table {f}/no.csv"),
        "empty": cells("", "--cell-table", "cells.csv"),
        "one column": cells("cell\nc1\n", "--cell-table", "two columns or more"),
        "of other cells": cells("cell,perturbation\nz,control\n", "cells.csv names none of the cells", "'z'", "'c0'"),
        "a cell twice": cells(CELL_TABLE + "c1,G1\n", "cells.csv", "'c1' stands there more than once"),
        "without labels": cells(CELL_TABLE.replace("perturbation", "plate"), "columns of obs: batch, plate"),
        "beside a screen without cells": of(
            after(screen(COUNTS[:0], labels=[]), content("cells.csv", CELL_TABLE)),
            "screen.h5ad",
            "cells",
            ask="--cell-table {f}/cells.csv",
        ),
    },
    "genes": {
        "a name twice": of(screen(genes=["G0", *GENES[:-1]]), "'G0' stands more than once in var_names"),
        "missing column": of(same, "'symbol'", "--gene-column", ask="--gene-column symbol"),
        "none detected": of(
            screen(np.where(np.arange(80)[:, None] < 20, 0, COUNTS)),
            "--min-control-detection 0.5",
            ask="--min-control-detection 0.5",
        ),
        "a detection of 1": of(same, "--min-control-detection 1.0", ask="--min-control-detection 1"),
        "a detection that is none": of(same, "--min-control-detection nan", ask="--min-control-detection nan"),
        "10x of guides only": ten_x(
            ten_x_h5(put("matrix/features/feature_type", np.array([b"CRISPR Guide Capture"] * 12))),
            "screen.h5",
            "genes",
        ),
    },
    "embeddings": {
        "none named": asked(SCREEN, "--embeddings"),
        "without a screen": asked("--embeddings {f}/emb.npz", "--screen"),
        "missing": of(same, "no.npz does not exist", "--embeddings", emb="no.npz"),
        "folder": of(lambda f: (f / "emb").mkdir(), "emb is a folder", "--embeddings", emb="emb"),
        "of another kind": of(content("emb.npy", b""), "emb.npy", ".npz, .parquet", emb="emb.npy"),
        "of other genes": of(embeddings(["X", "Y"], VECTORS[:2]), "none of the 6 perturbations has an embedding"),
        "of small letters": of(embeddings([name.lower() for name in EMBEDDED]), "none of the 6 perturbations", "g0"),
        "that share no gene": of(
            embeddings(list("abcdef"), name="b.npz"), "share no gene", "b.npz", emb="emb.npz", more=("{f}/b.npz",)
        ),
        "a gene twice": of(embeddings(["G0", *EMBEDDED[:5]]), "emb.npz", "'G0'", "more than once"),
        "a gene without name": of(embeddings(["", *EMBEDDED[1:]]), "emb.npz", "row 1 has no gene name"),
        "NaN": vectors(np.where(np.arange(6)[:, None] == 2, np.nan, VECTORS), "'G2'", "NaN or infinite"),
        "infinite": vectors(np.where(np.arange(6)[:, None] == 2, np.inf, VECTORS), "'G2'", "NaN or infinite"),
        "constant": vectors(np.ones((6, 3)), "same vector for all 6 genes"),
        "no features": vectors(VECTORS[:, :0], "no features"),
        "text": vectors(VECTORS.astype(str), "numbers", "<U"),
        "fewer vectors than genes": vectors(VECTORS[:5], "(6,)", "(5, 3)"),
        "two tables": of(embeddings(more=VECTORS), "emb.npz: needs one array of gene names", "more float32"),
        "objects": of(embeddings(np.array(EMBEDDED, dtype=object)), "emb.npz cannot be read", "allow_pickle"),
        "npz cut short": of(cut("emb.npz"), "emb.npz cannot be read"),
        "npz of text": of(
            lambda f: subprocess.run([sys.executable, "-m", "zipfile", "-c", f / "a.npz", __file__], check=True),
            "a.npz",
            emb="a.npz",
        ),
        "npz of one plain file": of(zipped(("genes.txt", b"G0")), "emb.npz", "genes.txt |S2"),
        "encrypted npz": of(zipped(("genes.npy", b"x" * 20), encrypted=True), "emb.npz cannot be read", "encrypted"),
        "npz that claims all memory": of(
            zipped(("v.npy", npy_header((2**20, 2**30)))), "emb.npz cannot be read", "Unable to allocate"
        ),
        "npz of names that are no text": of(embeddings([b"\xff", *(b"G%d" % n for n in range(5))]), "emb.npz", "utf-8"),
        "an .h5 of residues": of(h5(G0=VECTORS, G1=VECTORS), "'G0'", "not per residue", emb="emb.h5"),
        "an .h5 of ragged vectors": of(h5(G0=[1.0, 2], G1=[1.0]), "'G0'", "'G1'", "unlike lengths", emb="emb.h5"),
        "an .h5ad of cells": of(same, "none of the 6 perturbations", "c0, c1", emb="screen.h5ad"),
        "parquet without genes": of(parquet(a=[1.0, 2], b=[2.0, 1]), "has no gene names", emb="emb.parquet"),
        "parquet of two names": of(parquet(g=["a"], h=["b"], v=[1.0]), "g, h hold text", emb="emb.parquet"),
        "parquet of ragged lists": of(
            parquet(g=["G0", "G1"], v=[[1.0, 2], [1.0]]), "unlike lengths", "'G1'", emb="emb.parquet"
        ),
        "parquet cut short": of(
            after(parquet(g=EMBEDDED, v=VECTORS[:, 0]), cut("emb.parquet")), "emb.parquet", emb="emb.parquet"
        ),
        "csv of tabs": text(VECTOR_TABLE.replace(",", "\t"), "separated by commas"),
        "csv of semicolons": text(VECTOR_TABLE.replace(",", ";"), "separated by commas"),
        "empty csv": text("", "no rows"),
        "csv of a header": text("gene,a,b\n", "no rows"),
        "csv without header": text(VECTOR_TABLE.split("\n", 1)[1], "needs a header line"),
        "csv of a word": text(VECTOR_TABLE.replace(str(VECTORS[2, 1]), "high"), "column 'b'", "'high'", "'G2'"),
        "csv of a blank": text(VECTOR_TABLE.replace(str(VECTORS[2, 1]), ""), "'G2'", "NaN"),
        "csv of a longer row": text(VECTOR_TABLE + "G9,1,2,3,4\n", "line 8"),
        "csv of Latin-1": text(VECTOR_TABLE.replace("G1", "Gé").encode("latin-1"), "utf-8"),
        "csv of UTF-16": text(VECTOR_TABLE.encode("utf-16"), "utf-8"),
        "csv.gz cut short": text(gzip.compress(VECTOR_TABLE.encode())[:-15], "ended", name="emb.csv.gz"),
        "ids of no header": ids("G0,A\nG1,B\n", "--embedding-ids", "needs a header"),
        "ids of other names": ids("id,gene\nQ,A\n", "emb.npz", "--embedding-ids"),
        "ids without genes": ids("id,gene\nG0,\n", "--embedding-ids", "no row has both"),
        "aliases of other columns": of(
            after(embeddings(list("abcdef")), content("a.csv", "old,new\na,b\n")),
            "--aliases",
            "symbol, alias_symbol, prev_symbol",
            ask="--aliases {f}/a.csv",
        ),
        "aliases of longer rows": of(
            content("a.csv", "symbol,alias_symbol,prev_symbol\nA,B,C,D\nE,F,G\n"),
            "--aliases",
            "a.csv: line 2 has 4 cells, and the header names 3 columns (symbol,",
            ask="--aliases {f}/a.csv",
        ),
        "missing aliases": of(same, "--aliases", "no.csv does not exist", ask="--aliases {f}/no.csv"),
    },
    "pickle": {
        **{
            f"that calls a shell, protocol {protocol}": pickle_of(
                {"G0": Calls(os.system, "false")}, "posix.system", protocol=protocol
            )
            for protocol in range(6)
        },
        "that evaluates": pickle_of(Calls(eval, "1 + 1"), "builtins.eval"),
        "that starts a program": pickle_of([Calls(subprocess.call, ["false"])], "subprocess.call"),
        "that takes attributes": pickle_of(Calls(getattr, [], "append"), "builtins.getattr"),
        "that loads": pickle_of(Calls(np.load, "/etc/passwd"), "numpy.load"),
        "that gives a state": pickle_of(Calls(np.dtype, "f4", state={"a": 1}), "cannot be read as a pickle"),
        "of a table": pickle_of(pd.DataFrame({"a": [1]}), "DataFrame", ".npz or .parquet"),
        "of a list": pickle_of([1, 2], "holds a list", "dictionary"),
        "of ragged vectors": pickle_of({"G0": [1.0, 2], "G1": [1.0]}, "unlike lengths", "'G1'"),
        "of nothing": pickle_of({"G0": None}, "'G0' has a NoneType"),
        "cut short": of(after(pickled({"G0": [1.0]}), cut("emb.pkl")), "emb.pkl cannot be read", emb="emb.pkl"),
        "of text": of(content("emb.pkl", VECTOR_TABLE), "emb.pkl cannot be read", emb="emb.pkl"),
    },
    "settings": {
        "fewer perturbations than folds": shaped("--folds 9", "6 perturbations cannot fill 9 folds", "--folds"),
        "one fold": shaped("--folds 1", "--folds 1"),
        "negative folds": shaped("--folds -3", "--folds -3"),
        "a word for a number": shaped("--folds many", "--folds", "many"),
        "an unknown option": shaped("--fold 3", "--fold"),
        "one bin": asked("--bins 1 5", "--bins 1 5"),
        "no bins": asked("--bins", "--bins"),
        "more bins than memory": shaped("--folds 3 --bins 1000000000000000", "--bins 1000000000000000"),
        "weights": asked("--weight-ce 0.5", "add to 1"),
        "negative weight": asked("--weight-ce -0.5 --weight-wass 1.25", "add to 1"),
        "weight that is none": asked("--weight-ce nan", "--weight-ce"),
        "dropout": asked("--dropout 1", "--dropout"),
        "epochs": asked("--epochs -1", "--epochs"),
        "negative seed": asked("--seed -1", "--seed -1"),
        "a seed beyond all": asked(f"--seed {2**32}", "--seed 4294967296", "4,294,967,296"),
        "endless weight decay": asked("--weight-decay inf", "--weight-decay inf"),
        "weight decay that is none": asked("--weight-decay nan", "--weight-decay nan"),
        "endless gpus": asked("--gpus-per-trial inf", "--gpus-per-trial inf"),
        "an option without its value": asked("--layer", "'--layer'", "--help"),
        "endless learning rate": shaped("--folds 3 --learning-rate inf", "--learning-rate inf"),
        "layers of none": asked("--hidden 0", "--hidden"),
        "threads": asked("--threads-per-trial 0", "--threads-per-trial"),
        "no trial at a time": asked("--max-concurrent-trials 0", "--max-concurrent-trials 0"),
        "a fold that is none": asked("--folds 3 --only-folds 1 3", "--only-folds 3", "0 to 2"),
        "a metric that is none": asked("--objectives crps f1", "--objectives f1", "crps", script="search"),
        "a metric twice": asked("--objectives crps crps", "--objectives", script="search"),
        "a metric without a better side": asked(
            "--objectives crps coverage90", "coverage90", "better", script="search"
        ),
        "a metric of replicates": asked(
            "--objectives pearson_delta_split", "pearson_delta_split", "replicates", script="search"
        ),
        "likelihood across bins": asked("--objectives nll", "--objectives nll", "--bins", script="search"),
        "all folds judge": asked("--folds 2 --judging-folds 0 1", "--judging-folds", script="search"),
        "a judge that is none": asked("--judging-folds 9", "--judging-folds", "0 to 8", script="search"),
        "some folds of a search": asked("--only-folds 1", "--judging-folds", script="search"),
        "no configuration": asked("--trials 0", "--trials 0", script="search"),
        "one inner fold": asked("--inner-folds 1", "--inner-folds 1", script="search"),
        "a record that is none": asked("{f}/obs.csv", "obs.csv", "study.json", script="rerun"),
        "dropout that is none": asked("--dropout nan", "--dropout nan"),
        "gpus": asked("--gpus-per-trial -1", "--gpus-per-trial"),
        "gpus that are none": shaped("--folds 3 --gpus-per-trial nan", "--gpus-per-trial nan"),
    },
    "filter": {
        "half an expression": filtered("n >", "no expression", "syntax"),
        "empty": filtered("", "no expression"),
        "cells in another order": filtered("n.sort_values() > 69 or n < 60", "may compare", "n.sort_values()"),
        "missing column": filtered("n_umi > 5", "n_umi", "columns of obs"),
        "a number": filtered("n", "not true or false per cell"),
        "an assignment": filtered("n = 5", "no expression"),
        "text beside numbers": filtered("word > 5", "columns of obs"),
        "no cell": filtered("n > 1000", "keeps none of the 80 cells"),
        "values that are missing": filtered("none > 1", "keeps none of the 80 cells"),
        "control filtered out": of(same, "no control cells", more=("--cell-filter", "perturbation != 'control'")),
        "an import": filtered("__import__('os').getcwd() == n", "__import__"),
        "our own variables": filtered("n < @FEW_CELLS", "@"),
        "a module of ours": filtered("@pd.io.common.os.system('true') == n", "@"),
        "a file to write": filtered("n.to_csv('{f}/out/left.csv') == n"),
        "cells three times": filtered("n.repeat(3) > 1", "n.repeat(3)"),
    },
    "output": {
        "below a file": asked("--out {f}/file/out", "--out", "file/out cannot be written"),
        "a file": asked("--out {f}/file", "--out", "file cannot be written"),
        "a name too long": asked("--out {f}/" + "a" * 300, "--out", "cannot be written"),
        "a home of nobody": asked("--out ~nobodyatall/out", "--out", "~nobodyatall"),
        "a screen of nobody": of(same, "--screen", "~nobodyatall", more=("--screen", "~nobodyatall/screen.h5ad")),
        "a store of nobody": asked("--store ~nobodyatall/s", "--store ~nobodyatall/s"),
        "embeddings of nobody": asked("--embeddings ~nobodyatall/e.npz", "--embeddings ~nobodyatall/e.npz"),
        "a guide table of nobody": asked("--guide-table ~nobodyatall/g.csv", "--guide-table ~nobodyatall/g.csv"),
        "aliases of nobody": asked("--aliases ~nobodyatall/a.csv", "--aliases ~nobodyatall/a.csv"),
        "a path that is none": asked("--out a\0b", "--out", r"a\x00b"),
        "a store below a file": of(same, "name another folder with --store", ask="--store {f}/file/store"),
        "a file for the study": of(
            after(lambda f: (f / "taken").mkdir(), content("taken/bin_sweep", "")),
            "taken/bin_sweep",
            ask="--out {f}/taken --store {f}/stores",
        ),
        "a file for the ledger": of(
            after(lambda f: (f / "taken" / "bin_sweep").mkdir(parents=True), content("taken/bin_sweep/ledger", "")),
            "taken/bin_sweep/ledger",
            ask="--out {f}/taken --store {f}/stores",
        ),
    },
    "environment": {
        "no Ray to be a client of": of(
            same, "RAY_ADDRESS=ray://127.0.0.1:1", "unset RAY_ADDRESS", ask="--store {f}/stores"
        )._replace(address="ray://127.0.0.1:1"),
        "no Ray there": of(same, "RAY_ADDRESS=127.0.0.1:1", "unset RAY_ADDRESS", ask="--store {f}/stores"),
    },
    "comparison": {
        "missing": asked(f"{SCREEN} --beside {{f}}/no.h5ad", "no.h5ad does not exist", script="compare_screens"),
        "with itself": asked(f"{SCREEN} --beside {{f}}/screen.h5ad", "called screen", script="compare_screens"),
        "missing column": asked(
            f"{SCREEN} --beside {{f}}/b.h5ad --perturbation-column x", "'x'", script="compare_screens"
        ),
        "without genes": asked(
            f"{SCREEN} --beside {{f}}/b.h5ad",
            "screen.h5ad",
            "genes",
            script="compare_screens",
            make=after(changed(lambda d: None, to="b.h5ad"), screen(COUNTS[:, :0])),
        ),
        "into a folder for a table": asked(
            f"{SCREEN} --beside {{f}}/b.h5ad --out {{f}}/taken",
            "taken/compare_screens/gene_pairs.parquet",
            "--out",
            script="compare_screens",
            make=after(
                changed(lambda d: None, to="b.h5ad"),
                lambda f: (f / "taken" / "compare_screens" / "gene_pairs.parquet").mkdir(parents=True),
            ),
        ),
        "into a file": asked(
            f"{SCREEN} --beside {{f}}/b.h5ad --out {{f}}/file",
            "--out",
            "cannot be written",
            script="compare_screens",
            make=changed(lambda d: None, to="b.h5ad"),
        ),
    },
    "simulation": {
        "another suffix": asked("{f}/out/x.csv --like easy", "x.csv", ".h5ad", script="simulate"),
        "a file there already": asked("{f}/screen.h5ad --like easy", "exists already", script="simulate"),
        "below a file": asked("{f}/file/x.h5ad --like easy", "cannot be written", script="simulate"),
        "negative seed": asked("{f}/out/x.h5ad --like easy --seed -1", "--seed -1", script="simulate"),
        "a seed beyond all": asked(f"{{f}}/out/x.h5ad --like easy --seed {2**200}", "--seed", script="simulate"),
        "no cells": asked("{f}/out/x.h5ad --n-cells 0", "--n-cells 0", script="simulate"),
        "an unknown screen": asked("{f}/out/x.h5ad --like hela", "--like", "hela", script="simulate"),
        "a home of nobody": asked("~nobodyatall/x.h5ad --like easy", "~nobodyatall", script="simulate"),
    },
}
"""By kind; a kind and the name of a case tell what is wrong."""

APART: dict[str, dict[str, Case]] = {
    "resources": {
        "more GPUs than there are": of(
            same, "--gpus-per-trial 100", "this machine has", ask="--gpus-per-trial 100 --store {f}/stores"
        )._replace(address=""),
    },
    "crash": {
        "CSC of bounds beyond the values": of(spoiled(put("X/indptr", CSC.indptr * 2), CSC), "screen.h5ad"),
        "CSC of negative rows": of(spoiled(put("X/indices", CSC.indices - 9), CSC), "screen.h5ad"),
        "CSC of rows of no cell": of(spoiled(put("X/indices", CSC.indices + 10**7), CSC), "screen.h5ad"),
        "old CSC of rows of no cell": of(old_layout("csc", shift=10**7), "screen.h5ad"),
        "10x of columns of no gene": ten_x(ten_x_h5(put("matrix/indices", lambda i: i + 10**7)), "screen.h5"),
        "embeddings in damaged CSR": of(
            h5ad_embeddings(put("X/indices", lambda i: i + 10**7)), "emb.h5ad: X is damaged", emb="emb.h5ad"
        ),
        "a pickle of endless tuples": of(content("emb.pkl", nested_tuples(60)), "emb.pkl", emb="emb.pkl"),
    },
}
"""What runs in a process of its own: it may crash or hang."""


def simulate() -> None:
    """The command, past the type checks of these tests: tyro puts something else in the place of a path at first."""
    spec: Any = importlib.util.spec_from_file_location("unchecked_cli", ROOT / "histpert" / "cli.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.exit(module.main(["simulate", *sys.argv[1:]]))


SCRIPTS = {
    "bin_sweep": lambda: run_script(bin_sweep.BinSweep, bin_sweep.main, None),
    "compare_screens": lambda: run_script(compare_screens.CompareScreens, compare_screens.main, None),
    "rerun": lambda: run_script(rerun.Rerun, rerun.main, None),
    "search": lambda: run_script(search.Search, search.main, None),
    "simulate": simulate,
}


def command_line(case: Case, folder: Path) -> list[str]:
    """Makes the files, and gives the arguments; results go to the folder `out`."""
    screen()(folder)
    embeddings()(folder)
    content("file", "not a folder")(folder)
    case.make(folder)
    arguments = [word.replace("{f}", str(folder)) for word in case.arguments]
    has_out = case.script == "simulate" or "--out" in arguments
    return arguments if has_out else [*arguments, "--out", str(folder / "out")]


def cases(tables: dict[str, dict[str, Case]]) -> list:
    return [
        pytest.param(case, id=f"{kind}: {name}", marks=[] if case.address else pytest.mark.ray)
        for kind in tables
        for name, case in tables[kind].items()
    ]


def check(case: Case, folder: Path, status: int | str | None, error: str) -> None:
    lines = error.splitlines()
    assert (status, len(lines)) == (2, 1), error
    assert lines[0].startswith("error: ")
    assert [word for word in case.said if word not in lines[0]] == [], lines[0]
    assert list((folder / "out").rglob("*")) == []


@pytest.mark.parametrize("case", cases(BAD))
def test_bad_input_is_one_line_and_exit_status_2(case, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{case.script}.py", *command_line(case, tmp_path)])
    monkeypatch.setenv("RAY_ADDRESS", case.address)
    with pytest.raises(SystemExit) as left:
        SCRIPTS[case.script]()
    check(case, tmp_path, left.value.code, capsys.readouterr().err)


@pytest.mark.parametrize("case", cases(APART))
def test_bad_input_neither_crashes_nor_hangs(case, tmp_path, isolated):
    command = [sys.executable, ROOT / "studies" / "bin_sweep.py", *command_line(case, tmp_path)]
    there = isolated | {"RAY_ADDRESS": case.address}
    limit = 20 if case.address else 120  # to start a Ray takes its time
    run = subprocess.run(command, env=there, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    check(case, tmp_path, run.returncode, run.stderr)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize(("name", "said"), [("screen.h5ad", "screen.h5ad"), ("emb.npz", "emb.npz"), ("out", "--out")])
def test_what_may_not_be_read_or_written_is_named(name, said, tmp_path, monkeypatch, capsys):
    def forbid(folder):
        (folder / "out").mkdir()
        (folder / name).chmod(0o555 if name == "out" else 0)

    test_bad_input_is_one_line_and_exit_status_2(of(forbid, said, "ermission"), tmp_path, monkeypatch, capsys)


def test_the_table_only_grows():
    tables = BAD | APART
    assert len(tables) >= 17
    assert sum(map(len, tables.values())) >= 225
    assert len(ODD) >= 30


class Odd(NamedTuple):
    """A file that can be read: how it is made, how it is read, and what its cells are then (None: left out)."""

    make: Make
    options: dict[str, str] | None = None
    labels: list[str | None] = LABELS
    counts: np.ndarray = COUNTS
    name: str = "screen.h5ad"
    genes: list[str] = GENES


def twice_as_many_entries(file) -> None:
    """Each value of the matrix as two halves."""
    for part, values in {"data": CSR.data / 2, "indices": CSR.indices}.items():
        put(f"X/{part}", np.repeat(values, 2))(file)
    put("X/indptr", CSR.indptr * 2)(file)


def entries_reversed(file) -> None:
    for part in ("data", "indices"):
        rows = np.split(file[f"X/{part}"][...], CSR.indptr[1:-1])
        put(f"X/{part}", np.concatenate([row[::-1] for row in rows]))(file)


def stored_zeros() -> sp.csr_matrix:
    stored = sp.csr_matrix(COUNTS + 1)
    stored.data -= 1
    return stored


def raw_beside_scaled(data: anndata.AnnData) -> None:
    data.raw = data.copy()
    data.X = data.X - 1


NO_G1 = [None if label == "G1" else label for label in LABELS]
ODD = {
    "CSC": Odd(screen(CSC)),
    "CSR of 8 bits": Odd(screen(sp.csr_matrix(COUNTS.astype(np.int8)))),
    "16 bits without sign": Odd(screen(COUNTS.astype(np.uint16))),
    "half precision": Odd(screen(COUNTS.astype(np.float16))),
    "the other byte order": Odd(screen(COUNTS.astype(">f4"))),
    "true and false": Odd(screen(COUNTS > 1), counts=(COUNTS > 1).astype(np.float32)),
    "values far beyond counts": Odd(screen(COUNTS * 2.0**60), counts=COUNTS * np.float32(2**60)),
    "zeros that are stored": Odd(screen(stored_zeros())),
    "entries stored twice": Odd(spoiled(twice_as_many_entries, CSR)),
    "entries in no order": Odd(spoiled(entries_reversed, CSR)),
    "log-normalized already": Odd(screen(np.log1p(COUNTS / COUNTS.sum(1, keepdims=True) * 1e4))),
    "the layout of anndata 0.6": Odd(old_layout()),
    "that layout in CSC": Odd(old_layout("csc")),
    "raw": Odd(changed(raw_beside_scaled), {"layer": "raw"}),
    "a layer": Odd(changed(lambda d: d.layers.update(counts=d.X) or setattr(d, "X", None)), {"layer": "counts"}),
    "zarr": Odd(changed(lambda d: None, to="screen.zarr"), name="screen.zarr"),
    "10x h5": Odd(ten_x_h5(), {"cell_table": "cells.csv"}, name="screen.h5"),
    "10x folder": Odd(ten_x_folder(), {"cell_table": "cells.csv"}, name="tenx"),
    "control in capitals": Odd(screen(labels=["CONTROL"] * 20 + TARGETS)),
    "control in two ways": Odd(screen(labels=["ctrl"] * 10 + ["Control"] * 10 + TARGETS)),
    "spaces around labels": Odd(screen(labels=["control"] * 20 + [f" {name} " for name in TARGETS])),
    "spaces around control": Odd(screen(labels=[" control "] * 20 + TARGETS)),
    "categories of no cell": Odd(screen(labels=pd.Categorical(LABELS, sorted({*LABELS, "G7", "nobody"})))),
    "labels that are missing": Odd(screen(labels=[label or np.nan for label in NO_G1]), labels=NO_G1),
    "labels that are empty": Odd(screen(labels=[label or "" for label in NO_G1]), labels=NO_G1),
    "a plus as label": Odd(screen(labels=[label or "+" for label in NO_G1]), labels=NO_G1),
    "a number per perturbation": Odd(
        screen(labels=np.repeat([9, *range(6)], [20] + [10] * 6)),
        {"control_label": "9"},
        labels=["control"] * 20 + [name[1:] for name in TARGETS],
    ),
    "genes by Ensembl id": Odd(screen(genes=ENSEMBL, var={"gene_symbol": GENES})),
    "a gene without symbol": Odd(
        screen(genes=ENSEMBL, var={"gene_symbol": [None, *GENES[1:]]}), genes=[ENSEMBL[0], *GENES[1:]]
    ),
    "cells of one name": Odd(changed(lambda d: setattr(d, "obs_names", ["c"] * 80))),
    "guides in a table with a byte order mark": Odd(
        after(screen(guide=GUIDES), content("guides.csv", GUIDE_TABLE.encode("utf-8-sig"))),
        {"guide_table": "guides.csv"},
    ),
    "cells in a table as R writes it": Odd(
        after(screen(batch=["a"] * 80), content("r.csv", CELL_TABLE.replace("cell,perturbation", "perturbation"))),
        {"cell_table": "r.csv"},
    ),
    "cells filtered by numbers of a table": Odd(
        after(screen(batch=["a"] * 80), content("n.csv", table(CELLS, LABELS, range(80), header="cell,gene,n"))),
        {"cell_table": "n.csv", "cell_filter": "n >= 10"},
        labels=[None] * 10 + LABELS[10:],
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_input_is_read_as_scanpy_would_normalize_it(name, tmp_path):
    odd = ODD[name]
    screen()(tmp_path)
    odd.make(tmp_path)
    options = {
        name: tmp_path / value if name.endswith("_table") else value for name, value in (odd.options or {}).items()
    }
    read = read_screen(tmp_path / odd.name, ReadOptions(**options))
    groups = ["control", *sorted({label for label in odd.labels if label} - {"control"})]
    rows = [row for group in groups for row, label in enumerate(odd.labels) if label == group]
    data = anndata.AnnData(odd.counts.copy())
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    assert (read.perturbations, read.genes) == (tuple(groups[1:]), tuple(odd.genes))
    np.testing.assert_allclose(read.expression.toarray(), np.asarray(data.X)[rows], rtol=1e-5)
