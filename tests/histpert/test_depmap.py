"""DepMap's files of both layouts beside pandas, what cannot be used, and what is simulated."""

import gzip
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from histpert.errors import InputError
from histpert.perturbert.depmap import INFORMATIVE, PERMUTED, read_depmap, simulate_depmap

LINES = [f"ACH-{number:06}" for number in range(12, 0, -1)]
GENES = ["A1BG", "NA", "H2-K1", "ZZZ3"]


def values_of(n_lines, genes, seed):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.normal(size=(n_lines, len(genes))).astype(np.float32), columns=genes)
    table.columns = [f"{gene} ({number})" for number, gene in enumerate(genes)]
    return table


def written(folder, *, effects=None, expression=None):
    """Files of the older layout, or given ones; returns their paths."""
    paths = folder / "CRISPRGeneEffect.csv", folder / "expression.csv"
    old = values_of(12, GENES, 0), values_of(12, ["X", "Y", "Z"], 1)
    for path, table, given in zip(paths, old, (effects, expression), strict=True):
        if isinstance(given, str):
            path.write_text(given)
        elif given is None:
            table.set_axis(LINES, axis=0).to_csv(path)
        else:
            given.to_csv(path, index=False)
    return paths


def test_the_older_layout_is_read_as_pandas_reads_it(tmp_path):
    effects, expression = written(tmp_path)
    found = read_depmap(effects, expression, ["ZZZ3", "A1BG", "TP53"])
    assert found.lines == tuple(sorted(LINES))
    assert found.genes == ("A1BG", "ZZZ3")
    expected = pd.read_csv(effects, index_col=0).loc[list(found.lines), ["A1BG (0)", "ZZZ3 (3)"]]
    np.testing.assert_array_equal(found.effects, expected.to_numpy(np.float32))
    expected = pd.read_csv(expression, index_col=0).loc[list(found.lines)]
    np.testing.assert_array_equal(found.expression, expected.to_numpy(np.float32))
    assert found.notes == (
        "12 lines are in both files (12 with effects, 12 with expression); 2 of 3 genes have effects, "
        "0.00% of them missing",
    )


@pytest.mark.parametrize("words", [("Yes", "No"), ("True", "False")])
def test_of_the_newer_layout_the_default_entries_of_lines_are_read(tmp_path, words):
    about = pd.DataFrame({"SequencingID": [f"CDS-{number}" for number in range(17)], "ModelID": LINES + LINES[:5]})
    about["IsDefaultEntryForModel"] = [words[0]] * 10 + [words[1]] * 2 + [words[1]] * 5
    about["ModelConditionID"] = "MC-1"
    table = pd.concat([about, values_of(17, ["X", "Y"], 1)], axis=1)
    effects, expression = written(tmp_path, expression=table)
    found = read_depmap(effects, expression, GENES)
    assert found.lines == tuple(sorted(LINES[:10]))
    rows = table[table["IsDefaultEntryForModel"] == words[0]].set_index("ModelID")
    expected = rows.loc[list(found.lines), ["X (0)", "Y (1)"]]
    np.testing.assert_array_equal(found.expression, expected.to_numpy(np.float32))
    assert "(12 with effects, 10 with expression)" in found.notes[0]


def test_missing_effects_stay_and_genes_without_any_go(tmp_path):
    table = values_of(12, GENES, 0)
    table.iloc[0, 0], table["NA (1)"] = np.nan, np.nan
    expressed = values_of(12, ["X", "Y"], 1)
    expressed.iloc[3, 0] = np.nan
    expressed.insert(0, "ModelID", LINES)
    table.insert(0, "ModelID", LINES)
    found = read_depmap(*written(tmp_path, effects=table, expression=expressed), GENES)
    assert found.genes == ("A1BG", "H2-K1", "ZZZ3")
    assert np.argwhere(np.isnan(found.effects)).tolist() == [[11, 0]]
    assert found.expression.shape == (12, 1)
    assert found.notes[1] == "left out the expression of 1 genes that some lines lack"


