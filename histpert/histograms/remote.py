"""Histogram stores on object storage: folders of immutable files behind a URI, and a bounded cache on this node.

Any URI that `pyarrow.fs.FileSystem.from_uri` takes is a folder here: `s3://bucket/stores`, `gs://bucket/stores`,
`file:///mnt/stores`, options behind a question mark as in `s3://bucket/stores?endpoint_override=http://127.0.0.1:9000`.
A file is there in whole or not at all. It is read through the cache, in which it is named by its content, so that all
processes of a node download it once between them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

import pyarrow as pa
from filelock import FileLock, Timeout
from pyarrow import fs

from histpert.errors import DamagedError, InputError

__all__ = ["Cache", "RemoteFolder", "default_cache", "is_remote", "without_secrets"]

ATTEMPTS, CONNECT_SECONDS, SILENT_SECONDS = 3, 5.0, 8.0
"""A server that says nothing for 8 s is asked three times: an error after half a minute. The defaults take 100 s."""

BLOCK, CONNECTIONS = 8 << 20, 8
"""Bytes asked for at a time, and requests under way at once: one connection does not fill the line."""

UPLOAD_BLOCK = 40 << 20
"""Bytes uploaded before more are read: four parts of 10 MiB, which pyarrow copies, and sends at once. It must do so in
the background: in the foreground (`background_writes=False`) it makes an object of the parts before one that failed."""

MANIFEST = "manifest.json"

_CREDENTIALS = (
    "access denied; check the credentials and what they allow (s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "~/.aws/credentials; gs: GOOGLE_APPLICATION_CREDENTIALS)"
)
_REASONS = {
    r"NO_SUCH_BUCKET|Bucket '.*' not found|bucket does not exist": "there is no such bucket",
    r"ACCESS_DENIED|ACCESS_KEY|SIGNATURE|TOKEN|UNRECOGNIZED_CLIENT|status 40[13]": _CREDENTIALS,
    r"PERMISSION_DENIED|UNAUTHENTICATED|OAuth2|AccessDenied|InvalidAccessKeyId": _CREDENTIALS,
    r"NETWORK_CONNECTION|(?i:curl ?(code|error))": "nobody answers there; check the endpoint and the network",
}


def is_remote(location: str) -> bool:
    """Whether a location is a URI, and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", location) is not None


