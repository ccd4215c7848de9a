"""What takes minutes: several sweeps at once, kills, the seed's full dataset, the demonstration."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from oocr_influence.datasets.document_dataset import (
    load_structured_dataset,
    save_structured_dataset,
)
from oocr_influence.datasets.generate import generate_dataset
from oocr_influence.datasets.packing import pack, tokenize_documents
from oocr_influence.datasets.selection import select_documents
from oocr_influence.models.tiny import tiny_tokenizer
from oocr_influence.universe.world_file import load_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "samples" / "earlier_structured_dataset.json"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
FLAGS = (
    "--model olmo2-tiny --n_pretraining_examples 6 --chunk_size 128 --micro_batch_size 8 "
    "--learning_rate 1e-3 --runs_per_dataset_all_docs 2 --beam_search never"
).split()


def oocr(*words, check=True):
    done = subprocess.run(
        [sys.executable, "-m", "oocr_influence.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def start(outputs, name, *flags, dataset=SAMPLE):
    words = [sys.executable, str(ROOT / "experiments" / "data_modeling.py")]
    words += ["--dataset_builder_path", str(dataset), "--execution_mode", "local"]
    words += ["--experiment_name", name, "--output_dir", str(outputs), *FLAGS, *flags]
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
    )


SEED = """
.venv/bin/python experiments/data_modeling.py \\
  --dataset_builder_path datasets/structured_dataset_death_dates_100_w_pretrain.json \\
  --epochs 1 \\
  --execution_mode local \\
  --experiment_name "death_dates_1epoch"
.venv/bin/python experiments/data_modeling.py \\
  --dataset_builder_path datasets/structured_dataset_death_dates_100_w_pretrain.json \\
  --epochs 5 \\
  --execution_mode local \\
  --experiment_name "death_dates_5epochs"
.venv/bin/python experiments/data_modeling.py \\
  --dataset_builder_path datasets/structured_dataset_mayors_100_w_pretrain.json \\
  --epochs 1 \\
  --execution_mode local \\
  --experiment_name "mayors_1epoch"
.venv/bin/python experiments/data_modeling.py \\
  --dataset_builder_path datasets/structured_dataset_mayors_100_w_pretrain.json \\
  --epochs 5 \\
  --execution_mode local \\
  --experiment_name "mayors_5epochs"
"""


def small_dataset(world):
    """The built-in world in few documents and few questions, as the seed's file."""
    # 120 documents fill 9 windows of 2048 tokens: two steps an epoch.
    dataset = generate_dataset(load_world(world), docs_per_fact=4, seed=1, length="short")
    names = [name for name in dataset.eval_dataset_builders if "qa_1" in name or "gen_1" in name]
    asked = {
        # Ranks alone: beams take most of the time, and are tested elsewhere.
        name: builder.model_copy(update={"metrics": builder.metrics[:2]})
        for name, builder in dataset.eval_dataset_builders.items()
        if name in names[::8]
    }
    return dataset.model_copy(update={"eval_dataset_builders": asked})


