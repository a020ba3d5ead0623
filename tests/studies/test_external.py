"""Predictions that were made elsewhere: what is known of their scores."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from histpert.errors import InputError
from histpert.external import read_external
from histpert.results import METRICS
from histpert.screens import PRESETS, Screen, simulate_screen
from histpert.settings import ModelSettings
from studies.data import prepare
from studies.options import StudyOptions
from studies.plan import OBSERVED, External, Job, Plan
from studies.trial import run_trial

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def screen() -> Screen:
    return simulate_screen(0, PRESETS["easy"]).screen


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare(StudyOptions(out=tmp_path_factory.mktemp("out"), folds=3), [15])


def written(path: Path, screen: Screen, blocks: list[sp.csr_matrix], genes: np.ndarray | None = None) -> Path:
    """A file of control cells and of these cells of each perturbation, as cell-eval takes it."""
    labels = ["non-targeting"] * screen.control.shape[0]
    for name, block in zip(screen.perturbations, blocks, strict=False):
        labels += [name] * block.shape[0]
    obs = pd.DataFrame({"target_gene": labels}, index=[f"c{number}" for number in range(len(labels))])
    values = sp.csr_matrix(sp.vstack([screen.control, *blocks]))
    made = anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=list(screen.genes)))
    (made if genes is None else made[:, genes].copy()).write_h5ad(path)
    return path


def observed(screen: Screen) -> list[sp.csr_matrix]:
    starts = screen.group_start
    return [screen.expression[starts[n + 1] : starts[n + 2]] for n in range(len(screen.perturbations))]


def scores(data, path: Path, method: str = "elsewhere") -> pd.DataFrame:
    plan = Plan("test", data, 3, 1, path.parent, 3600.0, external={"elsewhere": External(path, "f")})
    entries = [run_trial(plan, Job(method, 15, fold, ModelSettings()), CPU) for fold in range(3)]
    assert [entry["trial"]["status"] for entry in entries] == ["ok"] * 3, entries[0]["trial"].get("error")
    return pd.DataFrame([row for entry in entries for row in entry["perturbations"]])


def test_the_observed_cells_are_predicted_perfectly(screen, data, tmp_path):
    shuffled = np.random.default_rng(0).permutation(len(screen.genes))  # genes may stand in any order
    found = scores(data, written(tmp_path / "p.h5ad", screen, observed(screen), shuffled))
    for name in ("rmae_mean", "rmae_var", "rmae_skew", "rmae_kurt", "l2", "w1"):
        assert found[name].max() < 1e-5, name
    assert found["pearson_delta"].min() > 1 - 1e-9
    assert found["pds"].eq(1).all()
    binned = scores(data, tmp_path / "p.h5ad", OBSERVED)
    np.testing.assert_allclose(found["crps"], binned["crps"], rtol=1e-9)
    np.testing.assert_allclose(found["nll"], binned["nll"], rtol=1e-9)


def test_control_cells_are_at_the_floor(screen, data, tmp_path):
    found = scores(data, written(tmp_path / "p.h5ad", screen, [screen.control] * len(screen.perturbations)))
    np.testing.assert_allclose(found["rmae_mean"], 1, rtol=1e-6)
    floor = scores(data, tmp_path / "p.h5ad", "Ctrl Hist")
    np.testing.assert_allclose(found["crps"], floor["crps"], rtol=5e-3)  # which mixes a little uniform mass in


def test_cells_of_other_perturbations_are_told_apart_by_chance(screen, data, tmp_path):
    cells = observed(screen)
    order = np.random.default_rng(1).permutation(len(cells))
    found = scores(data, written(tmp_path / "p.h5ad", screen, [cells[number] for number in order]))
    assert abs(found["pds"].mean() - 0.5) < 4 * found["pds"].std() / len(found) ** 0.5


@pytest.mark.parametrize("are_means", [False, True])
def test_what_is_not_predicted_has_no_scores_and_changes_none(screen, data, tmp_path, are_means):
    cells = observed(screen)
    if are_means:
        cells = [sp.csr_matrix(some.mean(axis=0), dtype=np.float32) for some in cells]
    whole = scores(data, written(tmp_path / "p.h5ad", screen, cells)).set_index("perturbation")
    few = scores(data, written(tmp_path / "few.h5ad", screen, cells[:-3])).set_index("perturbation")
    absent = few.index.isin(screen.perturbations[-3:])
    assert list(few.index) == list(whole.index)
    assert few.loc[absent, list(METRICS)].isna().all(axis=None)
    pd.testing.assert_frame_equal(few[~absent].drop(columns="trial_id"), whole[~absent].drop(columns="trial_id"))


def test_absent_predictions_are_counted(screen, data, tmp_path):
    held_out = [name for name, fold in zip(data.perturbations, data.folds, strict=True) if fold == 0]
    kept = [name not in held_out for name in screen.perturbations]
    few = Screen.with_perturbations(
        screen, [name for name, keep in zip(screen.perturbations, kept, strict=True) if keep]
    )
    path = written(tmp_path / "p.h5ad", few, observed(few))
    plan = Plan("test", data, 3, 1, tmp_path, 3600.0, external={"elsewhere": External(path, "f")})
    for fold, n_absent in ((0, len(held_out)), (1, 0)):
        trial = run_trial(plan, Job("elsewhere", 15, fold, ModelSettings()), CPU)["trial"]
        assert (trial["status"], trial["n_absent"]) == ("ok", n_absent), trial["error"]


def test_one_row_of_each_perturbation_is_its_mean(screen, data, tmp_path):
    means = [sp.csr_matrix(cells.mean(axis=0), dtype=np.float32) for cells in observed(screen)]
    found = scores(data, written(tmp_path / "p.h5ad", screen, means))
    assert found["rmae_mean"].max() < 1e-5
    assert found["crps"].isna().all()
    assert found["rmae_var"].isna().all()


def test_what_cannot_be_scored_is_refused_by_name(screen, tmp_path):
    control_mean = np.asarray(screen.control.mean(axis=0)).reshape(-1)
    asked = screen.genes, screen.perturbations, control_mean

    with pytest.raises(InputError, match=rf"none of the screen's perturbations: it has {screen.perturbations[0]}"):
        read_external(written(tmp_path / "s.h5ad", screen, observed(screen)), screen.genes, ["X1", "X2"], control_mean)
    with pytest.raises(InputError, match=rf"lacks 1 of the screen's 200 genes: {screen.genes[0]}"):
        read_external(written(tmp_path / "genes.h5ad", screen, observed(screen), np.arange(1, 200)), *asked)
    path = written(tmp_path / "scale.h5ad", screen, observed(screen))
    with pytest.raises(InputError, match="differ from the screen's by 50%"):
        read_external(path, *asked[:2], 2 * control_mean)
