"""Who has this machine's GPUs, or its cores where it has none, and who waits for one.

    oocr gpus

Holders are told by the leases that all sweeps of all users on this machine share; strangers, such
as a notebook, by the NVIDIA driver.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.claims import last_claim
from launcher.gpus import places, used_by_strangers, visible_gpus
from launcher.host import Host, living
from launcher.ledger import Record
from launcher.outcomes import duration
from launcher.status import JobStatus, read_sweep
from launcher.usage import GpuUsage, gpu_usage
from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.cli.sweeps import name_of


class GpusArguments(CommandArguments):
    """Of this machine."""


@dataclass(frozen=True)
class Held:
    """Who has a GPU or a core."""

    user: str
    sweep: str
    job: JobStatus | None


def main(args: GpusArguments) -> int:
    """Print a line a GPU, or a line a core, then who waits; returns 0."""
    try:
        shared = places(visible_gpus())
        host = Host()
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    with host.arbiter():
        found = [seen.record for seen in living(host.claimants)]
    # Of whatever version of us: what says nothing of places is left out.
    claimants = [record for record in found if {"holds", "wants", "each", "user"} <= record.keys()]
    held = {lock: who for record in claimants for lock, who in _held(record).items()}
    usage = gpu_usage(shared.values())
    others = set(used_by_strangers(shared, [int(record["pid"]) for record in claimants]))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in (
        "GPU" if any(shared.values()) else "core",
        "load",
        "memory",
        "held by",
        "sweep",
        "job",
        "for",
        "others",
    ):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for lock, gpu in shared.items():
        strangers = _strangers(usage.get(gpu)) if lock in others else ""
        table.add_row(Text(gpu or lock), *_usage(usage.get(gpu)), *_who(held.get(lock)), strangers)
    console = Console() if sys.stdout.isatty() else Console(width=1000)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())
    for record in claimants:
        if record["wants"]:
            each = f" of {record['each']}" if record["each"] > 1 else ""
            sweep = name_of(Path(str(record.get("folder", ""))))
            print(f"waiting: {record['user']}, {sweep}: {record['wants']} jobs{each}")
    return 0


def _held(record: Record) -> dict[str, Held]:
    """Each GPU or core of a claimant, with its job."""
    folder = Path(str(record.get("folder") or ""))
    jobs: list[JobStatus] = []
    with contextlib.suppress(OSError):
        jobs = [job for job in read_sweep(folder).of("running", "stopping") if _is_of(job, record)]
    found = {}
    for lock in record["holds"]:
        # A core has no name that a job could know it by: its jobs are told in any order.
        fits = [job for job in jobs if lock in _locks(job)] or [j for j in jobs if not j.gpus]
        job = fits[0] if fits else None
        if job is not None and not job.gpus:
            jobs.remove(job)
        found[lock] = Held(str(record["user"]), name_of(folder), job)
    return found


def _is_of(job: JobStatus, record: Record) -> bool:
    claim: dict[str, Any] = last_claim(job.folder) or {}
    own = (record["pid"], record["host"])
    return (claim.get("worker_pid"), claim.get("host")) == own


def _locks(job: JobStatus) -> set[str]:
    gpus = [gpu for gpu in job.gpus.split(",") if gpu]
    try:
        return set(places(gpus)) if gpus else set()
    except (ValueError, RuntimeError):
        return set()


def _usage(used: GpuUsage | None) -> tuple[str, str]:
    if used is None:
        return "", ""
    total = used.memory_total / 2**30
    return f"{used.load} %", f"{used.memory_used / 2**30:.1f} of {total:.0f} GiB"


def _who(held: Held | None) -> tuple[Text, Text, Text, str]:
    if held is None:
        return Text("free"), Text(), Text(), ""
    job = held.job
    seconds = duration(job.seconds) if job is not None and job.seconds is not None else ""
    return Text(held.user), Text(held.sweep), Text(job.id if job else ""), seconds


def _strangers(used: GpuUsage | None) -> Text:
    """Processes on a GPU that belong to no sweep; in a container, that there is something."""
    told = []
    for pid in used.pids if used is not None else ():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            told.append(f"{process.username()}: {process.name()} ({pid})")
    return Text(", ".join(told) or "used by others")


if __name__ == "__main__":
    run_command(GpusArguments, main)
