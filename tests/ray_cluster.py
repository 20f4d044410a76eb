"""A Ray cluster of this one machine, a head and a second node of one CPU each, as a process of its own.

python tests/ray_cluster.py      prints the head's address; a line on stdin kills the second node; ends with stdin
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

STORE_BYTES = 80_000_000  # the smallest that Ray takes is 75 MiB


def main() -> None:
    # short: sockets lie in it, and their paths end at 107 characters
    folder = Path(tempfile.mkdtemp(prefix="r"))
    os.environ["RAY_TMPDIR"] = str(folder)  # a node's own `temp_dir` leaves the address file where it always is
    (folder / "ray").mkdir()
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        second = cluster.add_node(**node)
        cluster.wait_for_nodes(timeout=60)
        print(cluster.address, folder / "ray", flush=True)
        if sys.stdin.readline():
            cluster.remove_node(second, allow_graceful=False)
            print("killed", flush=True)
            sys.stdin.readline()
    finally:
        for remaining in cluster.list_all_nodes():
            cluster.remove_node(remaining, allow_graceful=False)  # which takes half a minute otherwise
        kill_agents(folder)
        shutil.rmtree(folder, ignore_errors=True)


def kill_agents(folder: Path) -> None:
    """What a killed node leaves running: processes that were started with this cluster's folder, but for this one."""
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"RAY_TMPDIR={folder}".encode() in file.read_bytes().split(b"\0") and file.parent.name != str(
                os.getpid()
            ):
                os.kill(int(file.parent.name), signal.SIGKILL)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # at its exit Ray waits half a minute for the processes that are gone
