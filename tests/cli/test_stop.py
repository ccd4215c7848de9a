"""`oocr stop`, `oocr retry` and `oocr resume`: nothing is left, and nothing is lost."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from sweep_toys import (
    command,
    environment,
    eventually,
    family_of,
    living,
    make_sweep,
    oocr,
)

from launcher import ending
from launcher.claims import take
from launcher.jobs import Job
from launcher.ledger import read_record
from launcher.status import read_sweep
from oocr_influence.cli import stop


def states(experiment):
    return {job.id: job.state for job in read_sweep(experiment / "jobs").jobs}


def steps(experiment, job):
    state = read_record(experiment / "jobs" / job / "state.json") or {}
    return (state.get("report") or {}).get("completed", 0)


def running_family(experiment, driver, *jobs):
    """The driver and all below it, once these jobs run."""
    eventually(lambda: all(steps(experiment, job) > 1 for job in jobs))
    family = family_of(driver.pid)
    assert len(family) >= 2 + 2 * len(jobs)  # the driver, its worker; each job and its helper
    return family


def test_a_sweep_is_stopped_in_order_and_leaves_no_process(sweep_of, tmp_path):
    experiment, driver = sweep_of(gpus="0,1", a="wait", b="wait", c="wait")
    family = running_family(experiment, driver, "a", "b")
    done = oocr("stop", "toys", "--output_dir", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped, no process of it is left (1 waiting, 2 interrupted)" in done.stdout
    assert f"go on with: oocr resume {experiment}" in done.stdout
    driver.wait(10)
    assert living(family) == []
    for job in "ab":
        ended = read_record(experiment / "jobs" / job / "attempts" / "1.exit.json")
        assert ended["stop_requested"] is True
        assert "interrupted: after step" in (experiment / "jobs" / job / "log").read_text()
    again = oocr("stop", "toys", "--output_dir", tmp_path)
    assert again.returncode == 0


def test_what_does_not_stop_in_order_is_ended(sweep_of, tmp_path):
    experiment, driver = sweep_of(a=("wait", {"stubborn": True}))
    family = running_family(experiment, driver, "a")
    done = oocr("stop", "toys", "--wait", "1", "--output_dir", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not ended within 1 s: ending it firmly" in done.stdout
    driver.wait(10)
    assert living(family) == []
    assert states(experiment) == {"a": "interrupted"}


def test_a_driver_that_hears_nothing_is_killed_with_all_that_it_started(
    sweep_of, tmp_path, monkeypatch, capsys
):
    experiment, driver = sweep_of(a=("wait", {"stubborn": True}))
    family = running_family(experiment, driver, "a")
    for process in family:
        process.suspend()
    monkeypatch.setattr(ending, "KILLING", 0.5)
    words = stop.StopArguments(sweeps=[Path("toys")], now=True, output_dir=tmp_path)
    assert stop.main(words) == 0, capsys.readouterr().out
    driver.wait(10)
    eventually(lambda: living(family) == [])
    # The attempt that could not say so itself is told to have been stopped: it goes on.
    assert states(experiment) == {"a": "interrupted"}


def test_what_cannot_be_reached_is_told_and_is_no_success(tmp_path, monkeypatch, capsys):
    experiment = make_sweep(tmp_path, "toys", a="wait")
    elsewhere = {"pid": 17, "host": "another-machine", "pid_namespace": None}
    take(Job.load(experiment / "jobs" / "a"), **elsewhere)
    monkeypatch.setattr(ending, "KILLING", 0.3)
    words = stop.StopArguments(sweeps=[Path("toys")], wait=0.2, output_dir=tmp_path)
    assert stop.main(words) == 1
    assert "still there: job a on another-machine" in capsys.readouterr().out
    assert states(experiment) == {"a": "stopping"}
    assert (experiment / "jobs" / "stop.json").exists(), "its worker must still find the request"


def test_a_worker_that_joined_is_stopped_and_none_joins_after(own_host, tmp_path):
    experiment = make_sweep(tmp_path, "toys", a="wait", b="wait")
    words = command("worker", "toys", "--output_dir", tmp_path)
    worker = subprocess.Popen(words, env={**environment(), "CUDA_VISIBLE_DEVICES": "0,1"})
    try:
        eventually(lambda: steps(experiment, "a") > 1 and steps(experiment, "b") > 1)
        family = family_of(worker.pid)
        done = oocr("stop", "toys", "--output_dir", tmp_path)
        assert done.returncode == 0, done.stdout
        assert worker.wait(10) == 75
        assert living(family) == []
    finally:
        worker.kill()
    late = oocr("worker", "toys", "--output_dir", tmp_path)
    assert late.returncode == 0
    assert "asked to stop at" in late.stdout
    assert states(experiment) == {"a": "interrupted", "b": "interrupted"}


@pytest.mark.slow
def test_a_job_that_somebody_runs_by_hand_is_stopped_too(own_host, tmp_path):
    experiment = make_sweep(tmp_path, "toys", a="wait", b=("wait", {"stubborn": True}))
    words = [sys.executable, "-m", "launcher.jobs", "run"]
    by_hand = [
        subprocess.Popen(
            [*words, experiment / "jobs" / job], env=environment(), stdout=subprocess.DEVNULL
        )
        for job in "ab"
    ]
    eventually(lambda: steps(experiment, "a") > 1 and steps(experiment, "b") > 1)
    family = [process for one in by_hand for process in family_of(one.pid)]
    assert len(family) == 4
    done = oocr("stop", "toys", "--wait", "1", "--output_dir", tmp_path)
    assert done.returncode == 0, done.stdout
    assert by_hand[0].wait(10) == 75
    assert by_hand[1].wait(10) == -signal.SIGKILL
    eventually(lambda: living(family) == [])
    assert states(experiment) == {"a": "interrupted", "b": "interrupted"}


def test_another_sweep_goes_on(sweep_of, tmp_path):
    one, first = sweep_of("one", gpus="0", a="wait")
    two, second = sweep_of("two", gpus="1", a="wait")
    running_family(one, first, "a")
    running_family(two, second, "a")
    assert oocr("stop", "one", "--output_dir", tmp_path).returncode == 0
    assert first.wait(10) == 1
    assert second.poll() is None
    before = steps(two, "a")
    eventually(lambda: steps(two, "a") > before)


# --- retry ---------------------------------------------------------------------------------------


def test_a_failed_job_is_tried_again_by_the_sweep_that_runs(sweep_of, tmp_path):
    experiment, driver = sweep_of(gpus="0", a="fail_without_a_file", b="wait")
    eventually(lambda: states(experiment) == {"a": "failed", "b": "running"})
    (experiment / "what is needed").write_text("here")
    done = oocr("retry", "toys", "--failed", "--output_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a: is tried again" in done.stdout
    assert "resume" not in done.stdout
    assert states(experiment)["a"] == "waiting"
    (experiment / "gate").touch()
    output = driver.communicate(timeout=60)[0]
    assert driver.returncode == 0, output
    assert "2 jobs: 2 ok" in output
    assert "a: asked for again" in output
    assert states(experiment) == {"a": "done", "b": "done"}
    nothing = oocr("retry", "toys", "--output_dir", tmp_path)
    assert "no run of it has failed" in nothing.stdout


def test_where_nobody_runs_the_sweep_retry_says_how_to_go_on(sweep_of, tmp_path):
    experiment, driver = sweep_of(gpus="0,1", a="fail", b="fail", c="succeed")
    assert driver.wait(60) == 1
    driver.stdout.read()
    done = oocr("retry", "toys", "--job", "a", "--output_dir", tmp_path)
    assert f"nobody runs the sweep; go on with: oocr resume {experiment}" in done.stdout
    assert states(experiment) == {"a": "waiting", "b": "failed", "c": "done"}
    for words, said in (
        (("--job", "c"), "--job c is done: only a failed one can be retried"),
        (("--job", "x"), "--job x: there is none of this id"),
        (("--job", "b", "--failed"), "leave one out"),
    ):
        refused = oocr("retry", "toys", *words, "--output_dir", tmp_path)
        assert refused.returncode == 2
        assert said in refused.stderr


def test_resume_refuses_what_runs_and_what_is_no_experiment(sweep_of, tmp_path):
    experiment, driver = sweep_of(a="wait")
    running_family(experiment, driver, "a")
    refused = oocr("resume", "toys", "--output_dir", tmp_path)
    assert refused.returncode == 2
    assert f"is being run by process {driver.pid} on {socket.gethostname()}" in refused.stderr


# --- safety --------------------------------------------------------------------------------------


def test_a_running_sweep_has_no_socket(sweep_of):
    experiment, driver = sweep_of(gpus="0,1", a="wait", b="wait")
    family = running_family(experiment, driver, "a", "b")
    assert [process.net_connections("all") for process in family] == [[]] * len(family)
    # The question can be answered with yes.
    with socket.create_server(("127.0.0.1", 0)):
        assert psutil.Process().net_connections("all")


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_nothing_that_a_sweep_writes_can_be_written_by_others(
    sweep_of, tmp_path, monkeypatch, umask
):
    before = os.umask(umask)
    try:
        # On a host folder of its own making, as the first sweep of a machine makes it.
        host = tmp_path / "host" / "launcher"
        monkeypatch.setenv("LAUNCHER_HOST_FOLDER", str(host))
        experiment, driver = sweep_of(gpus="0", a="fail", b="succeed", c="wait")
        eventually(lambda: steps(experiment, "c") > 1)
        oocr("retry", "toys", "--output_dir", tmp_path)
        oocr("stop", "toys", "--output_dir", tmp_path)
        driver.wait(30)
    finally:
        os.umask(before)
    written = [path for path in [experiment, host] for path in [path, *path.rglob("*")]]
    names = {path.name for path in written}
    assert {"stop.json", "sweep.json", "retries.jsonl", "1.exit.json", "log", "arbiter.lock"} <= (
        names
    )
    for path in written:
        mode = path.lstat().st_mode & 0o777
        assert mode & 0o022 == 0, f"{path} has mode {mode:o}"
        # Of what all users share only who has what is to be read.
        assert mode & umask == 0 or host in path.parents, f"{path} has mode {mode:o}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_worker_does_not_run_what_another_user_wrote(own_host, tmp_path):
    experiment = make_sweep(tmp_path, "toys", mine="leave_a_trace", theirs="leave_a_trace")
    os.chown(experiment / "jobs" / "theirs" / "spec.json", 4321, 4321)
    done = oocr("worker", "toys", "--output_dir", tmp_path, CUDA_VISIBLE_DEVICES="0")
    assert done.returncode == 0, done.stderr
    assert (experiment / "mine ran").exists()
    assert not (experiment / "theirs ran").exists()
    assert "was written by user 4321 and not by 0" in done.stdout
    assert states(experiment) == {"mine": "done", "theirs": "waiting"}


def test_a_worker_shares_out_a_sweep_with_others(own_host, tmp_path):
    names = [f"j{number}" for number in range(6)]
    experiment = make_sweep(tmp_path, "toys", **dict.fromkeys(names, "leave_a_trace"))
    words = command("worker", experiment, "--max_workers", "1")
    env = {**environment(), "CUDA_VISIBLE_DEVICES": "0,1"}
    workers = [subprocess.Popen(words, env=env) for _ in range(2)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert states(experiment) == dict.fromkeys(names, "done")
    for name in names:
        attempts = {path.name for path in (experiment / "jobs" / name / "attempts").iterdir()}
        assert attempts == {"1.json", "1.exit.json"}
    done = oocr("worker", experiment)
    assert "every run of it is done" in done.stdout
    wrong = oocr("worker", experiment, "--gpus_per_job", "3", CUDA_VISIBLE_DEVICES="0,1")
    assert wrong.returncode == 0  # nothing to take: nothing to refuse


def test_a_worker_that_cannot_have_its_gpus_is_refused(own_host, tmp_path):
    make_sweep(tmp_path, "toys", a="succeed")
    words = ("worker", "toys", "--gpus_per_job", "3", "--output_dir", tmp_path)
    wrong = oocr(*words, CUDA_VISIBLE_DEVICES="0,1")
    assert wrong.returncode == 2
    assert "gpus_per_job is 3, but only 2 GPUs" in wrong.stderr


def test_stopping_needs_no_terminal_of_the_sweep(sweep_of, tmp_path):
    """SIGHUP, as of a closed terminal, stops a sweep that was not detached."""
    experiment, driver = sweep_of(a="wait")
    family = running_family(experiment, driver, "a")
    os.kill(driver.pid, signal.SIGHUP)
    driver.wait(20)
    assert living(family) == []
    assert states(experiment) == {"a": "interrupted"}
