"""A small dataset in the earlier system's own file, and runs of the tiny model on it."""

import sys
import warnings
from pathlib import Path

import pytest
import torch

from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.results.run_folder import RunFolder

# pytest imports test files by path alone; llm_server.py is shared by several of them.
sys.path.append(str(Path(__file__).parent))

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


@pytest.fixture
def train_once(tmp_path):
    """Run the tiny model once in this process; returns its folder."""
    torch.set_num_threads(1)

    def run(**changes):
        given = {
            "structured_dataset": SAMPLE,
            "output_dir": tmp_path / "runs",
            "experiment_name": "test",
            "beam_search": "never",
            **SMALL,
            **changes,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return RunFolder(Path(run_once(TrainingArgs(**given))["run"]))

    return run
