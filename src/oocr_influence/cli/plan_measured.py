"""What earlier runs of the same model on the same device took, out of their own records."""

from __future__ import annotations

import socket
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.plan_hardware import Hardware, sheet_of
from oocr_influence.results.experiment_log import LoggedExperiment, read_experiment_log
from oocr_influence.results.finding import find_runs
from oocr_influence.results.run_folder import DATA_MODELING_RUNS, RunFolder
from oocr_influence.results.step_log import read_steps

RUNS_LOOKED_AT = 5  # of those that match; logs may be large
# What an update takes depends on these; on tokens it is taken to depend in proportion.
_OF_AN_UPDATE = (
    "model",
    "precision",
    "optimizer",
    "gradient_checkpointing",
    "lora_rank",
    "chunk_size",
    "packing",
    "batch_size",
    "micro_batch_size",
    "attention",
    "compile",
    "processes",
    "deterministic",
)
_FIRST_UPDATES = 3  # kernels are chosen and memory is first taken in them


@dataclass(frozen=True)
class Measured:
    """Seconds and bytes that were seen; None where nothing was."""

    source: str
    seconds_per_label: float | None
    """Of an update, by labelled token."""
    evaluation_seconds: float | None
    """Of one evaluation of the same questions, after the start's."""
    beside_seconds: float | None
    """Of a run: preparing, loading, waiting for the disk."""
    memory_bytes: int | None
    """The peak: of the GPU, or of the process on a CPU."""


def measured_before(
    outputs: Path, args: TrainingArgs, hardware: Hardware, suite: str | None
) -> Measured | None:
    """Medians over the newest finished runs in `outputs` that match; None if none does.

    Runs on subsets and runs on all documents stand for each other where there are none of a kind,
    but for what a run takes beside its updates and evaluations.
    """
    if not outputs.is_dir():
        return None
    on_subsets = args.subset_split is not None
    found = _newest(outputs, args, hardware, suite, on_subsets=on_subsets)
    if not found:
        others = _newest(outputs, args, hardware, suite, on_subsets=not on_subsets)
        found = [replace(one, beside_seconds=None) for one in others]
    if not found:
        return None
    peaks = [one.memory_bytes for one in found if one.memory_bytes is not None]
    return Measured(
        source=f"{len(found)} earlier run{'s' * (len(found) > 1)}, such as {found[0].source}",
        seconds_per_label=_median(one.seconds_per_label for one in found),
        evaluation_seconds=_median(one.evaluation_seconds for one in found),
        beside_seconds=_median(one.beside_seconds for one in found),
        memory_bytes=max(peaks, default=None),
    )


def _newest(
    outputs: Path, args: TrainingArgs, hardware: Hardware, suite: str | None, *, on_subsets: bool
) -> list[Measured]:
    asked, found = args.model_dump(mode="json"), []
    for run, logged in _finished(outputs, on_subsets=on_subsets):
        if is_alike(logged, asked, hardware):
            found.append(measured_run(run, logged, asked, suite))
        if len(found) == RUNS_LOOKED_AT:
            break
    return found


def _finished(outputs: Path, *, on_subsets: bool) -> Iterator[tuple[RunFolder, LoggedExperiment]]:
    """Runs in one go, the newest first."""
    for run in sorted(find_runs(outputs), key=lambda run: run.name, reverse=True):
        if (run.path.parent.name in DATA_MODELING_RUNS) != on_subsets:
            continue
        try:
            logged = read_experiment_log(run.experiment_log)
        except (OSError, ValueError):
            continue
        if logged.status == "completed" and "resumed" not in logged.log_dict:
            yield run, logged


def is_alike(logged: LoggedExperiment, asked: Mapping[str, Any], hardware: Hardware) -> bool:
    """Whether a run's updates are of the kind that is asked about, on such a device."""
    about, args = logged.log_dict, logged.args or {}
    if any(args.get(name) != asked[name] for name in _OF_AN_UPDATE if name != "precision"):
        return False
    if _precision(args.get("precision"), hardware) != _precision(asked["precision"], hardware):
        return False
    if asked["model_commit"] is not None and about.get("model_commit") != asked["model_commit"]:
        return False
    if not str(about.get("device", "")).startswith(hardware.kind):
        return False
    provenance = about.get("provenance") or {}
    if hardware.kind == "cpu":
        return bool(provenance.get("host") == socket.gethostname())
    names = {gpu.get("name") for gpu in provenance.get("gpus") or []}
    return hardware.name in names | {sheet_of(name) for name in names}


def _precision(stated: Any, hardware: Hardware) -> Any:
    """What `auto` is there."""
    return stated if stated != "auto" else "bf16" if hardware.kind == "cuda" else "fp32"


def measured_run(
    run: RunFolder, logged: LoggedExperiment, asked: Mapping[str, Any], suite: str | None
) -> Measured:
    """What one finished run took; its evaluations where they were of `suite`."""
    about, phases = logged.log_dict, logged.log_dict.get("phases") or {}
    rows = list(read_steps(run.steps)) if run.steps.exists() else []
    usual = rows[_FIRST_UPDATES:] or rows
    asks_alike = (
        about.get("eval_suite_digest") == suite
        and (logged.args or {}).get("beam_search") == asked["beam_search"]
        and (logged.args or {}).get("ranks") == asked["ranks"]
    )
    later = [
        60 * float(entry.eval_time)
        for entry in logged.history
        if entry.step_num and isinstance(entry.eval_time, float | int)
    ]

    def seconds_of(phase: str) -> float:
        return float((phases.get(phase) or {}).get("seconds", 0.0))

    losses = phases.get("document_losses") or {}
    per_loss = seconds_of("document_losses") / max(int(losses.get("count", 0)), 1)
    training = sum(row.seconds for row in rows)
    asking = seconds_of("evaluate") + seconds_of("document_losses")
    taken = about.get("time_taken")
    train = phases.get("train") or {}
    return Measured(
        source=run.name,
        seconds_per_label=_median(row.seconds / max(row.labelled_tokens, 1) for row in usual),
        evaluation_seconds=statistics.median(later) + per_loss if asks_alike and later else None,
        beside_seconds=(
            None
            if taken is None
            else max(0.0, float(taken) + seconds_of("prepare") - training - asking)
        ),
        memory_bytes=train.get("gpu_peak_bytes") or train.get("peak_rss_bytes"),
    )


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
