"""One run in processes of its own, a GPU each: started, watched, and ended together.

    run_in_processes(args, control)      as `run_once(args, control)`, where args.processes > 1

This process trains nothing: it passes on what the run reports and asks, and what it is told to do.
If one of them fails or is killed, all end at once, and the first error is raised here with the
process's own traceback as a note. They die with this one. (torchrun's agent does the same, but ends
its processes on SIGTERM at once, where a run has to come to the end of its step and be saved.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from launcher.gpus import available_cpus, visible_gpus
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.micro_batch import settle
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import Preparation, prepare
from oocr_influence.cli.run_context import Control, RunStopped
from oocr_influence.results.experiment_log import ExperimentLog
from oocr_influence.results.run_folder import RunFolder

logger = logging.getLogger("oocr_influence")

_LOOK = 0.2  # seconds between two looks whether to stop
_LAST_WORDS = 3.0  # seconds that the others have after the first failure
_END = 30.0  # seconds that they have after the leader's end


class ProcessDiedError(RuntimeError):
    """A process of a run was killed, or ended without a word."""


def run(
    args: TrainingArgs,
    control: Control | None = None,
    preparation: Preparation | None = None,
    *,
    unfinished: RunFolder | None = None,
) -> dict[str, Any]:
    """`run_once`, in as many processes as the run takes."""
    if args.processes == 1:
        return run_once(args, control, preparation, unfinished=unfinished)
    if args.micro_batch_size == "auto":
        args = settle(preparation or prepare(args)).args
    return run_in_processes(args, control or Control(), unfinished=unfinished)


def check_processes(args: TrainingArgs) -> list[str]:
    """The GPU of each process, as CUDA_VISIBLE_DEVICES names it; all empty where there is none.

    Raises UsageError if there are too few, or this torch cannot do it. A run of one process takes
    the GPU that torch takes.
    """
    if args.processes == 1:
        return []
    from oocr_influence.models.sharding import can_shard  # loads what FSDP takes

    if not can_shard():
        raise UsageError(
            f"--processes {args.processes}: this torch cannot sum gradients over processes, as its "
            "FSDPModule has no set_force_sum_reduction_for_comms: install a newer one"
        )
    gpus = visible_gpus() or [""] * args.processes
    if len(gpus) < args.processes:
        raise UsageError(
            f"--processes {args.processes} takes a GPU each, but only {len(gpus)} can be seen: "
            "lower it, or name more in CUDA_VISIBLE_DEVICES"
        )
    return gpus[: args.processes]


def run_in_processes(
    args: TrainingArgs, control: Control, *, unfinished: RunFolder | None = None
) -> dict[str, Any]:
    """Train and ask one model in `args.processes` processes; returns and raises as `run_once`.

    Raises ProcessDiedError as well.
    """
    gpus = check_processes(args)
    with tempfile.TemporaryDirectory(prefix="oocr_run_") as folder:
        about = {
            "args": args.model_dump(mode="json"),
            "unfinished": None if unfinished is None else str(unfinished.path),
            "meeting": str(Path(folder, "meeting")),
            "size": len(gpus),
            "parent": os.getpid(),
        }
        processes: list[_Process] = []
        try:
            for rank, gpu in enumerate(gpus):
                processes.append(_Process(rank, gpu, about))
            return _Watch(processes, control).until_the_end()
        finally:
            for process in processes:
                process.kill()


class _Process:
    """One process of the run, and the line to it."""

    def __init__(self, rank: int, gpu: str, about: dict[str, Any]) -> None:
        self.rank = rank
        self.ready = False
        self.last: tuple[Any, ...] | None = None
        """What it said of its end."""
        threads = max(1, available_cpus() // about["size"])
        environment = {
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            **os.environ,
            "CUDA_VISIBLE_DEVICES": gpu,  # which is cuda:0 to it, as to any run
            "LOCAL_RANK": "0",  # what torch takes for the number of its GPU
        }
        self.line, its_end = Pipe()
        with its_end:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "oocr_influence.cli.run_process", str(its_end.fileno())],
                pass_fds=[its_end.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        self.line.send({**about, "rank": rank})

    def ask_to_stop(self) -> None:
        self._popen.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(max(0.0, seconds))

    def death(self) -> ProcessDiedError:
        """How it ended, of one that has gone without a word."""
        self.wait(1.0)
        code = self._popen.returncode
        how = f"with exit status {code}"
        if code is not None and code < 0:
            how = f"by {signal.Signals(-code).name}"
        return ProcessDiedError(
            f"process {self.rank} of this run ended {how}; the others were ended, too"
        )

    def kill(self) -> None:
        """End it, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.kill()
        self._popen.wait()
        self.line.close()


