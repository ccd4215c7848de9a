import os
import sys
from pathlib import Path

import pytest

from launcher.jobs import Job, JobSpec

HERE = Path(__file__).parent
# pytest imports test files by path alone; the in-process twin needs the toys by name.
sys.path.append(str(HERE))


@pytest.fixture(autouse=True)
def importable_toys(monkeypatch, tmp_path_factory):
    """Workers find launcher_toys.py; nothing of the machine's own GPUs and sweeps leaks in."""
    monkeypatch.setenv("LAUNCHER_HOST_FOLDER", str(tmp_path_factory.mktemp("host")))
    # Behind it what was there: the launcher that is tested here is the one that workers import.
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


@pytest.fixture
def make_job(tmp_path):
    """A job of a function in launcher_toys.py, in a folder of its own."""

    def make(id, function="succeed", folder=None, **spec):
        args = {"dir": str(tmp_path), **spec.pop("args", {})}
        spec = JobSpec(id=id, function=f"launcher_toys:{function}", args=args, **spec)
        return Job(spec, (folder or tmp_path / "jobs") / id)

    return make
