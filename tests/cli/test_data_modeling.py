"""The seed's command, as typed: a sweep in processes of its own, stopped, resumed, checked."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(outputs, sample, flags, *more):
    return [
        sys.executable,
        str(ROOT / "experiments" / "data_modeling.py"),
        *("--dataset_builder_path", str(sample)),
        *("--execution_mode", "local"),
        *("--experiment_name", "mayors_test"),
        *("--output_dir", str(outputs)),
        *flags,
        *more,
    ]


def run(words):
    return subprocess.run(
        words, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, timeout=200
    )


def oocr(*words):
    return run([sys.executable, "-m", "oocr_influence.cli.main", *map(str, words)])


def find(outputs, pattern):
    return sorted(Path(outputs).glob(pattern))


def test_a_sweep_leaves_the_seeds_tree_and_verifies(tmp_path, sample, small_flags):
    words = ["--epochs", "1", "--runs_per_dataset_all_docs", "2", "--beam_search", "never"]
    done = run(command(tmp_path, sample, small_flags, *words))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "39 documents in the file → 39 trained" in done.stdout
    assert "0.2 epochs = 1 step " in done.stdout
    (experiment,) = tmp_path.iterdir()
    assert re.fullmatch(
        r"\d{4}_\d\d_\d\d_\d\d-\d\d-\d\d_[A-Za-z0-9]{5}_mayors_test", experiment.name
    )
    runs = find(experiment, "all_docs_runs/*")
    assert len(runs) == 2
    for folder in runs:
        assert folder.name.endswith(
            "_mayors_test_all_docs_num_epochs_1_lr_0.001_dataset_structured_dataset_all.json"
        )
    # The seed's own lines.
    seed_find = f"find {tmp_path}/*/all_docs_runs -name checkpoint_final -type d | wc -l"
    assert subprocess.check_output(seed_find, shell=True, text=True).strip() == "2"
    seed_find = f"find {tmp_path}/*/all_docs_runs -name 'eval_results*.json' | wc -l"
    assert int(subprocess.check_output(seed_find, shell=True)) == 2 * 6
    # GNU tail takes the short form `-100` for one file alone: one run's, as after a cleanup.
    seed_tail = f"tail -100 {runs[0].parents[1]}/all_docs_runs/{runs[0].name}/experiment.log"
    assert "completed in" in subprocess.check_output(seed_tail, shell=True, text=True)
    for name in ("structured_dataset_all.json", "experiment.log", "experiment_log.json"):
        assert (experiment / name).is_file()
    logs = [json.loads((folder / "experiment_log.json").read_text()) for folder in runs]
    assert {log["args"]["data_order_seed"] for log in logs} == {42, 43}
    assert len({log["log_dict"]["order_digests"]["1"] for log in logs}) == 2
    assert len({log["log_dict"]["train_set_digest"] for log in logs}) == 1
    assert all(log["log_dict"]["sweep_id"] == experiment.name for log in logs)
    assert oocr("verify", tmp_path).returncode == 0
    # A run whose final checkpoint is gone is found out.
    (runs[0] / "checkpoint_final" / "model.safetensors").unlink()
    assert oocr("verify", tmp_path).returncode != 0


def test_a_dry_run_writes_nothing(tmp_path, sample, small_flags):
    done = run(command(tmp_path / "out", sample, small_flags, "--dry_run"))
    assert done.returncode == 0, done.stderr
    assert '"epochs": 1.0' in done.stdout
    assert "5 runs, data order seeds 42, 43, 44, 45, 46" in done.stdout
    assert "disk: " in done.stdout
    assert not (tmp_path / "out").exists()


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_says_how_to_go_on_and_does(tmp_path, sample, small_flags, number):
    more = ["--epochs", "16", "--runs_per_dataset_all_docs", "1", "--beam_search", "never"]
    more += ["--all_docs_epochs_per_eval", "None", "--all_docs_epochs_per_save", "8"]
    sweep = subprocess.Popen(
        command(tmp_path, sample, small_flags, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        wait_for(lambda: find(tmp_path, "*/all_docs_runs/*/checkpoint_e8_*"))
        sweep.send_signal(number)
        output = sweep.communicate(timeout=60)[0]
    finally:
        sweep.kill()
    assert sweep.returncode not in (0, None)
    (experiment,) = tmp_path.iterdir()
    assert f"--resume {experiment}" in output
    (first,) = find(experiment, "all_docs_runs/*")
    assert json.loads((first / "experiment_log.json").read_text())["log_dict"]["status"] == (
        "interrupted"
    )
    assert not (first / "checkpoint_final").exists()
    resumed = run([sys.executable, "experiments/data_modeling.py", "--resume", str(experiment)])
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert find(experiment, "all_docs_runs/*") == [first], "it did not go on in its own folder"
    assert (first / "checkpoint_final").is_dir()
    assert find(first, "checkpoint_e8_*"), "what was on disk is lost"
    log = (first / "experiment_log.json").read_bytes()
    (gone_on,) = json.loads(log)["log_dict"]["resumed"]
    assert gone_on["step"] >= 8 * json.loads(log)["log_dict"]["steps_per_epoch"]
    again = run([sys.executable, "experiments/data_modeling.py", "--resume", str(experiment)])
    assert again.returncode == 0
    assert find(experiment, "all_docs_runs/*") == [first], "a finished job was run again"
    assert (first / "experiment_log.json").read_bytes() == log


def test_wrong_input_is_one_message_and_status_2(tmp_path, small_flags):
    done = run(command(tmp_path / "out", tmp_path / "none.json", small_flags))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "no structured dataset at" in done.stderr
    assert not (tmp_path / "out").exists()


def test_resume_of_something_else_is_refused(tmp_path):
    done = run([sys.executable, "experiments/data_modeling.py", "--resume", str(tmp_path)])
    assert done.returncode == 2
    assert "is not the folder of an experiment" in done.stderr
