"""What is said of two runs of a study."""

from pathlib import Path

from analysis.agreement import describe_agreement


def said(first: Path, second: Path) -> list[str]:
    return list(describe_agreement(first, second))


def test_the_same_tables_agree_where_values_are_undefined_too(tables, tmp_path):
    first, second = (tables().write(tmp_path / name) for name in "ab")
    assert said(first, second) == ["all 56 rows are the same to the last digit"]


def test_what_moved_is_named_with_how_far(tables, tmp_path):
    moved = tables()
    row = moved.find(method="MLP+Hist", n_bins=5, perturbation="STAT1")[0]
    row["crps"] += 0.25
    moved.find(method="MLP+Hist", n_bins=15, perturbation="CUL3")[0]["w1"] = None
    assert said(tables().write(tmp_path / "a"), moved.write(tmp_path / "b")) == [
        "of 56 rows these moved: w1 in 1 rows defined in one run only; crps in 1 rows by up to 0.25"
    ]


def test_trials_of_other_names_are_compared_by_their_place(tables, tmp_path):
    renamed = tables()
    for row in (*renamed.rows, *renamed.trials):
        row["trial_id"] = f"other-{row['trial_id']}"
    folders = tables().write(tmp_path / "a"), renamed.write(tmp_path / "b")
    assert said(*folders) == ["all 56 rows are the same to the last digit"]


def test_rows_that_one_lacks_are_counted(tables, tmp_path):
    fewer = tables(bins=(5,))
    assert said(tables().write(tmp_path / "a"), fewer.write(tmp_path / "b")) == [
        "56 rows then, 28 now, 28 of them of the same trial and perturbation",
        "all 28 rows are the same to the last digit",
    ]


def test_nothing_is_said_where_there_is_nothing_to_compare(tables, tmp_path):
    assert said(tables().write(tmp_path / "a"), tmp_path) == []
