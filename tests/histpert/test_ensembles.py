"""Final models: trained, written, read, asked; and how far their intervals can be trusted."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from histpert import read_ensemble
from histpert.embeddings import GeneEmbeddings
from histpert.ensembles.beside import beside
from histpert.ensembles.fitting import fit
from histpert.ensembles.predicting import distributions, predict
from histpert.ensembles.uncertainty import Circumstances, ErrorModel, covered
from histpert.errors import InputError
from histpert.screens import PRESETS, simulate_screen
from histpert.settings import ModelSettings

N_GENES = 60
SIMULATION = replace(PRESETS["easy"], n_perturbations=60, n_genes=N_GENES, n_cells=7_000, n_control=1_000)
SETTINGS = ModelSettings(epochs=60)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def simulated():
    return simulate_screen(5, SIMULATION)


@pytest.fixture(scope="module")
def unseen(simulated):
    """A quarter of the perturbations, which the model never sees."""
    return simulated.screen.perturbations[::4]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def ensemble(simulated, unseen, parts):
    kept = [name for name in simulated.screen.perturbations if name not in unseen]
    screen = simulated.screen.with_perturbations(kept)
    return fit(screen, simulated.embeddings["good"], SETTINGS, n_bins=12, folds=3, repeats=2, parts=parts)


@pytest.fixture(scope="module")
def path(ensemble, tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    ensemble.save(file)
    return file


def masses(ensemble, names):
    return predict(ensemble, names).predicted.masses


def test_intervals_hold_the_means_of_perturbations_that_were_never_seen(ensemble, simulated, unseen):
    screen = simulated.screen
    sizes = dict(zip(screen.perturbations, screen.n_cells[1:], strict=True))
    inside = []
    for name in unseen:
        predicted = predict(ensemble, [name], level=0.8, n_cells=int(sizes[name]))
        start, end = screen.group_start[screen.perturbations.index(name) + 1 :][:2]
        mean = np.asarray(screen.expression[start:end].mean(axis=0)).reshape(-1)
        inside.append((predicted.mean_low[0] <= mean) & (mean <= predicted.mean_high[0]))
    assert 0.7 <= np.mean(inside) <= 0.9


def test_every_perturbation_is_held_out_once_a_repeat(ensemble):
    assert ensemble.held_out.shape == (6, 45)
    assert (ensemble.held_out[:3].sum(axis=0) == 1).all()
    assert (ensemble.held_out[3:].sum(axis=0) == 1).all()
    assert not (ensemble.held_out[:3] == ensemble.held_out[3:]).all()


def test_a_perturbation_of_the_screen_is_predicted_by_members_that_had_not_seen_it(ensemble):
    name = ensemble.perturbations[7]
    unseen_by = np.flatnonzero(ensemble.held_out[:, 7])
    vector = torch.from_numpy(ensemble.vectors[7:8])
    by_hand = np.mean([ensemble.networks[m](vector).double().softmax(-1).numpy() for m in unseen_by], axis=0)
    np.testing.assert_allclose(masses(ensemble, [name]), by_hand, rtol=1e-6)
    trust = predict(ensemble, [name]).trust.iloc[0]
    assert trust["trained_on"]
    assert trust["n_members"] == 2
    assert trust["nearest"] != name


def test_a_perturbation_of_the_screen_under_another_name_is_still_one_that_members_have_seen(ensemble):
    known, embeddings = ensemble.perturbations[7], ensemble.embeddings
    vectors = np.concatenate([embeddings.vectors, embeddings.lookup([known])])
    renamed = replace(ensemble, embeddings=replace(embeddings, genes=(*embeddings.genes, "ALIAS"), vectors=vectors))
    responses = predict(renamed, ["ALIAS", known])
    np.testing.assert_array_equal(responses.predicted.masses[0], responses.predicted.masses[1])
    assert responses.trust["trained_on"].tolist() == [True, True]
    assert responses.trust["nearest"].nunique() == 1


def test_others_are_predicted_by_all_members(ensemble, simulated, unseen):
    vector = torch.from_numpy(simulated.embeddings["good"].lookup([unseen[0]]))
    every = [network(vector).double().softmax(-1).numpy() for network in ensemble.networks]
    np.testing.assert_allclose(masses(ensemble, [unseen[0]]), np.mean(every, axis=0), rtol=1e-6)
    means = np.array([of_member @ (np.arange(12) + 0.5) for of_member in np.array(every)[:, 0]]) * ensemble.width
    predicted = predict(ensemble, [unseen[0]])
    np.testing.assert_allclose(predicted.spread[0], means.std(axis=0, ddof=1), rtol=1e-6)
    assert predicted.trust["n_members"].tolist() == [6]


def test_a_combination_is_the_average_of_its_embeddings_in_whatever_order(ensemble, simulated, unseen):
    one, other = unseen[:2]
    np.testing.assert_array_equal(masses(ensemble, [f"{other}+{one}"]), masses(ensemble, [f"{one}+{other}"]))
    vector = torch.from_numpy(simulated.embeddings["good"].lookup([one, other]).mean(axis=0, keepdims=True))
    every = [network(vector).double().softmax(-1).numpy() for network in ensemble.networks]
    np.testing.assert_allclose(masses(ensemble, [f"{one}+{other}"]), np.mean(every, axis=0), rtol=1e-5)


def test_statistics_are_those_of_numbers_drawn_from_the_histograms(ensemble, unseen):
    responses = predict(ensemble, [unseen[0]])
    table = responses.table().set_index("gene")
    random = np.random.default_rng(0)
    gene = responses.top(unseen[0], "w1", 1)["gene"].item()
    number = responses.genes.index(gene)

    def drawn(histogram):
        bins = random.choice(12, 400_000, p=histogram / histogram.sum())
        return responses.lower[number] + responses.width[number] * (bins + random.random(len(bins)))

    cells, control = drawn(responses.predicted.masses[0, number]), drawn(responses.control.masses[0, number])
    row = table.loc[gene]
    assert row["predicted_mean"] == pytest.approx(cells.mean(), abs=0.01)
    assert row["control_mean"] == pytest.approx(control.mean(), abs=0.01)
    assert row["predicted_variance"] == pytest.approx(cells.var(), rel=0.01)
    assert row["predicted_skewness"] == pytest.approx(scipy.stats.skew(cells), abs=0.03)
    assert row["predicted_kurtosis"] == pytest.approx(scipy.stats.kurtosis(cells), abs=0.1)
    assert row["w1"] == pytest.approx(scipy.stats.wasserstein_distance(cells, control), abs=0.01)
    assert row["beyond_mean"] == pytest.approx(row["w1"] - abs(row["mean_shift"]), abs=1e-12)
    assert row["predicted_p_zero"] == responses.predicted.masses[0, number, 0]
    assert row["mean_low"] < row["predicted_mean"] < row["mean_high"]


def test_top_genes_leave_out_the_perturbed_one_and_follow_their_order(ensemble, unseen):
    measured = next(name for name in ensemble.perturbations if name in ensemble.genes)
    responses = predict(ensemble, [measured])
    table = responses.table()
    assert table.loc[table["gene"] == measured, "is_perturbed"].all()
    changes = {
        "w1": table["w1"],
        "mean": table["mean_shift"],
        "variance": table["predicted_variance"] - table["control_variance"],
        "shape": table["beyond_mean"],
        "bimodality": table["predicted_bimodality"] - table["control_bimodality"],
    }
    detected = np.minimum(table["control_p_zero"], table["predicted_p_zero"]) <= 0.95
    for by, change in changes.items():
        top = responses.top(measured, by, 5)
        allowed = change.abs()[detected & ~table["is_perturbed"]].sort_values(ascending=False)
        assert top["gene"].tolist() == table.loc[allowed.index[:5], "gene"].tolist()


def test_a_gene_that_parts_in_two_is_found_by_shape_and_bimodality_but_not_by_its_mean(ensemble, unseen):
    responses = predict(ensemble, [unseen[0]])
    control = np.zeros((1, N_GENES, 12))
    control[..., 4:7] = 0.25, 0.5, 0.25
    apart, moved = control.copy(), control.copy()
    apart[0, 3] = 0
    apart[0, 3, [1, 9]] = 0.5
    moved[0, 8] = np.roll(control[0, 8], 2)
    flat = replace(
        ensemble, lower=np.zeros(N_GENES), width=np.ones(N_GENES), control=control[0], constant=np.zeros(N_GENES, bool)
    )
    predicted = np.where(
        (np.arange(N_GENES) == 3)[:, None], apart, np.where((np.arange(N_GENES) == 8)[:, None], moved, control)
    )
    made = replace(
        responses,
        constant=flat.constant,
        control=distributions(flat, control),
        predicted=distributions(flat, predicted),
    )
    names = {by: made.top(unseen[0], by, 1)["gene"].item() for by in ("mean", "shape", "bimodality", "variance")}
    assert names["mean"] == made.genes[8]
    assert {names[by] for by in ("shape", "bimodality", "variance")} == {made.genes[3]}
    assert made.predicted.bimodality[0, 3] == pytest.approx(1, abs=0.05)


def test_cells_beside_are_counted_on_the_bins_of_the_model(ensemble, simulated, unseen):
    screen, name = simulated.screen, ensemble.perturbations[4]
    known = beside(predict(ensemble, [unseen[0], name]), ensemble, screen.with_perturbations([name]))
    assert np.isnan(known.observed.masses[0]).all()
    start, end = screen.group_start[screen.perturbations.index(name) + 1 :][:2]
    cells = screen.expression[start:end].toarray()
    edges = ensemble.lower[:, None] + ensemble.width[:, None] * np.arange(13)
    for gene in range(N_GENES):
        counts = np.histogram(np.clip(cells[:, gene], edges[gene, 0], edges[gene, -1]), edges[gene])[0]
        np.testing.assert_allclose(known.observed.masses[1, gene], counts / len(cells))
    np.testing.assert_allclose(known.table()["observed_mean"].to_numpy()[N_GENES:], cells.mean(axis=0), rtol=1e-5)
    assert known.n_observed == (0, end - start)
    with pytest.raises(InputError, match=r"has none of"):
        beside(predict(ensemble, [unseen[0]]), ensemble, screen.with_perturbations([name]))
    other = replace(screen, genes=("other", *screen.genes[1:]))
    with pytest.raises(InputError, match=r"lacks 1 of the 60 genes"):
        beside(predict(ensemble, [name]), ensemble, other)


def test_what_has_no_embedding_is_named_with_likely_names(ensemble, unseen):
    responses = predict(ensemble, [unseen[0], unseen[0].lower() + " "])
    assert responses.perturbations == (unseen[0],)
    assert responses.missing == (unseen[0].lower(),)
    assert any(f"{unseen[0].lower()} -> {unseen[0]}" in note for note in responses.notes)
    with pytest.raises(InputError, match=r"no embedding of NOTHING in"):
        predict(ensemble, ["NOTHING"])
    with pytest.raises(InputError, match="no perturbation is named"):
        predict(ensemble, [])
    with pytest.raises(InputError, match="--level 1"):
        predict(ensemble, [unseen[0]], level=1.0)


def test_views_agree(ensemble, unseen, tmp_path):
    responses = predict(ensemble, unseen[:2])
    data, table = responses.to_anndata(), responses.table()
    assert data.obs_names.tolist() == ["control", *unseen[:2]]
    np.testing.assert_array_equal(data.X[1:].reshape(-1), table["predicted_mean"])
    np.testing.assert_array_equal(data.layers["w1"][1:].reshape(-1), table["w1"])
    data.write_h5ad(tmp_path / "r.h5ad")
    responses.write_histograms(tmp_path / "h.arrow")
    read = pd.read_feather(tmp_path / "h.arrow")
    assert read["perturbation"].astype(str).unique().tolist() == ["control", *unseen[:2]]
    np.testing.assert_allclose(
        np.stack(read["predicted"])[N_GENES : 3 * N_GENES], responses.predicted.masses.reshape(-1, 12), rtol=1e-6
    )


ASK = """
import sys, torch
torch.set_num_threads(1)
from histpert import predict, read_ensemble
r = predict(read_ensemble(sys.argv[1]), sys.argv[2:])
sys.stdout.buffer.write(r.predicted.masses.tobytes() + r.mean_low.tobytes() + r.spread.tobytes())
"""


def test_a_saved_model_predicts_the_same_bits_in_a_fresh_process(ensemble, path, unseen):
    responses = predict(ensemble, unseen)
    ours = responses.predicted.masses.tobytes() + responses.mean_low.tobytes() + responses.spread.tobytes()
    theirs = subprocess.run([sys.executable, "-c", ASK, path, *unseen], capture_output=True, check=True).stdout
    assert theirs == ours


def test_all_is_read_back(ensemble, path):
    read = read_ensemble(path)
    assert (read.genes, read.perturbations, read.settings) == (
        ensemble.genes,
        ensemble.perturbations,
        ensemble.settings,
    )
    assert read.embeddings.fingerprint() == ensemble.embeddings.fingerprint()
    np.testing.assert_array_equal(read.errors.quantiles, ensemble.errors.quantiles)
    assert read.calibration.at(0.8) == ensemble.calibration.at(0.8)
    assert read.about["n_bins"] == 12
    pd.testing.assert_frame_equal(read.summary(), ensemble.summary())


def damaged(path, tmp_path, how):
    content, copy = path.read_bytes(), tmp_path / "copy.safetensors"
    match how:
        case "a bit":
            content = content[:-1_000] + bytes([content[-1_000] ^ 1]) + content[-999:]
        case "a word":
            content = content.replace(b'\\"n_control\\": 1000', b'\\"n_control\\": 1001', 1)
        case "cut":
            content = content[: len(content) // 2]
        case "empty":
            content = b""
    copy.write_bytes(content)
    return copy


@pytest.mark.parametrize("how", ["a bit", "a word", "cut", "empty"])
def test_a_damaged_model_is_refused_by_name(path, tmp_path, how):
    copy = damaged(path, tmp_path, how)
    assert copy.read_bytes() != path.read_bytes()
    with pytest.raises(InputError, match=rf"{copy} is damaged"):
        read_ensemble(copy)


def test_foreign_and_newer_models_are_refused_by_name(path, tmp_path):
    foreign, table = tmp_path / "foreign.safetensors", tmp_path / "table.csv"
    save_file({"weight": torch.zeros(3)}, foreign, {"format": "pt"})
    with pytest.raises(InputError, match=rf"{foreign} was not written by histpert fit"):
        read_ensemble(foreign)
    table.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=rf"{table} is no model of histpert"):
        read_ensemble(table)
    with pytest.raises(InputError, match=r"nothing\.safetensors does not exist"):
        read_ensemble(tmp_path / "nothing.safetensors")
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["histpert"])
    newer = tmp_path / "newer.safetensors"
    save_file(load_file(path), newer, {"histpert": json.dumps(about | {"format": 2, "version": "9.1"})})
    with pytest.raises(InputError, match=rf"{newer} was written by histpert 9\.1 \(format 2\).*install a newer"):
        read_ensemble(newer)


def test_a_fit_that_was_stopped_trains_only_what_is_missing(ensemble, simulated, unseen, parts):
    files = sorted(parts.glob("*.safetensors"))
    assert len(files) == 6
    files[2].unlink()
    before = {file: file.stat().st_mtime_ns for file in files if file.exists()}
    kept = [name for name in simulated.screen.perturbations if name not in unseen]
    screen, told = simulated.screen.with_perturbations(kept), []
    again = fit(
        screen,
        simulated.embeddings["good"],
        SETTINGS,
        n_bins=12,
        folds=3,
        repeats=2,
        parts=parts,
        progress=lambda stage, done, total: told.append((stage, done, total)),
    )
    assert told == [("members", 5, 6), ("members", 6, 6)]
    assert {file: file.stat().st_mtime_ns for file in before} == before
    np.testing.assert_array_equal(masses(again, unseen), masses(ensemble, unseen))


def test_what_cannot_be_fitted_is_told(simulated):
    screen, embeddings = simulated.screen, simulated.embeddings["good"]
    with pytest.raises(InputError, match="--repeats 1"):
        fit(screen, embeddings, SETTINGS, repeats=1)
    with pytest.raises(InputError, match="--bins 1"):
        fit(screen, embeddings, SETTINGS, n_bins=1)
    with pytest.raises(InputError, match="cannot fill 99 folds"):
        fit(screen, embeddings, SETTINGS, folds=99)
    nothing = GeneEmbeddings("others", ("X1", "X2"), np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match="none of the 60 perturbations has an embedding in others"):
        fit(screen, nothing, SETTINGS)


def errors_of_known_size(random, n_perturbations, n_genes):
    """Errors drawn from the model: four parts and sampling."""
    of_gene = random.gamma(2, 0.01, n_genes)
    at = Circumstances(
        sampling=random.gamma(2, 0.002, (n_perturbations, n_genes)),
        spread=random.gamma(2, 0.005, (n_perturbations, n_genes)),
        shift=random.normal(0, 0.2, (n_perturbations, n_genes)),
        distance=random.random(n_perturbations),
    )
    variance = of_gene * (0.5 + at.distance[:, None]) + 2 * at.spread + 0.3 * at.shift**2
    return random.normal(0, np.sqrt(variance + at.sampling)), at, variance + at.sampling


def test_the_error_model_finds_what_errors_are_made_of():
    error, at, variance = errors_of_known_size(np.random.default_rng(0), 400, 60)
    model = ErrorModel.fitted(error, at)

    def misses(predicted):
        return np.log(predicted / variance).std()

    assert misses(model.deviation(at) ** 2) < misses(np.square(error).mean(axis=0)) / 3
    assert np.mean(model.deviation(at) ** 2 / variance) == pytest.approx(1, abs=0.1)
    for level in (0.5, 0.8, 0.95):
        assert model.quantile(level) == pytest.approx(scipy.stats.norm.ppf((1 + level) / 2), rel=0.05)


def test_errors_of_held_out_folds_are_covered_as_often_as_said_whatever_their_size():
    error, at, _ = errors_of_known_size(np.random.default_rng(1), 200, 40)
    needed = covered(error, at, np.arange(200) % 5)
    for level in (0.2, 0.5, 0.8, 0.95):
        assert (needed <= level).mean() == pytest.approx(level, abs=0.03)
    large = np.abs(at.shift) > np.quantile(np.abs(at.shift), 0.95)
    assert (needed[large] <= 0.8).mean() == pytest.approx(0.8, abs=0.06)


def test_errors_that_sampling_explains_leave_nothing_else():
    random = np.random.default_rng(2)
    sampling = random.gamma(2, 0.01, (100, 20))
    still = Circumstances(sampling, np.zeros((100, 20)), np.zeros((100, 20)), np.zeros(100))
    model = ErrorModel.fitted(random.normal(0, np.sqrt(sampling)), still)
    np.testing.assert_allclose(model.deviation(still), np.sqrt(sampling), rtol=0.15)
