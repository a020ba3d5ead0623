"""What a user wrote on the command line: options, and paths."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from histpert.errors import InputError

__all__ = ["absolute", "given_option", "parsed"]

_COLOR = re.compile(r"\x1b\[[\d;]*m")
_RULE = re.compile(r"^(?:╭.*|[ │]*[─-]{3,}[ │]*)$", re.MULTILINE)


def absolute(path: str | Path, option: str = "") -> Path:
    """A path from the root, `~` being the home folder; `option` is the one that named it.

    Raises:
        InputError: There is no such home or no current folder, or the path is none.
    """
    try:
        whole = Path(path).expanduser().absolute()
    except (RuntimeError, OSError) as error:
        raise InputError(f"{option} {path}: {str(error).rstrip('.')}: write the path in full") from error
    if "\0" in str(whole):
        raise InputError(f"{option} {str(path)!r}: no path holds the character \\0")
    return whole


def given_option(name: str, arguments: Sequence[str]) -> str | None:
    """The value of an option from which the defaults of others follow; the last, where it is given more than once."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(name, nargs="?", dest="value")
    return parser.parse_known_args(list(arguments))[0].value


def parsed(options: Any, **settings: Any) -> Any:
    """What `tyro.cli` makes of the command line.

    Raises:
        InputError: It cannot be understood; of tyro's box of several lines, what it says first.
    """
    import tyro  # noqa: PLC0415 (slow to load, and paths do not need it)

    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(options, **settings)
    except BrokenPipeError:  # `--help | head`: nobody reads on, nor what Python would still write as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except SystemExit as left:
        if left.code != 2:
            raise
        raise InputError(f"{_first_said(said.getvalue())}; see --help") from None


def _first_said(box: str) -> str:
    """What stands in a box below its title and above the next rule."""
    parts = _RULE.split(_COLOR.sub("", box))
    return " ".join(parts[min(1, len(parts) - 1)].replace("│", " ").split()).rstrip(".")
