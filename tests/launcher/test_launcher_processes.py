"""Processes found by the token in their environment, however lately they were started."""

import os
import subprocess
import sys

import pytest
from launcher_helpers import running

from launcher.processes import ATTEMPT_VARIABLE, end_processes, processes_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def started():
    processes = []

    def start(token):
        environment = {**os.environ, ATTEMPT_VARIABLE: token}
        processes.append(subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_one_that_is_just_executing_its_program_is_found(started, monkeypatch):
    # Its environment can be read, and is empty, until the kernel has laid it out: about one look
    # in five met that. Only this process is looked at, so that the look comes at once.
    for number in range(60):
        token = f"token-{number}"
        process = started(token)
        with monkeypatch.context() as patch:
            patch.setattr("launcher.processes.os.listdir", lambda _, pid=process.pid: [str(pid)])
            assert processes_of([token]) == [process.pid]


def test_tokens_are_matched_whole_and_the_dead_are_not_found(started):
    one, longer = started("token"), started("token-2")
    assert processes_of(["token"]) == [one.pid]
    assert end_processes(["token"]) == []
    assert not running(one.pid)
    assert running(longer.pid)
    assert processes_of(["token"]) == []  # a zombie: nobody has waited for it yet
