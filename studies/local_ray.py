"""Ray for a study: the cluster that a job was submitted to, else one of our own on this machine, closed to others."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from histpert.errors import InputError

__all__ = ["ray_session"]

LONGEST_TEMPORARY_FOLDER = 16
SECONDS_FOR_AN_ANSWER = 10
LOOPBACK = re.compile(r"auto$|(localhost|127\.[\d.]+|\[::1\]):")

TOKEN = secrets.token_hex(32)
"""Of the Rays that this process starts; Ray reads it once."""

TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger is the record
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # and Tune's own state is never restored
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the study; Tune would wait for its workers, and go on as if done
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
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address != "local":
        with _cluster(address):
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
    if LOOPBACK.match(address):  # else Ray asks at this machine's other address
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray
    from ray.exceptions import AuthenticationError

    try:
        _knock(address)
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    except AuthenticationError as error:
        raise InputError(
            f"Ray at RAY_ADDRESS={address} wants its token ({str(error).split('. ')[0]}): set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN_PATH to the file that holds it"
        ) from error
    except (OSError, ValueError) as error:  # nobody there, or an address of another kind
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(
            f"no Ray answers at RAY_ADDRESS={address} ({reason}): "
            "start it, or unset RAY_ADDRESS to run on this machine alone"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Fail at once where nobody answers or another token is wanted; Ray itself would try for minutes.

    Raises:
        OSError: Nobody answers.
        ValueError: It is no address.
        AuthenticationError: Another token is wanted, or none is where it should be.
    """
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.services import canonicalize_bootstrap_address
    from ray._raylet import AuthenticationTokenLoader  # pyright: ignore
    from ray.exceptions import AuthenticationError

    if "://" in address:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and port.isdigit() and "/" not in host:
            socket.create_connection((host, int(port)), timeout=SECONDS_FOR_AN_ANSWER).close()
        return
    place = canonicalize_bootstrap_address(None)  # what `auto` finds  # pyright: ignore
    assert place is not None
    # With `auto`, Ray turns tokens on by itself where there is one.
    found = address == "auto" and "RAY_AUTH_MODE" not in os.environ
    token = AuthenticationTokenLoader.instance().get_token_for_http_header(ignore_auth_mode=True) if found else {}
    with init_grpc_channel(place, [("grpc.enable_http_proxy", 0)]) as channel:  # pyright: ignore
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", timeout=SECONDS_FOR_AN_ANSWER, metadata=list(token.items()))  # pyright: ignore
        except grpc.RpcError as error:
            said: Any = error
            if said.code() is grpc.StatusCode.UNAUTHENTICATED:
                is_given = os.environ.get("RAY_AUTH_MODE", "").lower() == "token" or token
                raise AuthenticationError(
                    "the one given is another" if is_given else "none is given without RAY_AUTH_MODE"
                ) from None
            raise ConnectionError(f"{place}: {said.details().rpartition('Failed to ')[2]}") from None


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