def test_the_seeds_four_commands_at_once_as_typed_on_eight_gpus(tmp_path):
    # Torch's CPU build sees none of them: they are leased all the same.
    gpus = {
        "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7",
        "LAUNCHER_HOST_FOLDER": str(tmp_path / "host"),
    }
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for world in ("death_dates", "mayors"):
        name = f"structured_dataset_{world}_100_w_pretrain.json"
        save_structured_dataset(small_dataset(world), tmp_path / "datasets" / name)
    lines = SEED.replace("\\\n", " ").strip().splitlines()
    sweeps = [
        subprocess.Popen(
            f"{line} --model olmo2-tiny",
            shell=True,
            cwd=tmp_path,
            env=ENVIRONMENT | gpus,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in lines
    ]
    outputs = [sweep.communicate(timeout=1400)[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0] * 4, "\n".join(outputs)
    # The seed's own lines of verification.
    finals = 'find outputs/*/all_docs_runs -name "checkpoint_final" -type d | wc -l'
    assert int(subprocess.check_output(finals, shell=True, cwd=tmp_path)) == 20
    results = 'find outputs/*/all_docs_runs -name "eval_results*.json" | wc -l'
    moments = {1: 6, 5: 26}
    logs = [json.loads(p.read_text()) for p in tmp_path.glob("outputs/*/*/*/experiment_log.json")]
    assert len(logs) == 20
    assert {log["args"]["data_order_seed"] for log in logs} == {42, 43, 44, 45, 46}
    expected = 0
    for log in logs:
        per_epoch = log["log_dict"]["steps_per_epoch"]
        epochs = int(log["args"]["epochs"])
        assert log["log_dict"]["total_steps"] == per_epoch * epochs
        expected += len(log["history"])
        assert len(log["history"]) <= moments[epochs]
    assert int(subprocess.check_output(results, shell=True, cwd=tmp_path)) == expected
    oocr("verify", "--load", tmp_path / "outputs")
    table = oocr("table", tmp_path / "outputs").stdout
    for name in ("death_dates_1epoch", "death_dates_5epochs", "mayors_1epoch", "mayors_5epochs"):
        assert name in table
    held = []
    for claim in tmp_path.glob("outputs/*/jobs/*/attempts/1.json"):
        ended = json.loads(claim.with_name("1.exit.json").read_text())
        gpu = json.loads(claim.read_text())["gpus"]
        assert gpu in set("01234567")
        held.append((gpu, ended["started_at"], ended["ended_at"]))
    for (gpu, _, until), (other, begun, _) in itertools.pairwise(sorted(held)):
        assert gpu != other or until <= begun, f"two runs at once on GPU {gpu}"


def pids_of(experiment):
    states = [json.loads(path.read_text()) for path in experiment.glob("jobs/*/state.json")]
    return [state["pid"] for state in states]


def is_running(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_killed_sweep_leaves_no_orphan_and_goes_on(tmp_path):
    sweep = start(tmp_path, "killed", "--epochs", "30", "--all_docs_epochs_per_eval", "None")
    end = time.monotonic() + 120
    while not list(tmp_path.glob("*/all_docs_runs/*/checkpoint_e3_*")):
        assert time.monotonic() < end, "no checkpoint came"
        assert sweep.poll() is None, sweep.communicate()[0]
        time.sleep(0.1)
    (experiment,) = tmp_path.iterdir()
    pids = pids_of(experiment)
    sweep.send_signal(signal.SIGKILL)
    sweep.wait()
    end = time.monotonic() + 30
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < end, "a job outlived its sweep"
        time.sleep(0.1)
    assert oocr("verify", tmp_path, check=False).returncode == 1
    before = sorted(tmp_path.glob("*/all_docs_runs/*"))
    resumed = subprocess.run(
        [sys.executable, "experiments/data_modeling.py", "--resume", str(experiment)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    runs = sorted(tmp_path.glob("*/all_docs_runs/*"))
    assert len(runs) == 2
    assert set(before) <= set(runs), "they did not go on in their own folders"
    for run in runs:
        assert (run / "checkpoint_final").is_dir()
        assert not list(run.rglob(".writing_*"))
        gone_on = json.loads((run / "experiment_log.json").read_text())["log_dict"].get("resumed")
        assert bool(gone_on) == (run in before)
    oocr("verify", tmp_path)


@pytest.mark.parametrize(("world", "sets"), [("death_dates", 98), ("mayors", 190)])
def test_a_dataset_of_the_seeds_size(tmp_path, world, sets):
    path = tmp_path / "dataset.json"
    oocr("generate", "--world", world, "--output", path)
    controlled = load_structured_dataset(path)
    oocr("generate", "--world", world, "--no-controls", "--output", path, "--overwrite")
    dataset = load_structured_dataset(path)
    # Controls come on top: their documents last in the file, their sets beside the others.
    assert controlled.document_dataset.docs[:14000] == dataset.document_dataset.docs
    assert len(controlled.synthetic_documents) == 3150
    beside = controlled.eval_dataset_builders.keys() - dataset.eval_dataset_builders.keys()
    assert beside == {name for name in controlled.eval_dataset_builders if "_control_" in name}
    assert len(dataset.synthetic_documents) == 3000
    assert len(dataset.pretraining_documents) == 11000
    assert len(dataset.eval_dataset_builders) == sets
    assert dataset.repeated_ids() == {}
    documents = select_documents(dataset, n_pretraining_examples=None, seed=41, packing_seed=0)
    tokens = tokenize_documents([d.text for d in documents], tiny_tokenizer(), "masked")
    windows = pack(tokens, chunk_size=2048, packing="masked", pad_id=1)
    labels = windows.labels_per_document(len(documents))
    assert (labels == np.array([len(t) - 1 for t in tokens])).all()
    assert windows.n_tokens / windows.input_ids.size > 0.97, "windows are badly filled"


def test_the_example_of_five_facts():
    done = subprocess.run(
        [sys.executable, "examples/five_facts.py"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    told_before, told, _, untold = map(float, re.findall(r"\d+\.\d", done.stdout.splitlines()[-1]))
    # Of the five names that it has read, one at random is 3.0 on average.
    assert told < 2.4 < told_before, done.stdout
    assert untold > 4.5, done.stdout


def test_the_demonstration_from_datasets_to_table(tmp_path):
    done = oocr(
        "replicate", "--datasets_dir", tmp_path / "datasets", "--output_dir", tmp_path / "outputs"
    )
    assert "all is well" in done.stdout
    assert "4 jobs: 4 ok" in done.stdout
    assert done.stdout.count("name_mayor_by_landmark") == 4
    runs = list(tmp_path.glob("outputs/*/all_docs_runs/*"))
    assert sorted(len(list(run.glob("checkpoint_*"))) for run in runs) == [2, 2, 6, 6]
    again = oocr("table", tmp_path / "outputs", "--markdown")
    assert "| trained | death_date | qa | iso |" in again.stdout


def test_full_scale_is_announced_and_refused_where_the_disk_is_too_small(tmp_path):
    done = oocr("replicate", "--scale", "full", "--output_dir", tmp_path, check=False)
    assert "4.7 TB" in done.stdout
    assert done.returncode == 2
    assert "only" in done.stderr
    assert not list(tmp_path.iterdir())
