"""A real Ray of two nodes with four fake GPUs each, on this machine.

    with RayCluster(folder) as cluster:
        RayEngine(cluster.address)

Ray listens on all addresses, so the cluster has a network of its own, which nothing but itself and
those who `enter` it can reach, and which ends with its last process. It takes root.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from engine_processes import kill_all_with

_CLONE_NEWNET = 0x40000000
_OWN_NETWORK = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
# Inside the new network: what answers on standard input keeps it alive, and ends with us.
_SERVE = """
import json, os, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={
    "num_cpus": 8, "num_gpus": 4, "include_dashboard": False,
    "object_store_memory": 80 * 2**20,
    "_system_config": {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500,
                       "health_check_failure_threshold": 4},
})
nodes = {"head": cluster.head_node}
def add(name):
    nodes[name] = cluster.add_node(num_cpus=8, num_gpus=4, object_store_memory=80 * 2**20)
add("second")
print(json.dumps({"address": cluster.address, "head": cluster.head_node.node_id}), flush=True)
for line in sys.stdin:
    order, name = line.split()
    if order == "lose":
        cluster.remove_node(nodes.pop(name), allow_graceful=False)
    else:
        add(name)
    print(json.dumps({"done": line.strip()}), flush=True)
cluster.shutdown()
"""


class Unavailable(Exception):
    """Why there can be no such cluster here."""


class RayCluster:
    """Two nodes, `head` and `second`; `threads` is the OMP_NUM_THREADS of both."""

    threads = "3"

    def __init__(self, folder: Path):
        if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
            raise Unavailable("a network of its own takes root, unshare and ip")
        if importlib.util.find_spec("ray") is None:
            raise Unavailable("Ray is not here; `make engines` gets it")
        self.folder = folder
        self._mark = f"OOCR_TEST_RAY={folder}"

    def __enter__(self):
        (self.folder / "ray").mkdir()
        env = {
            **os.environ,
            "OOCR_TEST_RAY": str(self.folder),
            "RAY_TMPDIR": str(self.folder),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": self.threads,
        }
        self._errors = (self.folder / "cluster.out").open("ab")
        self._process = subprocess.Popen(
            [*_OWN_NETWORK, sys.executable, "-c", _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=env,
            text=True,
        )
        try:
            started = json.loads(self._answer())
            self.address, self.head = started["address"], started["head"]
            with self.entered():
                pass
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def _answer(self):
        # Ray prints remarks of its own to standard output.
        for line in self._process.stdout:
            if line.startswith("{"):
                return line
        raise Unavailable(f"Ray did not start: {(self.folder / 'cluster.out').read_text()[-2000:]}")

    def order(self, order, name):
        """`lose` or `add` a node."""
        self._process.stdin.write(f"{order} {name}\n")
        self._process.stdin.flush()
        self._answer()

    def command(self, *command):
        """`command` inside the cluster's network."""
        return ["nsenter", f"--net=/proc/{self._process.pid}/ns/net", *command]

    @contextlib.contextmanager
    def entered(self):
        """This thread, and those that it starts meanwhile, are in the cluster's network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/thread-self/ns/net").open() as before:
            with Path(f"/proc/{self._process.pid}/ns/net").open() as inside:
                if libc.setns(inside.fileno(), _CLONE_NEWNET):
                    raise Unavailable(f"setns: {os.strerror(ctypes.get_errno())}")
            try:
                yield
            finally:
                assert libc.setns(before.fileno(), _CLONE_NEWNET) == 0

    def close(self):
        """End all of it."""
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        kill_all_with(self._mark)
        self._process.wait()
        self._errors.close()
