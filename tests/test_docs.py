"""The documentation: links lead somewhere, commands exist with the options that pages give them, tables are whole."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

import histpert
from histpert import results
from histpert.results import METRICS, PERTURBATION_SCHEMA, TRIAL_SCHEMA

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "cluster" / "README.md"])
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
OF_OTHERS = {"--generate", "--working-dir", "--address", "--no-deps"}
"""Options in prose that are Ray's or pip's."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return re.sub(r'^--8<-- "(.*)"$', lambda found: (ROOT / found[1]).read_text(encoding="utf-8"), text, flags=re.M)


def prose_of(page: Path) -> str:
    """Without blocks of code."""
    return re.sub(r"^(```.*?^```|(?: {4}|\t).*?)$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> Iterator[str]:
    """Indented blocks, and fenced ones of a shell."""
    text = text_of(page)
    yield from re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    yield from re.findall(
        r"(?:^\n|\A)((?: {4}.*\n)+)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.MULTILINE
    )


def commands_of(page: Path) -> Iterator[list[str]]:
    """Words of every command in blocks of code, and of those between backticks that begin with one of ours."""
    lines = [line for block in blocks_of(page) for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    inline = re.findall(r"`([^`]+)`", prose_of(page))
    lines += [" ".join(code.split()) for code in inline if re.match(r"(histpert|python|make) ", code)]
    for line in lines:
        words = shlex.shlex(line, posix=True, punctuation_chars="|;&")
        words.whitespace_split = True
        command: list[str] = []
        for word in words:
            if set(word) <= set("|;&"):
                yield command
                command = []
            else:
                command.append(word)
        yield command


def ours(words: list[str]) -> tuple[str, list[str]] | None:
    """Which of our programs a command runs, and what it is given; None for one of others."""
    for number, word in enumerate(words):
        after = words[number + 1 :]
        if re.fullmatch(r"(?:.*/)?(studies|analysis)/\w+\.py", word):
            return word[re.search("(studies|analysis)/", word).start() :], after
        if word == "-m" and after and after[0].startswith("analysis."):
            return after[0].replace(".", "/") + ".py", after[1:]
        if (word == "histpert" or word.endswith("/histpert")) and number == 0 and after:
            n_names = 2 if after[0] == "store" else 1
            return " ".join(["histpert", *after[:n_names]]), after[n_names:]
    return None


ASK_FOR_HELP = """
import contextlib, io, json, re, runpy, sys
from histpert.cli import main

def said(program):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        if program.endswith(".py"):
            sys.argv = [program, "--help"]
            runpy.run_path(program, run_name="__main__")
        else:
            main([*program.split()[1:], "--help"])
    return out.getvalue()

def commands(program):
    return [f"{program} {name}" for name in re.search(r"\\{([\\w,-]+)\\}", said(program))[1].split(",")]

programs = [*sys.argv[1:], *commands("histpert"), *commands("histpert store")]
json.dump({program: re.findall(r"(?<![\\w-])--[a-z][\\w-]*", said(program)) for program in programs}, sys.stdout)
"""


@cache
def options() -> dict[str, set[str]]:
    """Options that `--help` names, of everything that can be run, asked for as users do, without checks of shapes."""
    scripts = [path for room in ("studies", "analysis") for path in (ROOT / room).glob("*.py")]
    runnable = [name_of(path) for path in scripts if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")]
    done = subprocess.run(
        [sys.executable, "-c", ASK_FOR_HELP, *runnable],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return {program: set(found) for program, found in json.loads(done.stdout).items()}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist_with_the_options_that_the_page_gives_them(page):
    for words in commands_of(page):
        if words[:1] == ["make"]:
            assert {word for word in words[1:] if "=" not in word} <= TARGETS, words
        if not (found := ours(words)):
            continue
        program, given = found
        assert "--help" in options().get(program, ()), f"{program} cannot be run: {words}"
        used = {word.split("=")[0] for word in given if word.startswith("--")}
        assert used <= options()[program], f"{program}: {used - options()[program]}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_prose_are_of_some_command(page):
    named = {word for code in re.findall(r"`([^`]+)`", prose_of(page)) for word in re.findall(r"^--[a-z][\w-]*", code)}
    assert named - set().union(*options().values()) - OF_OTHERS == set()


def test_commands_are_found_on_pages():
    found = {program for page in PAGES for words in commands_of(page) if (program := (ours(words) or [""])[0])}
    assert {"studies/bin_sweep.py", "histpert simulate", "histpert store ls", "analysis/methods.py"} <= found


@pytest.mark.parametrize(
    ("line", "program", "given"),
    [
        ("ray job submit -- python studies/bin_sweep.py --folds 3", "studies/bin_sweep.py", ["--folds", "3"]),
        (".venv/bin/histpert store ls here", "histpert store ls", ["here"]),
        ("python -m analysis.methods results/methods", "analysis/methods.py", ["results/methods"]),
        ("python -m pytest tests", None, None),
    ],
)
def test_a_command_is_told_from_those_of_others(line, program, given):
    assert ours(line.split()) == (None if program is None else (program, given))


def anchors_of(page: Path) -> set[str]:
    """What headings are called in links, as GitHub and the site have it."""
    headings = re.findall(r"^#{1,6} (.+)$", re.sub(r"^```.*?^```", "", text_of(page), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        assert place.exists(), f"{target} of {name_of(page)}"
        if anchor:
            assert anchor in anchors_of(place), f"{target} of {name_of(page)}"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("material", reason="mkdocs-material is not there: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_is_built_with_every_page_and_nothing_to_complain_of(site):
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= {page.stem for page in site.glob("*.html")}


def test_the_site_fetches_nothing_from_elsewhere(site):
    for page in site.glob("*.html"):
        fetched = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?([^\"'\s>]+)", page.read_text("utf-8"))
        fetched += re.findall(r"<link[^>]*\srel=\W?(?:stylesheet|preconnect|preload)[^>]*>", page.read_text("utf-8"))
        assert fetched
        assert [one for one in fetched if "//" in one] == [], page.name
    for sheet in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text("utf-8")) == [], sheet.name


def test_pages_show_their_code_and_the_guide_to_clusters(site):
    assert "REPLACE_IMAGE" in (site / "cluster.html").read_text("utf-8")
    assert "&lt;this repository&gt;" in (site / "index.html").read_text("utf-8")


# Tables that must be whole


def rows_of(page: str, section: str) -> list[list[str]]:
    """Cells of the rows of the first table below a heading, without code's backticks."""
    part = re.split(
        r"^#+ ", re.split(rf"^#+ {re.escape(section)}$", text_of(ROOT / "docs" / page), flags=re.M)[1], flags=re.M
    )[0]
    table = re.search(r"(?:^\|.*\n)+", part, re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table]


def said_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {said_type(kind.value_type)}"
    return {"double": "float64"}.get(str(kind), str(kind))


@pytest.mark.parametrize(
    ("file", "schema"), [("trials.parquet", TRIAL_SCHEMA), ("perturbations.parquet", PERTURBATION_SCHEMA)]
)
def test_every_column_of_a_result_table_is_described_with_its_type(file, schema):
    described = [(name, kind) for name, kind, meaning in rows_of("file_formats.md", file) if meaning]
    assert described == [(field.name, said_type(field.type)) for field in schema if field.name not in METRICS]
    assert all(schema.field(name).type == pa.float64() for name in METRICS)  # as the page says


@pytest.mark.parametrize(
    ("study", "schema"),
    [
        ("pretrain.py", results.PRETRAINING_SCHEMA),
        ("gene_properties.py", results.PROPERTY_SCHEMA),
        ("dependency.py", results.DEPENDENCY_SCHEMA),
    ],
)
def test_columns_of_scores_are_named(study, schema):
    (columns,) = [row[2] for row in rows_of("file_formats.md", "Tables of gene embeddings") if row[0] == study]
    assert re.findall(r"\w+", re.sub(r"\(.*?\)", "", columns)) == schema.names


def test_every_metric_has_a_formula():
    formulas = re.search(r"^## Formulas$(.*?)^## ", text_of(ROOT / "docs" / "metrics.md"), re.M | re.S)[1]
    assert [name for name in METRICS if not re.search(rf"\b{name}\b", formulas)] == []


def test_what_says_the_version_says_the_same():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"] == histpert.__version__
    assert re.search(rf"^## .*{re.escape(project['version'])}", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert citation["license"] == project["license"]


def test_the_citation_has_what_its_form_asks_for():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    for work in (citation, *citation["references"]):
        assert {"type", "title", "authors"} <= set(work)
        assert all("name" in author or {"family-names", "given-names"} <= set(author) for author in work["authors"])
