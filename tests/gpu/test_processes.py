"""Two GPUs share one model: `make gpu` on a machine that has two."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.run_context import Control
from oocr_influence.cli.run_processes import run_in_processes
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import read_steps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices"),
    pytest.mark.filterwarnings("ignore:.*more than once"),
]


def arguments(request, folder, **changes):
    samples = request.config.rootpath / "tests" / "samples"
    given = {
        "structured_dataset": samples / "earlier_structured_dataset.json",
        "model": "olmo2-tiny",
        "output_dir": folder,
        "n_pretraining_examples": 6,
        "chunk_size": 128,
        "batch_size": 7,
        "micro_batch_size": 3,
        "learning_rate": 1e-3,
        "eval_cache": False,
        **changes,
    }
    return TrainingArgs(**given)


def losses(run):
    return [step.loss for step in read_steps(run.steps)]


def test_two_gpus_train_as_one_in_float32(request, tmp_path):
    one = RunFolder(Path(run_once(arguments(request, tmp_path, precision="fp32"))["run"]))
    args = arguments(request, tmp_path, precision="fp32", processes=2)
    two = RunFolder(Path(run_in_processes(args, Control())["run"]))
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    for name in one.checkpoints():
        expected = load_file(one.checkpoint(name) / "model.safetensors")
        found = load_file(two.checkpoint(name) / "model.safetensors")
        assert found.keys() == expected.keys()
        assert all(torch.allclose(found[key], expected[key], atol=1e-3) for key in expected)
    for name in one.evaluations():
        for of_set, means in one.read_evaluation(name).eval_sets.items():
            found = two.read_evaluation(name).eval_sets[of_set]
            assert found["mean_loss"] == pytest.approx(means["mean_loss"], abs=1e-2)


def test_two_gpus_train_in_bf16_and_each_has_its_own(request, tmp_path):
    args = arguments(request, tmp_path, processes=2, gradient_checkpointing=True)
    run = RunFolder(Path(run_in_processes(args, Control())["run"]))
    log = json.loads(run.experiment_log.read_text())["log_dict"]
    assert log["dtype"] == "torch.bfloat16"
    assert log["device"] == "cuda:0"
    assert np.isfinite(losses(run)).all()
    assert losses(run)[-1] < losses(run)[0]
