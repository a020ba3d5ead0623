"""`histpert store ls | show | verify | prune`: what histogram stores hold, whether they are sound, what can go."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Annotated, Any

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
from histpert.store_tables import counted, facts, files, for_programs, numbers, print_table, state, table
from histpert.words import Words

__all__ = ["StoreCommand"]

ROOT = "results/stores"
"""Where study scripts that are started in this folder keep their stores."""


@dataclass(frozen=True, kw_only=True)
class _Telling(ABC):
    """What all of them are asked."""

    words: Words = field(default_factory=Words)

    def run(self) -> int:
        """Do it, and say what came out; returns the exit status."""
        with self.words.said() as outcome:
            outcome.update(self._done())
        return 1 if outcome.get("damaged") else 0

    @abstractmethod
    def _done(self) -> dict[str, Any]:
        """What came out; `damaged` names the stores that are."""


@dataclass(frozen=True, kw_only=True)
class _Fetching(_Telling):
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
class Ls(_Telling):
    """List the stores in a folder, and what was left unfinished there."""

    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[ROOT]")] = ROOT
    """The folder that holds the stores: a path, or a URI on object storage."""

    def _done(self) -> dict[str, Any]:
        """Print a line per store, and the total."""
        root = _folder(self.root)
        entries = stores_in(root)
        told = {"root": str(root), "stores": [for_programs(entry) for entry in entries]}
        if not entries:
            print(f"no stores in {root}")
            return told
        rows = table("store", *(f">{name}" for name in ("perturbations", "genes", "cells", "folds")), "bins")
        rows.add_column("size", justify="right", no_wrap=True)
        rows.add_column("built", no_wrap=True)
        for entry in entries:
            rows.add_row(*map(escape, (entry.name, *numbers(entry), decimal(entry.n_bytes), state(entry))))
        print_table(rows)
        n_whole = sum(entry.is_whole for entry in entries)
        others = f", {len(entries) - n_whole:,} that cannot be read" if n_whole < len(entries) else ""
        print(f"{counted(n_whole, 'store')}{others}: {decimal(sum(entry.n_bytes for entry in entries))} in {root}")
        return told


@dataclass(frozen=True)
class Show(_Fetching):
    """Show what one store holds."""

    store: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """The store's folder: a path, or a URI on object storage."""

    def _done(self) -> dict[str, Any]:
        """Print it."""
        entry = _whole_store(self._at(self.store))
        print_table(facts(entry, HistogramStore(entry.folder)))
        print()
        print_table(files(entry))
        print("\nHow to read it with pandas, polars, DuckDB or R: docs/store.md of histpert's repository")
        return for_programs(entry)


@dataclass(frozen=True)
class Verify(_Fetching):
    """Verify the checksum and the content of every file; the exit status is 1 if anything is damaged."""

    stores: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[STORE_OR_ROOT ...]")] = (ROOT,)
    """Stores, or folders that hold stores: paths, or URIs on object storage."""

    def _done(self) -> dict[str, Any]:
        """Print a line per store that is sound, and one per thing that is wrong."""
        entries = [entry for location in self.stores for entry in self._named(location)]
        total = 2 * sum(checksum["bytes"] for entry in entries if entry.is_whole for checksum in _checksums(entry))
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
        wrong: dict[str, list[str]] = {}
        damaged: list[str] = []
        with Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            disable=self.words.quiet or not sys.stderr.isatty(),
        ) as progress:
            task = progress.add_task("verify", total=total)
            for entry in entries:
                found = list(_problems(entry, lambda n: progress.advance(task, n)))
                wrong[str(entry.folder)] = found
                if found and (entry.is_whole or entry.state == "damaged manifest"):
                    damaged.append(str(entry.folder))
                for line in found or [f"ok ({counted(len(entry.manifest['files']), 'file')})"]:
                    print(f"{entry.name}: {line}", flush=True)
        return {"stores": wrong, "damaged": damaged}

    def _named(self, location: str) -> list[Entry]:
        folder = self._at(location)
        entries = stores_in(folder)
        if not entries:
            raise InputError(f"{folder}: no store, and none in it; name a folder that holds one")
        return entries


@dataclass(frozen=True)
class Prune(_Telling):
    """List what no study will read: leftovers of killed processes, stores of an older format. Remove it with --yes."""

    root: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[ROOT]")] = ROOT
    """The folder that holds the stores: a path, or a URI on object storage. Of there only stores of an older format go:
    nothing tells leftovers from what is on its way."""
    unused_days: float | None = None
    """Also stores that no study has opened for so many days."""
    yes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Remove it; without this, nothing is."""

    def _done(self) -> dict[str, Any]:
        """Print a line per folder, and the total."""
        if self.unused_days is not None and not 0 <= self.unused_days < inf:
            raise InputError(f"--unused-days {self.unused_days}: must be a number, 0 or more")
        root = _folder(self.root)
        found = list(removals(root, self.unused_days))
        told = {
            "root": str(root),
            "removals": [{"store": each.name, "why": each.why, "n_bytes": each.n_bytes} for each in found],
            "n_bytes_removed": 0,
        }
        if not found:
            print(f"nothing to remove in {root}")
            return told
        rows = table("store", "why", ">files", ">size")
        for removal in found:
            rows.add_row(*map(escape, (removal.name, removal.why, f"{len(removal.files):,}", decimal(removal.n_bytes))))
        print_table(rows)
        total = decimal(sum(removal.n_bytes for removal in found))
        if not self.yes:
            print(f"{total} would be free; nothing was removed: add --yes")
            return told
        freed = [remove(removal, self.unused_days) for removal in found]
        print(f"{decimal(sum(freed))} of {total} removed")
        return told | {"n_bytes_removed": sum(freed)}


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
        raise InputError(
            f"{folder} cannot be read: {state(entry)}; this version reads format {FORMAT}: the study builds it again"
        )
    raise InputError(f"{folder} is no histogram store; `histpert store ls` lists those in a folder")


def _problems(entry: Entry, advance: Callable[[int], object]) -> Iterable[str]:
    return problems(entry, advance) if entry.is_whole else [f"{state(entry)}: not verified"]


def _checksums(entry: Entry) -> Iterable[dict[str, int]]:
    return entry.manifest["files"].values()
