"""Stores on object storage: what a real S3 server, and a folder, hold and serve, whatever dies, fails or is damaged."""

import gc
import hashlib
import logging
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from pyarrow import fs
from werkzeug.serving import make_server

from histpert.errors import InputError
from histpert.histograms.remote import BLOCK, UPLOAD_BLOCK, Cache, RemoteFolder, is_remote

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY"
MEGABYTE = 1 << 20

# Processes, forked so that modules are imported once, that all fetch the same file.
FETCHES = """
import hashlib, os, pickle, sys
n_processes, folder, name, checksum = pickle.loads(bytes.fromhex(sys.argv[1]))
first = all(os.fork() for _ in range(n_processes - 1))
content = folder.fetch(name, checksum).read()
os.write(1, hashlib.sha256(content).hexdigest().encode() + b"\\n")
for _ in range(n_processes - 1 if first else 0):
    os.wait()
"""
PUTS = """
import pickle, sys
folder, path = pickle.loads(bytes.fromhex(sys.argv[1]))
folder.put(path, "a.arrow")
"""


class Storage:
    """moto's S3, each request noted; `before` may hold one up, or refuse it."""

    def __init__(self):
        self.requests = []
        self.before = lambda method, path: None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=MotoRequestHandler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self.options = f"endpoint_override={self.address}&scheme=http&region=us-east-1"
        self.stop = self._server.shutdown
        fs.FileSystem.from_uri(f"s3://bucket?{self.options}&allow_bucket_creation=true")[0].create_dir("bucket")

    def _serve(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        self.requests.append((method, path, environ.get("HTTP_RANGE")))
        if refusal := self.before(method, path):
            start_response(refusal, [("Content-Type", "text/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return self._moto(environ, start_response)

    def set(self, action, body=b""):
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.address}/moto-api/{action}", body, headers, method="POST")
        urllib.request.urlopen(request).close()

    def objects(self):
        filesystem = fs.FileSystem.from_uri(f"s3://bucket?{self.options}")[0]
        infos = filesystem.get_file_info(fs.FileSelector("bucket", recursive=True))
        return {info.path: info.size for info in infos if info.type == fs.FileType.File}

    def gets(self):
        return [span for method, _, span in self.requests if method == "GET" and span]


@pytest.fixture
def storage(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    storage = Storage()
    yield storage
    storage.before = lambda method, path: None
    storage.set("reset-auth", b"inf")
    storage.set("reset")
    storage.stop()


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", 100 * MEGABYTE)


@pytest.fixture
def folder(storage, cache):
    return RemoteFolder(f"s3://bucket/stores?{storage.options}", cache) / "store"


@pytest.fixture(params=["s3", "file"])
def any_folder(request, tmp_path):
    cache = Cache(tmp_path / "cache", 100 * MEGABYTE)
    if request.param == "file":
        return RemoteFolder((tmp_path / "a folder").as_uri(), cache) / "store"
    return RemoteFolder(f"s3://bucket/a%20folder?{request.getfixturevalue('storage').options}", cache) / "store"


def local(folder, n_bytes, seed=0, name="local.arrow"):
    path = folder / name
    path.write_bytes(np.random.default_rng(seed).bytes(n_bytes))
    return path


def checksum(content):
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def put(folder, tmp_path, n_bytes, name="a.arrow", seed=0):
    path = local(tmp_path, n_bytes, seed)
    folder.put(path, name)
    return path.read_bytes()


def process(code, *task):
    command = [sys.executable, "-c", code, pickle.dumps(task).hex()]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=Path(__file__).parents[2])


def until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError


def one_line(error):
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 500
    assert SECRET not in line
    return line


def test_a_location_is_remote_with_a_scheme():
    assert is_remote("s3://bucket/stores")
    assert is_remote("file:///stores")
    assert not is_remote("/stores")
    assert not is_remote("stores/s3")
    assert not is_remote("C://stores")


def test_round_trip(any_folder, tmp_path):
    content = put(any_folder, tmp_path, 20_000_001)
    assert any_folder.fetch("a.arrow", checksum(content)).read() == content
    assert [path.name for path in any_folder.cache.folder.iterdir() if not path.suffix] == [checksum(content)["sha256"]]


def test_small_and_empty_files(any_folder, tmp_path):
    assert any_folder.read("manifest.json") is None
    for n_bytes in (0, 1, BLOCK):
        content = put(any_folder, tmp_path, n_bytes, f"{n_bytes}.arrow")
        assert any_folder.read(f"{n_bytes}.arrow") == content
        assert any_folder.fetch(f"{n_bytes}.arrow", checksum(content)).read() == content


def test_a_name_does_not_choose_a_compression(any_folder, tmp_path):
    content = put(any_folder, tmp_path, 1000, "a.gz")
    assert any_folder.files() == {"a.gz": 1000}
    assert any_folder.read("a.gz") == content
    assert any_folder.fetch("a.gz", checksum(content)).read() == content


def test_listing_and_deleting(any_folder, tmp_path):
    stores = RemoteFolder(re.sub(r"/store(?=$|\?)", "", any_folder.uri), any_folder.cache)
    assert stores.folders() == []
    assert any_folder.files() == {}
    any_folder.delete()
    for name, n_bytes in {"a.arrow": 5, "b.arrow": 7, "manifest.json": 2}.items():
        put(any_folder, tmp_path, n_bytes, name)
        put(stores / "other", tmp_path, n_bytes, name)
    assert stores.folders() == ["other", "store"]
    assert any_folder.files() == {"a.arrow": 5, "b.arrow": 7, "manifest.json": 2}
    any_folder.delete()
    assert stores.folders() == ["other"]
    assert any_folder.read("manifest.json") is None
    assert len((stores / "other").files()) == 3


def test_a_second_upload_replaces_the_first(any_folder, tmp_path):
    put(any_folder, tmp_path, 1000, seed=1)
    content = put(any_folder, tmp_path, 2000, seed=2)
    assert any_folder.files() == {"a.arrow": 2000}
    assert any_folder.fetch("a.arrow", checksum(content)).read() == content


def test_a_file_is_fetched_once_and_needs_no_server_then(folder, storage, tmp_path):
    content = put(folder, tmp_path, 3 * BLOCK - 5)
    for _ in range(3):
        assert folder.fetch("a.arrow", checksum(content)).read() == content
    ends = [(0, BLOCK - 1), (BLOCK, 2 * BLOCK - 1), (2 * BLOCK, 3 * BLOCK - 6)]
    assert sorted(storage.gets()) == sorted(f"bytes={first}-{last}" for first, last in ends)
    storage.before = lambda method, path: "403 Forbidden"
    assert pickle.loads(pickle.dumps(folder)).fetch("a.arrow", checksum(content)).read() == content


def test_the_same_content_under_another_name_is_not_fetched_again(folder, storage, tmp_path):
    content = put(folder, tmp_path, 1000)
    put(folder / "other", tmp_path, 1000, "b.arrow")
    folder.fetch("a.arrow", checksum(content))
    (folder / "other").fetch("b.arrow", checksum(content))
    assert len(storage.gets()) == 1


def test_eight_processes_download_once(folder, storage, tmp_path):
    content = put(folder, tmp_path, 20_000_000)
    # Held up until all are there.
    storage.before = lambda method, path: time.sleep(0.5) if method == "GET" else None
    started = process(FETCHES, 8, folder, "a.arrow", checksum(content))
    out, errors = started.communicate(timeout=60)
    assert out.split() == [checksum(content)["sha256"]] * 8, errors
    assert len(storage.gets()) == len(set(storage.gets())) == 3


def test_a_killed_download_leaves_nothing_that_is_taken_for_whole(folder, storage, tmp_path):
    content = put(folder, tmp_path, 3 * BLOCK)
    other = put(folder, tmp_path, 1000, "b.arrow", seed=1)
    partial = folder.cache.partial(checksum(content)["sha256"])
    storage.before = lambda method, path: time.sleep(0 if len(storage.gets()) == 1 else 5) if method == "GET" else None
    started = process(FETCHES, 1, folder, "a.arrow", checksum(content))
    until(lambda: partial.exists() and partial.stat().st_size > 0)
    # While it is downloaded, nobody removes it.
    folder.cache.make_room(0)
    assert partial.exists()
    started.send_signal(signal.SIGKILL)
    started.communicate()
    storage.before = lambda method, path: None
    assert partial.exists()
    assert not folder.cache.path(partial.stem).exists()
    # A fetch of another file removes it, and one of the same file starts anew.
    folder.fetch("b.arrow", checksum(other))
    assert not partial.exists()
    partial.write_bytes(content[:BLOCK])
    assert folder.fetch("a.arrow", checksum(content)).read() == content
    assert not partial.exists()


def test_the_cache_is_bounded_and_forgets_what_was_unused_longest(storage, tmp_path):
    cache = Cache(tmp_path / "cache", 2500)
    folder = RemoteFolder(f"s3://bucket/store?{storage.options}", cache)
    contents = {name: put(folder, tmp_path, 1000, name, seed) for seed, name in enumerate("abcd")}

    def kept():
        return {name for name, content in contents.items() if cache.path(checksum(content)["sha256"]).exists()}

    cache.folder.mkdir()
    (cache.folder / "not ours").write_bytes(bytes(5000))
    mapped = folder.fetch("a", checksum(contents["a"]))
    for used, expected in {"b": "ab", "a": "ab", "c": "ac", "d": "cd"}.items():
        time.sleep(0.02)
        folder.fetch(used, checksum(contents[used]))
        assert kept() == set(expected)
    # What was handed out stays readable.
    assert mapped.read() == contents["a"]
    # A file that fills the cache alone is kept, and nothing else.
    whole = put(folder, tmp_path, 2500, "whole", seed=9)
    folder.fetch("whole", checksum(whole))
    assert kept() == set()
    assert cache.path(checksum(whole)["sha256"]).exists()
    assert (cache.folder / "not ours").exists()


def test_a_file_larger_than_the_cache_is_not_downloaded(storage, tmp_path):
    folder = RemoteFolder(f"s3://bucket/store?{storage.options}", Cache(tmp_path / "cache", 999))
    content = put(folder, tmp_path, 1000)
    with pytest.raises(InputError, match="--store-cache-gb") as error:
        folder.fetch("a.arrow", checksum(content))
    assert one_line(error)
    assert storage.gets() == []


@pytest.mark.parametrize("damage", ["flipped", "short", "empty"])
def test_a_damaged_file_in_the_cache_is_fetched_again(folder, tmp_path, damage):
    content = put(folder, tmp_path, 100_000)
    folder.fetch("a.arrow", checksum(content))
    path = folder.cache.path(checksum(content)["sha256"])
    flipped = content[:500] + bytes([content[500] ^ 1]) + content[501:]
    path.write_bytes({"flipped": flipped, "short": content[:-1], "empty": b""}[damage])
    assert folder.fetch("a.arrow", checksum(content)).read() == content
    assert path.read_bytes() == content


@pytest.mark.parametrize("wrong", ["flipped", "short", "missing"])
def test_wrong_content_in_the_storage_is_told_and_not_kept(any_folder, tmp_path, wrong):
    content = put(any_folder, tmp_path, 1000)
    expected = checksum(content[:-1] + bytes([content[-1] ^ 1]) if wrong == "flipped" else content + b"x")
    name = "none.arrow" if wrong == "missing" else "a.arrow"
    with pytest.raises(
        InputError, match=rf"{name} of .* missing or damaged there .*: delete .* and run again"
    ) as error:
        any_folder.fetch(name, expected)
    assert one_line(error)
    assert [path for path in any_folder.cache.folder.iterdir() if path.suffix != ".lock"] == []


def test_a_manifest_cannot_name_a_file_outside_the_cache(folder):
    with pytest.raises(InputError, match="damaged"):
        folder.fetch("a.arrow", {"bytes": 1, "sha256": "../../outside"})


def test_a_full_disk_is_told(folder, tmp_path):
    content = put(folder, tmp_path, BLOCK)
    folder.cache.folder.mkdir()
    # The download goes to a device on which no space is ever left.
    folder.cache.partial(checksum(content)["sha256"]).symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"No space left on device.*--store-cache") as error:
        folder.fetch("a.arrow", checksum(content))
    assert one_line(error)
    assert folder.fetch("a.arrow", checksum(content)).read() == content


def test_a_cache_that_cannot_be_made_is_told(storage, tmp_path):
    folder = RemoteFolder(
        f"s3://bucket/store?{storage.options}", Cache(local(tmp_path, 1, name="file") / "cache", 1000)
    )
    with pytest.raises(InputError, match="--store-cache"):
        folder.fetch("a.arrow", checksum(b"x"))


def test_an_upload_that_fails_leaves_nothing(folder, storage, tmp_path):
    """A part in the middle is refused: the last part arrives, and the object is not completed all the same."""
    storage.before = lambda method, path: "403 Forbidden" if method == "PUT" and "partNumber=2" in path else None
    with pytest.raises(InputError, match="access denied") as error:
        put(folder, tmp_path, 30 * MEGABYTE)
    assert one_line(error)
    gc.collect()
    assert storage.objects() == {}


def test_an_upload_that_fails_leaves_what_was_there(folder, storage, tmp_path):
    content = put(folder, tmp_path, 20 * MEGABYTE)
    storage.before = lambda method, path: "403 Forbidden" if method == "PUT" and "partNumber=2" in path else None
    with pytest.raises(InputError):
        put(folder, tmp_path, 20 * MEGABYTE)
    storage.before = lambda method, path: None
    assert folder.fetch("a.arrow", checksum(content)).read() == content


def test_an_upload_that_is_killed_leaves_nothing(folder, storage, tmp_path):
    path = local(tmp_path, 30 * MEGABYTE)
    storage.before = lambda method, path: time.sleep(1) if "partNumber=2" in path else None
    started = process(PUTS, folder, path)
    until(lambda: any("partNumber=1&" in path for _, path, _ in storage.requests))
    started.send_signal(signal.SIGKILL)
    started.communicate(timeout=60)
    storage.before = lambda method, path: None
    assert storage.objects() == {}


def test_a_local_file_that_becomes_shorter_leaves_nothing(folder, storage, tmp_path):
    """pyarrow makes an object of what was written, which is removed."""
    path = local(tmp_path, UPLOAD_BLOCK + 1)
    storage.before = lambda method, _: os.truncate(path, UPLOAD_BLOCK) if method == "PUT" else None
    with pytest.raises(InputError, match="became shorter during its upload: run again") as error:
        folder.put(path, "a.arrow")
    assert one_line(error)
    assert ("DELETE", "/bucket/stores/store/a.arrow?") in [request[:2] for request in storage.requests]
    assert "bucket/stores/store/a.arrow" not in storage.objects()


def test_a_local_file_that_vanishes_during_its_upload_arrives_in_whole(folder, storage, tmp_path):
    path = local(tmp_path, 20 * MEGABYTE)
    content = path.read_bytes()
    storage.before = lambda method, _: path.unlink(missing_ok=True) if method == "PUT" else None
    folder.put(path, "a.arrow")
    assert not path.exists()
    assert folder.fetch("a.arrow", checksum(content)).read() == content


def test_an_interrupted_upload_leaves_nothing(folder, storage, tmp_path):
    """Ctrl-C between opening the stream and writing: pyarrow completes an empty object, which is removed."""
    path = local(tmp_path, 1000)

    def interrupt(frame, event, argument):
        if event == "call" and frame.f_code.co_name == "put":
            return interrupt
        if event == "line" and "stream" in frame.f_locals:
            raise KeyboardInterrupt
        return interrupt

    sys.settrace(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            folder.put(path, "a.arrow")
    finally:
        sys.settrace(None)
    assert ("DELETE", "/bucket/stores/store/a.arrow") in [(method, url[:-1]) for method, url, _ in storage.requests]
    assert "bucket/stores/store/a.arrow" not in storage.objects()


def test_a_missing_local_file_is_told(any_folder, tmp_path):
    with pytest.raises(InputError, match=r"none\.arrow cannot be uploaded"):
        any_folder.put(tmp_path / "none.arrow", "a.arrow")
    assert any_folder.files() == {}


def test_no_such_bucket(storage, cache, tmp_path):
    folder = RemoteFolder(f"s3://nobody/stores?{storage.options}", cache)
    for call in (
        lambda: folder.read("manifest.json"),
        lambda: put(folder, tmp_path, 10),
        folder.folders,
        folder.delete,
    ):
        with pytest.raises(InputError, match="no such bucket") as error:
            call()
        assert one_line(error).startswith("s3://nobody/stores")


def test_access_denied(folder, storage, tmp_path):
    """moto asks who it is: nobody by this key."""
    content = put(folder, tmp_path, 10)
    storage.set("reset-auth", b"0")
    for call in (
        lambda: folder.read("a.arrow"),
        lambda: folder.fetch("a.arrow", checksum(content)),
        lambda: put(folder, tmp_path, 10),
        folder.files,
    ):
        with pytest.raises(InputError, match="access denied; check the credentials") as error:
            call()
        assert one_line(error)


def test_nobody_listens(cache):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = RemoteFolder(f"s3://AKIA:abc@b/k?endpoint_override=127.0.0.1:{port}&scheme=http&region=x", cache)
    start = time.monotonic()
    with pytest.raises(InputError, match="nobody answers there") as error:
        folder.read("manifest.json")
    assert one_line(error)
    assert time.monotonic() - start < 15


def test_a_server_that_never_answers(cache, monkeypatch):
    """With shorter waits than are set, in their proportion."""
    monkeypatch.setattr("histpert.histograms.remote.SILENT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        options = f"endpoint_override=127.0.0.1:{mute.getsockname()[1]}&scheme=http&region=x"
        start = time.monotonic()
        with pytest.raises(InputError, match="nobody answers there"):
            RemoteFolder(f"s3://a:b@bucket/k?{options}", cache).read("manifest.json")
    assert time.monotonic() - start < 30 / 8 + 3


@pytest.mark.parametrize(
    "uri",
    [
        "nosuch://bucket/stores",
        "s3://bucket/stores?nonsense=1",
        "s3:///stores",
        "s3://two words/stores",
        "file://host/stores",
        "s3://[::1/stores",
    ],
)
def test_a_uri_that_is_none(uri, cache):
    with pytest.raises(InputError) as error:
        RemoteFolder(uri, cache).read("manifest.json")
    assert one_line(error).startswith(uri)


@pytest.mark.parametrize("secret", [SECRET, SECRET.replace("/", "%2F").replace("+", "%2B")])
def test_secrets_are_never_printed(secret, cache):
    for uri in (
        f"s3://AKIAEXAMPLE:{secret}@bucket/stores?region=x&nonsense=1",
        f"s3://AKIAEXAMPLE:{secret}@two words/stores",
        f"nosuch://AKIAEXAMPLE:{secret}@bucket/stores",
        f"s3://bucket/stores?region=x&secret_key={secret}",
        f"s3://bucket/two words?session_token={secret}&region=x",
    ):
        folder = RemoteFolder(uri, cache) if "%" not in uri else RemoteFolder(uri, cache) / "store"
        printed = [str(folder), repr(folder), f"{folder}"]
        with pytest.raises(InputError) as error:
            folder.put(local(cache.folder.parent, 1), "a.arrow")
        printed += [str(error.value), "".join(traceback.format_exception(error.value))]
        for text in printed:
            assert not [part for part in re.split("[/+%]", secret) if len(part) > 4 and part in text]
            assert "***" in text


def test_credentials_of_the_uri_are_used_and_kept_inside(storage, cache, tmp_path):
    key = SECRET.replace("/", "%2F").replace("+", "%2B")
    folder = RemoteFolder(f"s3://AKIAOTHER:{key}@bucket/stores?{storage.options}", cache) / "a store"
    assert str(folder) == f"s3://***@bucket/stores/a%20store?{storage.options}"
    content = put(folder, tmp_path, 10)
    assert storage.objects() == {"bucket/stores/a store/a.arrow": 10}
    assert folder.fetch("a.arrow", checksum(content)).read() == content


def test_pickled_and_mapped_tables(folder, tmp_path):
    table = pa.table({"a": np.arange(1000)})
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    folder.put(tmp_path / "t.arrow", "t.arrow")
    again = pickle.loads(pickle.dumps(folder))
    assert again == folder
    mapped = again.fetch("t.arrow", checksum((tmp_path / "t.arrow").read_bytes()))
    read = pa.ipc.open_file(mapped).read_all()
    folder.cache.path(checksum((tmp_path / "t.arrow").read_bytes())["sha256"]).unlink()
    del mapped
    assert read.equals(table)
