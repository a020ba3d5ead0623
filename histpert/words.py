"""How much a command says, and to whom: words for people, nothing, or one JSON object for programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any, TypeVar

import tyro

from histpert.command_line import parsed
from histpert.errors import InputError
from histpert.results import without_nan

__all__ = ["Words", "parsed_with_words"]

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2

Options = TypeVar("Options")


@dataclass(frozen=True)
class Words:
    """What is said while a command works, and at its end."""

    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """Say nothing but errors."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write one JSON object of what came out to standard output; all that is said otherwise goes to standard error."""

    def __post_init__(self):
        if self.quiet and self.json:
            raise InputError("--quiet --json: give one of them")

    @contextmanager
    def said(self) -> Iterator[dict[str, Any]]:
        """A block whose prints go where they should, and an object to fill, written at its end if it is asked for."""
        outcome: dict[str, Any] = {}
        if self.json:
            with _standard_output_on(STANDARD_ERROR), redirect_stdout(sys.stderr):
                yield outcome
            print(json.dumps(without_nan(outcome), indent=1, allow_nan=False))
        elif self.quiet:
            with (
                open(os.devnull, "w", encoding="utf-8") as nowhere,
                _standard_output_on(nowhere.fileno()),
                redirect_stdout(nowhere),
            ):
                yield outcome
        else:
            yield outcome


@contextmanager
def _standard_output_on(descriptor: int) -> Iterator[None]:
    """For what knows nothing of `sys.stdout`: libraries in C, and processes that are started in the block."""
    print(end="", flush=True)
    kept = os.dup(STANDARD_OUTPUT)
    os.dup2(descriptor, STANDARD_OUTPUT)
    try:
        yield
    finally:
        os.dup2(kept, STANDARD_OUTPUT)
        os.close(kept)


def parsed_with_words(
    options_type: type[Options], default: Options | None = None, **settings: Any
) -> tuple[Options, Words]:
    """What a command line asks for, and how its command is to talk, which is no part of the former.

    Args:
        options_type: What the command line takes beside `--quiet` and `--json`.
        default: Other defaults than those of the options.
        settings: Of `tyro.cli`.

    Raises:
        InputError: The command line cannot be understood.
    """
    unnamed: Any = Annotated[options_type, tyro.conf.arg(name="")]  # in help, the options stand as they do alone
    start: Any = {} if default is None else {"default": default}
    both = make_dataclass("_Both", [("options", unnamed, field(**start)), ("words", Words, field(default=Words()))])
    given = parsed(both, config=(tyro.conf.OmitArgPrefixes,), **settings)
    return given.options, given.words
