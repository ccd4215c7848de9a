"""A sweep that was left to a process of its own survives the terminal that it was started from."""

import contextlib
import json
import os
import pty
import re
import subprocess
import time

import psutil
import pytest
from sweep_toys import command, environment, eventually, family_of, living, oocr

from launcher.status import read_sweep
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.detach import detach
from oocr_influence.cli.replicate import ReplicateArguments, _again
from oocr_influence.results.finding import find_experiments
from oocr_influence.results.run_folder import ExperimentFolder

CPU = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def long_sweep(tmp_path, sample, small_flags, own_host):
    """The command line of a sweep of one run that goes on for long."""
    words = ["--dataset_builder_path", sample, "--output_dir", tmp_path, *small_flags]
    words += ["--epochs", "400", "--runs_per_dataset_all_docs", "1", "--beam_search", "never"]
    words += ["--all_docs_epochs_per_eval", "None", "--all_docs_epochs_per_save", "None"]
    return command("data_modeling", *words, "--n_loss_documents", "0", "--max_workers", "1")


def in_a_terminal(words):
    """A shell in a terminal of its own that runs a command and then waits; its process, the end of
    the terminal that is ours."""
    script = '"$@"; echo "status $?"; sleep 300'
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update({**environment(), **CPU})
        os.execv("/bin/bash", ["bash", "-c", script, "bash", *words])
    return pid, terminal


def read_until(terminal, wanted, seconds=120):
    shown, end = b"", time.monotonic() + seconds
    while wanted not in shown:
        assert time.monotonic() < end, shown.decode()
        shown += os.read(terminal, 4096)
    return shown.decode()


def drain(terminal):
    """Read what is there, so that who writes does not wait for us."""
    os.set_blocking(terminal, False)
    with contextlib.suppress(BlockingIOError):
        while os.read(terminal, 65536):
            pass


def job_of(outputs):
    (experiment,) = find_experiments(outputs)
    (job,) = read_sweep(experiment.jobs).jobs
    return job


@pytest.mark.slow
def test_a_closed_terminal_does_not_end_a_detached_sweep(long_sweep, tmp_path):
    shell, terminal = in_a_terminal([*long_sweep, "--detach"])
    said = read_until(terminal, b"status 0")
    driver = int(re.search(r"process (\d+) runs it", said)[1])
    family = family_of(driver)
    try:
        assert "oocr status" in said
        assert "oocr stop" in said
        os.close(terminal)  # hangs up: SIGHUP for the shell and all that its session has
        eventually(lambda: os.waitpid(shell, os.WNOHANG)[0] == shell)
        eventually(lambda: (job_of(tmp_path).number("completed") or 0) > 3, 120)
        before = job_of(tmp_path).number("completed")
        eventually(lambda: job_of(tmp_path).number("completed") > before, 60)
        family = family_of(driver)
        assert psutil.Process(driver).terminal() is None
        assert os.getsid(driver) == driver
        (experiment,) = find_experiments(tmp_path)
        assert "starts on a core" in (experiment.path / "driver.log").read_text()
        stopped = oocr("stop", experiment.path)
        assert stopped.returncode == 0, stopped.stdout
        eventually(lambda: living(family) == [])  # the driver still sums up
        # How it was run is written down, and repeated.
        log = json.loads(experiment.experiment_log.read_text())
        assert log["log_dict"]["execution"] == {"max_workers": 1}
        dry = oocr("resume", experiment.path, "--dry_run")
        assert "seed 42: to be run" in dry.stdout
    finally:
        for process in living(family):
            process.kill()


@pytest.mark.slow
def test_the_same_without_detaching_ends_with_the_terminal(long_sweep, tmp_path):
    shell, terminal = in_a_terminal(long_sweep)
    family = []
    try:
        read_until(terminal, b"experiment: ")

        def is_running():
            drain(terminal)
            return (job_of(tmp_path).number("completed") or 0) > 1

        eventually(is_running, 120)
        family = family_of(shell)
        assert len(family) >= 4  # the shell, the driver, its worker, the job
        os.close(terminal)
        eventually(lambda: living(family) == [], 60)
        assert job_of(tmp_path).state in ("interrupted", "waiting")
    finally:
        for process in living(family or family_of(shell)):
            process.kill()
        os.waitpid(shell, 0)


def test_faults_are_told_in_the_terminal_and_leave_nothing(long_sweep, tmp_path):
    refused = subprocess.run(
        [*long_sweep, "--detach", "--batch_size", "1000"],
        capture_output=True,
        text=True,
        env={**environment(), **CPU},
    )
    assert refused.returncode == 2
    assert "--batch_size 1000 is larger than" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_runs_right_here_cannot_be_left(long_sweep):
    first = subprocess.run(
        [*long_sweep, "--detach", "--execution_mode", "in_process"],
        capture_output=True,
        text=True,
        env={**environment(), **CPU},
    )
    assert first.returncode == 2
    assert "--detach: with --execution_mode in_process" in first.stderr


def test_a_detached_driver_that_ends_at_once_is_no_success(tmp_path):
    folder = ExperimentFolder.create(tmp_path, "toys")
    words = ["data_modeling", "--resume", str(folder.path)]
    with pytest.raises(UsageError, match="is not the folder of an experiment with jobs"):
        detach(folder, words)


def test_replicate_repeats_the_words_that_name_its_experiments(tmp_path):
    paths = [tmp_path / "one, with a comma", tmp_path / "two 'quoted'"]
    args = parse(ReplicateArguments, ["--output_dir", str(tmp_path), "--max_workers", "2"])
    again = parse(ReplicateArguments, _again(args, paths))
    assert again.resume == paths
    assert (again.output_dir, again.max_workers, again.scale) == (tmp_path, 2, "small")
