"""Where processes listen."""

from collections.abc import Iterable
from importlib import import_module


def listeners(pids: Iterable[int]) -> dict[int, str]:
    """Address by TCP port, of IPv4 addresses in IPv6 the part that is IPv4."""
    import_module("ray")  # which brings psutil along
    psutil = import_module("psutil")
    found = {}
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections(kind="tcp")
        except psutil.Error:
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN:
                found[connection.laddr.port] = connection.laddr.ip.removeprefix("::ffff:")
    return found
