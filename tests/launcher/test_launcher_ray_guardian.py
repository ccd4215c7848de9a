"""The process that stands between a Ray worker and ours, without Ray."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from launcher_helpers import eventually

from launcher import ray_guardian
from launcher.engine import EngineError, WorkerRequest
from launcher.ray_engine import RayEngine

TEXT = Path(ray_guardian.__file__).read_text(encoding="utf-8")
# Leaves a child in a session of its own, and says when it is told to stop.
TOY = """
import signal, subprocess, sys, time
def end(*_):
    print("SIGTERM", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, end)
subprocess.Popen(["sleep", "60"], start_new_session=True)
print("begun", flush=True)
time.sleep(float(sys.argv[1]))
"""


class Guarded:
    """A toy under a guardian; `orders` and `ended` are our ends of its pipes."""

    def __init__(self, folder, *command):
        self.token, self.log = uuid4().hex, folder / "log"
        heard, self.orders = os.pipe()
        self.ended, ends = os.pipe()
        with self.log.open("ab") as log:
            subprocess.run(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    "-c",
                    TEXT,
                    str(heard),
                    str(ends),
                    self.token,
                    *command,
                ],
                env={**os.environ, "LAUNCHER_WORKER": self.token},
                stdout=log,
                stderr=log,
                pass_fds=(heard, ends),
                check=True,
                timeout=10,
            )
        os.close(heard)
        os.close(ends)

    def said(self):
        return self.log.read_text().split()

    def wait(self):
        assert os.read(self.ended, 1) == b""  # until the guardian has ended

    def pids(self):
        return ray_guardian._pids_of(self.token)


@pytest.fixture
def toy(tmp_path):
    def start(seconds):
        guarded = Guarded(tmp_path, sys.executable, "-c", TOY, str(seconds))
        eventually(lambda: guarded.said() == ["begun"])
        return guarded

    return start


def test_after_the_program_its_leftovers_end_and_then_the_pipe(toy):
    guarded = toy(0.2)
    assert len(guarded.pids()) == 3  # guardian, program, the child in its own session
    guarded.wait()
    eventually(lambda: guarded.pids() == [])


def test_a_request_to_stop_reaches_the_program(toy):
    guarded = toy(60)
    os.write(guarded.orders, b"T")
    guarded.wait()
    assert guarded.said() == ["begun", "SIGTERM"]
    eventually(lambda: guarded.pids() == [])


def test_whoever_holds_the_pipe_takes_all_along_when_it_ends(toy):
    guarded = toy(60)
    os.close(guarded.orders)
    guarded.wait()
    assert guarded.said() == ["begun"]
    eventually(lambda: guarded.pids() == [])


def test_a_program_that_is_not_there_is_named_in_the_log(tmp_path):
    guarded = Guarded(tmp_path, "/nowhere/at all")
    guarded.wait()
    assert "/nowhere/at all: No such file" in guarded.log.read_text()


@pytest.mark.parametrize("address", ["local", "", "ray://head:10001"])
def test_an_address_that_starts_or_hides_a_cluster_is_refused(address):
    with pytest.raises(EngineError, match="ray start --head"):
        RayEngine(address).check()


def test_without_ray_the_remedy_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    request = WorkerRequest(uuid4().hex, ("true",), {}, 1, tmp_path / "log", "toy")
    engine = RayEngine()
    for ask in (engine.check, lambda: engine.start(request)):
        with pytest.raises(EngineError, match=r"pip install 'oocr-influence\[ray\]'"):
            ask()
    assert engine.states([request.token]) == {request.token: "gone"}
    engine.stop([request.token], firm=True)
    engine.close()
