"""The study of gene dependency on a real local Ray, in the small shape, from files, and what it refuses."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histpert.errors import InputError
from histpert.perturbert.dependency import GENE_MEAN, ONE_HOT, SPLITS
from histpert.perturbert.depmap import INFORMATIVE, PERMUTED, simulate_depmap
from histpert.results import RANDOM
from studies.dependency import N_REPLICATES, Dependency, problem_of, read_data, units_of


@pytest.fixture(scope="module")
def smoke(script, tmp_path_factory):
    """A finished study, and what it said."""
    out = tmp_path_factory.mktemp("out") / "results"
    done = script("dependency", "--smoke", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "dependency", done.stdout


@pytest.mark.ray
def test_the_study_runs_to_its_tables(smoke):
    folder, said = smoke
    written = [Path(path).name for path in re.findall(r"^(?:table|figure): (.*)$", said, re.MULTILINE)]
    assert written == ["dependency.md", "dependency_floors.md", "dependency.png"]
    trials, rows = (pd.read_parquet(folder / f"{name}.parquet") for name in ("trials", "scores"))
    assert set(trials["status"]) == {"ok"}
    assert set(rows["source"]) == {INFORMATIVE, PERMUTED, RANDOM, ONE_HOT, GENE_MEAN}
    assert set(rows["split"]) == set(SPLITS)
    assert set(rows.groupby(["source", "split", "seed"]).size()) == {N_REPLICATES + 1}
    whole = rows[rows["replicate"] == 0].groupby(["split", "source"])["r2"].mean()
    assert whole["lines", GENE_MEAN] > 0.7
    assert whole["lines", ONE_HOT] > whole["lines", GENE_MEAN] > whole["genes", GENE_MEAN]
    table = pd.read_csv(folder / "tables" / "dependency.csv").set_index(["split", "source"])
    pd.testing.assert_series_equal(table["r2"].sort_index(), whole.sort_index())


@pytest.mark.chaos
def test_the_same_settings_give_the_same_rows(smoke, script):
    again = script("rerun", smoke[0] / "study.json")
    assert again.returncode == 0, again.stderr
    n_rows = len(pd.read_parquet(smoke[0] / "scores.parquet"))
    assert again.stdout.splitlines()[-1] == f"all {n_rows} rows are the same to the last digit"


@pytest.fixture
def files(tmp_path):
    """A small DepMap and embeddings of more genes, as options."""
    depmap, sources = simulate_depmap(0, 30, 14, 20)
    for name, values, genes in (
        ("effects", depmap.effects, depmap.genes),
        ("expression", depmap.expression, [f"E{number}" for number in range(20)]),
    ):
        columns = [f"{gene} ({number})" for number, gene in enumerate(genes)]
        pd.DataFrame(values, depmap.lines, columns).to_csv(tmp_path / f"{name}.csv")
    for name, source in sources.items():
        genes, vectors = np.array([*source.genes[2:], "TP53"]), np.concatenate([source.vectors[2:], [[1.0] * 64]])
        np.savez(tmp_path / f"{name}.npz", genes=genes, vectors=vectors)
    given = (f"A={tmp_path / INFORMATIVE}.npz", f"B={tmp_path / PERMUTED}.npz")
    return {"effects": tmp_path / "effects.csv", "expression": tmp_path / "expression.csv", "sources": given}


def test_files_are_read_on_the_genes_that_all_sources_and_depmap_have(files, capsys):
    depmap, sources = read_data(Dependency(**files))
    assert "30 lines are in both files (30 with effects, 30 with expression); 12 of 13 genes" in capsys.readouterr().out
    assert set(depmap.genes) == {f"GENE{number}" for number in range(3, 15)}
    assert list(sources) == ["A", "B", RANDOM]
    problem = problem_of(depmap, sources, 0)
    assert problem.of_gene["A", "lines"].shape == (12, 11)
    assert problem.of_gene["A", "genes"].shape == (12, 9)  # ten genes to train on
    assert problem.of_gene[RANDOM, "lines"].shape == (12, 11)


def test_a_trial_is_another_one_when_its_data_settings_or_draws_are(files):
    options = Dependency(**files, seeds=2)

    def ids(changed, shift=0.0):
        depmap, sources = read_data(changed)
        depmap.effects[0] += shift
        return [unit.trial_id(1) for unit in units_of(changed, depmap, sources)]

    first = ids(options)
    assert len(set(first)) == len(first) == 2 * (4 * 2 + 1)
    assert ids(options) == first
    for other in (
        ids(options, 0.1),
        ids(Dependency(**files, seeds=2, trees=9)),
        ids(Dependency(**files, seeds=2, seed=1)),
    ):
        assert not set(other) & set(first)
    assert set(first) < set(ids(Dependency(**files, seeds=3)))  # more fits add to those that are there


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sources": ()}, "give --effects, --expression and --sources, or none of them"),
        ({"expression": None}, "give --effects, --expression and --sources, or none of them"),
        ({"sources": ("one-hot=x.npz",)}, "--sources: one-hot is a name of ours"),
        ({"sources": ("Random=x.npz",)}, "Random stands there twice, or is a name of ours"),
        ({"trees": 0}, "--trees and --seeds must be 1 or more"),
    ],
)
def test_options_that_do_not_fit_are_refused(files, changed, words):
    with pytest.raises(InputError, match=words):
        Dependency(**{**files, **changed})


def test_a_file_of_something_else_ends_in_one_line(files, script, tmp_path):
    files["effects"].write_text("gene,score\nTP53,1\n")
    options = ["--effects", files["effects"], "--expression", files["expression"], "--sources", *files["sources"]]
    done = script("dependency", *options, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert re.search(r"error: --effects .*effects.csv: no column is named as A1BG \(1\)", done.stderr)
