"""Workers as Slurm's batch jobs, by its own commands: one job a worker, no Python package.

Single jobs and not an array: a worker is asked for when there is work for it, an array is asked for
at once, and its members would share one name. A worker's token is the job's comment and the end of
its name; the job's number is never relied on, since a controller that was killed may give it twice.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from launcher.engine import EngineError, EngineUnreachable, WorkerRequest, WorkerState
from launcher.slurm_settings import SlurmSettings

__all__ = ["SlurmEngine", "SlurmSettings"]

_TOKEN = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
# A job that was preempted or whose node failed, and that Slurm runs again, is shown by these or as
# PENDING: slurmctld changes its state in one piece, so that it is never seen as ended meanwhile.
_QUEUED = {
    *("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
}
_RUNNING = {
    # Of a job that completes, processes may still be there, and hold a GPU.
    *("RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "SUSPENDED", "STOPPED"),
    *("RESIZING", "SIGNALING"),
}
_TRANSIENT = re.compile(
    r"unable to contact|timed out|connection|temporarily|zero bytes|communication|standby|transport"
    r"|munge|auth.* credential|protocol authentication|in maintenance|try again",
    re.IGNORECASE,
)
# A driver that is itself a job of Slurm's has these; its workers must get their own.
_KEPT = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_TIME_FORMAT"}
_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
_COMMAND_SECONDS = 60.0


class SlurmEngine:
    """Slots from Slurm; a driver that is started anew finds its workers there by their tokens."""

    name = "slurm"
    jobs_per_worker: int | None = 1

    def __init__(self, settings: SlurmSettings | None = None, *, gpus: int = 1) -> None:
        self.settings = settings or SlurmSettings()
        self.max_in_flight = self.settings.max_in_flight
        self._gpus = gpus  # of a worker, for `check` alone
        self._accounting = True
        self._doubtful: set[str] = set()  # tokens whose submission failed
        self._killed: set[str] = set()

    def check(self) -> None:
        """Whether Slurm is here, answers, and would take a worker: EngineError if not."""
        if missing := [p for p in ("sbatch", "squeue", "scancel") if not shutil.which(p)]:
            raise EngineError(
                f"Slurm's {', '.join(missing)} not found on PATH: start the sweep on a login node, "
                "or without --execution_mode slurm"
            )
        self._jobs(set())
        try:
            tried = _run(
                ["sbatch", "--test-only", "--output=/dev/null", *self.settings.flags(self._gpus)],
                "#!/bin/sh\n",
            )
        except subprocess.TimeoutExpired:
            raise EngineUnreachable("sbatch does not answer") from None
        if tried.returncode:
            raise EngineError(
                f"Slurm would not take a worker with {self._gpus} GPUs: {_said(tried)} "
                "(`sinfo` shows partitions and nodes; see the settings file)"
            )

    def start(self, request: WorkerRequest) -> None:
        """Submit a worker, once for a token however often this is called."""
        # An earlier call may have been cut off after Slurm had taken the job.
        if self._jobs({request.token}):
            return
        name = re.sub(r"[^\w.-]+", "_", request.label, flags=re.ASCII)[:60].strip("_") or "worker"
        command = [
            "sbatch",
            "--parsable",
            f"--job-name={name}-{request.token}",
            f"--comment={request.token}",
            "--export=ALL",
            f"--output={_output(request)}",
            *self.settings.flags(request.gpus),
        ]
        if request.token in self._doubtful:
            # Should an unanswered submission still come through, the two never run at once.
            command.append("--dependency=singleton")
        self._doubtful.add(request.token)
        try:
            done = _run(command, batch_script(request))
        except subprocess.TimeoutExpired:
            done = None
        if (done is not None and done.returncode == 0) or self._jobs({request.token}):
            self._doubtful.discard(request.token)
            return
        if done is None or _TRANSIENT.search(done.stderr):
            said = "no answer" if done is None else _said(done)
            raise EngineUnreachable(f"sbatch: {said}")
        raise EngineError(
            f"Slurm refused worker {request.label!r}: {_said(done)} "
            "(where it is a limit on submitted jobs, lower max_in_flight in the settings file)"
        )

    def states(self, tokens: Sequence[str]) -> dict[str, WorkerState]:
        """One squeue for all; a second opinion of sacct and scontrol on those it does not list."""
        jobs = self._jobs(set(tokens))
        answer = {token: _worker_state(jobs.get(token, {}).values()) for token in tokens}
        unlisted = {token for token in tokens if token not in jobs}
        for token, numbers in self._active_by_accounting(unlisted).items():
            answer[token] = _worker_state(map(self._controllers_word, numbers))
        return answer

    def stop(self, tokens: Sequence[str], *, firm: bool) -> None:
        """Cancel queued workers; running ones are sent SIGTERM, or killed with their children.

        A firm stop asked for a second time cancels the job in any state, such as one that is just
        being launched and that no signal reaches yet.
        """
        jobs = self._jobs(set(tokens))
        numbers = [
            number
            for states in jobs.values()
            for number, state in states.items()
            if _worker_state([state]) != "gone"
        ]
        if not numbers:
            return
        self._cancel("--state=PENDING", *numbers)
        # To the batch step, which is the worker: a signal to the whole job is a SIGTERM first, and
        # SIGKILL only after the site's KillWait.
        self._cancel(
            "--state=RUNNING", "--batch", f"--signal={'KILL' if firm else 'TERM'}", *numbers
        )
        if firm and (again := self._killed.intersection(tokens)):
            self._cancel(*(number for token in again for number in jobs.get(token, ())))
        if firm:
            self._killed.update(tokens)

    def close(self) -> None:
        """Nothing to do: jobs live on."""

    def _cancel(self, *arguments: str) -> None:
        try:
            done = _run(["scancel", *arguments])
        except subprocess.TimeoutExpired:
            raise EngineUnreachable("scancel does not answer") from None
        # That a job has ended meanwhile is an error to scancel, and none to us.
        if done.returncode and re.search(r"unable to contact|timed out", done.stderr, re.I):
            raise EngineUnreachable(f"scancel: {_said(done)}")

    def _jobs(self, tokens: set[str]) -> dict[str, dict[str, str]]:
        """{token: {job number: state}} of this user's jobs that the controller knows."""
        command = ["squeue", "--all", "--states=all", "--noheader", f"--user={os.getuid()}"]
        try:
            done = _run([*command, "--format=%i|%T|%k|%j"])
        except FileNotFoundError:
            raise EngineError("Slurm's squeue is not on PATH") from None
        except subprocess.TimeoutExpired:
            raise EngineUnreachable("squeue does not answer") from None
        if done.returncode:
            raise EngineUnreachable(f"squeue: {_said(done)}")
        return jobs_of(done.stdout, tokens)

    def _active_by_accounting(self, tokens: set[str]) -> dict[str, dict[str, str]]:
        """Of `tokens`, those whose jobs have not ended by the accounting database's word."""
        if not (tokens and self._accounting and shutil.which("sacct")):
            return {}
        command = ["sacct", "--noheader", "--parsable2", "--allocations", f"--user={os.getuid()}"]
        when = [
            "--state=PENDING,RUNNING,SUSPENDED,REQUEUED",
            "--starttime=now-14days",
            "--endtime=now",
        ]
        try:
            done = _run([*command, *when, "--format=JobIDRaw,State,JobName"])
        except subprocess.TimeoutExpired:
            return {}  # the controller has spoken already
        if done.returncode:
            self._accounting = "disabled" not in done.stderr
            return {}
        return jobs_of(done.stdout, tokens)

    def _controllers_word(self, number: str) -> str:
        """The state of a job by slurmctld; it alone knows whether a job still runs."""
        try:
            done = _run(["scontrol", "--oneliner", "show", "job", number])
        except subprocess.TimeoutExpired:
            raise EngineUnreachable("scontrol does not answer") from None
        if done.returncode:
            if "invalid job id" in done.stderr.lower():
                return "UNKNOWN"
            raise EngineUnreachable(f"scontrol: {_said(done)}")
        found = re.search(r"\bJobState=(\w+)", done.stdout)
        return found[1] if found else "UNKNOWN"


