"""A small dataset in the earlier system's own file, and runs of the tiny model on it."""

import contextlib
import shutil
import sys
import warnings
from pathlib import Path

import psutil
import pytest
import torch

from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.results.run_folder import RunFolder

# pytest imports test files by path alone; llm_server.py and sweep_toys.py are shared by several.
sys.path.append(str(Path(__file__).parent))
import sweep_toys

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
# 42 windows of 128 tokens; small enough for seconds, cut into many steps.
SMALL = {
    "model": "olmo2-tiny",
    "n_pretraining_examples": 6,
    "chunk_size": 128,
    "batch_size": 8,
    "micro_batch_size": 8,
    "learning_rate": 1e-3,
}


@pytest.fixture
def sample():
    return SAMPLE


@pytest.fixture
def small_flags():
    return [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


def train(folder, **changes):
    """Run the tiny model once in this process; returns its folder."""
    torch.set_num_threads(1)
    given = {
        "structured_dataset": SAMPLE,
        "output_dir": folder / "runs",
        "experiment_name": "test",
        "beam_search": "never",
        **SMALL,
        **changes,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RunFolder(Path(run_once(TrainingArgs(**given))["run"]))


@pytest.fixture
def train_once(tmp_path):
    return lambda **changes: train(tmp_path, **changes)


@pytest.fixture(scope="module")
def train_for_all(tmp_path_factory):
    """One run for all tests of a module, each of which gets a copy of it and of its cache."""

    def made(**changes):
        folder = tmp_path_factory.mktemp("trained")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OOCR_CACHE", str(folder / "cache"))
            run = train(folder, **changes)

        def copied(to):
            shutil.copytree(folder, to, dirs_exist_ok=True)
            return RunFolder(to / run.path.relative_to(folder))

        return copied

    return made


@pytest.fixture
def own_host(monkeypatch, tmp_path_factory):
    """GPUs and cores that no sweep of this machine's but the test's own shares."""
    monkeypatch.setenv("LAUNCHER_HOST_FOLDER", str(tmp_path_factory.mktemp("host")))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def sweep_of(own_host, tmp_path):
    """Start a sweep of toy jobs; what is left of it ends with the test."""
    started = []

    def start(name="toys", *, gpus="0", **jobs):
        experiment = sweep_toys.make_sweep(tmp_path, name, **jobs)
        driver = sweep_toys.start(experiment, gpus)
        started.append(driver)
        return experiment, driver

    yield start
    left = [process for driver in started for process in sweep_toys.family_of(driver.pid)]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for driver in started:
        driver.communicate()
