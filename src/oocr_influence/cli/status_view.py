"""What `oocr status` shows of sweeps: as a table, as a line each, as JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from launcher.ledger import utc_now
from launcher.outcomes import duration
from launcher.status import JobStatus, State, SweepStatus
from launcher.usage import GpuUsage
from oocr_influence.cli.sweeps import folder_of, name_of

STYLES: dict[State, str] = {
    "running": "cyan",
    "stopping": "yellow",
    "interrupted": "yellow",
    "failed": "red",
    "done": "green",
    "waiting": "dim",
}
# Where there is no room for all: those first that a person has to look at.
FIRST: tuple[State, ...] = ("running", "stopping", "failed", "interrupted", "waiting", "done")


@dataclass(frozen=True)
class DiskUse:
    """What lies in an experiment's folder."""

    n_bytes: int
    complete: bool
    """Whether there was time to see all of it."""

    def __str__(self) -> str:
        return ("" if self.complete else "more than ") + size(self.n_bytes)


def sweep_block(
    sweep: SweepStatus, disk: DiskUse, gpus: Mapping[str, GpuUsage], rows: int
) -> Group:
    """One sweep, a line a job, at most `rows` of them."""
    table = _table("job", "state", "GPU", "load", "step", "loss", "evaluation")
    for name in ("gone", "left", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("said last", overflow="ellipsis", no_wrap=True)
    shown = sweep.jobs
    if len(shown) > rows:
        shown = sorted(shown, key=lambda job: FIRST.index(job.state))[:rows]
    for job in shown:
        table.add_row(*_cells(job, gpus))
    left_out = len(sweep.jobs) - len(shown)
    more = [Text(f"… and {left_out:,} more jobs", style="dim")] if left_out else []
    return Group(
        Text(name_of(sweep.folder), style="bold"),
        Text(_summary(sweep, disk)),
        table,
        *more,
        *([Text(note, style="yellow")] if (note := _note(sweep)) else []),
    )


def sweeps_block(sweeps: Sequence[SweepStatus], disk_of: Callable[[Path], DiskUse]) -> Table:
    """A line a sweep, and one of sums."""
    table = _table("sweep", "jobs")
    for name in ("done", "running", "waiting", "interrupted", "failed", "left", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("driven by", overflow="ellipsis", no_wrap=True)
    total_bytes, complete = 0, True
    for sweep in sweeps:
        used = disk_of(sweep.folder)
        total_bytes, complete = total_bytes + used.n_bytes, complete and used.complete
        driven = f"{sweep.driven_by()}{', stopping' if sweep.stop_asked and sweep.is_live else ''}"
        named = Text(name_of(sweep.folder))
        table.add_row(named, *_counted([sweep]), _time(time_left(sweep)), str(used), Text(driven))
    if len(sweeps) > 1:
        used = DiskUse(total_bytes, complete)
        table.add_row(Text("all"), *_counted(sweeps), "", str(used), "", style="bold")
    return table


def as_json(
    sweeps: Sequence[SweepStatus],
    disk_of: Callable[[Path], DiskUse],
    gpus: Mapping[str, GpuUsage],
) -> dict[str, Any]:
    """For scripts; docs/sweeps.md lists the keys, which stay. What nobody knows is null."""
    return {
        "read_at": utc_now(),
        "sweeps": [_sweep_json(sweep, disk_of(sweep.folder)) for sweep in sweeps],
        "gpus": {
            name: {
                "load_percent": used.load,
                "memory_used_bytes": used.memory_used,
                "memory_total_bytes": used.memory_total,
            }
            for name, used in gpus.items()
        },
    }


def time_left(sweep: SweepStatus) -> float | None:
    """Seconds until the sweep is done, if all goes on as it does; None where nothing tells."""
    running, waiting = sweep.of("running", "stopping"), sweep.of("waiting", "interrupted")
    if not running:
        return None
    left = [job.seconds_left for job in running if job.seconds_left is not None]
    wholes = [job.seconds for job in sweep.of("done") if job.seconds]
    wholes += [
        job.seconds + job.seconds_left
        for job in running
        if job.seconds_left is not None and job.seconds is not None
    ]
    if not wholes or (len(left) < len(running) and not left):
        return None
    still = statistics.fmean(left) * len(running) + statistics.fmean(wholes) * len(waiting)
    return max(still / len(running), max(left))


def size(n_bytes: float) -> str:
    """1.5 GB, 320 MB, 2.1 TB: decimal units, as disks are sold."""
    for unit, one in (("TB", 1e12), ("GB", 1e9)):
        if n_bytes >= one:
            return f"{n_bytes / one:,.1f} {unit}"
    return f"{n_bytes / 1e6:,.0f} MB"


def _sweep_json(sweep: SweepStatus, disk: DiskUse) -> dict[str, Any]:
    driver = None
    if sweep.driver is not None:
        driver = {
            "pid": sweep.driver["driver"]["pid"],
            "host": sweep.driver["driver"]["host"],
            "alive": sweep.driver_alive,
            "engine": sweep.driver.get("engine"),
            "started_at": sweep.driver.get("started_at"),
            "ended_at": sweep.driver.get("ended_at"),
        }
    return {
        "name": name_of(sweep.folder),
        "folder": str(folder_of(sweep.folder)),
        "live": sweep.is_live,
        "driver": driver,
        "stop_asked_at": (sweep.stop or {}).get("asked_at"),
        "counts": sweep.counts(),
        "seconds_left": _plain(time_left(sweep)),
        "disk_bytes": disk.n_bytes,
        "disk_complete": disk.complete,
        "jobs": [_job_json(job) for job in sweep.jobs],
    }


def _job_json(job: JobStatus) -> dict[str, Any]:
    evaluation = job.report.get("evaluation")
    return {
        "id": job.id,
        "state": job.state,
        "attempt": job.attempt,
        "gpus": [gpu for gpu in job.gpus.split(",") if gpu],
        "host": job.host or None,
        "pid": job.pid,
        "started_at": job.started_at,
        "seconds": _plain(job.seconds),
        "seconds_left": _plain(job.seconds_left),
        "silent_seconds": _plain(job.silent_seconds),
        "completed": _plain(job.number("completed")),
        "total": _plain(job.number("total")),
        "loss": _plain(job.number("loss")),
        "evaluation": evaluation if isinstance(evaluation, str) else None,
        "disk_bytes": _plain(job.number("disk_bytes")),
        "message": job.message or None,
        "log": str(job.log),
    }


def _plain(number: float | None) -> float | None:
    # NaN is no JSON; a loss that diverged is told by the message.
    return number if number is not None and math.isfinite(number) else None


def _table(*left: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in left:
        table.add_column(name, no_wrap=True)
    return table


def _cells(job: JobStatus, gpus: Mapping[str, GpuUsage]) -> list[Text | str]:
    done, total, loss = job.number("completed"), job.number("total"), job.number("loss")
    count = "" if done is None else f"{done:g}" + (f"/{total:g}" if total else "")
    own = [gpus[name] for name in job.gpus.split(",") if name in gpus]
    load = f"{statistics.fmean(used.load for used in own):.0f} %" if own else ""
    disk = job.number("disk_bytes")
    where = job.gpus or ("core" if job.state in ("running", "stopping") else "")
    if job.alive == "unknown":
        where += f" of {job.host}"
    evaluation = job.report.get("evaluation")
    return [
        Text(job.id),
        Text(job.state, style=STYLES[job.state]),
        Text(where),
        load,
        count,
        "" if loss is None else f"{loss:.3f}",
        Text(evaluation if isinstance(evaluation, str) else ""),
        _time(job.seconds),
        _time(job.seconds_left),
        "" if disk is None else size(disk),
        Text(job.message),
    ]


def _summary(sweep: SweepStatus, disk: DiskUse) -> str:
    counts = [f"{number:,} {state}" for state, number in sweep.counts().items() if number]
    left = time_left(sweep)
    parts = [
        f"{len(sweep.jobs):,} jobs: {', '.join(counts) or 'none'}",
        *([f"{duration(left)} left"] if left is not None else []),
        f"disk {disk}",
        f"driven by {sweep.driven_by()}",
    ]
    return "; ".join(parts)


def _note(sweep: SweepStatus) -> str:
    if sweep.is_live:
        return "asked to stop" + (" at once" if sweep.stop_asked > 1 else "") if sweep.stop else ""
    if sweep.is_done:
        return f"check it with: oocr verify {folder_of(sweep.folder)}"
    return f"go on with: oocr resume {folder_of(sweep.folder)}"


def _counted(sweeps: Sequence[SweepStatus]) -> list[str]:
    def of(*states: State) -> str:
        return f"{sum(sweep.counts()[state] for sweep in sweeps for state in states):,}"

    whole = f"{sum(len(sweep.jobs) for sweep in sweeps):,}"
    return [
        whole,
        of("done"),
        of("running", "stopping"),
        of("waiting"),
        of("interrupted"),
        of("failed"),
    ]


def _time(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)
