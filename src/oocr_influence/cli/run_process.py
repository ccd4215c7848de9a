"""One of the processes of a run: `python -m oocr_influence.cli.run_process DESCRIPTOR`.

Started by `run_processes.py`, which says over that descriptor what to do and hears how it goes.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from launcher.isolation import die_with_parent
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.run_context import Control, RunStopped
from oocr_influence.cli.run_record import log_lines_to
from oocr_influence.cli.run_team import help_run
from oocr_influence.models.team import Team, connected
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.training.determinism import deterministic_algorithms


class RunProcessError(RuntimeError):
    """An error of a process that cannot be told in its own type."""


class _Line:
    """The leader's line to the process that started it; its threads take turns."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def report(self, values: Mapping[str, Any]) -> None:
        self.say("report", dict(values))

    def may_save(self) -> bool:
        with self._lock:
            self._connection.send(("may_save",))
            return bool(self._connection.recv())

    def say(self, *message: Any) -> None:
        with self._lock:
            self._connection.send(message)


def main(descriptor: int) -> int:
    """Do this process's part of a run; returns the exit status."""
    connection = Connection(descriptor)
    about = connection.recv()
    die_with_parent(about["parent"], signal.SIGKILL)
    line = _Line(connection)
    leads = about["rank"] == 0
    stop = threading.Event()
    # A terminal's Ctrl-C and a scheduler's SIGTERM reach all; when to stop is said to the leader.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, (lambda *_: stop.set()) if leads else signal.SIG_IGN)
    line.say("ready")
    try:
        with connected(about["rank"], about["size"], Path(about["meeting"])) as team:
            result = None
            if leads:
                result = _lead(about, line, stop, team)
            else:
                _help(about, team)
    except RunStopped as stopped:
        line.say("stopped", str(stopped), str(stopped.folder))
    except BaseException as error:
        moment = time.monotonic()
        error.add_note(f"in process {about['rank']} of the run:\n{traceback.format_exc()}")
        line.say("failed", _portable(error), moment)
        return 1
    else:
        line.say("done", result)
    return 0


def _lead(about: dict[str, Any], line: _Line, stop: threading.Event, team: Team) -> dict[str, Any]:
    control = Control(
        report=line.report,
        stop_requested=stop.is_set,
        may_save=line.may_save,
        began=lambda folder: line.say("folder", str(folder)),
    )
    unfinished = None if about["unfinished"] is None else RunFolder(Path(about["unfinished"]))
    with log_lines_to(logging.StreamHandler()):
        args = TrainingArgs.model_validate(about["args"])
        return run_once(args, control, unfinished=unfinished, team=team)


def _help(about: dict[str, Any], team: Team) -> None:
    from transformers.utils import logging as transformers_logging

    # All this is said by the leader.
    logging.getLogger("oocr_influence").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    args = TrainingArgs.model_validate(about["args"])
    with deterministic_algorithms(args.deterministic):
        help_run(args, team)


def _portable(error: BaseException) -> BaseException:
    """The error, or one that says the same, if it does not survive the way to another process."""
    try:
        again: BaseException = pickle.loads(pickle.dumps(error))
        if str(again) == str(error):
            return error
    except Exception:  # whatever a class's own constructor raises
        pass
    told = RunProcessError(f"{type(error).__name__}: {error}")
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told


if __name__ == "__main__":
    status = main(int(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    # An ordinary exit waits for the connections to the others, which may be gone.
    os._exit(status)
