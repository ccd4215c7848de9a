"""Slurm's engine without a Slurm: the batch script in a real shell, and what programs answer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.engine import EngineError, EngineUnreachable, WorkerRequest
from launcher.slurm_engine import SlurmEngine, batch_script, jobs_of, quoted

TOKEN, OTHER = "0123456789abcdef" * 2, "f" * 32
SHOW = "import json, os, sys; print(json.dumps([os.getpid(), dict(os.environ), sys.argv[1:]]))"
ODD = "a b 'c' \"d\" $HOME `e` \\n \n\t\r\n *é日%j;\udcff"


def request(tmp_path, *arguments, **more):
    values = {
        "token": TOKEN,
        "command": (sys.executable, "-c", SHOW, *arguments),
        "env": {"LAUNCHER_WORKER": TOKEN},
        "gpus": 1,
        "log": tmp_path / "log",
        "label": "toy",
    }
    return WorkerRequest(**{**values, **more})


def run(asked):
    script = batch_script(asked)
    assert b"\r\n" not in script  # sbatch refuses those
    shell = subprocess.Popen(["/bin/sh", "-s"], stdin=subprocess.PIPE)
    shell.communicate(script)
    assert shell.returncode == 0
    pid, env, argv = json.loads(asked.log.read_text())
    assert pid == shell.pid  # the script became the worker: signals to the one reach the other
    return env, argv


def test_the_script_hands_over_any_text(tmp_path):
    folder = tmp_path / os.fsencode(ODD).decode(errors="surrogateescape")
    folder.mkdir()
    env = {"LAUNCHER_WORKER": TOKEN, "X": ODD, "EMPTY": ""}
    seen, argv = run(request(folder, ODD, "", "-n", env=env))
    assert argv == [ODD, "", "-n"]
    assert {name: seen[name] for name in env} == env
    assert "CUDA_VISIBLE_DEVICES" not in seen


def test_a_worker_without_gpus_is_shown_none(tmp_path):
    assert run(request(tmp_path, gpus=0))[0]["CUDA_VISIBLE_DEVICES"] == ""


def test_a_variable_that_no_shell_can_export_is_refused(tmp_path):
    with pytest.raises(EngineError, match=r"a\.b"):
        batch_script(request(tmp_path, env={"a.b": "1"}))


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=30))
def test_a_quoted_word_is_one_word(text):
    script = f"printf '%s' {quoted(text)}; printf '|end'"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True)
    assert done.stdout.decode() == text + "|end"


def test_jobs_are_read_by_token_wherever_it_stands():
    listing = (
        f"7|RUNNING|{TOKEN}|toy-{TOKEN}\n"
        f"8|PENDING|(null)|my|name-{TOKEN}\n"
        f"9|RUNNING|{OTHER}|x\n"
        "12_[1-3]|PENDING|(null)|array\n"
        f"10|RUNNING|a{TOKEN}|longer\nCLUSTER: one\n\n"
        f"11|CANCELLED by 0|toy-{TOKEN}\n"
    )
    assert jobs_of(listing, {TOKEN}) == {TOKEN: {"7": "RUNNING", "8": "PENDING", "11": "CANCELLED"}}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Stand-ins for Slurm's programs, each the body of a shell script; calls are logged."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(**scripts):
        for name, script in scripts.items():
            path = folder / name
            path.write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n{script}\n')
            path.chmod(0o755)

    put.calls = lambda: (tmp_path / "calls").read_text().splitlines()
    return put


def listed(state):
    return f"echo '5|{state}|{TOKEN}|toy-{TOKEN}'"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        *[(state, "queued") for state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")],
        *[(state, "running") for state in ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED")],
        *[
            (state, "gone")
            for state in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")
        ],
        *[(state, "gone") for state in ("PREEMPTED", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")],
    ],
)
def test_states_of_jobs_are_states_of_workers(programs, state, expected):
    programs(squeue=listed(state))
    assert SlurmEngine().states([TOKEN, OTHER]) == {TOKEN: expected, OTHER: "gone"}
    assert len([call for call in programs.calls() if call.startswith("squeue")]) == 1


def test_of_two_jobs_of_one_token_the_living_one_counts(programs):
    programs(squeue=f"{listed('FAILED')}; {listed('RUNNING').replace('5|', '6|')}")
    assert SlurmEngine().states([TOKEN]) == {TOKEN: "running"}


@pytest.mark.parametrize(
    ("scontrol", "expected"),
    [
        ("echo 'JobId=5 JobName=toy JobState=RUNNING Reason=None'", "running"),
        ("echo 'JobId=5 JobName=toy JobState=PENDING Reason=None'", "queued"),
        ("echo 'JobId=5 JobName=toy JobState=COMPLETED Reason=None'", "gone"),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "gone"),
    ],
)
def test_an_unlisted_job_that_accounting_thinks_alive_is_the_controllers_to_judge(
    programs, scontrol, expected
):
    programs(squeue="", sacct=f"echo '5|RUNNING|toy-{TOKEN}'", scontrol=scontrol)
    assert SlurmEngine().states([TOKEN, OTHER]) == {TOKEN: expected, OTHER: "gone"}


def test_nobody_is_gone_while_the_controller_is_silent(programs):
    programs(squeue="", sacct=f"echo '5|RUNNING|toy-{TOKEN}'", scontrol="echo timeout >&2; exit 1")
    with pytest.raises(EngineUnreachable, match="scontrol: timeout"):
        SlurmEngine().states([TOKEN])
    programs(squeue="echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(EngineUnreachable, match="Unable to contact"):
        SlurmEngine().states([TOKEN])


def test_accounting_that_is_disabled_is_asked_once(programs):
    programs(squeue="", sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1")
    engine = SlurmEngine()
    assert [engine.states([TOKEN])[TOKEN] for _ in range(3)] == ["gone"] * 3
    assert len([call for call in programs.calls() if call.startswith("sacct")]) == 1


def test_accounting_that_fails_for_a_moment_is_asked_again(programs):
    programs(squeue="", sacct="echo 'slurmdbd: connection refused' >&2; exit 1")
    engine = SlurmEngine()
    assert [engine.states([TOKEN])[TOKEN] for _ in range(2)] == ["gone"] * 2
    assert len([call for call in programs.calls() if call.startswith("sacct")]) == 2


def test_a_retried_submission_waits_for_one_that_may_still_come(programs, tmp_path):
    asked = request(tmp_path, token=uuid4().hex)
    programs(squeue="", sbatch="echo 'sbatch: error: Socket timed out' >&2; exit 1")
    engine = SlurmEngine()
    for _ in range(2):
        with pytest.raises(EngineUnreachable, match="Socket timed out"):
            engine.start(asked)
    first, second = [call for call in programs.calls() if call.startswith("sbatch")]
    assert "singleton" not in first
    assert "--dependency=singleton" in second


def test_what_slurm_refuses_is_said_with_the_remedy(programs, tmp_path):
    programs(squeue="", sbatch="echo 'sbatch: error: Job violates QOS policy' >&2; exit 1")
    with pytest.raises(EngineError, match=r"Job violates QOS policy.*max_in_flight") as caught:
        SlurmEngine().start(request(tmp_path))
    assert not isinstance(caught.value, EngineUnreachable)


def test_a_machine_without_slurm_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="sbatch, squeue, scancel not found"):
        SlurmEngine().check()


def test_the_log_is_named_to_slurm_only_where_it_would_not_be_read_as_a_pattern(programs, tmp_path):
    programs(squeue="", sbatch="")
    engine = SlurmEngine()
    engine.start(request(tmp_path, log=Path("/x/a b/é.log")))
    engine.start(request(tmp_path, log=Path("/x/%j.log")))
    first, second = [call for call in programs.calls() if call.startswith("sbatch")]
    assert "--output=/x/a b/é.log" in first
    assert "--output=/dev/null" in second
