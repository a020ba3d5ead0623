"""Which room may know which: read off the imports of every file, and off what a fresh process has loaded."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from setuptools import find_namespace_packages, find_packages

import histpert

ROOT = Path(__file__).parents[1]
ROOMS = ("histpert", "studies", "analysis")
FOR_ANALYSIS = (
    "histpert.results",
    "histpert.prediction_files",
    "histpert.plots",
    "histpert.errors",
    "histpert.command_line",
    "histpert.words",
)


def files(room: str) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in sorted((ROOT / room).rglob("*.py"))]


def parsed(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Every module or name that is imported anywhere in a file, in full: `from a import b` is `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{home}.{alias.name}" for alias in node.names)


def imports(file: str) -> list[str]:
    return list(imported(parsed(file), str(Path(file).parent).replace("/", ".")))


def within(name: str, *modules: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def is_script(file: str) -> bool:
    return any(
        isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) and "__main__" in ast.unparse(node.test)
        for node in parsed(file).body
    )


def test_imports_are_found_wherever_they_stand():
    source = """
import ray.tune as t
from . import store
from ..screens import folds as f, reading
def late():
    if True:
        from torch import nn
"""
    found = list(imported(ast.parse(source), "histpert.histograms"))
    assert found == [
        "ray.tune",
        "histpert.histograms.store",
        "histpert.screens.folds",
        "histpert.screens.reading",
        "torch.nn",
    ]


def test_every_room_has_files():
    assert all(len(files(room)) > 3 for room in ROOMS)


@pytest.mark.parametrize("file", files("histpert"))
def test_the_science_knows_neither_ray_nor_the_other_rooms(file):
    assert [name for name in imports(file) if within(name, "ray", "studies", "analysis")] == []


@pytest.mark.parametrize("file", files("analysis"))
def test_analysis_knows_result_tables_and_plots_only(file):
    names = imports(file)
    assert [name for name in names if within(name, "torch", "ray", "studies")] == []
    assert [name for name in names if within(name, "histpert") and not within(name, *FOR_ANALYSIS)] == []


@pytest.mark.parametrize("file", files("studies"))
def test_only_scripts_and_the_end_of_a_study_know_analysis(file):
    names = imports(file)
    assert [name for name in names if within(name, "tests", "cluster")] == []
    if not is_script(file):
        ends = ["analysis.report.report_of_study"] if file == "studies/ended.py" else []
        assert [name for name in names if within(name, "analysis")] == ends


def test_there_are_scripts_and_what_they_share():
    assert {is_script(file) for file in files("studies")} == {True, False}


@pytest.mark.parametrize(
    "file", ["results.py", "prediction_files.py", "plots/__init__.py", "settings.py", "errors.py", "__init__.py"]
)
def test_what_needs_no_torch_imports_none(file):
    assert [name for name in imports(f"histpert/{file}") if within(name, "torch")] == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("histpert", ("torch", "ray", "anndata", "scipy", "pandas", "numba", "matplotlib")),
        ("histpert.results", ("torch", "ray", "anndata")),
        ("histpert.prediction_files", ("torch", "ray", "anndata", "numba", "pandas")),
        ("histpert.plots", ("torch", "ray", "anndata")),
        ("histpert.settings", ("torch", "ray", "anndata")),
        ("histpert.models", ("ray", "anndata", "studies", "analysis")),
        ("histpert.screens", ("torch", "ray", "studies", "analysis")),
        ("histpert.doctor_command", ("torch", "ray", "studies", "analysis")),
        ("analysis.resolution", ("torch", "ray", "anndata", "studies")),
    ],
)
def test_a_fresh_process_loads_no_more_than_it_needs(module, absent):
    code = f"import sys, {module}; print(*(name for name in {absent} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", histpert.__all__)
def test_every_public_name_resolves(name):
    value = getattr(histpert, name)
    assert name == "__version__" or getattr(value, "__name__", name) == name


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="read_scren"):
        histpert.read_scren  # noqa: B018


@pytest.mark.parametrize("find", [find_packages, find_namespace_packages])
def test_the_wheel_holds_the_three_rooms_whole_and_nothing_else(find):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    packages = set(find(str(ROOT), include=settings["find"]["include"], exclude=settings["find"].get("exclude", ())))
    assert {package.split(".")[0] for package in packages} == set(ROOMS)
    folders = {str(Path(file).parent).replace("/", ".") for room in ROOMS for file in files(room)}
    assert folders <= packages