class _Watch:
    """Hears all processes until the run ends."""

    def __init__(self, processes: list[_Process], control: Control) -> None:
        self._processes, self._leader, self._control = processes, processes[0], control
        self._open: dict[Connection, _Process] = {one.line: one for one in processes}
        self._folder: Path | None = None
        self._asked_to_stop = False

    def until_the_end(self) -> dict[str, Any]:
        """The leader's result; raises what ended the run."""
        while self._leader.last is None and not self._failed():
            if self._leader.ready and not self._asked_to_stop and self._control.stop_requested():
                self._asked_to_stop = True
                self._leader.ask_to_stop()
            self._hear(_LOOK)
        if self._failed():
            self._give_time(_LAST_WORDS)
            raise self._first_failure()
        assert self._leader.last is not None
        self._give_time(_END)
        kind, *rest = self._leader.last
        if kind == "stopped":
            raise RunStopped(rest[0], Path(rest[1]))
        result: dict[str, Any] = rest[0]
        return result

    def _hear(self, seconds: float) -> None:
        for line in wait(list(self._open), seconds):
            assert isinstance(line, Connection)
            process = self._open[line]
            try:
                self._take(process, line.recv())
            except (EOFError, ConnectionError):
                del self._open[line]
                if process.last is None:
                    process.last = ("died", process.death())

    def _take(self, process: _Process, message: tuple[Any, ...]) -> None:
        kind, *rest = message
        if kind == "ready":
            process.ready = True
        elif kind == "report":
            self._control.report(rest[0])
        elif kind == "folder":
            self._folder = Path(rest[0])
        elif kind == "may_save":
            process.line.send(self._control.may_save())
        else:
            process.last = message

    def _failed(self) -> bool:
        return any(
            one.last is not None and one.last[0] in ("failed", "died") for one in self._processes
        )

    def _give_time(self, seconds: float) -> None:
        """Hear what the others still have to say; then they are ended."""
        until = time.monotonic() + seconds
        while self._open and time.monotonic() < until:
            self._hear(min(_LOOK, until - time.monotonic()))

    def _first_failure(self) -> BaseException:
        """The error that the others' follow from, noted in the run's log."""
        for process in self._processes:
            process.kill()
        ends = [(one, one.last) for one in self._processes if one.last is not None]
        died = [(one, last) for one, last in ends if last[0] == "died"]
        failed = sorted(((one, last) for one, last in ends if last[0] == "failed"), key=_when)
        process, last = (died or failed)[0]
        error: BaseException = last[1]
        if process is not self._leader or last[0] == "died":
            self._note(error)
        return error

    def _note(self, error: BaseException) -> None:
        """Write into the run's log what its own process could not know."""
        logger.error("failed: %s", error)
        if self._folder is None or not self._control.may_save():
            return
        run = RunFolder(self._folder)
        with contextlib.suppress(OSError, ValueError):
            log = ExperimentLog.resume(run.experiment_log)
            log.update(status="failed", error=f"{type(error).__name__}: {error}")
            log.write()
            run.release()


def _when(end: tuple[_Process, tuple[Any, ...]]) -> float:
    moment: float = end[1][2]
    return moment
