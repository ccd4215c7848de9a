"""What a run was run with, since it cannot be recovered later: code, versions, machine, phases.

Nothing here is fatal: what cannot be found out is recorded as None.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from oocr_influence.results.digests import text_digest

LIBRARIES = (
    "oocr-influence",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "safetensors",
    "huggingface-hub",
    "numpy",
    "pyarrow",
    "pydantic",
    "torchao",
    "peft",
    "triton",
)
# Variables that change numbers, devices or threads; others may hold secrets and stay unread.
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUBLAS_WORKSPACE_CONFIG",
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTORCH_CUDA_ALLOC_CONF",
    "SLURM_JOB_ID",
    "TOKENIZERS_PARALLELISM",
)
MAX_DIFF_CHARACTERS = 5_000_000


def collect_provenance(disk: Path | None = None, *, diff: str | None = None) -> dict[str, Any]:
    """Versions, code, machine and GPUs of this process, as plain JSON.

    `disk` is the folder whose free space is recorded. `diff` is what `working_tree_diff` gave,
    where it is kept; here stand its digest and whether there is one. `command` is what Python was
    given, `command_line` the whole line as this process was started, shell quoting undone.
    """
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(disk or Path.cwd()).free
    return {
        "collected": _now(),
        **command_given(),
        "python": platform.python_version(),
        "libraries": installed(LIBRARIES),
        "git": _git_state(diff),
        "host": socket.gethostname(),
        "user": _user(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
        "cpus_allowed": _cpus_allowed(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": _gpus(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "disk_free_bytes": free,
    }


def command_given() -> dict[str, Any]:
    """How this process was started, and where."""
    folder = None
    with suppress(OSError):  # deleted meanwhile
        folder = str(Path.cwd())
    return {
        "command": list(sys.argv),
        "command_line": list(sys.orig_argv),
        "working_directory": folder,
    }


def command_entry() -> dict[str, Any]:
    """The same with its moment and its process, for a list of all commands of an experiment."""
    return {"at": _now(), "host": socket.gethostname(), "pid": os.getpid(), **command_given()}


def diff_between(one: str, other: str) -> str | None:
    """How the package's code differs between two commits; None where the checkout lacks either."""
    root = _checkout()
    if root is None:
        return None
    # After "--" nothing is taken for an option; a commit comes from a file that anyone may write.
    if any(_git(root, "cat-file", "-e", f"{commit}^{{commit}}") is None for commit in (one, other)):
        return None
    diff = _git(root, "diff", "--no-color", "--no-ext-diff", one, other, "--", "*.py")
    return None if diff is None else _cut(diff)


def working_tree_diff() -> str | None:
    """How the package's checkout differs from its commit, Python files not yet added included.

    None outside a checkout, empty in a clean one.
    """
    root = _checkout()
    if root is None:
        return None
    # By hand-written flags, since a person's settings may colour or redirect a diff.
    plain_diff = ["diff", "--no-color", "--no-ext-diff"]
    parts = [_git(root, *plain_diff, "HEAD") or ""]
    for name in _lines(_git(root, "ls-files", "--others", "--exclude-standard", "--", "*.py")):
        # Against nothing, git says "differs" by exit status 1.
        parts.append(_git(root, *plain_diff, "--no-index", os.devnull, name, statuses=(0, 1)) or "")
    return _cut("".join(parts))


def _cut(diff: str) -> str:
    if len(diff) <= MAX_DIFF_CHARACTERS:
        return diff
    return diff[:MAX_DIFF_CHARACTERS] + f"\n[cut: {len(diff)} characters in all]\n"


