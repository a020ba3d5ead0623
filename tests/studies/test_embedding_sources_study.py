"""The comparison of sources of embeddings on a real local Ray, in the small shape."""

import re
from pathlib import Path

import pandas as pd
import pytest

from histpert.embeddings.learned import learned_from_of
from histpert.errors import InputError
from studies.embedding_sources import EmbeddingSources

SOURCES = {"Good", "Poor", "PerturBERT table", "PerturBERT", "PCA", "Poor + PerturBERT", "One-hot", ""}


@pytest.fixture(scope="module")
def finished(script, tmp_path_factory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("sources") / "out"
    done = script("embedding_sources", "--smoke", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "embedding_sources", done.stdout


@pytest.mark.ray
def test_all_sources_are_tried_on_the_same_folds(finished):
    folder, said = finished
    written = [Path(path).name for path in re.findall(r"^(?:table|figure): (.*)$", said, re.MULTILINE)]
    assert written == ["embedding_sources.md", "embedding_sources.png"]
    trials, rows = (pd.read_parquet(folder / f"{name}.parquet") for name in ("trials", "perturbations"))
    assert set(trials["status"]) == {"ok"}
    assert set(trials["variant"]) == SOURCES
    held_out = rows.groupby(["method", "variant"])[["fold", "perturbation"]].agg(tuple)
    assert len(set(held_out["perturbation"])) == len(set(held_out["fold"])) == 1
    assert rows["perturbation"].nunique() == 90
    error = rows.groupby(["method", "variant"])["rmae_mean"].mean()
    for method in ("MLP+Hist", "GP"):
        assert error[method, "Good"] < error[method, "Poor"] < error[method, ""]
        assert error[method, "One-hot"] == pytest.approx(error[method, ""], abs=0.02)  # neither tells of an unseen gene


@pytest.mark.ray
def test_what_a_fold_holds_out_is_in_none_of_its_embeddings(finished):
    folder, _ = finished
    folds = pd.read_csv(folder / "simulated" / "folds.csv")
    for name in ("table", "contextual", "pca"):
        for fold in (0, 1):
            learned = learned_from_of(folder / "simulated" / "pretrain" / "embeddings" / f"{name}.{fold}.parquet")
            assert learned == set(folds.loc[folds["fold"] != fold, "perturbation"])


@pytest.mark.chaos
@pytest.mark.ray
def test_the_same_command_trains_nothing_again(finished, script):
    again = script("embedding_sources", "--smoke", "--out", finished[0].parent)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 trials, 2 done before, 0 to run" in again.stdout
    assert "32 trials, 32 done before, 0 to run" in again.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"screen": "s.h5ad"}, "--sources goes with --screen"),
        ({"sources": ("a.npz",)}, "--sources goes with --screen"),
        ({"embeddings": ("a.npz",)}, "give each as --sources NAME=FILE"),
        ({"methods": ("GP", "Oracle")}, "--methods Oracle: give some of"),
        ({"hold_out": "clusters"}, "--hold-out clusters: folds must be the same"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(InputError, match=said):
        EmbeddingSources(**options)
