"""Every bad input is one line on standard error and exit status 2, before anything is trained."""

import sys

import anndata
import numpy as np
import pandas as pd
import pytest

from studies.bin_sweep import BinSweep, main
from studies.options import run_script


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small screen of counts with 6 perturbations, and embeddings for 5 of them."""
    folder = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(0)
    labels = ["control"] * 20 + [f"G{number}" for number in range(6) for _ in range(10)]
    obs = pd.DataFrame({"perturbation": labels, "batch": "a"}, index=[f"c{i}" for i in range(80)])
    var = pd.DataFrame(index=[f"G{i}" for i in range(12)])
    anndata.AnnData(random.poisson(2.0, (80, 12)).astype(np.float32), obs=obs, var=var).write_h5ad(
        folder / "screen.h5ad"
    )
    genes = np.array([f"G{i}" for i in range(5)])
    np.savez(folder / "emb.npz", genes=genes, emb=random.normal(size=(5, 3)).astype(np.float32))
    np.savez(folder / "foreign.npz", genes=np.array(["X", "Y"]), emb=np.eye(2, 3, dtype=np.float32))
    (folder / "file").write_text("not a folder")
    return folder


SCREEN = ("--screen", "{f}/screen.h5ad", "--embeddings", "{f}/emb.npz")
BAD = {
    "missing screen": (("--screen", "{f}/no.h5ad", "--embeddings", "{f}/emb.npz"), "no.h5ad does not exist"),
    "missing embeddings": (("--screen", "{f}/screen.h5ad", "--embeddings", "{f}/no.npz"), "no.npz does not exist"),
    "no embeddings named": (("--screen", "{f}/screen.h5ad"), "--embeddings"),
    "embeddings of other genes": ((*SCREEN[:3], "{f}/foreign.npz"), "none of the 6 perturbations has an embedding"),
    "embeddings without a screen": (("--embeddings", "{f}/emb.npz"), "--screen"),
    "missing column": ((*SCREEN, "--perturbation-column", "target"), "columns there: perturbation, batch"),
    "no control cells": ((*SCREEN, "--control-label", "NT"), "no control cells labelled 'NT'"),
    "control filtered out": ((*SCREEN, "--cell-filter", "perturbation != 'control'"), "no control cells"),
    "bad filter": ((*SCREEN, "--cell-filter", "n_umi > 5"), "n_umi"),
    "fewer perturbations than folds": ((*SCREEN, "--folds", "9"), "5 perturbations cannot fill 9 folds"),
    "one fold": ((*SCREEN, "--folds", "1"), "--folds 1"),
    "one bin": (("--bins", "1", "5"), "--bins 1 5"),
    "no bins": (("--bins",), "--bins"),
    "weights": (("--weight-ce", "0.5"), "add to 1"),
    "negative weight": (("--weight-ce", "-0.5", "--weight-wass", "1.25"), "add to 1"),
    "dropout": (("--dropout", "1"), "--dropout"),
    "epochs": (("--epochs", "-1"), "--epochs"),
    "threads": (("--threads-per-trial", "0"), "--threads-per-trial"),
    "gpus": (("--gpus-per-trial", "-1"), "--gpus-per-trial"),
    "unwritable output": (("--out", "{f}/file/out"), "cannot be written"),
    "unwritable store": (("--smoke", "--store", "{f}/file/store"), "name another folder with --store"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_status_2(case, files, tmp_path, monkeypatch, capsys):
    arguments, said = BAD[case]
    out = [] if "--out" in arguments else ["--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bin_sweep.py", *(word.format(f=files) for word in arguments), *out])
    with pytest.raises(SystemExit) as left:
        run_script(BinSweep, main, None)
    assert left.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert not (tmp_path / "bin_sweep").exists()
