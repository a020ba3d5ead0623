"""The method of docs/add_a_method.md, taken from the page as it stands, goes the way of every other."""

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch

from histpert.models import METHODS, ModelSettings
from histpert.results import METRICS
from studies.data import prepare
from studies.methods import Methods
from studies.options import StudyOptions
from studies.plan import OBSERVED, Job, Plan
from studies.trial import run_trial

PAGE = (Path(__file__).parents[2] / "docs" / "add_a_method.md").read_text(encoding="utf-8")
FILE, LINE = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def method(tmp_path_factory) -> str:
    """The method's name, which the line of the page has put into METHODS."""
    (place,) = re.findall(r"In\s+`histpert/models/(\w+)\.py`:", PAGE)
    path = tmp_path_factory.mktemp("models") / f"{place}.py"
    path.write_text(FILE, encoding="utf-8")
    spec = spec_from_file_location(f"histpert.models.{place}", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    (added,) = eval(f"{{{LINE}}}", vars(module)).items()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        patch.setitem(METHODS, *added)
        yield added[0]


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    options = StudyOptions(out=tmp_path_factory.mktemp("out"), folds=3)
    return Plan("test", prepare(options, [5]), 3, 1, Path("unused"), 3600.0)


def scores(plan, method):
    entry = run_trial(plan, Job(method, 5, 1, ModelSettings()), CPU)
    assert entry["trial"]["status"] == "ok", entry["trial"]["error"]
    return entry


def test_the_study_takes_it_by_its_name(method):
    assert method in Methods(methods=(method,)).methods
    assert f'"{method}"' in re.search(r"^    python studies/methods\.py .*$", PAGE, re.MULTILINE)[0]


def test_it_is_fitted_predicts_and_has_a_score_in_every_metric_of_histograms(plan, method):
    entry = scores(plan, method)
    assert entry["trial"]["n_perturbations"] == 30
    assert entry["trial"]["n_absent"] == 0
    for name, metric in METRICS.items():
        known = not (metric.needs_replicates or metric.needs_cells)
        assert np.isfinite(entry["trial"][name]) == known, name


def test_it_tells_more_than_what_knows_nothing_of_the_perturbation_and_less_than_the_cells_do(plan, method):
    crps = {name: scores(plan, name)["trial"]["crps"] for name in (method, "Ctrl Hist", "Non-Ctrl Hist", OBSERVED)}
    assert crps[OBSERVED] < crps[method] < min(crps["Ctrl Hist"], crps["Non-Ctrl Hist"])


def test_near_embeddings_weigh_more(method):
    weights = sys.modules[METHODS[method].__module__]._weights(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor(1.0))
    expected = np.exp([0, -0.5, -2])
    np.testing.assert_allclose(weights[0].numpy(), expected / expected.sum(), rtol=1e-6)
