"""Pickles of embeddings: what numpy and Python write is read, and nothing that a pickle asks for is run."""

import collections
import os
import pickle
import struct
import subprocess

import numpy as np
import pandas as pd
import pytest

from histpert.embeddings import read_embeddings
from histpert.errors import InputError

GENES = ("STAT1", "JAK2", "MYC")
VECTORS = np.array([[1.0, 2.5], [-3.0, 0.25], [7.0, 0.0]])


def write(folder, content, protocol=4):
    raw = content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol)
    (folder / "source.pkl").write_bytes(raw)
    return folder / "source.pkl"


def refused(path):
    with pytest.raises(InputError) as failure:
        read_embeddings([path])
    message = str(failure.value)
    assert len(message.splitlines()) == 1
    assert "source.pkl" in message
    return message


CONTENTS = {
    "lists": dict(zip(GENES, VECTORS.tolist(), strict=True)),
    "tuples": {gene: tuple(vector) for gene, vector in zip(GENES, VECTORS.tolist(), strict=True)},
    "arrays": dict(zip(GENES, VECTORS, strict=True)),
    "float32": dict(zip(GENES, VECTORS.astype("f4"), strict=True)),
    "big-endian": dict(zip(GENES, VECTORS.astype(">f8"), strict=True)),
    "strided": dict(zip(GENES, np.asfortranarray(VECTORS), strict=True)),
    "lists of scalars": {gene: list(vector) for gene, vector in zip(GENES, VECTORS, strict=True)},
    "ordered": collections.OrderedDict(zip(GENES, VECTORS, strict=True)),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("content", CONTENTS)
def test_numbers_in_plain_containers_are_read(tmp_path, content, protocol):
    np.savez(tmp_path / "source.npz", genes=np.array(GENES), vectors=VECTORS)
    expected = read_embeddings([tmp_path / "source.npz"])
    embeddings = read_embeddings([write(tmp_path, CONTENTS[content], protocol)])
    assert embeddings.fingerprint() == expected.fingerprint()
    assert embeddings.name == "source"


def test_pickles_of_numpy_before_2_are_read(tmp_path):
    old = pickle.dumps(CONTENTS["arrays"], protocol=2).replace(b"numpy._core", b"numpy.core")
    assert b"numpy.core.multiarray" in old
    assert read_embeddings([write(tmp_path, old)]).genes == GENES


def short(text):
    return b"\x8c" + struct.pack("<B", len(text)) + text.encode()


def called(module, name, *arguments):
    """A pickle that calls a function by GLOBAL."""
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(map(short, arguments)) + b"tR."


def called_by_stack(module, name, *arguments):
    """The same by STACK_GLOBAL, which takes dotted names."""
    return b"\x80\x04" + short(module) + short(name) + b"\x93(" + b"".join(map(short, arguments)) + b"tR."


class Reduced:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def nested(marker):
    """Hidden in a vector, in the arguments of an admitted function."""
    inner = Reduced(os.system, f"touch {marker}")
    return pickle.dumps({"STAT1": [1.0, 2.0], "JAK2": Reduced(collections.OrderedDict, [["a", inner]])})


def in_an_array(marker):
    array = np.empty(2, dtype=object)
    array[:] = [Reduced(os.system, f"touch {marker}"), 1.0]
    return pickle.dumps({"STAT1": array})


TOUCH = "__import__('os').system('touch {}')"

ATTACKS = {
    "os.system": (lambda m: called("os", "system", f"touch {m}"), "os.system"),
    "os.system on the stack": (lambda m: called_by_stack("os", "system", f"touch {m}"), "os.system"),
    "posix.system": (lambda m: pickle.dumps(Reduced(os.system, f"touch {m}")), f"{os.system.__module__}.system"),
    "old protocol": (lambda m: pickle.dumps(Reduced(os.system, f"touch {m}"), 0), f"{os.system.__module__}.system"),
    "INST": (lambda m: b"(" + short(f"touch {m}") + b"ios\nsystem\n.", "os.system"),
    "Popen": (lambda m: pickle.dumps(Reduced(subprocess.Popen, ["touch", str(m)])), "subprocess.Popen"),
    "eval": (lambda m: called("builtins", "eval", TOUCH.format(m)), "builtins.eval"),
    "eval of Python 2": (lambda m: called("__builtin__", "eval", TOUCH.format(m)), "__builtin__.eval"),
    "exec": (lambda m: called_by_stack("builtins", "exec", TOUCH.format(m)), "builtins.exec"),
    "getattr": (lambda m: called("builtins", "getattr", "x", "y"), "builtins.getattr"),
    "import": (lambda m: called("importlib", "import_module", "os"), "importlib.import_module"),
    "open": (lambda m: called("_io", "open", str(m), "w"), "_io.open"),
    "nested reduce": (nested, f"{os.system.__module__}.system"),
    "dotted numpy": (
        lambda m: called_by_stack("numpy", "testing._private.utils.runstring", TOUCH.format(m), "x"),
        "numpy.testing._private.utils.runstring",
    ),
    "numpy's runstring": (
        lambda m: b"cnumpy.testing._private.utils\nrunstring\n(" + short(TOUCH.format(m)) + b"}tR.",
        "numpy.testing._private.utils.runstring",
    ),
    "dotted off an admitted name": (
        lambda m: called_by_stack("numpy._core.multiarray", "_reconstruct.__globals__", "x"),
        "numpy._core.multiarray._reconstruct.__globals__",
    ),
    "a module's module": (
        lambda m: called_by_stack("numpy._core.multiarray", "os.system", f"touch {m}"),
        "numpy._core.multiarray.os.system",
    ),
    "codecs": (lambda m: called_by_stack("_codecs", "lookup", "latin1"), "_codecs.lookup"),
    "numpy.load": (lambda m: called("numpy", "load", str(m)), "numpy.load"),
    "a file of memory": (lambda m: called("numpy", "memmap", str(m)), "numpy.memmap"),
    "copyreg": (lambda m: called("copyreg", "_reconstructor", "x"), "copyreg._reconstructor"),
    "pandas": (lambda m: pickle.dumps(pd.DataFrame(VECTORS)), "pandas."),
    "a line break in the name": (lambda m: called_by_stack("os\nx", "system", f"touch {m}"), "os\\nx.system"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pickle_that_asks_for_more_is_refused_by_name_and_does_nothing(tmp_path, attack):
    make, name = ATTACKS[attack]
    marker = tmp_path / "marker"
    message = refused(write(tmp_path, make(marker)))
    assert f"asks to load '{name}" in message
    assert not marker.exists()


@pytest.mark.parametrize("attack", ["os.system", "posix.system", "Popen", "eval", "exec", "open", "numpy's runstring"])
def test_the_attacks_are_real(tmp_path, attack):
    marker = tmp_path / "marker"
    result = pickle.loads(ATTACKS[attack][0](marker))
    if isinstance(result, subprocess.Popen):
        result.wait()
    assert marker.exists()


def test_what_an_array_of_objects_would_run_is_not_run(tmp_path):
    marker = tmp_path / "marker"
    assert "array of type 'O8', where vectors need numbers" in refused(write(tmp_path, in_an_array(marker)))
    assert not marker.exists()


ADMITTED = b"cnumpy._core.multiarray\n_reconstruct\n"
NDARRAY = b"cnumpy\nndarray\n"
DTYPE = b"cnumpy\ndtype\n"


def array_of(dtype, raw):
    """One vector, of this dtype and made of these bytes."""
    return (
        b"\x80\x04}" + short("STAT1") + ADMITTED + NDARRAY + b"K\x00\x85C\x01b\x87R"
        b"(K\x01K\x01\x85" + dtype + b"\x89" + raw + b"tbs."
    )


ADDRESS = b"C\x08" + bytes(8)

TRICKS = {
    "an address as an object": (array_of(DTYPE + short("O8") + b"\x85R", ADDRESS), "'O8'"),
    "a field that is an object": (
        array_of(DTYPE + short("V8") + b"\x85R(K\x03" + short("|") + b"N\x8c\x01a\x85}K\x08K\x01K\x00tb", ADDRESS),
        "'V8'",
    ),
    "fields put into a number": (
        array_of(DTYPE + short("f8") + b"\x85R(K\x03" + short("<") + b"N\x8c\x01a\x85}K\x08K\x01K\x00tb", ADDRESS),
        "plain numbers",
    ),
    "text as numbers": (array_of(DTYPE + short("U2") + b"\x85R", ADDRESS), "'U2'"),
    "too few bytes": (array_of(DTYPE + short("f8") + b"\x85R", b"C\x04" + bytes(4)), "cannot be read as a pickle"),
    "a list for bytes": (array_of(DTYPE + short("f8") + b"\x85R", b"]"), "list"),
    "a number for a dtype": (array_of(b"K\x05", ADDRESS), "int"),
    "a state for a function": (ADMITTED + b"}" + short("__defaults__") + b"K\x01sb.", "a state to a function"),
    "attributes for a function": (b"\x80\x04" + ADMITTED + b"N}" + short("_function") + b"K\x01s\x86b.", "a state"),
    "attributes for numpy.dtype": (b"\x80\x04" + DTYPE + b"N}" + short("__call__") + b"K\x01s\x86b.", "a state"),
    "a huge array": (b"\x80\x04" + NDARRAY + b"\x8a\x06" + b"\xff" * 5 + b"\x00\x85R.", "array in an unknown way"),
    "an instance of a function": (b"\x80\x04" + NDARRAY + b")\x81.", "cannot be read as a pickle"),
    "another codec": (
        b"\x80\x04" + short("_codecs") + short("encode") + b"\x93" + short("x") + short("rot13") + b"\x86R.",
        "rot13",
    ),
    "an object outside the file": (b"\x80\x04" + short("an id") + b"Q.", "outside the file: 'an id'"),
    "a registered extension": (b"\x80\x04\x82\x01.", "extension"),
    "a buffer outside the file": (b"\x80\x05\x97.", "cannot be read as a pickle"),
    "truncated": (pickle.dumps(CONTENTS["arrays"])[:-20], "cannot be read as a pickle"),
    "empty": (b"", "cannot be read as a pickle"),
    "text": (b"gene,1,2\n", "cannot be read as a pickle"),
    "a list of vectors": (pickle.dumps(VECTORS.tolist()), "holds a list"),
    "an array": (pickle.dumps(VECTORS), "holds a numpy array"),
    "names that are tuples": (pickle.dumps({(1, 2): [1.0]}), "an object is a tuple"),
    "names that are numbers": (pickle.dumps({1: [1.0], 2: [3.0]}), "'1' is a int"),
    "text for a vector": (pickle.dumps({"A": [1.0], "B": "abc"}), "'B' has a str"),
    "none for a vector": (pickle.dumps({"A": [1.0], "B": None}), "'B' has a NoneType"),
    "words in a vector": (pickle.dumps({"A": [1.0, 2.0], "B": [1.0, "x"]}), "'B'"),
    "truth in a vector": (pickle.dumps({"A": [1.0, 2.0], "B": [True, False]}), "'B'"),
    "lists in a vector": (pickle.dumps({"A": [1.0, 2.0], "B": [[1.0], [2.0, 3.0]]}), "'B'"),
    "a matrix for a vector": (pickle.dumps({"A": VECTORS, "B": VECTORS}), "'A'"),
    "vectors of unlike lengths": (pickle.dumps({"A": [1.0, 2.0], "B": [1.0]}), "2 values for gene 'A', 1 for 'B'"),
    "no features": (pickle.dumps({"A": [], "B": []}), "source.pkl"),
    "no genes": (pickle.dumps({}), "no rows"),
    "a blank name": (pickle.dumps({"A": [1.0], " ": [2.0]}), "row 2"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_pickle_that_holds_anything_else_is_refused(tmp_path, trick):
    raw, cause = TRICKS[trick]
    assert cause in refused(write(tmp_path, raw))
    # and left nothing behind for the next file
    assert read_embeddings([write(tmp_path, CONTENTS["arrays"])]).genes == GENES


def test_a_list_that_holds_itself_is_refused(tmp_path):
    endless = [1.0]
    endless.append(endless)
    assert "'STAT1'" in refused(write(tmp_path, {"STAT1": endless}))
