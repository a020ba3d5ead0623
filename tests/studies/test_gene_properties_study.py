"""The study of gene properties on a real local Ray, from simulated genes and from files."""

import hashlib
import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from histpert.errors import InputError
from histpert.results import RANDOM
from studies.gene_properties import DEGREE, GeneProperties, main
from studies.sources import random_embeddings


@pytest.fixture(scope="module")
def simulated(script, tmp_path_factory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("simulated") / "out"
    done = script("gene_properties", "--smoke", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "gene_properties", done.stdout


@pytest.mark.chaos
@pytest.mark.ray
def test_better_embeddings_score_better(simulated):
    folder, said = simulated
    assert [Path(path).name for path in re.findall(r"^(?:table|figure): (.*)$", said, re.MULTILINE)] == [
        *("roc_auc.md", "gene_properties.md", "against_random.md", "gene_properties.png"),
        *("gene_classes.md", "gene_classes.png"),
    ]
    rows = pd.read_parquet(folder / "scores.parquet")
    assert set(rows["source"]) == {"Good", "Poor", RANDOM, DEGREE}
    area = rows.groupby(["task", "form", "split", "source"])["roc_auc"].mean().sort_index()
    for point in (("modules", "", ""), ("module_1", "", ""), ("pairs", "symmetric", "gene-disjoint")):
        assert area[(*point, "Good")] > area[(*point, "Poor")] > area[(*point, RANDOM)]
        assert area[(*point, RANDOM)] == pytest.approx(0.5, abs=0.12)
    assert area["pairs", "symmetric", "gene-disjoint", DEGREE] == 0.5
    inputs = json.loads((folder / "study.json").read_text())["inputs"]
    file = folder / "simulated" / "module_1.csv"
    assert inputs["labels module_1"] == hashlib.sha256(file.read_bytes()).hexdigest()
    classes = pd.read_parquet(folder / "gene_classes.parquet").set_index(["task", "source", "gene_class"]).sort_index()
    assert (classes.loc[("modules", "Good"), "p"] < 0.01).all()
    assert (classes.loc[("modules", RANDOM), "p"] > 0.01).all()


@pytest.mark.chaos
def test_a_rerun_gives_the_same_and_the_same_command_does_nothing(simulated, script):
    folder, _ = simulated
    run = script("rerun", folder / "study.json")
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.fullmatch(r"all \d+ rows are the same to the last digit", run.stdout.splitlines()[-1])
    again = script("gene_properties", "--smoke", "--out", folder.parent)
    assert ", 0 to run" in again.stdout


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    genes = tuple(f"G{number}" for number in range(20))
    random_embeddings(genes, 4, 0).save(tmp_path / "e.npz")
    random_embeddings(("X", "Y"), 4, 0).save(tmp_path / "x.npz")
    labels = {"gene": genes, "label": ["a", "b"] * 10}
    pd.DataFrame(labels).to_csv(tmp_path / "l.csv", index=False)
    return {name: str(tmp_path / file) for name, file in {"e": "e.npz", "x": "x.npz", "l": "l.csv"}.items()}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sources": ("e.npz",)}, "give --sources and --labels, or neither"),
        ({"sources": ("Degree=e.npz",), "labels": ("l.csv",)}, "Degree is a name of ours"),
        ({"folds": 1}, "--folds and --pair-folds must be 2 or more"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(InputError, match=said):
        GeneProperties(**options)


def test_input_that_cannot_be_used(files, tmp_path, monkeypatch):
    def run(sources, labels, **more) -> None:
        main(GeneProperties(sources=sources, labels=labels, out=tmp_path / "out", **more))

    with pytest.raises(InputError, match="the sources share no gene: e has"):
        run((files["e"], files["x"]), (files["l"],))
    with pytest.raises(InputError, match=r"none of its genes \(G0, G1, G2, \.\.\. \(20 in all\)\) is one"):
        run((files["x"],), (files["l"],))
    with pytest.raises(InputError, match="several files are named l: give each a name, NAME=FILE"):
        run((files["e"],), (files["l"], files["l"]))
    with pytest.raises(InputError, match="--classes Other: give one of Task"):
        run((files["e"],), (f"Task={files['l']}",), classes="Other")
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match=r"need umap-learn: pip install 'histpert\[genes\]'"):
        run((files["e"],), (files["l"],))
    with pytest.raises(InputError, match=r"nowhere\.csv cannot be read"):
        run((files["e"],), (str(tmp_path / "nowhere.csv"),))
