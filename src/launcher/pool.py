"""The orchestrator's side of one worker: start it on a slot, give it a job, hear how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from launcher.attempt import End, record_end, signal_name
from launcher.gpus import Slot
from launcher.jobs import TRY_AGAIN, Job
from launcher.ledger import Record, liveness, read_exit, read_state, shown_lines

_ENDING = 5.0  # seconds that a process may take to end once it has been killed


class WorkerProcess:
    """A worker pinned to a slot. Dead or alive, it answers for the job it was given."""

    def __init__(self, slot: Slot, env: dict[str, str], *, grace: float) -> None:
        self.slot = slot
        self.env = env
        self.job: Job | None = None
        self._heard = b""
        # What a worker itself says is wanted only when it dies; a file, since a pipe fills up, and
        # one without a name, since nobody may be left to remove it.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, "-m", "launcher.jobs", "worker"]
        command += ["--grace", str(grace), "--parent", str(os.getpid())]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            env={**os.environ, **slot.environment(), **env},
            # Out of the terminal's foreground group: Ctrl-C reaches the orchestrator alone.
            process_group=0,
        )
        assert self.process.stdout is not None
        self.answers = self.process.stdout.fileno()

    def give(self, job: Job) -> None:
        """Start a job; how it ended comes through `hear`, even if the worker is dead by now."""
        self.job = job
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(str(job.folder)).encode() + b"\n")

    def hear(self) -> Record | None:
        """Read what has come: an answer, or None for half of one.

        Raises `EOFError` where the worker has closed its end, as it does when it dies.
        """
        data = os.read(self.answers, 65536)
        if not data:
            raise EOFError
        self._heard += data
        line, newline, rest = self._heard.partition(b"\n")
        if not newline:
            return None
        self._heard = rest
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def stop(self) -> None:
        """Ask the worker to stop its job and end: SIGTERM, its grace period, SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the worker and all that its job started, now."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        state = self._end_orphans()
        if self.job is not None and state is not None and read_exit(self.job.folder) is None:
            record_end(self.job, state, End("interrupted", TRY_AGAIN))

    def close(self) -> None:
        """Let an idle worker end by closing its input, and wait for it."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self.process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self.kill()
        self._stderr.close()

    def lost(self) -> Record:
        """The answer of a worker that died with its job: the job's own record, or one we write."""
        assert self.job is not None
        job, code = self.job, self.process.wait()
        state = self._end_orphans()
        record = read_exit(job.folder)
        if record is not None and state is not None and record["attempt"] == state["attempt"]:
            return {"status": record["status"], "exit_code": record["exit_code"]}
        how = f"killed by {signal_name(-code)}" if code < 0 else f"ended with status {code}"
        message = f"worker lost ({how})"
        self._stderr.seek(0)
        if said := shown_lines(self._stderr.read())[-5:]:
            message += "; it said: " + " / ".join(said)
        end = End("failed", code, error_message=message)
        if state is None or not record_end(job, state, end):
            begun = state is not None
            return {"status": "failed", "exit_code": code, "refused": message, "begun": begun}
        return {"status": "failed", "exit_code": code}

    def _end_orphans(self) -> Record | None:
        """End what a dead worker's job left; the job's state, if this worker had begun it."""
        state = read_state(self.job.folder) if self.job is not None else None
        if state is None or state.get("worker") != self.process.pid:
            return None
        if state["pid"] != self.process.pid:
            # The child dies with its worker; what it started is in its group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(state["pid"], signal.SIGKILL)
        deadline = time.monotonic() + _ENDING
        while liveness(state) == "alive" and time.monotonic() < deadline:
            time.sleep(0.01)
        return state
