"""Requests for toy workers, and what these have said."""

import json
import sys
from pathlib import Path
from uuid import uuid4

from engine_processes import eventually

from launcher.engine import WorkerRequest

TOY = Path(__file__).parent / "toy_worker.py"


def toy(folder, *, gpus=1, seconds=300, label="toy", env=None, toy=TOY, arguments=(), token=None):
    """A worker that writes what happens to it below `folder`."""
    token = token or uuid4().hex
    return WorkerRequest(
        token=token,
        command=(sys.executable, str(toy), str(folder), str(seconds), *arguments),
        env={"LAUNCHER_WORKER": token, **(env or {})},
        gpus=gpus,
        log=folder / f"{token}.log",
        label=label,
    )


def said(request, event=None):
    """What a worker has said so far, all of it or of one kind."""
    path = Path(request.log).with_suffix(".jsonl")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    return [r for r in records if event is None or r["event"] == event]


def begun(request, times=1, seconds=30):
    """What a worker said when it began for the n-th time; waits for that."""

    def records():
        found = said(request, "begun")
        return found if len(found) >= times else None

    return eventually(records, seconds, f"{request.label} begins {times} times")[times - 1]


def becomes(engine, request, state, seconds=30):
    """Wait for a worker's state; returns all states that it had until then."""
    seen = []

    def reached():
        seen.append(engine.states([request.token])[request.token])
        return seen[-1] == state

    eventually(reached, seconds, f"{request.label} is {state}")
    return seen
