"""Signals to a sweep in a process of its own: what ends, what is recorded, what goes on."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from launcher_helpers import eventually, running, start_sweep

from launcher.jobs import is_alive, read_exit, read_state


@pytest.fixture
def started(make_job, tmp_path):
    """Start a sweep of waiting jobs; the process, the jobs, and every pid below it once it runs."""
    sweeps, everyone = [], []

    def start(*, grace=10.0, stubborn=False):
        jobs = [make_job(f"w{n}", "wait", args={"stubborn": stubborn}) for n in range(3)]
        for job in jobs:
            job.write()
        sweep = start_sweep(tmp_path / "jobs", grace)
        sweeps.append(sweep)
        notes = [tmp_path / "w0.pids", tmp_path / "w1.pids"]
        eventually(
            lambda: all(note.exists() and note.read_text().count(" ") == 2 for note in notes)
        )
        pids = [int(pid) for note in notes for pid in note.read_text().split()]
        everyone.extend(pids)
        assert len(set(pids)) == 5  # one worker, two jobs, a helper of each
        assert all(map(running, pids))
        return sweep, jobs, pids

    yield start
    for sweep in sweeps:
        sweep.kill()
        sweep.communicate()
    for pid in everyone:  # a failed test leaves nothing either
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def gone(pids, seconds=5.0):
    eventually(lambda: not any(map(running, pids)), seconds)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_sweep_leaves_nothing_and_goes_on_later(started, tmp_path, number):
    sweep, jobs, pids = started()
    if number == signal.SIGINT:
        os.killpg(sweep.pid, number)  # Ctrl-C reaches everyone in the terminal's foreground
    else:
        sweep.send_signal(number)
    output, _ = sweep.communicate(timeout=60)
    gone(pids)
    assert sweep.returncode == 1, output
    assert output.rstrip().endswith("interrupted")
    assert "3 jobs: 0 ok, 2 interrupted, 1 not started" in output
    assert [read_exit(job.folder) for job in jobs] == [None] * 3
    assert "interrupted: after step" in jobs[0].log.read_text()

    (tmp_path / "gate").touch()
    again = start_sweep(tmp_path / "jobs")
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0, output
    assert [read_exit(job.folder)["attempt_number"] for job in jobs] == [2, 2, 1]
    records = [(job.folder / "exit.json").stat().st_mtime_ns for job in jobs]

    third = start_sweep(tmp_path / "jobs")
    output, _ = third.communicate(timeout=60)
    assert "3 ok (3 done before)" in output
    assert [(job.folder / "exit.json").stat().st_mtime_ns for job in jobs] == records


def test_a_stubborn_job_is_killed_after_the_grace_period(started):
    sweep, jobs, pids = started(grace=1.0, stubborn=True)
    began = time.monotonic()
    sweep.terminate()
    output, _ = sweep.communicate(timeout=10)
    assert 0.9 < time.monotonic() - began < 5
    gone(pids)
    assert "2 interrupted, 1 not started" in output
    assert [read_exit(job.folder) for job in jobs] == [None] * 3
    assert read_state(jobs[0].folder)["status"] == "interrupted"


def test_a_second_signal_does_not_wait(started):
    sweep, jobs, pids = started(grace=60.0, stubborn=True)
    sweep.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert sweep.poll() is None
    sweep.send_signal(signal.SIGINT)
    output, _ = sweep.communicate(timeout=5)
    gone(pids)
    assert "2 interrupted, 1 not started" in output
    assert read_state(jobs[1].folder)["status"] == "interrupted"


@pytest.mark.parametrize("stubborn", [False, True])
def test_nothing_outlives_a_killed_orchestrator(started, stubborn):
    sweep, jobs, pids = started(grace=1.0, stubborn=stubborn)
    assert is_alive(read_state(jobs[0].folder))
    sweep.kill()
    gone(pids, 5)
    assert [read_exit(job.folder) for job in jobs] == [None] * 3
    assert not any(is_alive(read_state(job.folder)) for job in jobs)


def test_a_job_dies_with_its_worker_when_nobody_is_left_to_end_it(started):
    sweep, jobs, pids = started()
    # Nothing of ours can act any more: only the kernel ends the jobs.
    for pid in (sweep.pid, pids[0], pids[3]):
        os.kill(pid, signal.SIGSTOP)
    for pid in (sweep.pid, pids[0], pids[3]):
        os.kill(pid, signal.SIGKILL)
    gone([pids[1], pids[4]])
    assert not any(is_alive(read_state(job.folder)) for job in jobs)


def test_a_parent_that_ended_before_it_was_watched_counts_as_ended():
    script = "from launcher.isolation import die_with_parent; die_with_parent(1, 9)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9


def test_a_closed_terminal_does_not_end_a_sweep_under_nohup(make_job, tmp_path):
    job = make_job("w0", "wait")
    job.write()
    command = [sys.executable, "-c", "import signal, os, sys;"]
    command[2] += "signal.signal(signal.SIGHUP, signal.SIG_IGN); import launcher_toys as toys;"
    command[2] += "sys.exit(toys.sweep(sys.argv[1]))"
    sweep = subprocess.Popen([*command, str(tmp_path / "jobs")], stdout=subprocess.PIPE, text=True)
    eventually((tmp_path / "w0.pids").exists)
    sweep.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    (tmp_path / "gate").touch()
    output, _ = sweep.communicate(timeout=10)
    assert sweep.returncode == 0, output


def test_four_sweeps_at_once_do_not_meet(make_job, tmp_path):
    sweeps = []
    for name in "abcd":
        for number in range(3):
            make_job(f"j{number}", folder=tmp_path / name).write()
        sweeps.append(start_sweep(tmp_path / name))
    for sweep in sweeps:
        output, _ = sweep.communicate(timeout=30)
        assert sweep.returncode == 0, output
        assert "3 jobs: 3 ok; " in output
    assert sorted(path.name for path in tmp_path.iterdir()) == list("abcd")
    left = {p.name for p in tmp_path.rglob("*") if p.is_file() and p.parent.name != "workers"}
    of_jobs = {"spec.json", "state.json", "exit.json", "log", "1.json", "1.exit.json"}
    assert left == of_jobs | {"sweep.json"}
