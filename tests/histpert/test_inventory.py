"""`histpert store`: what it says of stores whole, damaged, unfinished and foreign, and what it never touches."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from test_cli import main, without_color
from test_remote import storage  # noqa: F401
from test_store import DAMAGES, FOLDS, make_screen

from histpert.histograms import open_or_build
from histpert.histograms.content import Content
from histpert.histograms.remote import Cache
from histpert.histograms.store import FORMAT, sealed

HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
NAMES = [
    "apart_B8.arrow",
    "cells.arrow",
    "coexpression.arrow",
    "counts_B5.arrow",
    "counts_B8.arrow",
    "moments.arrow",
    "ranges.arrow",
    "reference.arrow",
    "replicates_R3.arrow",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return open_or_build(
        tmp_path_factory.mktemp("made"),
        make_screen(),
        FOLDS,
        [5, 8],
        n_replicates=3,
        apart=[8],
        with_coexpression=True,
        with_cells=True,
    ).folder.path


@pytest.fixture
def root(tmp_path):
    (tmp_path / "stores").mkdir()
    return tmp_path / "stores"


@pytest.fixture
def store(made, root):
    return shutil.copytree(made, root / made.name)


@pytest.fixture
def said(capsys):
    """Runs a command; returns its status and the lines it printed, on both streams."""

    def run(*arguments):
        status = main(["store", *map(str, arguments)])
        printed = capsys.readouterr()
        assert (printed.err == "") == (status in (0, 1))
        return status, without_color(printed.out + printed.err).splitlines()

    return run


def change_manifest(store, **changes):
    path = store / "manifest.json"
    path.write_text(json.dumps(sealed(json.loads(path.read_text()) | changes)))


def leave_unfinished(root, name="left-0123456789abcdef"):
    path = root / name
    path.mkdir()
    (path / "moments.arrow").write_bytes(b"m" * 1000)
    (path / ".counts_B5.arrow.77.0a1b2c3d").write_bytes(b"c" * 500)
    (path / "lock").touch()
    return path


def unused_for(store, days):
    then = time.time() - days * 24 * 60 * 60
    os.utime(store / "manifest.json", (then, then))


def everything_under(root):
    return {path.relative_to(root): path.is_dir() or path.read_bytes() for path in root.rglob("*")}


class Holding:
    """A process that holds a lock."""

    def __init__(self, path):
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self):
        assert self._process.stdout.readline() == "held\n"

    def __exit__(self, *_):
        self._process.communicate(timeout=60)


# ls


def test_ls_has_a_line_per_store(store, root, said):
    other = open_or_build(root, replace(make_screen(), name="[b]other"), FOLDS[::-1].copy(), [11]).folder.path
    leave_unfinished(root)
    (root / "notes").mkdir()
    (root / "notes" / "a.txt").write_text("mine")
    status, lines = said("ls", root)
    assert status == 0
    header, *rows, total = lines
    assert header.split() == ["store", "perturbations", "genes", "cells", "folds", "bins", "size", "built"]
    today = time.strftime("%Y-%m-%d")
    assert [row.split()[0] for row in rows] == sorted([store.name, other.name, "left-0123456789abcdef"])
    by_name = {row.split()[0]: row.split()[1:] for row in rows}
    assert by_name[store.name][:-3] == ["7", "12", "250", "3", "5", "8"]
    assert by_name[store.name][-1] == today
    assert by_name[other.name][:-3] == ["7", "12", "250", "3", "11"]
    assert by_name["left-0123456789abcdef"] == ["1.5", "kB", "unfinished"]
    assert re.fullmatch(rf"2 stores, 1 that cannot be read: [\d.]+ kB in {re.escape(str(root))}", total)
    assert all(len(line) <= 120 for line in [header, *rows])


def test_ls_says_the_sizes_of_files(store, root, said):
    n_bytes = sum(file.stat().st_size for file in store.iterdir())
    shown = f"{n_bytes / 1000:.1f} kB"
    _, lines = said("ls", root)
    assert shown in lines[1]
    assert lines[-1] == f"1 store: {shown} in {root}"


def test_ls_looks_into_results_of_the_current_folder(store, root, said, monkeypatch):
    (root.parent / "results").mkdir()
    root.rename(root.parent / "results" / "stores")
    monkeypatch.chdir(root.parent)
    status, lines = said("ls")
    assert status == 0
    assert store.name in lines[1]


def test_ls_of_a_store_is_that_store(store, said):
    _, lines = said("ls", store)
    assert len(lines) == 3
    assert lines[1].startswith(str(store))


def test_ls_of_stores_that_cannot_be_read(store, root, said):
    others = {
        "format 3": lambda path: change_manifest(path, format=3),
        "damaged manifest": lambda path: (path / "manifest.json").write_text("{"),
        "being built": lambda path: (path / "manifest.json").unlink(),
    }
    for number, spoil in enumerate(others.values()):
        spoil(shutil.copytree(store, root / f"s-{number:016x}"))
    with Holding(root / f"s-{2:016x}" / "lock"):
        status, lines = said("ls", root)
    assert status == 0
    for number, state in enumerate(others):
        (row,) = [line for line in lines if f"s-{number:016x}" in line]
        assert row.strip().endswith(state)


@pytest.mark.parametrize("changes", [{"folds": None}, {"n_cells": [1]}, {"files": {"../x": {}}}, {"genes": "G"}])
def test_a_manifest_that_lacks_something_is_damaged(store, root, said, changes):
    change_manifest(store, **changes)
    assert said("ls", root)[1][1].strip().endswith("damaged manifest")
    status, lines = said("verify", root)
    assert (status, lines) == (1, [f"{store.name}: damaged manifest: not verified"])


def test_a_root_without_stores(root, said):
    (root / "extension").mkdir()
    (root / "extension" / "manifest.json").write_text('{"name": "of somebody else"}')
    assert said("ls", root) == (0, [f"no stores in {root}"])
    assert said("prune", root) == (0, [f"nothing to remove in {root}"])


@pytest.mark.parametrize("command", ["ls", "verify", "prune"])
def test_a_root_that_is_missing(root, said, command):
    assert said(command, root / "none") == (2, [f"error: {root / 'none'}: no such folder"])


# show


def test_show_says_what_a_store_holds(store, said):
    status, lines = said("show", store)
    assert status == 0
    facts = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines[: lines.index("")])
    assert facts["screen"] == "made"
    assert facts["fingerprint"] == make_screen().fingerprint()
    assert facts["format"] == str(FORMAT)
    assert facts["cells"] == "250: 40 control; per perturbation 30"
    assert facts["perturbations"] == "7 in 3 folds of 2 to 3 (median 2)"
    ranges = pa.ipc.open_file(pa.memory_map(str(store / "ranges.arrow"))).read_all()
    own = {gene for gene, fold in zip(ranges["gene"].to_pylist(), ranges["fold"].to_pylist(), strict=True) if fold >= 0}
    assert facts["genes"].startswith(f"12, 1 constant; {len(own)} have a range of their own")
    assert facts["bin counts"] == "5 8"
    text = "\n".join(lines)
    assert [line.split()[0] for line in lines if ".arrow" in line] == NAMES
    assert f"counts: int16[{len(ranges)}][8]" in text
    assert "n_detected: int64[12]" in text
    assert "gene: string in a dictionary" in text
    assert "docs/store.md" in lines[-1]


def test_show_of_what_is_no_store(store, root, said):
    status, (line,) = said("show", root)
    assert (status, line) == (2, f"error: {root} is no histogram store; `histpert store ls` lists those in a folder")
    change_manifest(store, format=3)
    status, (line,) = said("show", store)
    assert status == 2
    assert "format 3; this version reads format 4" in line


# verify


def test_verify_of_sound_stores(store, root, said):
    assert said("verify", root) == (0, [f"{store.name}: ok (9 files)"])
    assert said("verify", store, root) == (0, [f"{store}: ok (9 files)", f"{store.name}: ok (9 files)"])


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", NAMES)
def test_verify_names_each_damaged_file(store, said, name, damage):
    (store / name).write_bytes(damage((store / name).read_bytes()))
    (store / "counts_B8.arrow").unlink()
    status, lines = said("verify", store)
    assert status == 1
    damaged = [] if name == "counts_B8.arrow" else [name]
    expected = [f"{store}: {each}: damaged, its checksum is not that in manifest.json" for each in damaged]
    assert sorted(lines) == sorted([*expected, f"{store}: counts_B8.arrow: missing"])


def test_verify_goes_on_after_a_damaged_store(store, root, said):
    sound = shutil.copytree(store, root / "z-0123456789abcdef")
    leave_unfinished(root)
    (store / "moments.arrow").unlink()
    status, lines = said("verify", root)
    assert status == 1
    assert lines == [
        "left-0123456789abcdef: unfinished: not verified",
        f"{store.name}: moments.arrow: missing",
        f"{sound.name}: ok (9 files)",
    ]


def test_what_is_unfinished_or_of_another_format_is_no_damage(store, root, said):
    change_manifest(store, format=3)
    leave_unfinished(root)
    status, lines = said("verify", root)
    assert status == 0
    assert all(line.endswith("not verified") for line in lines)


def rewritten(store, name, change):
    """A file with other content, of which the manifest knows."""
    table = pa.ipc.open_file(pa.py_buffer((store / name).read_bytes())).read_all()
    table = change(table)
    with pa.ipc.new_file(store / name, table.schema) as writer:
        writer.write_table(table)
    content = (store / name).read_bytes()
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (store / "manifest.json").write_text(json.dumps(sealed(manifest)))


def with_values(column, place, value):
    """Sets one value in a column of numbers, or of lists of them; in all rows with a place of `...`."""

    def change(table):
        values, types = table[column].combine_chunks(), []
        while isinstance(values, pa.FixedSizeListArray):
            types.append(values.type.list_size)
            values = values.values
        array = values.to_numpy(zero_copy_only=False).reshape(len(table), *types).copy()
        array[place] = value(array[place]) if callable(value) else value
        made = pa.array(array.reshape(-1), values.type)
        for size in reversed(types):
            made = pa.FixedSizeListArray.from_arrays(made, size)
        return table.set_column(table.schema.get_field_index(column), column, made)

    return change


def with_apart(column, place, value):
    """Sets one value of a column of lists of any length."""

    def change(table):
        lists = table[column].combine_chunks()
        values = lists.values.to_numpy(zero_copy_only=False).copy()
        values[place] = value
        made = pa.LargeListArray.from_arrays(lists.offsets, pa.array(values, lists.values.type))
        return table.set_column(table.schema.get_field_index(column), column, made)

    return change


def about(**changes):
    def change(table):
        said = json.loads(table.schema.metadata[b"histpert"]) | changes
        return table.replace_schema_metadata({"histpert": json.dumps(said)})

    return change


UNTRUE = {
    "sum": (
        "counts_B8.arrow",
        with_values("counts", (2, 3, 0), lambda n: n + 1),
        "counts do not add up to n_cells: G3",
    ),
    "reference": ("reference.arrow", with_values("counts", (0, 1, 0), 0), "G1 under control"),
    "negative": (
        "counts_B5.arrow",
        with_values("counts", (1, 1, slice(2)), [-1, 31]),
        "a count is below 0: G1 under P0",
    ),
    "reversed": ("counts_B5.arrow", with_values("counts", ..., lambda n: n[..., ::-1]), "mean is not that of moments"),
    "genes": ("counts_B5.arrow", with_values("counts", ..., lambda n: n[:, ::-1]), "the mean is not that of moments"),
    "first bin": ("counts_B5.arrow", with_values("counts", (1, 1), [30, 0, 0, 0, 0]), "mean is not that of moments"),
    "outside": ("counts_B5.arrow", with_values("outside", (1, 0), 31), "outside is more than the edge bins hold"),
    "training": ("counts_B5.arrow", with_values("outside", (2, slice(None)), 1), "outside of a range that they are"),
    "shape": (
        "counts_B5.arrow",
        lambda table: table.set_column(3, "counts", table["outside"]),
        "columns are not those",
    ),
    "column": ("counts_B5.arrow", lambda table: table.drop_columns("outside"), "columns are not those of a store"),
    "labels": ("counts_B5.arrow", with_values("n_cells", 1, 29), "its column n_cells is not that of manifest.json"),
    "order": ("counts_B5.arrow", about(genes=[f"G{n}" for n in range(12)][::-1]), "its genes is not that of manifest"),
    "n_detected": ("moments.arrow", with_values("n_detected", (3, 2), 31), "n_detected is not from 0 to n_cells: G2"),
    "mean": (
        "moments.arrow",
        with_values("sum_1", (3, 2), 1.0),
        "the mean is not from minimum to maximum: G2 under P2",
    ),
    "nan": ("moments.arrow", with_values("sum_4", (3, 2), np.nan), "a sum is no number: G2 under P2"),
    "powers": ("moments.arrow", with_values("sum_2", (3, 1), 1e-3), "no values have these sums of powers: G1 under P2"),
    "extremes": ("moments.arrow", with_values("maximum", (1, 4), 99.0), "ranges.arrow: the ranges are not those"),
    "ranges": ("ranges.arrow", with_values("minimum", 3, 0.25), "the ranges are not those that follow from moments"),
    "apart": ("apart_B8.arrow", with_apart("value", 0, 0.8), "a cell is not to be kept apart"),
    "apart of no gene": ("apart_B8.arrow", with_apart("gene", 0, 99), "a gene's number is not one of manifest.json"),
    "apart beyond": ("apart_B8.arrow", with_apart("value", 0, 1e9), "a value is beyond the extremes"),
    "cell": ("cells.arrow", with_values("expression", (45, 2), 3.0), "the mean is not that of moments.arrow: under P0"),
    "cell nan": ("cells.arrow", with_values("expression", (45, 2), np.nan), "a value is no number: under P0"),
    "first neighbor": ("coexpression.arrow", with_values("neighbor", (1, 4, 0), 5), "is not the first of its own"),
    "no neighbor": ("coexpression.arrow", with_values("neighbor", (1, 4, 3), 99), "a gene's number is not one of"),
    "correlation": ("coexpression.arrow", with_values("correlation", (1, 4, 1), 1.5), "are not from 1 to -1, by"),
    "replicates": ("replicates_R3.arrow", with_values("sum_1", (1, 0, 4), 999.0), "G4 under P0"),
    "drawn nan": ("replicates_R3.arrow", with_values("sum_4", (1, 0, 4), np.nan), "a sum is no number: G4 under P0"),
}


@pytest.mark.parametrize("case", UNTRUE)
def test_verify_finds_content_that_cannot_be_true(store, said, case):
    name, change, words = UNTRUE[case]
    rewritten(store, name, change)
    status, lines = said("verify", store)
    assert status == 1
    assert any(words in line for line in lines), lines
    assert any(line.startswith(f"{store}: {name}: ") for line in lines) or case == "extremes"


def test_verify_allows_for_cells_far_beyond_the_range_of_training(root, said):
    screen = make_screen()
    expression = screen.expression.tolil()
    expression[40, 4] = 500
    open_or_build(root, replace(screen, expression=expression.tocsr()), FOLDS, [5, 35])
    assert said("verify", root)[0] == 0


@pytest.mark.parametrize("name", ["moments.arrow", "counts_B5.arrow"])
def test_verify_of_rewritten_but_true_content_is_ok(store, said, name):
    rewritten(store, name, lambda table: table)
    assert said("verify", store)[0] == 0


def test_verify_of_few_rows_at_a_time(store, said, monkeypatch):
    monkeypatch.setattr("histpert.histograms.content.BATCH_BYTES", 1)
    assert said("verify", store)[0] == 0
    rewritten(store, *UNTRUE["sum"][:2])
    assert "counts do not add up to n_cells: G3 under P1" in said("verify", store)[1][0]


def test_batches_are_small(store):
    """However many groups there are, no more is looked at than so many bytes."""
    manifest = json.loads((store / "manifest.json").read_text())
    manifest |= {"perturbations": ["P"] * 99_999, "n_cells": [1] * 100_000, "folds": [0] * 99_999}
    spans = list(Content(manifest, {})._batches(350_000))
    assert max(span.stop - span.start for span in spans) * 350_000 <= 16 << 20
    assert [spans[0].start, spans[-1].stop] == [0, 100_000]


def test_an_arrow_file_that_is_none(store, said):
    (store / "counts_B5.arrow").write_text("no Arrow file")
    content = b"no Arrow file"
    files = json.loads((store / "manifest.json").read_text())["files"]
    change_manifest(
        store,
        files=files | {"counts_B5.arrow": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}},
    )
    status, (line,) = said("verify", store)
    assert status == 1
    assert line.startswith(f"{store}: counts_B5.arrow: no Arrow file")


# prune


def test_prune_removes_nothing_unless_told(store, root, said):
    leave_unfinished(root)
    shutil.copytree(store, root / "old-0123456789abcdef")
    change_manifest(root / "old-0123456789abcdef", format=3)
    (store / ".counts_B9.arrow.77.0a1b2c3d").write_bytes(b"x" * 100)
    unused_for(store, 50)
    before = everything_under(root)
    status, lines = said("prune", root)
    assert status == 0
    assert everything_under(root) == before
    assert [line.split()[0] for line in lines[1:-1]] == sorted(
        [store.name, "old-0123456789abcdef", "left-0123456789abcdef"]
    )
    assert any("left by a killed process" in line and "100 bytes" in line for line in lines)
    assert any("unfinished" in line and "1.5 kB" in line for line in lines)
    assert any("format 3" in line for line in lines)
    assert lines[-1].endswith("would be free; nothing was removed: add --yes")


def test_prune_with_yes_leaves_the_stores(store, root, said):
    leave_unfinished(root)
    shutil.copytree(store, root / "old-0123456789abcdef")
    change_manifest(root / "old-0123456789abcdef", format=3)
    before = everything_under(store)
    (store / ".counts_B9.arrow.77.0a1b2c3d").write_bytes(b"x" * 100)
    (store / ".manifest.json.77.0a1b2c3d").write_bytes(b"x" * 100)
    (store / "counts_B9.arrow").write_bytes(b"x" * 100)
    status, lines = said("prune", root, "--yes")
    assert status == 0
    assert re.fullmatch(r"([\d.]+ kB) of \1 removed", lines[-1])
    assert [path.name for path in root.iterdir()] == [store.name]
    assert everything_under(store) == before
    assert said("verify", root)[0] == 0
    assert said("prune", root, "--yes") == (0, [f"nothing to remove in {root}"])


def test_prune_of_unused_stores(store, root, said):
    used = shutil.copytree(store, root / "used-0123456789abcdef")
    unused_for(store, 50)
    unused_for(used, 10)
    assert said("prune", root) == (0, [f"nothing to remove in {root}"])
    assert said("prune", root, "--unused-days", "51") == (0, [f"nothing to remove in {root}"])
    status, lines = said("prune", root, "--unused-days", "30")
    assert "unused for 50 days" in lines[1]
    assert len(lines) == 3
    assert said("prune", root, "--unused-days", "30", "--yes")[0] == status == 0
    assert [path.name for path in root.iterdir()] == [used.name]


def test_a_study_that_opens_a_store_keeps_it(root, said):
    store = open_or_build(root, make_screen(), FOLDS, [5]).folder.path
    unused_for(store, 50)
    open_or_build(root, make_screen(), FOLDS, [5])
    assert said("prune", root, "--unused-days", "30") == (0, [f"nothing to remove in {root}"])


@pytest.mark.parametrize("days", ["-1", "nan", "inf"])
def test_days_that_are_none(root, said, days):
    status, (line,) = said("prune", root, "--unused-days", days)
    assert status == 2
    assert "--unused-days" in line


def test_prune_leaves_what_a_process_builds(store, root, said):
    left = leave_unfinished(root)
    (store / ".counts_B9.arrow.77.0a1b2c3d").write_bytes(b"x" * 100)
    unused_for(store, 50)
    before = everything_under(root)
    with Holding(left / "lock"), Holding(store / "lock"):
        assert said("prune", root, "--unused-days", "1", "--yes") == (0, [f"nothing to remove in {root}"])
    assert everything_under(root) == before
    assert said("prune", root, "--unused-days", "1", "--yes")[0] == 0
    assert list(root.iterdir()) == []


def test_what_is_built_or_used_after_it_was_listed_is_kept(store, root, monkeypatch, said):
    """Between the list and the removal: a lock is taken, a store becomes whole, a study opens one."""
    left, old = leave_unfinished(root), shutil.copytree(store, root / "old-0123456789abcdef")
    built = leave_unfinished(root, "built-0123456789abcdef")
    unused_for(old, 50)
    shutil.rmtree(store)
    import histpert.store_commands as commands  # noqa: PLC0415

    def listed(*arguments):
        found = list(removals(*arguments))
        assert len(found) == 3
        holding.__enter__()
        os.utime(old / "manifest.json")
        shutil.rmtree(built)
        shutil.copytree(old, built)
        return found

    removals, holding = commands.removals, Holding(left / "lock")
    monkeypatch.setattr(commands, "removals", listed)
    status, lines = said("prune", root, "--unused-days", "30", "--yes")
    holding.__exit__()
    assert status == 0
    assert lines[-1].startswith("0 bytes of ")
    assert (left / "moments.arrow").exists()
    assert said("verify", old, built)[0] == 0


FOREIGN = {
    "no name of ours": ("results", {"moments.arrow": b"x"}),
    "predictions": ("predictions-0123456789abcdef", {"trial.arrow": b"x", "lock": b""}),
    "a file beside": ("s-0123456789abcdef", {"moments.arrow": b"x", "notes.txt": b"mine"}),
    "a folder inside": ("s-0123456789abcdef", {"moments.arrow": b"x", "inside/notes.txt": b"mine"}),
    "another's manifest": ("s-0123456789abcdef", {"manifest.json": b'{"format": 1}', "app.js": b"mine"}),
    "a hidden file": ("s-0123456789abcdef", {".counts.arrow.txt": b"mine"}),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_not_ours_is_left_alone(root, said, case):
    folder, files = FOREIGN[case]
    for name, content in files.items():
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        (root / folder / name).write_bytes(content)
    (root / "moments.arrow").write_bytes(b"of nobody")
    before = everything_under(root)
    status, lines = said("prune", root, "--unused-days", "0", "--yes")
    assert (status, lines) == (0, [f"nothing to remove in {root}"])
    assert everything_under(root) == before


def test_foreign_files_in_a_store_stay(store, root, said):
    (store / "notes.txt").write_text("mine")
    (store / "mine").mkdir()
    (store / "mine" / "moments.arrow").write_text("mine")
    unused_for(store, 3)
    assert said("prune", root, "--unused-days", "2", "--yes")[0] == 0
    assert sorted(path.name for path in store.iterdir()) == ["mine", "notes.txt"]
    assert (store / "mine" / "moments.arrow").read_text() == "mine"


def test_links_are_never_followed(made, root, said):
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    target = leave_unfinished(elsewhere)
    (root / target.name).symlink_to(target)
    linked = root / "linked-0123456789abcdef"
    linked.mkdir()
    for file in made.iterdir():
        (linked / file.name).symlink_to(file)
    broken = leave_unfinished(root, "broken-0123456789abcdef")
    (broken / "reference.arrow").symlink_to(root / "nowhere")
    before = everything_under(elsewhere)
    assert said("prune", root, "--unused-days", "0", "--yes") == (0, [f"nothing to remove in {root}"])
    assert everything_under(elsewhere) == before
    assert sorted(path.name for path in root.iterdir()) == sorted([target.name, linked.name, broken.name])
    assert (broken / "moments.arrow").exists()
    # They are read all the same.
    assert said("verify", linked)[0] == 0


def test_the_manifest_goes_first(store, root, said, monkeypatch):
    unused_for(store, 3)
    removed, unlink = [], type(store).unlink
    monkeypatch.setattr(type(store), "unlink", lambda path, **how: (removed.append(path.name), unlink(path, **how)))
    said("prune", root, "--unused-days", "2", "--yes")
    assert removed[0] == "manifest.json"
    assert removed.index("lock") == len(NAMES) + 1


def test_a_folder_that_cannot_be_written_is_said_in_one_line(store, root, said, monkeypatch):
    unused_for(store, 3)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(store), "unlink", refuse)
    status, lines = said("prune", root, "--unused-days", "2", "--yes")
    assert status == 2
    assert lines[-1].startswith(f"error: {store} cannot be removed")


# On object storage


@pytest.fixture(params=["s3", "file"])
def remote(request, tmp_path):
    """A root with a whole store on object storage."""
    cache = Cache(tmp_path / "cache", 10**9)
    uri = (tmp_path / "a folder").as_uri()
    if request.param == "s3":
        uri = f"s3://bucket/stores?{request.getfixturevalue('storage').options}"
    return open_or_build(uri, make_screen(), FOLDS, [5], cache=cache).folder, uri, tmp_path / "cache"


def put(folder, name, content, tmp_path):
    (tmp_path / "put").write_bytes(content)
    folder.put(tmp_path / "put", name)


def test_remote_stores(remote, tmp_path, said):
    folder, uri, cache = remote
    name = re.search(r"made-[0-9a-f]{16}", folder.uri)[0]
    before = {path.name for path in cache.iterdir()}
    status, lines = said("ls", uri)
    assert status == 0
    assert lines[1].split()[:6] == [name, "7", "12", "250", "3", "5"]
    assert lines[1].split()[-1] == time.strftime("%Y-%m-%d")
    status, lines = said("show", folder.uri, "--store-cache", cache)
    assert status == 0
    assert any("counts: int16[" in line for line in lines)
    assert said("verify", uri, "--store-cache", cache) == (0, [f"{name}: ok (4 files)"])
    # The cache holds what it held, and what was downloaded is gone.
    assert {path.name for path in cache.iterdir()} - {"verify"} == before
    assert [path.name for path in (cache / "verify").iterdir() if not path.name.endswith(".lock")] == []


def test_remote_damage_is_found_whatever_the_cache_holds(remote, tmp_path, said):
    folder, uri, cache = remote
    n_bytes = folder.files()["counts_B5.arrow"]
    put(folder, "counts_B5.arrow", bytes(n_bytes), tmp_path)
    status, lines = said("verify", uri, "--store-cache", cache)
    assert status == 1
    assert ["counts_B5.arrow: damaged" in line for line in lines if "damaged" in line] == [True]
    # Nor does it help that another process that verified it was killed before that.
    sha256 = json.loads(folder.read("manifest.json"))["files"]["counts_B5.arrow"]["sha256"]
    shutil.copy(cache / sha256, cache / "verify" / sha256)
    assert said("verify", uri, "--store-cache", cache)[0] == 1
    # The cache is right, and still is.
    open_or_build(uri, make_screen(), FOLDS, [5], cache=Cache(cache, 10**9)).fold(0, 5)


def test_remote_prune(remote, tmp_path, said):
    folder, uri, _ = remote
    root = uri.split("?")[0]
    assert said("prune", uri, "--yes")[1][0].startswith("nothing to remove in")
    status, (line,) = said("prune", uri, "--unused-days", "3")
    assert status == 2
    assert "object storage does not tell" in line
    manifest = json.loads(folder.read("manifest.json")) | {"format": 3}
    put(folder, "manifest.json", json.dumps(manifest).encode(), tmp_path)
    unfinished = replace(folder, uri=folder.uri.replace("made-", "left-"))
    put(unfinished, "moments.arrow", b"on its way", tmp_path)
    with_notes = replace(folder, uri=folder.uri.replace("made-", "mine-"))
    put(with_notes, "manifest.json", json.dumps(manifest).encode(), tmp_path)
    put(with_notes, "notes.txt", b"mine", tmp_path)
    assert "format 3" in said("prune", uri)[1][1]
    assert len(folder.files()) == 5
    assert said("prune", uri, "--yes")[0] == 0
    assert folder.files() == {}
    assert unfinished.files() == {"moments.arrow": 10}
    assert len(with_notes.files()) == 2
    assert root in said("ls", uri)[1][-1]


def test_nobody_there_is_no_damage(said, tmp_path):
    uri = "s3://AKIA:secret@bucket/stores?endpoint_override=127.0.0.1:9&scheme=http&region=x"
    for command in ("ls", "verify", "prune"):
        status, (line,) = said(command, uri)
        assert status == 2
        assert "nobody answers there" in line
        assert "secret@" not in line


# help


@pytest.mark.parametrize("command", ["ls", "show", "verify", "prune"])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["store", command, "--help"])
    assert stopped.value.code == 0
    shown = without_color(capsys.readouterr().out)
    assert f"usage: histpert store {command}" in shown
    assert ("--store-cache-gb" in shown) == (command in ("show", "verify"))
    assert ("results/stores" in shown) == (command != "show")


@pytest.mark.parametrize("arguments", [["store"], ["store", "show"], ["store", "sl"], ["store", "ls", "a", "b"]])
def test_a_command_line_that_is_not_understood(arguments, capsys):
    assert main(arguments) == 2
    assert re.fullmatch("error: [^\n]*; see --help\n", capsys.readouterr().err)


def test_a_cache_that_is_none(store, said):
    status, (line,) = said("verify", store, "--store-cache-gb", "0")
    assert (status, line) == (2, "error: --store-cache-gb 0.0: must be a number above 0")