class Phases:
    """When each phase of a run began and ended, and how much memory it took at most.

        phases = Phases()
        with phases("tokenise") as record:
            record["documents"] = 4000
        log.update(phases=phases.record)

    A phase entered again (each evaluation, each save) adds to its `seconds` and `count`.
    """

    def __init__(self) -> None:
        self.record: dict[str, dict[str, Any]] = {}
        # Peaks seen so far by the phases that are open, outermost first.
        self._peaks: list[int] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[dict[str, Any]]:
        """Record the body as phase `name`; yields its entry, which may take further values."""
        entry = self.record.setdefault(
            name, {"start": _now(), "end": None, "seconds": 0.0, "count": 0, "peak_rss_bytes": 0}
        )
        self._note_peak()
        _reset_peak()
        self._peaks.append(0)
        begun = time.monotonic()
        try:
            yield entry
        except BaseException as error:
            entry["failed"] = type(error).__name__
            raise
        finally:
            self._note_peak()
            peak = self._peaks.pop()
            entry["end"] = _now()
            entry["seconds"] += time.monotonic() - begun
            entry["count"] += 1
            entry["peak_rss_bytes"] = max(entry["peak_rss_bytes"], peak)

    def add(self, name: str, seconds: float) -> None:
        """Add a body that ran beside the phases that are open, in another thread."""
        entry = self.record.setdefault(
            name, {"start": _now(), "end": None, "seconds": 0.0, "count": 0, "peak_rss_bytes": 0}
        )
        entry["end"] = _now()
        entry["seconds"] += seconds
        entry["count"] += 1

    def _note_peak(self) -> None:
        """A phase inside resets the system's mark, so what it reached counts for those around."""
        peak = _peak_rss()
        self._peaks = [max(known, peak) for known in self._peaks]


def peak_memory(body: Callable[[], None]) -> int:
    """Run the body; returns the most memory that this process held meanwhile (bytes)."""
    _reset_peak()
    body()
    return _peak_rss()


def _reset_peak() -> None:
    # Linux forgets a process's peak on request; elsewhere peaks are those since its start.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_rss() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


def _git_state(diff: str | None) -> dict[str, Any] | None:
    root = _checkout()
    if root is None:
        return None
    diff = working_tree_diff() if diff is None else diff
    return {
        "commit": (_git(root, "rev-parse", "HEAD") or "").strip() or None,
        "branch": (_git(root, "rev-parse", "--abbrev-ref", "HEAD") or "").strip() or None,
        "dirty": bool(diff),
        "diff_digest": text_digest(diff) if diff else None,
    }


@cache
def _checkout() -> Path | None:
    """The checkout that the package is part of; not one that merely holds its environment."""
    package = Path(__file__).resolve().parents[1]
    root = _git(package, "rev-parse", "--show-toplevel")
    if root is None or _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return Path(root.strip())


def _git(folder: Path, *words: str, statuses: tuple[int, ...] = (0,)) -> str | None:
    # Without optional locks: four runs that start at once must not disturb a person's git.
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode in statuses else None


def _lines(text: str | None) -> list[str]:
    return (text or "").splitlines()


def installed(names: Iterable[str]) -> dict[str, str | None]:
    """Versions of these packages; None for one that is not there."""
    return {name: _version(name) for name in names}


@cache  # a process has loaded what it has, whatever is installed meanwhile
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> list[dict[str, Any]]:
    """The machine's GPUs by NVML; none where there is no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library, no driver, no permission: each says "no GPU to name"
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        driver = pynvml.nvmlSystemGetDriverVersion()
        return [
            {
                "index": index,
                "name": pynvml.nvmlDeviceGetName(handle),
                "uuid": pynvml.nvmlDeviceGetUUID(handle),
                "memory_bytes": pynvml.nvmlDeviceGetMemoryInfo(handle).total,
                "driver": driver,
            }
            for index, handle in enumerate(handles)
        ]
    except Exception:  # a GPU that fell off the bus must not end a run that does not use it
        return []
    finally:
        with suppress(Exception):
            pynvml.nvmlShutdown()


def _cpu() -> str | None:
    """The processor's name: its instructions decide the last bits of sums."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None


def _cpus_allowed() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count()


def _user() -> str | None:
    with suppress(KeyError, OSError):
        return getpass.getuser()
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