def test_compressed_files_are_read(tmp_path):
    effects, expression = written(tmp_path)
    zipped = tmp_path / "effects.csv.gz"
    zipped.write_bytes(gzip.compress(effects.read_bytes()))
    first, second = (read_depmap(path, expression, GENES) for path in (effects, zipped))
    assert first.fingerprint() == second.fingerprint()


ROW = "\n".join(f"{line},0.5" for line in LINES)


@pytest.mark.parametrize(
    ("effects", "words"),
    [
        (
            "ModelID,A1BG\n" + ROW,
            "--effects .* no column is named as A1BG .1., a symbol and an identifier; it has Model",
        ),
        ("", "--effects .* cannot be read as a .csv: Empty CSV"),
        ("ModelID,A1BG (1)\nACH-000001,high\n", "--effects .* cannot be read as a .csv: .*high"),
        ("ModelID,A1BG (1)\n" + ROW + f"\n{LINES[3]},1\n", f"--effects .*: the line {LINES[3]} stands there twice"),
        ("ModelID,A1BG (1),A1BG (2)\n" + ROW.replace("0.5", "0.5,1"), "the gene A1BG has two columns"),
        ("ModelID,TP53 (1)\n" + ROW, "none of its genes .TP53. has an embedding; there are A1BG, NA, H2-K1"),
        ("ModelID,A1BG (1)\nK562,0.5\n", "--effects .* .K562. and --expression .* share 0 lines: give files of one"),
        ("ModelID,A1BG (1)\n" + ROW[:132], "share 9 lines: .*, with 10 or more"),
        ("ModelID,A1BG (1)\n" + ROW.replace("0.5", ""), "--effects .*: all lack values in the 12 lines"),
        (
            "ModelID,IsDefaultEntryForModel,A1BG (1)\n" + ROW.replace(",", ",perhaps,"),
            "IsDefaultEntryForModel is perhaps in a row, and must be Yes or No",
        ),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(tmp_path, effects, words):
    with pytest.raises(InputError, match=words) as raised:
        read_depmap(*written(tmp_path, effects=effects), GENES)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named_with_its_option(tmp_path):
    effects, _ = written(tmp_path)
    with pytest.raises(InputError, match=r"--expression .*none.csv does not exist"):
        read_depmap(effects, tmp_path / "none.csv", GENES)


def test_most_of_the_simulated_variance_is_between_genes():
    depmap, _ = simulate_depmap(0)
    effects = depmap.effects.astype(float)
    share = np.nanvar(effects - np.nanmean(effects, axis=0)) / np.nanvar(effects)
    assert share == pytest.approx(0.15, abs=0.01)
    assert np.isnan(effects).mean() == pytest.approx(0.01, abs=0.003)


def test_simulated_vectors_tell_essentiality_unless_they_are_of_other_genes():
    depmap, sources = simulate_depmap(3)
    mean = np.nanmean(depmap.effects.astype(float), axis=0)
    explained = {}
    for name, source in sources.items():
        known = np.column_stack([np.ones(len(mean)), source.lookup(depmap.genes)])
        left = mean - known @ np.linalg.lstsq(known, mean, rcond=None)[0]
        n, n_features = known.shape
        explained[name] = 1 - (left.var() / (n - n_features)) / (mean.var() / (n - 1))
    assert explained[INFORMATIVE] > 0.4
    assert abs(explained[PERMUTED]) < 0.15
    assert sorted(sources[PERMUTED].vectors.tolist()) == sorted(sources[INFORMATIVE].vectors.tolist())


def test_the_same_seed_gives_the_same_lines_and_a_changed_value_another_fingerprint():
    (one, _), (again, _), (other, _) = (simulate_depmap(seed, 20, 15, 30) for seed in (0, 0, 1))
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    changed = one.effects.copy()
    changed[0, 0] = 9
    assert replace(one, effects=changed).fingerprint() != one.fingerprint()