def default_cache() -> Path:
    """Where programs keep what they can fetch again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "histpert"


@dataclass(frozen=True)
class Cache:
    """Files fetched from object storage, named by their SHA-256, the least recently used removed first.

    Attributes:
        folder: On a disk of this node; `--store-cache`.
        limit_bytes: What the files may take together; `--store-cache-gb`.
    """

    folder: Path
    limit_bytes: int

    def path(self, sha256: str) -> Path:
        """Where a file of this content is kept."""
        return self.folder / sha256

    def partial(self, sha256: str) -> Path:
        """Where it is downloaded to, by whoever holds the lock."""
        return self.folder / f"{sha256}.partial"

    def lock(self, sha256: str) -> FileLock:
        """Held while it is downloaded; the system frees it when the process ends, however it ends."""
        return FileLock(self.folder / f"{sha256}.lock")

    def make_room(self, needed: int, keep: str = "") -> None:
        """Remove what killed processes left, then the files unused for longest until `needed` more bytes fit.

        A process that has a file mapped keeps it: its disk space is freed when the last one lets go.
        """
        whole: list[tuple[int, int, Path]] = []
        total = needed
        for path in self.folder.iterdir():
            # Nothing else is touched, in case the folder is not ours alone.
            if not re.fullmatch(r"[0-9a-f]{64}(\.partial)?", path.name) or (path.suffix and self._left(path)):
                continue
            with suppress(FileNotFoundError):
                status = path.stat()
                total += status.st_size
                whole += [] if path.suffix or path.name == keep else [(status.st_mtime_ns, status.st_size, path)]
        for _, size, path in sorted(whole):
            if total <= self.limit_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size

    def keep(self, path: Path, checksum: Mapping[str, Any]) -> None:
        """Take a file that was made here, as if it had been fetched, if there is room; it is gone from its place."""
        if checksum["bytes"] <= self.limit_bytes:
            self.make_room(checksum["bytes"])
            path.replace(self.path(checksum["sha256"]))
        else:
            path.unlink()

    def _left(self, partial: Path) -> bool:
        """Whether nobody is downloading it any more; it is removed then."""
        try:
            with self.lock(partial.stem).acquire(timeout=0):
                partial.unlink(missing_ok=True)
        except Timeout:
            return False
        return True


@dataclass(frozen=True, repr=False)
class RemoteFolder:
    """A folder on object storage. Can be pickled: each process opens its own connection when it first needs one.

    Printed, and named in errors, without the secrets that its URI may hold.

    Attributes:
        uri: Of the folder, options behind a question mark.
        cache: Where files of it are kept on this node.

    Every method raises `InputError`, in one line: no such bucket, access denied, nobody there, a URI that is none.
    """

    uri: str
    cache: Cache

    def __str__(self) -> str:
        return without_secrets(self.uri)

    def __repr__(self) -> str:
        return f"RemoteFolder({str(self)!r})"

    def __truediv__(self, name: str) -> RemoteFolder:
        """A folder inside."""
        with self._explained():
            split = urlsplit(self.uri)
            path = f"{split.path.rstrip('/')}/{quote(name)}"
            return RemoteFolder(split._replace(path=path).geturl(), self.cache)

    def read(self, name: str) -> bytes | None:
        """The content of a small file, or None where there is none."""
        with self._explained(name):
            filesystem, folder = self._opened()
            try:
                with filesystem.open_input_stream(f"{folder}/{name}", compression=None) as stream:
                    return stream.read()
            except FileNotFoundError:
                # Told before a store is built that could not be put there.
                if filesystem.type_name == "s3" and not _exists(filesystem, folder.split("/")[0]):
                    raise InputError(f"{self}: there is no such bucket") from None
                return None

    def fetch(self, name: str, checksum: Mapping[str, Any]) -> pa.MemoryMappedFile:
        """A file, from the cache where it is there and undamaged, else downloaded into it.

        Mapped, and no path: another process may remove the file from the cache at any time, and the mapping stays.

        Args:
            name: Of the file.
            checksum: Its size, `bytes`, and `sha256`, as the manifest has them. Verified on each call.
        """
        sha256, size = str(checksum["sha256"]), int(checksum["bytes"])
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise InputError(
                f"{self}: {MANIFEST} is damaged: {name} has no SHA-256 there; delete the folder and run again"
            )
        if size > self.cache.limit_bytes:
            raise InputError(
                f"{name} of {self} has {size / 1e9:.3g} GB, the cache may hold {self.cache.limit_bytes / 1e9:.3g}: "
                "name a larger --store-cache-gb"
            )
        with _kept_in(self.cache):
            self.cache.folder.mkdir(parents=True, exist_ok=True)
            path = self.cache.path(sha256)
            while (mapped := _mapped(path)) is None or not _fits(mapped, checksum):
                with self.cache.lock(sha256):
                    # Another process was faster: each verifies on its own, and not one after the other under the lock.
                    if mapped is None and path.exists():
                        continue
                    return self._download(name, checksum)
            with suppress(FileNotFoundError):
                os.utime(path)
            return mapped

    def put(self, path: Path, name: str) -> None:
        """Upload a file: it is there in whole or not at all.

        Closing a stream of pyarrow makes an object of what was written so far, also on the way out of an exception,
        and it cannot be aborted. After a failure on our side, or Ctrl-C, that object is removed; its checksum tells
        it from a whole one meanwhile. Where the storage fails, or this process dies, no object is made. File systems
        that show a file while it is written get it under another name first.

        Raises:
            InputError: Also for a local file that cannot be read, or becomes shorter meanwhile.
        """
        with self._explained(name):
            filesystem, folder = self._opened()
            size, final = _size(path), f"{folder}/{name}"
            in_place = filesystem.type_name in ("s3", "gcs")
            target = final if in_place else f"{final}.{uuid4().hex}.partial"
            if not in_place:
                filesystem.create_dir(folder, recursive=True)
            try:
                with filesystem.open_output_stream(target, compression=None) as stream:
                    for block in _blocks(path, size):
                        stream.write(block)
                        stream.flush()
                if filesystem.get_file_info(target).size != size:
                    raise InputError(f"{name} did not arrive in whole at {self}: run again")
                if not in_place:
                    filesystem.move(target, final)
            except BaseException as error:
                # After an error of S3 itself no object was made, and asking again would only wait again.
                if not (filesystem.type_name == "s3" and isinstance(error, OSError)):
                    with suppress(OSError):
                        _remove_unless(filesystem, target, size if in_place else None)
                raise

    def folders(self) -> list[str]:
        """Names of the folders inside."""
        return sorted(info.base_name for info in self._listed() if info.type == fs.FileType.Directory)

    def files(self) -> dict[str, int]:
        """Names and sizes of the files in this folder, in bytes."""
        return {info.base_name: info.size for info in self._listed() if info.type == fs.FileType.File}

    def written(self) -> dict[str, datetime]:
        """When each file in this folder was written, where the storage tells."""
        return {info.base_name: info.mtime for info in self._listed() if info.type == fs.FileType.File and info.mtime}

    def schema(self, name: str) -> pa.Schema:
        """Columns of an Arrow file, of which nothing else is read."""
        with self._explained(name):
            filesystem, folder = self._opened()
            with filesystem.open_input_file(f"{folder}/{name}") as file:
                return pa.ipc.open_file(file).schema

    def delete(self) -> None:
        """Delete the folder, the manifest first: a folder without one is no store, however much of it is left."""
        with self._explained():
            filesystem, folder = self._opened()
            with suppress(FileNotFoundError):
                filesystem.delete_file(f"{folder}/{MANIFEST}")
            with suppress(FileNotFoundError):
                filesystem.delete_dir(folder)

    def _listed(self) -> list[fs.FileInfo]:
        with self._explained():
            filesystem, folder = self._opened()
            try:
                return filesystem.get_file_info(fs.FileSelector(folder))
            except FileNotFoundError:
                return []

    def _download(self, name: str, checksum: Mapping[str, Any]) -> pa.MemoryMappedFile:
        """Download under the lock, verify, rename into place."""
        partial, size = self.cache.partial(checksum["sha256"]), int(checksum["bytes"])
        self.cache.make_room(size)
        try:
            self._copy(name, size, partial)
            mapped = pa.memory_map(str(partial))
            if not _fits(mapped, checksum):
                raise self._damaged(name)
            partial.rename(self.cache.path(checksum["sha256"]))
        finally:
            partial.unlink(missing_ok=True)
        self.cache.make_room(0, keep=checksum["sha256"])
        return mapped

    def _copy(self, name: str, size: int, partial: Path) -> None:
        """Download blocks at once, each to its place."""
        with self._explained(name):
            filesystem, folder = self._opened()
            try:
                source: Any = filesystem.open_input_file(f"{folder}/{name}")
            except FileNotFoundError:
                raise self._damaged(name) from None
            if source.size() != size:
                raise self._damaged(name)

        def copy(offset: int) -> None:
            with self._explained(name):
                block = source.read_at(min(BLOCK, size - offset), offset)
            with partial.open("r+b") as file:
                file.seek(offset)
                file.write(block)

        partial.open("wb").close()
        pool = ThreadPoolExecutor(CONNECTIONS)
        try:
            for _ in pool.map(copy, range(0, size, BLOCK)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)

    def _damaged(self, name: str) -> DamagedError:
        return DamagedError(
            f"{name} of {self} is missing or damaged there (it does not fit {MANIFEST}): delete {self} and run again"
        )

    def _opened(self) -> tuple[fs.FileSystem, str]:
        """This process's connection, and the folder's path in it."""
        split = urlsplit(self.uri)
        if _userinfo(self.uri).count("/"):
            raise InputError(f"{self}: write the / of the secret key as %2F, the + as %2B")
        root = split._replace(path="" if split.netloc else "/", fragment="").geturl()
        filesystem, start = _filesystem(root, os.getpid())
        return filesystem, (start.rstrip("/") + unquote(split.path)).rstrip("/")

    @contextmanager
    def _explained(self, name: str = "") -> Iterator[None]:
        """What the storage says, in one line that names the folder and none of its secrets."""
        try:
            yield
        except (OSError, ValueError, ImportError, pa.ArrowException) as error:
            said = " ".join(without_secrets(str(error), self.uri).split())
            reason = next((words for signs, words in _REASONS.items() if re.search(signs, said)), said[:300])
            # The cause would bring the URI back, with its secrets.
            raise InputError(f"{self}: {name + ': ' if name else ''}{reason}") from None


@lru_cache
def _filesystem(root: str, _process: int) -> tuple[fs.FileSystem, str]:
    """A connection with limits to how long it waits; one per process, as a forked one must not share a socket."""
    filesystem, path = fs.FileSystem.from_uri(root)
    limits: dict[str, Any] = {}
    if filesystem.type_name == "s3":
        retries = fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
        limits = {"connect_timeout": CONNECT_SECONDS, "request_timeout": SILENT_SECONDS, "retry_strategy": retries}
    if filesystem.type_name == "gcs":
        limits = {"retry_time_limit": timedelta(seconds=ATTEMPTS * SILENT_SECONDS)}
    if limits:
        # A URI has no words for these: made again from what pickling it would keep.
        remake, (options,) = cast("tuple[Any, tuple[dict[str, Any]]]", filesystem.__reduce__())
        filesystem = remake(options | limits)
    return filesystem, path


def _exists(filesystem: fs.FileSystem, path: str) -> bool:
    return filesystem.get_file_info(path).type != fs.FileType.NotFound


def _remove_unless(filesystem: fs.FileSystem, path: str, whole: int | None) -> None:
    """Remove a file that is there and has not the size of the whole."""
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.File and info.size != whole:
        filesystem.delete_file(path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} cannot be uploaded ({error.strerror})") from error


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    """The content of a local file, a few parts of an upload at a time: pyarrow keeps a copy until they arrived."""
    try:
        with path.open("rb") as file:
            for start in range(0, size, UPLOAD_BLOCK):
                block = file.read(min(UPLOAD_BLOCK, size - start))
                if start + len(block) < min(start + UPLOAD_BLOCK, size):
                    raise InputError(f"{path} became shorter during its upload: run again")
                yield block
    except OSError as error:
        raise InputError(f"{path} cannot be uploaded ({error.strerror})") from error


def _mapped(path: Path) -> pa.MemoryMappedFile | None:
    try:
        return pa.memory_map(str(path))
    except FileNotFoundError:
        return None


def _fits(mapped: pa.MemoryMappedFile, checksum: Mapping[str, Any]) -> bool:
    """Whether a mapped file has this size and SHA-256."""
    if mapped.size() != checksum["bytes"]:
        return False
    fits = hashlib.sha256(mapped.read_buffer()).hexdigest() == checksum["sha256"]
    mapped.seek(0)
    return fits


@contextmanager
def _kept_in(cache: Cache) -> Iterator[None]:
    """A full disk, or a folder that cannot be written, in one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{cache.folder} cannot keep files of the store ({error.strerror or error}): "
            "free space there, or name another folder with --store-cache"
        ) from error


def _userinfo(uri: str) -> str:
    """`access_key:secret_key` of a URI, also where slashes of the key are not quoted."""
    found = re.match(r"[^:/?#]+://([^/?#@:]*:[^?#]*)@", uri)
    return found[1] if found else ""


def without_secrets(text: str, uri: str | None = None) -> str:
    """A URI, or what was said about one, with stars for `access_key:secret_key@` and for options that are secret."""
    userinfo = _userinfo(uri or text)
    secrets = re.findall(r"(?i)[?&][^=&]*(?:key|secret|token|signature|password|credential)[^=&]*=([^&]+)", uri or text)
    if userinfo:
        text = text.replace(f"{userinfo}@", "***@")
    if uri and userinfo:
        secrets += userinfo.split(":", 1)
    for form in {form for secret in secrets for form in (secret, unquote(secret)) if form}:
        text = text.replace(form, "***")
    return text
