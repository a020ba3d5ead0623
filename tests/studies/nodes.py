"""A Ray cluster of nodes with so many CPUs each, the head first, all on loopback, until standard input ends.

Prints its address and the processes of the nodes' raylets.
"""

import json
import sys
import tempfile
from pathlib import Path

from ray.cluster_utils import Cluster


def main(n_cpus: list[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # else too long a path for a socket
        (Path(tempfile.gettempdir()) / "ray").mkdir(exist_ok=True)  # where it says which Ray runs, wherever that is
        cluster = Cluster()
        own = {"node_ip_address": "127.0.0.1", "dashboard_agent_listen_port": 0, "include_dashboard": False}
        nodes = [cluster.add_node(num_cpus=n, temp_dir=folder, **own) for n in n_cpus]
        cluster.wait_for_nodes()
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
        print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
        sys.stdin.read()
        cluster.shutdown()


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
