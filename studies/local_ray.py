"""Ray for a study: the cluster that a job was submitted to, else one of our own on this machine, closed to others."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from histpert.errors import InputError

__all__ = ["ray_session"]

LONGEST_TEMPORARY_FOLDER = 16

TOKEN = secrets.token_hex(32)
"""Of the Rays that this process starts; Ray reads it once."""

TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger is the record
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # and Tune's own state is never restored
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@contextmanager
def ray_session() -> Iterator[Path | None]:
    """Connect to Ray for the length of the block; yields the temporary folder of our own one, None on a cluster.

    `RAY_ADDRESS`, which Ray sets for submitted jobs, names the cluster. Without it a Ray is started on this machine,
    bound to loopback, with a token that only this process and its workers know, and a temporary folder of its own.

    Raises:
        InputError: The cluster that is named cannot be reached.
    """
    os.environ.update(TUNE_SETTINGS)
    if os.environ.get("RAY_ADDRESS"):
        with _cluster(os.environ["RAY_ADDRESS"]):
            yield None
    else:
        with _local() as folder:
            yield folder


def _short_temporary_folder() -> str:
    """Ray puts sockets some 85 characters below it, and the system allows 107 for a socket's name (macOS 103)."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= LONGEST_TEMPORARY_FOLDER else "/tmp"


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    import ray

    try:
        _knock(address)
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError) as error:  # nobody there, or an address of another kind
        raise InputError(
            f"no Ray answers at RAY_ADDRESS={address} ({str(error).splitlines()[0]}): "
            "start it, or unset RAY_ADDRESS to run on this machine alone"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Fail at once where nothing listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _local() -> Iterator[Path]:
    # Before Ray is imported, which reads these once. A token in the environment keeps Ray from leaving one in the home.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = TOKEN
    import ray

    folder = tempfile.mkdtemp(prefix="histpert-ray-", dir=_short_temporary_folder())
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _node_ip_address="127.0.0.1",
            _temp_dir=f"{folder}/r",  # which Ray opens to all; the folder around it is ours alone
        )
        yield Path(folder)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