def jobs_of(listing: str, tokens: set[str]) -> dict[str, dict[str, str]]:
    """Read lines of `number|STATE|anything with the token`: {token: {number: state}}."""
    found: dict[str, dict[str, str]] = {}
    for line in listing.splitlines():
        parts = line.strip().split("|", 2)
        if len(parts) == 3 and parts[0].isdigit():
            for token in tokens.intersection(_TOKEN.findall(parts[2])):
                found.setdefault(token, {})[parts[0]] = parts[1].split(" ")[0]
    return found


def _worker_state(states: Iterable[str]) -> WorkerState:
    seen = set(states)
    if seen & _RUNNING:
        return "running"
    return "queued" if seen & _QUEUED else "gone"


def batch_script(request: WorkerRequest) -> bytes:
    """The script that becomes the worker, so that Slurm's signals reach the worker itself."""
    env = dict(request.env)
    if not request.gpus:
        env["CUDA_VISIBLE_DEVICES"] = ""  # unset, all GPUs of the node would be seen
    if wrong := [name for name in env if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)]:
        raise EngineError(f"no names of environment variables: {wrong}")
    lines = [
        "#!/bin/sh",
        f"exec >>{quoted(str(request.log))} 2>&1",
        *(f"export {name}={quoted(value)}" for name, value in env.items()),
        "exec " + " ".join(map(quoted, request.command)),
    ]
    return os.fsencode("\n".join(lines) + "\n")


def quoted(text: str) -> str:
    """A word of the shell's for any text without NUL."""
    # sbatch refuses a script with \r\n in it, so a \r is printed where it is used.
    return "\"$(printf '\\r')\"".join(shlex.quote(part) for part in text.split("\r"))


def _output(request: WorkerRequest) -> str:
    """Where Slurm's own remarks go, such as why it ended a job: to the log, if it can name it."""
    plain = re.fullmatch(r"/[\w./ +=,@:-]+", str(request.log))
    return str(request.log) if plain else "/dev/null"


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name in _KEPT or not (name.startswith("SLURM") or name in _GPU_VARIABLES)
    }


def _run(command: list[str], script: bytes | str = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        input=script.encode() if isinstance(script, str) else script,
        capture_output=True,
        check=False,
        timeout=_COMMAND_SECONDS,
        env=_environment(os.environ),
    )
    texts = (done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    return subprocess.CompletedProcess(command, done.returncode, *texts)


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """What a command of Slurm's complained of, in one line."""
    lines = [re.sub(r"^\w+: (error: )?", "", line) for line in done.stderr.splitlines()]
    return "; ".join(line for line in lines if line) or f"exit status {done.returncode}"
