"""One run in two processes, through the command: the same files, stopped, killed, gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from oocr_influence.cli import data_modeling
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.data_modeling import DataModelingArgs
from oocr_influence.cli.engines import Execution
from oocr_influence.cli.experiment import run_experiments
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.run_context import Control
from oocr_influence.cli.run_process import RunProcessError, _portable
from oocr_influence.cli.run_processes import check_processes, run_in_processes
from oocr_influence.results.finding import find_runs
from oocr_influence.results.run_folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")
SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
# Seven batches an epoch, of four micro-batches: with two processes, then one more for each.
FLAGS = (
    "--model olmo2-tiny --n_pretraining_examples 6 --chunk_size 128 --batch_size 7 "
    "--micro_batch_size 3 --learning_rate 1e-3 --beam_search final --epochs 2 "
    "--burn_in_epochs 0.3 --epochs_per_eval 0.5 --epochs_per_save 0.5 --save_optimizer"
).split()
OOCR = [sys.executable, "-m", "oocr_influence.cli.main"]


def environment(folder):
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OOCR_CACHE": str(folder / "cache"),
    }


def begin(folder, *words):
    return subprocess.Popen(
        [*OOCR, "train_extractive", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(folder),
    )


def new_run(folder, processes):
    where = ["--structured_dataset", SAMPLE, "--output_dir", folder / "runs"]
    return [*where, *FLAGS, "--processes", processes]


def finished(folder, processes):
    running = begin(folder, *new_run(folder, processes))
    said, _ = running.communicate(timeout=1500)
    assert running.returncode == 0, said
    return RunFolder(Path(said.splitlines()[-1]))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("two"), 2)


def steps(run):
    rows = [json.loads(line) for line in run.steps.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def files(run):
    return sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*"))


def weights(run, name):
    checkpoint = run.checkpoint(name)
    moments = checkpoint / "optimizer" / "moments.safetensors"
    found = load_file(checkpoint / "model.safetensors")
    return found | (load_file(moments) if moments.exists() else {})


def logged(run):
    return json.loads(run.experiment_log.read_text())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_leave_the_run_of_one(one, two):
    assert files(two) == files(one)
    assert [row["window_ids"] for row in steps(two)] == [row["window_ids"] for row in steps(one)]
    for name in ("loss", "grad_norm"):
        expected = [row[name] for row in steps(one)]
        assert [row[name] for row in steps(two)] == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert two.read_records("start") == one.read_records("start"), "the same weights, to the bit"
    for name in one.evaluations():
        found, expected = two.read_evaluation(name), one.read_evaluation(name)
        assert found.eval_sets.keys() == expected.eval_sets.keys()
        for of_set, means in expected.eval_sets.items():
            assert found.eval_sets[of_set]["mean_loss"] == pytest.approx(
                means["mean_loss"], abs=1e-3
            )
        for column in ("set", "id"):
            assert two.read_records(name)[column] == one.read_records(name)[column]
    for name in one.checkpoints():
        found, expected = weights(two, name), weights(one, name)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.allclose(found[key], tensor, atol=2e-4), (name, key)
    assert logged(two)["args"]["processes"] == 2
    assert logged(two)["log_dict"]["weights_digest"] == logged(one)["log_dict"]["weights_digest"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_its_checkpoints_load_and_it_verifies(two, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(two.checkpoint("final"))
    for name, tensor in load_file(two.checkpoint("final") / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], tensor)
    done = subprocess.run(
        [*OOCR, "verify", str(two.path)], capture_output=True, text=True, env=environment(tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr


def wait_for(path, running):
    deadline = time.monotonic() + 1000
    while not path() and time.monotonic() < deadline:
        assert running.poll() is None, running.stdout.read()
        time.sleep(0.02)
    assert path()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_stopped_and_killed_and_gone_on_with_it_is_the_same_run(two, tmp_path):
    """SIGTERM, a helper's kill -9, the kill -9 of the process that started them: no orphans."""
    running = begin(tmp_path, *new_run(tmp_path, 2))
    endings = (("e1_s3", "stop"), ("e1_s6", "kill helper"), ("e2_s9", "kill parent"))
    for checkpoint, ending in endings:
        wait_for(lambda name=checkpoint: list(tmp_path.glob(f"runs/*/checkpoint_{name}")), running)
        (folder,) = (RunFolder(path) for path in (tmp_path / "runs").iterdir())
        family = psutil.Process(running.pid).children(recursive=True)
        leader, helper = sorted(family, key=lambda process: process.pid)
        assert folder.ownership()[1].pid == leader.pid
        if ending == "stop":
            running.send_signal(signal.SIGTERM)
        else:
            {"kill helper": helper, "kill parent": running}[ending].kill()
        said, _ = running.communicate(timeout=200)
        assert running.returncode == {"stop": 75, "kill helper": 1, "kill parent": -9}[ending]
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
        if ending == "stop":
            assert f"--resume {folder.path}" in said
        if ending == "kill helper":
            assert "process 1 of this run ended by SIGKILL" in said
            assert logged(folder)["log_dict"]["status"] == "failed"
            assert "process 1 of this run" in logged(folder)["log_dict"]["error"]
        running = begin(tmp_path, "--resume", folder.path)
    said, _ = running.communicate(timeout=1000)
    assert running.returncode == 0, said
    assert steps(folder) == steps(two)
    assert files(folder) == files(two)
    for name in two.checkpoints():
        found, expected = weights(folder, name), weights(two, name)
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items()), name
    for name in two.evaluations():
        assert folder.read_records(name) == two.read_records(name)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_one_process_raises_ends_the_run_with_its_own_message(tmp_path, monkeypatch):
    """A metric's file that cannot be loaded in the second process alone."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    own = tmp_path / "own_metric.py"
    own.write_text(
        "import torch.distributed as dist\n"
        "if dist.is_initialized() and dist.get_rank() == 1:\n"
        "    raise ValueError('only in the second')\n"
        "from oocr_influence.evaluation.metrics import metric\n"
        "@metric('mine', columns=['x'])\n"
        "def mine(asked):\n"
        "    return {}\n"
    )
    args = TrainingArgs(
        structured_dataset=SAMPLE,
        output_dir=tmp_path,
        model="olmo2-tiny",
        n_pretraining_examples=6,
        chunk_size=128,
        metric_files=[own],
        processes=2,
    )
    before = psutil.Process().children()  # of other tests, such as a browser's driver
    with pytest.raises(UsageError, match="only in the second") as raised:
        run_in_processes(args, Control())
    assert "in process 1 of the run" in raised.value.__notes__[0]
    assert set(psutil.Process().children()) <= set(before)
    (folder,) = find_runs(tmp_path)
    assert logged(folder)["log_dict"]["status"] == "failed"
    assert "only in the second" in logged(folder)["log_dict"]["error"]
    assert folder.ownership()[0] == "free"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_of_runs_in_two_processes_each(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    sweep = DataModelingArgs(
        dataset_builder_path=SAMPLE,
        output_dir=tmp_path,
        model="olmo2-tiny",
        n_pretraining_examples=6,
        chunk_size=128,
        beam_search="never",
        all_docs_epochs_per_eval=None,
        all_docs_epochs_per_save=None,
        runs_per_dataset_all_docs=1,
        gpus_per_job=2,
    )
    runs, preparation = data_modeling.plan(sweep)
    assert "1 runs, 2 GPUs each, data order seeds 42" in capsys.readouterr().out
    experiment = data_modeling.start(sweep, runs, preparation)
    assert experiment.processes == 2
    assert run_experiments([experiment], Execution(max_workers=1)).ok
    (folder,) = find_runs(tmp_path)
    assert logged(folder)["args"]["processes"] == 2
    assert all(np.isfinite(row["loss"]) for row in steps(folder))
    done = subprocess.run([*OOCR, "verify", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    again = DataModelingArgs(resume=experiment.folder.path, gpus_per_job=4)
    with pytest.raises(UsageError, match="was started with 2 a run"):
        data_modeling.main(again)


def test_too_few_gpus_are_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    args = TrainingArgs(structured_dataset=SAMPLE, processes=2)
    assert check_processes(args) == ["5", "6"]
    with pytest.raises(UsageError, match=r"--processes 3 takes a GPU each, but only 2 can be seen"):
        check_processes(args.model_copy(update={"processes": 3}))
    sweep = {"dataset_builder_path": SAMPLE, "output_dir": tmp_path / "out"}
    with pytest.raises(UsageError, match=r"--gpus_per_job 3: only 2 GPUs can be seen here"):
        data_modeling.main(DataModelingArgs(**sweep, gpus_per_job=3))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert check_processes(args) == ["", ""], "processes on the CPU"
    with pytest.raises(UsageError, match=r"--gpus_per_job 2: only 0 GPUs can be seen here"):
        data_modeling.main(DataModelingArgs(**sweep, gpus_per_job=2))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_rank": 4},
        {"profile": True},
        {"compile": "on"},
        {"precision": "bf16_stochastic"},
        {"precision": "fp32_master"},
        {"optimizer": "adamw8bit"},
    ],
    ids=str,
)
def test_what_one_process_alone_can_do_is_refused_with_several(changes):
    TrainingArgs(structured_dataset=SAMPLE, **changes)
    with pytest.raises(ValueError, match="is for runs of one process, and --processes is 2"):
        TrainingArgs(structured_dataset=SAMPLE, processes=2, **changes)
    sweep = {"dataset_builder_path": SAMPLE, "gpus_per_job": 2}
    with pytest.raises(ValueError, match="is for runs of one process, and --gpus_per_job is 2"):
        DataModelingArgs(**sweep, **changes)


class Odd(ValueError):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def test_an_error_that_cannot_travel_says_the_same():
    known = _portable(UsageError("as it was"))
    assert type(known) is UsageError
    odd = Odd(1, 2)
    odd.add_note("where it was")
    told = _portable(odd)
    assert type(told) is RunProcessError
    assert str(told) == "Odd: 1 and 2"
    assert told.__notes__ == ["where it was"]
