"""Files of predictions: what is read is what was written, by any reader, and damage is named."""

import json
import resource
from dataclasses import fields

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histpert.errors import InputError
from histpert.prediction_files import SavedPredictions, read_predictions, write_predictions


def saved(n_perturbations=3, n_genes=5, n_bins=4, seed=0, masses=True) -> SavedPredictions:
    random = np.random.default_rng(seed)

    def drawn(*shape):
        return random.dirichlet(np.ones(n_bins), shape).astype(np.float32)

    return SavedPredictions(
        trial_id="0123abcd",
        method="MLP+Hist" if masses else "MLP+Mean",
        screen="a screen",
        fold=2,
        n_bins=n_bins,
        control_smoothing=1e-4,
        perturbations=tuple(f"P{i}+Ω" for i in range(n_perturbations)),
        genes=tuple(f"G{i}" for i in range(n_genes)),
        n_cells=random.integers(1, 500, n_perturbations),
        n_control=1000,
        lower=random.normal(size=n_genes),
        width=random.uniform(0.1, 1, n_genes),
        constant=random.random(n_genes) < 0.5,
        observed=drawn(n_perturbations, n_genes),
        control=drawn(n_genes),
        observed_mean=random.normal(size=(n_perturbations, n_genes)),
        control_mean=random.normal(size=n_genes),
        predicted_mean=random.normal(size=(n_perturbations, n_genes)),
        predicted_control_mean=random.normal(size=n_genes),
        predicted=drawn(n_perturbations, n_genes) if masses else None,
        predicted_control=drawn(n_genes) if masses else None,
    )


def assert_same(one, other):
    for field in fields(SavedPredictions):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right, err_msg=field.name)
        else:
            assert left == right, field.name


@pytest.fixture
def path(tmp_path):
    write_predictions(tmp_path / "trial.arrow", saved())
    return tmp_path / "trial.arrow"


@given(st.integers(0, 3), st.integers(1, 4), st.integers(2, 5), st.integers(0, 99), st.booleans())
@settings(max_examples=30, deadline=None)
def test_what_is_read_is_what_was_written(tmp_path_factory, n_perturbations, n_genes, n_bins, seed, masses):
    one = saved(n_perturbations, n_genes, n_bins, seed, masses)
    path = tmp_path_factory.mktemp("files") / "x.arrow"
    write_predictions(path, one)
    read = read_predictions(path)
    assert_same(one, read)
    assert (read.predicted is None) == (not masses)


def test_masses_are_mapped_and_not_copied(path):
    read = read_predictions(path)
    for array in (read.observed, read.predicted, read.control, read.observed_mean):
        assert not array.flags.writeable
        assert not array.flags.owndata
    table = pa.ipc.open_file(str(path)).read_all()
    assert {str(type_) for type_ in table.schema.types} >= {"fixed_size_list<item: float>[4]", "double"}


def test_pandas_and_polars_read_labelled_rows(path):
    one = saved()
    frame = pd.read_feather(path)
    assert list(frame.columns) == [
        *("perturbation", "gene", "n_cells", "lower", "width", "constant"),
        *("observed_mean", "predicted_mean", "observed", "predicted"),
    ]
    row = frame[(frame["perturbation"] == one.perturbations[1]) & (frame["gene"] == "G3")].iloc[0]
    np.testing.assert_array_equal(row["predicted"], one.predicted[1, 3])
    np.testing.assert_array_equal(row["observed"], one.observed[1, 3])
    assert row["n_cells"] == one.n_cells[1]
    assert (row["lower"], row["width"]) == (one.lower[3], one.width[3])
    control = frame[frame["perturbation"] == "control"].set_index("gene")
    np.testing.assert_array_equal(control.loc["G2", "observed"], one.control[2])
    np.testing.assert_array_equal(control.loc["G2", "predicted"], one.predicted_control[2])
    means = pl.read_ipc(path).filter(pl.col("perturbation") == one.perturbations[2])["observed_mean"]
    np.testing.assert_array_equal(means.to_numpy(), one.observed_mean[2])
    about = json.loads(pa.ipc.open_file(str(path)).schema.metadata[b"histpert"])
    assert about["trial_id"] == "0123abcd"
    assert about["control_smoothing"] == 1e-4


def test_a_row_takes_the_bytes_that_are_told(tmp_path):
    n_perturbations, n_genes, n_bins = 60, 200, 15
    write_predictions(tmp_path / "x.arrow", saved(n_perturbations, n_genes, n_bins))
    size = (tmp_path / "x.arrow").stat().st_size
    assert size == pytest.approx((1 + n_perturbations) * n_genes * (8 * n_bins + 44), rel=0.01)
    assert round(121 * 5000 * (8 * 15 + 44) / 1e6) == 99
    assert round(121 * 5000 * 8 * 15 / 1e6) == 73


def test_a_file_that_is_cut_anywhere_is_named(path):
    content = path.read_bytes()
    for length in [0, 5, 100, *range(200, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"is damaged: delete it and run .* --save-predictions") as raised:
            read_predictions(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("part", range(8))
def test_a_changed_byte_is_named_or_has_no_meaning(path, part):
    one, content = saved(), bytearray(path.read_bytes())
    n_named = 0
    for place in range(part, len(content), 8 * 5):
        changed = content.copy()
        changed[place] ^= 1 << (place % 8)
        path.unlink()  # pages of the last one are mapped
        path.write_bytes(changed)
        try:
            assert_same(one, read_predictions(path))
        except InputError:
            n_named += 1
    assert n_named > 10


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "is missing: run the study again with --save-predictions"),
        (lambda path: path.write_text("text"), "is damaged"),
        (lambda path: path.mkdir(), "is damaged"),
        (lambda path: pd.DataFrame({"x": [1.0]}).to_feather(path), "is damaged"),
    ],
)
def test_what_is_no_file_of_predictions_is_one_line(tmp_path, make, said):
    path = tmp_path / "x.arrow"
    make(path)
    with pytest.raises(InputError) as raised:
        read_predictions(path)
    assert str(raised.value).startswith(f"{path} {said}")


def test_another_format_is_named(path):
    table = pa.ipc.open_file(str(path)).read_all()
    about = json.loads(table.schema.metadata[b"histpert"]) | {"format": 9}
    table = table.replace_schema_metadata({"histpert": json.dumps(about)})
    path.unlink()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match="is of format 9, this version reads format 1"):
        read_predictions(path)


def test_nothing_is_left_where_writing_fails(tmp_path):
    write_predictions(tmp_path / "x.arrow", saved())
    before = (tmp_path / "x.arrow").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_predictions(tmp_path / "x.arrow", saved(seed=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["x.arrow"]
    assert (tmp_path / "x.arrow").read_bytes() == before
