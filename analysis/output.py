"""Where figures and tables go, and the command lines that draw them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro

from histpert.errors import InputError, exit_status
from histpert.words import parsed_with_words

__all__ = ["FolderOptions", "draw_again", "draw_folder_again", "output_folders"]

Options = TypeVar("Options")


@contextmanager
def output_folders(out: Path) -> Iterator[tuple[Path, Path]]:
    """The folders `figures/` and `tables/` of `out`, made where they are missing.

    Raises:
        InputError: Something in there cannot be written.
    """
    out = Path(out).resolve()
    try:
        for name in ("figures", "tables"):
            (out / name).mkdir(parents=True, exist_ok=True)
        yield out / "figures", out / "tables"
    except OSError as error:
        raise InputError(f"cannot write into {out} ({error}): give another folder") from error


@dataclass(frozen=True)
class FolderOptions:
    """What is drawn of one study."""

    folder: tyro.conf.Positional[Path]
    """Study folder with its result tables."""
    out: Path | None = None
    """Where figures/ and tables/ are written; the study folder by default."""


def draw_again(
    module: str,
    options_type: type[Options],
    arguments: Sequence[str] | None,
    draw: Callable[[Options], Iterable[Path]],
    about: str | None = None,
) -> int:
    """Run the command line of a module of this package, and name the files it wrote; returns its exit status.

    Args:
        module: Its name.
        options_type: What the command line takes.
        arguments: Those of the command line by default.
        draw: Writes the files.
        about: What `--help` says that it does; by default what the options say.
    """

    def run() -> int:
        prog, description = f"python -m analysis.{module}", about or options_type.__doc__
        options, words = parsed_with_words(options_type, args=arguments, prog=prog, description=description)
        with words.said() as outcome:
            outcome["files"] = list(draw(options))
            for path in outcome["files"]:
                print(path)
        return 0

    return exit_status(run)


def draw_folder_again(
    module: str, about: str, arguments: Sequence[str] | None, draw: Callable[[Path, Path], Iterable[Path]]
) -> int:
    """The same of a module that draws one study from its folder, into this folder or another."""
    return draw_again(
        module, FolderOptions, arguments, lambda given: draw(given.folder, given.out or given.folder), about
    )
