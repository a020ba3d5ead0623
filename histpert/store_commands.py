"""`histpert store ls | show | verify | prune`: what histogram stores hold, whether they are sound, what can go."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from histpert.command_line import absolute
from histpert.errors import InputError
from histpert.histograms.folders import Folder, folder_at
from histpert.histograms.inventory import Entry, entry_at, stores_in
from histpert.histograms.pruning import removals, remove
from histpert.histograms.remote import Cache, default_cache, is_remote
from histpert.histograms.store import FORMAT, HistogramStore
from histpert.histograms.verifying import problems
from histpert.store_tables import counted, facts, files, numbers, print_table, state, table

__all__ = ["StoreCommand"]

ROOT = "results/stores"
"""Where study scripts that are started in this folder keep their stores."""


@dataclass(frozen=True, kw_only=True)
class _Fetching:
    """For stores on object storage."""

    store_cache: Path = field(default_factory=default_cache)
    """Folder for what is fetched from object storage."""
    store_cache_gb: float = 100.0
    """The most that it may hold."""

    def _at(self, location: str) -> Folder:
        if not 0 < self.store_cache_gb < inf:
            raise InputError(f"--store-cache-gb {self.store_cache_gb}: must be a number above 0")
        cache = Cache(absolute(self.store_cache, "--store-cache"), int(self.store_cache_gb * 1e9))
        return _folder(location, cache)


@dataclass(frozen=True)
class Ls:
    """List the stores in a folder, and what was left unfinished there."""

    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[ROOT]")] = ROOT
    """The folder that holds the stores: a path, or a URI on object storage."""

    def run(self) -> int:
        """Print a line per store, and the total."""
        root = _folder(self.root)
        entries = stores_in(root)
        if not entries:
            print(f"no stores in {root}")
            return 0
        rows = table("store", *(f">{name}" for name in ("perturbations", "genes", "cells", "folds")), "bins")
        rows.add_column("size", justify="right", no_wrap=True)
        rows.add_column("built", no_wrap=True)
        for entry in entries:
            rows.add_row(*map(escape, (entry.name, *numbers(entry), decimal(entry.n_bytes), state(entry))))
        print_table(rows)
        n_whole = sum(entry.is_whole for entry in entries)
        others = f", {len(entries) - n_whole:,} that cannot be read" if n_whole < len(entries) else ""
        print(f"{counted(n_whole, 'store')}{others}: {decimal(sum(entry.n_bytes for entry in entries))} in {root}")
        return 0


@dataclass(frozen=True)
class Show(_Fetching):
    """Show what one store holds."""

    store: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """The store's folder: a path, or a URI on object storage."""

    def run(self) -> int:
        """Print it."""
        entry = _whole_store(self._at(self.store))
        print_table(facts(entry, HistogramStore(entry.folder)))
        print()
        print_table(files(entry))
        print("\nHow to read it with pandas, polars, DuckDB or R: docs/store.md of histpert's repository")
        return 0


@dataclass(frozen=True)
class Verify(_Fetching):
    """Verify the checksum and the content of every file; the exit status is 1 if anything is damaged."""

    stores: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[STORE_OR_ROOT ...]")] = (ROOT,)
    """Stores, or folders that hold stores: paths, or URIs on object storage."""

    def run(self) -> int:
        """Print a line per store that is sound, and one per thing that is wrong."""
        entries = [entry for location in self.stores for entry in self._named(location)]
        total = 2 * sum(checksum["bytes"] for entry in entries if entry.is_whole for checksum in _checksums(entry))
        status, columns = 0, (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            disable=not sys.stderr.isatty(),
        ) as progress:
            task = progress.add_task("verify", total=total)
            for entry in entries:
                found = [
                    f"{entry.name}: {problem}" for problem in _problems(entry, lambda n: progress.advance(task, n))
                ]
                damaged = entry.is_whole or entry.state == "damaged manifest"
                status = 1 if found and damaged else status
                for line in found or [f"{entry.name}: ok ({counted(len(entry.manifest['files']), 'file')})"]:
                    print(line, flush=True)
        return status

    def _named(self, location: str) -> list[Entry]:
        folder = self._at(location)
        entries = stores_in(folder)
        if not entries:
            raise InputError(f"{folder}: no store, and none in it")
        return entries


@dataclass(frozen=True)
class Prune:
    """List what no study will read: leftovers of killed processes, stores of an older format. Remove it with --yes."""

    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[ROOT]")] = ROOT
    """The folder that holds the stores: a path, or a URI on object storage. Of there only stores of an older format go:
    nothing tells leftovers from what is on its way."""
    unused_days: float | None = None
    """Also stores that no study has opened for so many days."""
    yes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Remove it; without this, nothing is."""

    def run(self) -> int:
        """Print a line per folder, and the total."""
        if self.unused_days is not None and not 0 <= self.unused_days < inf:
            raise InputError(f"--unused-days {self.unused_days}: must be a number, 0 or more")
        root = _folder(self.root)
        found = list(removals(root, self.unused_days))
        if not found:
            print(f"nothing to remove in {root}")
            return 0
        rows = table("store", "why", ">files", ">size")
        for removal in found:
            rows.add_row(*map(escape, (removal.name, removal.why, f"{len(removal.files):,}", decimal(removal.n_bytes))))
        print_table(rows)
        total = decimal(sum(removal.n_bytes for removal in found))
        if not self.yes:
            print(f"{total} would be free; nothing was removed: add --yes")
            return 0
        freed = [remove(removal, self.unused_days) for removal in found]
        print(f"{decimal(sum(freed))} of {total} removed")
        return 0


StoreCommand = (
    Annotated[Ls, tyro.conf.subcommand("ls")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Prune, tyro.conf.subcommand("prune")]
)
"""What follows `histpert store`."""


def _folder(location: str, cache: Cache | None = None) -> Folder:
    # Nothing is fetched where no cache is named.
    return folder_at(location if is_remote(location) else absolute(location), cache or Cache(default_cache(), 0))


def _whole_store(folder: Folder) -> Entry:
    entry = entry_at(folder, str(folder))
    if entry is not None and entry.is_whole:
        return entry
    if entry is not None:
        raise InputError(f"{folder} cannot be read: {state(entry)}; this version reads format {FORMAT}")
    raise InputError(f"{folder} is no histogram store; `histpert store ls` lists those in a folder")


def _problems(entry: Entry, advance: Callable[[int], object]) -> Iterable[str]:
    return problems(entry, advance) if entry.is_whole else [f"{state(entry)}: not verified"]


def _checksums(entry: Entry) -> Iterable[dict[str, int]]:
    return entry.manifest["files"].values()
