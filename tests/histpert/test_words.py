"""What a command says is said, kept to itself, or said elsewhere, so that one JSON object stands alone."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from histpert.errors import InputError
from histpert.words import Words, parsed_with_words


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True)
class Options:
    """What it does."""

    name: str
    """Whose."""
    inner: Inner = field(default_factory=Inner)


def talk() -> None:
    """As Python, rich, and what knows nothing of Python's own standard output."""
    print("python", flush=True)
    Console().print("rich")
    os.write(1, b"other\n")


def test_without_options_all_is_said(capfd):
    with Words().said() as outcome:
        talk()
        outcome["a"] = 1
    assert sorted(capfd.readouterr().out.split()) == ["other", "python", "rich"]


def test_the_object_stands_alone_and_the_rest_is_said_elsewhere(capfd):
    with Words(json=True).said() as outcome:
        talk()
        outcome.update(path=Path("a"), share=float("nan"), names=("b",))
    said = capfd.readouterr()
    assert json.loads(said.out) == {"path": "a", "share": None, "names": ["b"]}
    assert sorted(said.err.split()) == ["other", "python", "rich"]
    talk()
    assert sorted(capfd.readouterr().out.split()) == ["other", "python", "rich"]  # as before


@pytest.mark.parametrize("how", [{"quiet": True}, {"json": True}])
def test_of_what_fails_nothing_is_told_but_the_error(how, capfd):
    with pytest.raises(InputError), Words(**how).said():
        raise InputError("no such file")
    print("after")
    said = capfd.readouterr()
    assert (said.out, said.err) == ("after\n", "")


def test_quiet_leaves_errors_alone(capfd):
    with Words(quiet=True).said():
        talk()
        os.write(2, b"error\n")
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "error\n")


def test_how_to_talk_is_no_part_of_what_is_asked_for(capsys):
    given, words = parsed_with_words(Options, args=["--name", "a", "--depth", "2", "--json"], prog="it")
    assert (given, words) == (Options("a", Inner(2)), Words(json=True))
    given, words = parsed_with_words(Options, Options("b", Inner(3)), args=["--quiet"], prog="it")
    assert (given, words) == (Options("b", Inner(3)), Words(quiet=True))
    with pytest.raises(InputError, match="give one of them"):
        parsed_with_words(Options, args=["--name", "a", "--json", "--quiet"], prog="it")
    with pytest.raises(SystemExit):
        parsed_with_words(Options, args=["--help"], prog="it", description=Options.__doc__)
    said = capsys.readouterr().out
    assert "What it does." in said
    assert "words options" in said
