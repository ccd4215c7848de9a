"""How the runs went, as part of a replication record: timeline, completion, durations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from oocr_influence.reports.markdown import (
    UNKNOWN,
    count,
    duration,
    memory,
    moment,
    table,
    value,
)
from oocr_influence.reports.sweep_records import (
    Attempt,
    ExperimentRecord,
    JobRecord,
    RunRecord,
    Sweeps,
    stamp_of,
)
from oocr_influence.results.step_log import read_steps


def timeline(sweeps: Sweeps) -> list[str]:
    """When everything began, first came to an end, and ended; a row a run."""
    began = sorted(filter(None, (one.started_at for one in sweeps.experiments)))
    ends = sorted(
        (end, _who(job))
        for one in sweeps.experiments
        for job in one.ledger.jobs
        for end in [_done_at(job)]
        if end is not None
    )
    lines = [f"- **Start time:** {moment(began[0]) if began else _by_name(sweeps)}"]
    if ends:
        first, last = ends[0], ends[-1]
        lines.append(f"- **First completion:** {moment(first[0])} ({first[1]})")
        lines.append(f"- **Last completion:** {moment(last[0])} ({last[1]})")
    else:
        lines.append(f"- **First completion:** {_first_of_runs(sweeps)}")
    lines += _stops(sweeps)
    for one in sweeps.experiments:
        lines += ["", f"**{one.name}**", "", *_rows_of(one)]
    return [*lines, "", "### Completion Status at Termination", "", *completion(sweeps)]


def completion(sweeps: Sweeps) -> list[str]:
    """How many runs of each experiment came to their end, and what became of the others."""
    lines = []
    for one in sweeps.experiments:
        states = Counter(job.state for job in one.ledger.jobs) or Counter(
            run.status for run in one.runs
        )
        others = ", ".join(
            f"{n} {state}"
            for state, n in sorted(states.items())
            if state not in ("done", "completed")
        )
        left = sum(run.complete for run in one.runs)
        gone = f"; {left} of them still there" if left != one.n_done else ""
        lines.append(
            f"- {one.name}: {one.n_done}/{one.n_planned} runs completed{gone}"
            + (f"; the others: {others}" if others else "")
        )
        lines += [
            f"  - {job.label}: {_why(job.last)}"
            for job in one.ledger.jobs
            if job.state == "failed" and job.last is not None
        ]
    return lines


def durations(sweeps: Sweeps) -> list[str]:
    """Time and memory of each run as it measured them."""
    rows = [
        [
            one.name,
            run_label(one, run),
            value(run.args.get("epochs", UNKNOWN)),
            duration(run.logged.get("time_taken")),
            duration(_phase(run, "train", "seconds")),
            duration(_phase(run, "evaluate", "seconds")),
            duration(_phase(run, "save", "seconds")),
            _gpu_memory(run),
            memory(_most_memory(run)),
        ]
        for one, run in sweeps.runs
    ]
    if not rows:
        return ["No run is left that could say how long it took."]
    header = ["experiment", "run", "epochs", "in all", "training with what is within"]
    header += ["evaluating", "saving"]
    return table([*header, "most GPU memory", "most memory of the process"], rows)


def speed(run: RunRecord) -> float | None:
    """Labelled tokens a second of the updates alone; None where they were not logged."""
    try:
        rows = list(read_steps(run.folder.steps))
    except (OSError, ValueError):
        return None
    seconds = sum(row.seconds for row in rows)
    return sum(row.labelled_tokens for row in rows) / seconds if seconds else None


def run_label(one: ExperimentRecord, run: RunRecord) -> str:
    """A run for a person: its point of a grid, its seed."""
    seed = f"seed {run.seed}" if run.seed is not None else run.folder.name[:25]
    return f"{run.variant}, {seed}" if run.variant else seed


def _who(job: JobRecord) -> str:
    took = f" after {duration(job.last.seconds)}" if job.last else ""
    return f"{job.label}{took}"


def _done_at(job: JobRecord) -> str | None:
    return job.last.ended_at if job.state == "done" and job.last is not None else None


def _first_of_runs(sweeps: Sweeps) -> str:
    """Of runs without jobs: by the end of their training, as logged."""
    ended = sorted(
        (end, one.name)
        for one, run in sweeps.runs
        if run.complete and isinstance(end := _phase(run, "train", "end"), str)
    )
    return f"{moment(ended[0][0])} ({ended[0][1]})" if ended else UNKNOWN


def _by_name(sweeps: Sweeps) -> str:
    """The earlier system wrote no moment down but in the names of folders."""
    stamps = sorted(filter(None, (stamp_of(one.folder.name) for one in sweeps.experiments)))
    return _of_unknown_zone(stamps[0]) if stamps else UNKNOWN


def _start_of(run: RunRecord) -> str:
    collected, stamp = run.provenance.get("collected"), stamp_of(run.folder.name)
    if collected or not (run.earlier and stamp):
        return moment(collected or stamp)
    return _of_unknown_zone(stamp)


def _of_unknown_zone(stamp: str) -> str:
    return f"{stamp[:19].replace('T', ' ')} by its folder's name, time zone {UNKNOWN}"


def _stops(sweeps: Sweeps) -> list[str]:
    lines = []
    for one in sweeps.experiments:
        stop = one.ledger.stop
        if stop is not None:
            by = stop.get("by") or {}
            lines.append(
                f"- **Asked to stop:** {moment(stop.get('asked_at'))}, {one.name}, by process "
                f"{by.get('pid', UNKNOWN)} on {by.get('host', UNKNOWN)}"
            )
        interrupted = sorted(
            str(attempt.ended_at)
            for job in one.ledger.jobs
            for attempt in job.attempts
            if attempt.status in ("interrupted", "lost", "hung") and attempt.ended_at
        )
        if interrupted:
            lines.append(
                f"- **Interrupted:** {one.name}, {count(len(interrupted), 'attempt')}, the last at "
                f"{moment(interrupted[-1])}"
            )
    return lines


def _rows_of(one: ExperimentRecord) -> list[str]:
    header = ["run", "attempt", "start", "end", "took", "how it ended"]
    rows = [
        [
            job.label,
            attempt.number,
            moment(attempt.started_at),
            moment(attempt.ended_at),
            duration(attempt.seconds),
            _ending(attempt),
        ]
        for job in one.ledger.jobs
        for attempt in job.attempts
    ]
    rows += [
        [job.label, "–", "–", "–", "–", "never started"]
        for job in one.ledger.jobs
        if not job.attempts
    ]
    rows += [
        [
            run_label(one, run),
            "–",
            _start_of(run),
            moment(_phase(run, "train", "end")),
            duration(run.logged.get("time_taken")),
            run.status,
        ]
        for run in one.runs
        if one.job_of(run) is None
    ]
    return table(header, rows) if rows else [f"{UNKNOWN.capitalize()}: there is no run and no job."]


def _ending(attempt: Attempt) -> str:
    if attempt.status is None:
        return "has not ended"
    if attempt.status == "ok":
        return "ok"
    patch = f", was run with {dict(attempt.patch)}" if attempt.patch else ""
    return f"{attempt.status}: {_why(attempt)}{patch}"


def _why(attempt: Attempt) -> str:
    return attempt.error.splitlines()[0][:200] if attempt.error else "no reason was recorded"


def _phase(run: RunRecord, phase: str, name: str) -> Any:
    phases = run.logged.get("phases")
    entry = phases.get(phase) if isinstance(phases, Mapping) else None
    return entry.get(name) if isinstance(entry, Mapping) else None


def _gpu_memory(run: RunRecord) -> str:
    is_cpu = run.logged.get("device") == "cpu"
    return "no GPU" if is_cpu else memory(_phase(run, "train", "gpu_peak_bytes"))


def _most_memory(run: RunRecord) -> int | None:
    phases = run.logged.get("phases")
    if not isinstance(phases, Mapping):
        return None
    return max((entry.get("peak_rss_bytes") or 0 for entry in phases.values()), default=0) or None
