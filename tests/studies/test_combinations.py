"""The study of combinations on a real local Ray, in the small shape, and what it asks of a screen."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from analysis.combinations import COLUMNS, SUBJECT
from histpert.errors import InputError
from histpert.multi_hot import genes_of
from histpert.study_defaults import ABLATIONS, COMBINATION_METHODS
from histpert.trial_memory import whole_cell_bytes
from studies import whole_cells
from studies.combinations import SIMULATION, Combinations, jobs_of
from studies.combinations import main as combinations
from studies.data import Pairs, prepare
from studies.trial import open_store
from studies.whole_cells import check_memory, on_genes, say_density


@pytest.mark.ray
def test_the_study_runs_to_its_tables(script, tmp_path):
    done = script("combinations", "--smoke", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    written = [Path(path).name for path in re.findall(r"^(?:table|figure): (.*)$", done.stdout, re.MULTILINE)]
    assert written == ["combinations.md", "combinations_paired.md", "combinations.png"]
    trials, rows = (
        pd.read_parquet(tmp_path / "combinations" / f"{name}.parquet") for name in ("trials", "perturbations")
    )
    assert set(trials["status"]) == {"ok"}
    assert set(trials["method"]) == set(COMBINATION_METHODS)
    assert set(trials["variant"]) == {"", *ABLATIONS}
    assert all(len(genes_of(name)) == 2 for name in rows["perturbation"])
    whole = rows[rows["variant"] == ""].set_index(["method", "perturbation"])
    assert whole[["edistance", "mmd", "correlation_error", "l2"]].notna().all(axis=None)
    assert whole.loc["Additive", "l2"].mean() < whole.loc["Ctrl Hist", "l2"].mean()
    assert whole["pds"].between(0, 1).all()
    table = pd.read_csv(tmp_path / "combinations" / "tables" / "combinations.csv")
    assert {f"{SUBJECT}, {variant}" for variant in ABLATIONS} < set(table["point"])
    pairs = pd.read_csv(tmp_path / "combinations" / "tables" / "combinations_paired.csv")
    assert set(pairs["metric"]) == set(COLUMNS)
    one = pairs[(pairs["metric"] == "l2") & (pairs["point"] == "Additive")].iloc[0]
    difference = whole.loc[SUBJECT, "l2"] - whole.loc["Additive", "l2"]
    assert one["difference"] == pytest.approx(difference.mean())


def test_single_perturbations_are_always_trained_on(tmp_path):
    data = prepare(Combinations(out=tmp_path), [5], pairs=Pairs(False, SIMULATION))
    n_genes = np.array([len(genes_of(name)) for name in data.perturbations])
    assert (data.folds[n_genes == 1] == 10).all()
    assert sorted(set(data.folds[n_genes == 2])) == list(range(10))
    assert (on_genes(data).vectors.sum(1) == n_genes).all()
    single = {name: vector for name, vector in zip(data.perturbations, data.vectors, strict=True) if "+" not in name}
    pair = int(np.flatnonzero(n_genes == 2)[0])
    expected = np.mean([single[gene] for gene in genes_of(data.perturbations[pair])], axis=0)
    np.testing.assert_allclose(data.vectors[pair], expected, rtol=1e-6)


def written(folder: Path) -> dict[str, Any]:
    """A screen of combinations, and a table that lacks the gene D, as options."""
    labels = ["control", "A", "B", "C", "A+B", "C+A", "C+B", "D+A", "C+B+A"] * 6
    counts = np.random.default_rng(0).poisson(2.0 ** np.arange(6), (len(labels), 6)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{number}" for number in range(len(labels))])
    anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=list("ABCXYZ"))).write_h5ad(folder / "s.h5ad")
    vectors = np.array([[1, 0, 4], [3, 2, 0], [-2, 7, 8]], dtype=np.float32)
    np.savez(folder / "e.npz", genes=np.array(["A", "B", "C"]), vectors=vectors)
    return {"screen": folder / "s.h5ad", "embeddings": (folder / "e.npz",), "out": folder / "out", "folds": 3}


def test_a_combination_has_the_average_of_its_genes_and_none_where_one_lacks_it(tmp_path):
    data = prepare(Combinations(**written(tmp_path)), [5], pairs=Pairs(False, SIMULATION, 4))
    assert data.perturbations == ("A", "A+B", "A+B+C", "A+C", "B", "B+C", "C")
    assert data.notes[-1] == "left out 1 perturbations without an embedding: A+D"
    expected = [[1, 0, 4], [2, 1, 2], [2 / 3, 3, 4], [-0.5, 3.5, 6], [3, 2, 0], [0.5, 4.5, 4], [-2, 7, 8]]
    scale = data.vectors[0, 0]  # that of the table as it is read
    np.testing.assert_allclose(data.vectors, scale * np.array(expected), rtol=1e-6)
    assert open_store(data.store).genes == ("C", "X", "Y", "Z")  # counts grow with a gene's number
    assert sorted(data.folds[[1, 3, 5]]) == [0, 1, 2]
    assert set(data.folds[[0, 2, 4, 6]]) == {3}


def test_a_screen_of_combinations_is_not_read_in_shards(tmp_path):
    options = Combinations(**written(tmp_path), shards=2)
    with pytest.raises(InputError, match="--shards 2: a screen of combinations is read by one process"):
        prepare(options, [5], pairs=Pairs(False, SIMULATION))


def test_each_ablation_changes_one_part():
    options = Combinations(ablation_folds=1)
    jobs = jobs_of(options, COMBINATION_METHODS)
    ablated = {job.variant: job.settings.flow for job in jobs if job.variant}
    assert set(ablated) == set(ABLATIONS)
    for variant, changed in ABLATIONS.items():
        assert ablated[variant] == replace(options.flow, **changed)
        assert ablated[variant] != options.flow


def test_a_screen_with_too_few_pairs_is_refused(tmp_path):
    simulation = replace(SIMULATION, n_pairs=7, n_cells=4_100)
    with pytest.raises(InputError, match="--folds 10: the screen has 7 pairs, of which 7 can be held out"):
        prepare(Combinations(out=tmp_path), [5], pairs=Pairs(False, simulation))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    options = Combinations(out=tmp_path_factory.mktemp("out"))
    return prepare(options, [5], with_cells=True, pairs=Pairs(False, SIMULATION))


def test_more_genes_than_memory_allows_are_refused_with_how_many_fit(data, monkeypatch):
    options = Combinations(max_concurrent_trials=2, gpus_per_trial=0)
    store, settings = open_store(data.store), options.of_cells
    known = int(store.moments.n_cells.sum()), data.vectors.shape[1], len(data.perturbations)
    monkeypatch.setattr(whole_cells, "available_bytes", lambda: 2 * whole_cell_bytes(settings, 60, *known))
    check_memory(options, data, store, settings)
    monkeypatch.setattr(whole_cells, "available_bytes", lambda: 2 * whole_cell_bytes(settings, 41, *known) + 10)
    with pytest.raises(InputError, match=r"--n-genes 60: CellTARNet takes some .* GB a trial.* 41 genes fit"):
        check_memory(options, data, store, settings)


def test_the_density_of_the_prior_is_printed(data, capsys):
    options, store = Combinations(), open_store(data.store)
    say_density(data, store, options.of_cells, 5)
    found = float(re.findall(r"attends to ([\d.]+) of 60 genes", capsys.readouterr().out)[0])
    assert 10 <= found <= 20  # ten of each part, of which some are the same
    ring = np.roll(np.eye(60, dtype=bool), 1, axis=1)
    say_density(replace(data, attended=ring), store, options.of_cells, 5)
    assert "attends to 1.0 of 60 genes" in capsys.readouterr().out


def test_a_network_of_other_genes_is_refused(tmp_path):
    (tmp_path / "net.tsv").write_text("a\tb\nTP53\tMYC\n")
    with pytest.raises(InputError, match=r"--gene-network .* no edge is between two of the screen's genes"):
        combinations(Combinations(out=tmp_path, smoke=True, gene_network=tmp_path / "net.tsv"))
