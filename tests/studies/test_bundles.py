"""Short jobs that a worker takes up together."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import ROOT

from histpert.models import METHODS
from histpert.settings import ModelSettings
from studies.bundles import BUNDLE, BUNDLE_MASSES, bundles
from studies.data import prepare
from studies.options import StudyOptions
from studies.plan import CEILING, OBSERVED, Job, Plan


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    options = StudyOptions(out=tmp_path_factory.mktemp("out"), folds=3)
    return Plan("test", prepare(options, [5]), 3, 1, Path("unused"), 3600.0)


MANY = BUNDLE_MASSES // (30 * 200 * 3)
"""Bins of which three jobs of 30 perturbations x 200 genes are as many masses as a bundle may have."""

JOBS = st.builds(
    Job,
    st.sampled_from([*METHODS, OBSERVED, CEILING]),
    st.sampled_from([5, MANY]),
    st.integers(0, 2),
    st.just(ModelSettings()),
)


@given(jobs=st.lists(JOBS, max_size=40))
def test_all_jobs_keep_their_order_and_what_trains_is_alone(plan, jobs):
    made = bundles(plan, jobs)
    assert [job for bundle in made for job in bundle] == jobs
    for bundle in made:
        assert 1 <= len(bundle) <= BUNDLE
        if len(bundle) > 1:
            assert not {job.method for job in bundle} & {CEILING, "MLP+Hist", "MLP+Mean", "TG", "ZITG", "Ridge", "GP"}
            assert sum(30 * 200 * job.n_bins for job in bundle) <= BUNDLE_MASSES


def test_short_jobs_share_as_few_bundles_as_they_can(plan):
    job = Job("Ctrl Hist", 5, 0, ModelSettings())
    assert [len(bundle) for bundle in bundles(plan, [job] * (2 * BUNDLE + 3))] == [BUNDLE, BUNDLE, 3]
    assert [len(bundle) for bundle in bundles(plan, [replace(job, n_bins=MANY)] * 7)] == [3, 3, 1]
    long = replace(job, n_bins=4 * MANY)
    assert [len(bundle) for bundle in bundles(plan, [long, long, job, job])] == [1, 1, 2]


STUDY = """
import sys
from pathlib import Path
from histpert.settings import ModelSettings
from studies.data import prepare
from studies.engine import run_study
from studies.options import StudyOptions
from studies.plan import Job
options = StudyOptions(out=Path(sys.argv[1]), folds=3)
jobs = [Job("Ctrl Hist", n_bins, fold, ModelSettings()) for n_bins in (5, 6, 7) for fold in range(3)]
sys.exit(run_study("study", options, prepare(options, [5, 7]), jobs).report([]))
"""


@pytest.mark.ray
def test_a_job_that_fails_does_not_keep_the_others_of_its_bundle_from_their_results(isolated, tmp_path):
    environment = isolated | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", STUDY, str(tmp_path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 1, run.stderr
    assert "9/9 trials ended" in run.stdout
    assert "3 FAILED" in run.stdout
    trials = pd.read_parquet(tmp_path / "study" / "trials.parquet").set_index("n_bins").sort_index()
    assert trials["status"].tolist() == ["ok"] * 3 + ["failed"] * 3 + ["ok"] * 3
    assert trials.loc[6, "error"].str.len().gt(0).all()
    assert np.isfinite(trials.loc[7, "crps"]).all()
