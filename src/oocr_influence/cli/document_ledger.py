"""The launcher's records of an experiment's jobs as the data that documents are written from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.ledger import ATTEMPTS, EXIT_FILE, SPEC_FILE, STATE_FILE, read_record
from launcher.status import JobStatus, read_sweep
from launcher.worker_settings import WORKERS
from oocr_influence.reports.sweep_records import Attempt, JobRecord, Ledger
from oocr_influence.results.run_folder import ExperimentFolder

Record = Mapping[str, Any]


def read_ledger(experiment: ExperimentFolder) -> Ledger:
    """Jobs with all their attempts, who drove and worked; empty where there are no jobs."""
    folder = experiment.jobs
    if not folder.is_dir():
        return Ledger()
    sweep = read_sweep(folder)
    workers = sorted((folder / WORKERS).glob("*.json"))
    return Ledger(
        jobs=[_job(job) for job in sweep.jobs],
        driver=sweep.driver,
        stop=sweep.stop,
        workers=[_worker(path) for path in workers],
    )


def _job(job: JobStatus) -> JobRecord:
    spec = _read(job.folder / SPEC_FILE)
    return JobRecord(
        id=job.id,
        label=job.label,
        args=spec.get("args") or {},
        state=job.state,
        attempts=_attempts(job.folder),
    )


def _attempts(folder: Path) -> list[Attempt]:
    names = [path.stem for path in (folder / ATTEMPTS).glob("*.json")]
    numbers = sorted(int(name) for name in names if name.isdecimal())
    found = []
    for number in numbers:
        claim = _read(folder / ATTEMPTS / f"{number}.json")
        ended = _read(folder / ATTEMPTS / f"{number}.exit.json")
        found.append(_attempt(number, claim, ended))
    if not found and (ended := _read(folder / EXIT_FILE)):
        # Of a version that kept the last attempt alone.
        found.append(_attempt(1, _read(folder / STATE_FILE), ended))
    return found


def _attempt(number: int, claim: Record, ended: Record) -> Attempt:
    result = ended.get("result")
    run = result.get("run") if isinstance(result, Mapping) else None
    return Attempt(
        number=number,
        host=claim.get("host"),
        node=claim.get("node"),
        gpus=claim.get("gpus"),
        started_at=claim.get("started_at") or ended.get("started_at"),
        ended_at=ended.get("ended_at"),
        seconds=ended.get("seconds"),
        status=ended.get("status"),
        error=_error(ended),
        run=Path(run).name if isinstance(run, str) else None,
        patch=claim.get("patch") or {},
    )


def _error(ended: Record) -> str:
    error = ended.get("error") or {}
    said = [error.get("type"), error.get("message") or (error.get("last_lines") or [""])[-1]]
    told = ": ".join(str(part) for part in said if part)
    if not told and ended.get("status") not in (None, "ok"):
        return f"exit status {ended.get('exit_code')}"
    return told


def _worker(path: Path) -> Record:
    """Where a worker was, by its last sign of life."""
    beat = _read(path.with_suffix(".beat"))
    return {"host": beat.get("host"), "places": _read(path).get("places")}


def _read(path: Path) -> Record:
    """A record, empty where it is not there or a person has broken it."""
    try:
        return read_record(path) or {}
    except (OSError, ValueError, json.JSONDecodeError):
        return {}
