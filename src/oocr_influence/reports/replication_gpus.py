"""Where the runs ran, as part of a replication record: machines, GPUs, which job had which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from oocr_influence.reports.markdown import UNKNOWN, code, count, memory, table
from oocr_influence.reports.sweep_records import Attempt, ExperimentRecord, JobRecord, Sweeps


def gpu_allocation(sweeps: Sweeps) -> list[str]:
    """The machines with their GPUs, and which job had which."""
    lines = ["Machines, as the runs saw them:", ""]
    machines: dict[str, list[Mapping[str, Any]] | None] = {}
    for _, run in sweeps.runs:
        if run.provenance.get("host"):
            machines.setdefault(str(run.provenance["host"]), run.provenance.get("gpus"))
    lines += [f"- {host}: {_gpus(gpus)}" for host, gpus in sorted(machines.items())]
    lines += [] if machines else [f"- {UNKNOWN}: no run wrote down where it ran"]
    for one in sweeps.experiments:
        lines += ["", f"**{one.name}**", "", *_of_experiment(one)]
    return lines


def _gpus(gpus: Sequence[Mapping[str, Any]] | None) -> str:
    if gpus is None:
        return f"GPUs {UNKNOWN}"
    if not gpus:
        return "no GPU"
    counted = Counter(
        f"{gpu.get('name', UNKNOWN)} ({memory(gpu.get('memory_bytes'))}, driver "
        f"{gpu.get('driver', UNKNOWN)})"
        for gpu in gpus
    )
    return ", ".join(f"{n} × {name}" for name, n in sorted(counted.items()))


def _of_experiment(one: ExperimentRecord) -> list[str]:
    driver = one.ledger.driver
    lines = []
    if driver is not None:
        who = driver.get("driver") or {}
        lines = [
            f"- Engine {code(driver.get('engine', UNKNOWN))}, GPUs a run: "
            f"{driver.get('gpus_per_job', UNKNOWN)}, runs at the same time: at most "
            f"{driver.get('at_once', UNKNOWN)}, last driven by process "
            f"{who.get('pid', UNKNOWN)} on {who.get('host', UNKNOWN)}",
        ]
    if one.ledger.workers:
        hosts = Counter(str(worker.get("host") or UNKNOWN) for worker in one.ledger.workers)
        told = ", ".join(f"{n} on {host}" for host, n in sorted(hosts.items()))
        lines.append(f"- {count(len(one.ledger.workers), 'worker')}: {told}")
    rows = [
        [job.label, attempt.number, _machine(attempt), _places(attempt), _device(one, job)]
        for job in one.ledger.jobs
        for attempt in job.attempts
    ]
    if rows:
        header = ["run", "attempt", "machine", "CUDA_VISIBLE_DEVICES", "device"]
        return [*lines, "", *table(header, rows)]
    devices = {str(run.logged.get("device", UNKNOWN)) for run in one.runs}
    return [*lines, f"- No job's record says which GPU it had; devices: {', '.join(devices)}"]


def _machine(attempt: Attempt) -> str:
    host = attempt.host or UNKNOWN
    return host if attempt.node in (None, host) else f"{host}, node {attempt.node}"


def _places(attempt: Attempt) -> str:
    if attempt.gpus is None:
        return UNKNOWN
    return attempt.gpus or "none: a core"


def _device(one: ExperimentRecord, job: JobRecord) -> str:
    found = {str(run.logged["device"]) for run in one.runs_of(job) if "device" in run.logged}
    return ", ".join(sorted(found)) or UNKNOWN
