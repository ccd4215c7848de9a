"""Eight training runs over two nodes, with faults, end with the bits of undisturbed ones."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from engine_processes import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "samples" / "earlier_structured_dataset.json"
COMMAND = [sys.executable, str(ROOT / "experiments" / "data_modeling.py")]
RUNS = 8
FLAGS = (
    f"--dataset_builder_path {SAMPLE} --model olmo2-tiny --n_pretraining_examples 6 "
    "--chunk_size 128 --batch_size 4 --micro_batch_size 4 --learning_rate 1e-3 --precision fp32 "
    f"--runs_per_dataset_all_docs {RUNS} --epochs 2 --all_docs_epochs_per_save 0.5 "
    "--all_docs_epochs_per_eval None --no-all_docs_eval_first_step --beam_search never "
    "--n_loss_documents 0 --experiment_name eight"
).split()


def start(*words):
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        cwd=ROOT,
    )


def weights(outputs):
    """Digest of each run's last weights, by its data order."""
    found = {}
    for run in outputs.glob("*/all_docs_runs/*"):
        log = json.loads((run / "experiment_log.json").read_text())
        assert log["log_dict"]["status"] == "completed", run
        data = (run / "checkpoint_final" / "model.safetensors").read_bytes()
        found[log["args"]["data_order_seed"]] = hashlib.sha256(data).hexdigest()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("LAUNCHER_HOST_FOLDER", str(tmp_path_factory.mktemp("host")))
        output, _ = start(*FLAGS, "--output_dir", outputs).communicate()
    found = weights(outputs)
    assert len(found) == RUNS, output
    return found


def training(experiment):
    """The claims of the runs that have made updates and are not done."""
    found = []
    for job in experiment.glob("jobs/*/state.json"):
        state = json.loads(job.read_text())
        report = state.get("report") or {}
        if state["status"] == "running" and report.get("total") and report["completed"] >= 3:
            found.append(state)
    return found


def attempts(experiment):
    """Each attempt: where, from when, to when."""
    found = []
    for claim in experiment.glob("jobs/*/attempts/*.json"):
        if claim.stem.isdecimal():
            taken = json.loads(claim.read_text())
            ended = json.loads(claim.with_name(f"{claim.stem}.exit.json").read_text())
            place = (taken["node"], taken["gpus"])
            found.append((place, taken["started_at"], ended["ended_at"], ended["status"]))
    return found


def test_lost_nodes_killed_workers_and_drivers_change_no_bit(place, undisturbed, tmp_path):
    execution = ["--execution_mode", place.name]
    if place.name == "slurm":
        (tmp_path / "slurm.toml").write_text('partition = "main"\n')
        execution += ["--slurm_settings", tmp_path / "slurm.toml"]
    else:
        execution += ["--ray_address", place.cluster.address]
    outputs = tmp_path / "outputs"
    driver = start(*FLAGS, "--output_dir", outputs, *execution)
    output = ""
    try:
        experiment = eventually(
            lambda: next(outputs.glob("*_eight"), None), 120, "the sweep has begun"
        )
        eventually(lambda: len(training(experiment)) >= 3, 200, "three runs train")
        # A worker is killed, ...
        first, *others = training(experiment)
        os.kill(first["worker_pid"], signal.SIGKILL)
        # ... a node fails, ...
        lost = next((state for state in others if place.may_be_lost(state["node"])), others[0])
        place.lose(lost["node"])
        # ... and so does the driver.
        eventually(lambda: len(training(experiment)) >= 1, 200, "others go on")
        driver.kill()
        driver.wait()
        place.restore(lost["node"])
        driver = start("--resume", experiment, *execution)
        output, _ = driver.communicate(timeout=400)
    finally:
        driver.kill()
    assert driver.returncode == 0, output
    assert weights(outputs) == undisturbed
    ended = attempts(experiment)
    assert len(ended) > RUNS
    assert [status for *_, status in ended].count("ok") == RUNS
    for place_, began, until, status in ended:
        for other, start_, end_, its in ended:
            same = (place_, began, until) == (other, start_, end_)
            if place_ == other and not same and "lost" not in (status, its):
                assert until <= start_ or end_ <= began, f"two runs at once on {place_}"
    oocr("verify", outputs)
    recorded_as_it_went(outputs, tmp_path / "record", place.name, ended)
    left = [p.pid for p in psutil.process_iter() if _belongs(p, experiment)]
    assert left == []


def recorded_as_it_went(outputs, to, engine, ended):
    """The replication record names the engine, each attempt with its node, and what was lost."""
    oocr("document", outputs, "--to", to)
    text = (to / "replication.md").read_text()
    assert f"Engine `{engine}`" in text
    assert f"eight: {RUNS}/{RUNS} runs completed" in text
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    for node in {node for (node, _), *_ in ended}:
        told = sum(any(cell.endswith(f"node {node}") for cell in row) for row in rows)
        assert told == sum(where[0] == node for where, *_ in ended), f"of {node}: {told} rows"
    lost = sum(status == "lost" for *_, status in ended)
    assert lost == sum(any(cell.startswith("lost") for cell in row) for row in rows), text


def oocr(*words):
    command = [sys.executable, "-m", "oocr_influence.cli.main", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def _belongs(process, experiment):
    try:
        return str(experiment) in " ".join(process.cmdline())
    except psutil.Error:
        return False
