"""Slurm and Ray for real, once a session, with four fake GPUs on each of two nodes."""

import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# pytest imports test files by path alone.
sys.path.append(str(HERE))

import ray_cluster  # noqa: E402
import slurm_cluster  # noqa: E402
from engine_toys import toy  # noqa: E402

from launcher.ray_engine import RayEngine  # noqa: E402
from launcher.slurm_engine import SlurmEngine, SlurmSettings  # noqa: E402


def _start(kind):
    """A started cluster and its folder; skipped, and warned of, where there can be none."""
    # Sockets lie in it, whose paths may not be long.
    folder = Path(tempfile.mkdtemp(prefix=f"oocr_{kind}_"))
    try:
        made = {"slurm": slurm_cluster.SlurmCluster, "ray": ray_cluster.RayCluster}[kind](folder)
        with made as cluster:
            yield cluster
    except (slurm_cluster.Unavailable, ray_cluster.Unavailable) as reason:
        warnings.warn(f"the {kind} engine is NOT tested here: {reason}", stacklevel=2)
        pytest.skip(f"the {kind} engine is NOT tested here: {reason}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm():
    yield from _start("slurm")


@pytest.fixture(scope="session")
def limited(slurm):
    """A worker with a time limit of a minute, begun early: Slurm looks at limits twice a minute."""
    worker = toy(slurm.root, gpus=0, label="limited")
    settings = SlurmSettings(
        partition="other", time="1", signal_seconds=59, nodelist=slurm.nodes[0]
    )
    with pytest.MonkeyPatch.context() as patch:
        enter_slurm(slurm, patch)
        SlurmEngine(settings).start(worker)
    return worker


def enter_slurm(slurm, patch):
    for name in ("PATH", "SLURM_CONF", "LD_LIBRARY_PATH"):
        if name in slurm.env:
            patch.setenv(name, slurm.env[name])


@pytest.fixture(scope="session")
def ray():
    yield from _start("ray")


class SlurmPlace:
    """What the tests do to a Slurm, in words that fit any engine."""

    name = "slurm"
    workers_outlive_the_driver = True

    def __init__(self, cluster):
        self.cluster = cluster

    def engine(self, **settings):
        return SlurmEngine(SlurmSettings(**settings))

    def may_be_lost(self, node):
        return True

    def lose(self, node):
        self.cluster.lose(node)

    def restore(self, node):
        self.cluster.start_node(node)

    def driver(self, *arguments):
        return [sys.executable, str(HERE / "toy_driver.py"), "slurm", *map(str, arguments)]


class RayPlace:
    """What the tests do to a Ray cluster, in words that fit any engine."""

    name = "ray"
    workers_outlive_the_driver = False

    def __init__(self, cluster):
        self.cluster = cluster

    def engine(self, **settings):
        return RayEngine(self.cluster.address, **settings)

    def may_be_lost(self, node):
        return node != self.cluster.head

    def lose(self, node):
        self.cluster.order("lose", "second")

    def restore(self, node):
        self.cluster.order("add", "second")

    def driver(self, *arguments):
        toy = [sys.executable, str(HERE / "toy_driver.py"), self.cluster.address]
        return self.cluster.command(*toy, *map(str, arguments))


@pytest.fixture
def slurm_place(slurm, limited, monkeypatch):
    enter_slurm(slurm, monkeypatch)
    yield SlurmPlace(slurm)
    slurm.end_jobs("--partition=main")
    slurm.wait_until_up()


@pytest.fixture
def ray_place(ray, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(ray.folder))
    with ray.entered():
        yield RayPlace(ray)


@pytest.fixture(params=["slurm", "ray"])
def place(request):
    return request.getfixturevalue(f"{request.param}_place")


@pytest.fixture
def engine(place):
    engine = place.engine()
    yield engine
    engine.close()
