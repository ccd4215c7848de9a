"""The plan of a sweep as plain JSON: what it does, what it takes, and what each number rests on.

    plan = plan_sweep(args, planned, hardware_of(), mfu=0.4)
    plan["whole"]["seconds"]            # {"value": 5400.0, "basis": "projected", "how": "…"}

Counts are exact. Seconds and memory are measured where earlier runs, or a probe, have seen the
same; else they follow from formulas whose terms are told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import psutil
import torch

from launcher.ledger import utc_now
from oocr_influence.cli.device_memory import gibibytes, needed_bytes, trained_layout
from oocr_influence.cli.grid import point_label
from oocr_influence.cli.plan_counts import AskedCounts, RunCounts, count_asked, count_run
from oocr_influence.cli.plan_figures import Figure, unknown, weakest
from oocr_influence.cli.plan_formulas import (
    Shape,
    activation_bytes,
    forward_flops,
    head_bytes,
    mean_context,
    shape_of,
    training_flops,
)
from oocr_influence.cli.plan_hardware import Hardware
from oocr_influence.cli.plan_measured import Measured, measured_before
from oocr_influence.cli.preparation import OTHER_BYTES_PER_RUN, Preparation
from oocr_influence.cli.sweep_arguments import DataModelingArgs
from oocr_influence.cli.sweep_plan import Planned, needed
from oocr_influence.models.load import load_config, pick_dtype
from oocr_influence.results.atomic import plain
from oocr_influence.results.cache import Cache

MFU = 0.4
"""Share of a GPU's peak that is used: 0.33 to 0.46 are published for training 7 and 8 billion
parameters (torchtitan, llm-foundry), and evaluations on an H100 reach 0.42 (docs/log.md)."""

Measure = Callable[[Planned, AskedCounts], Measured | None]


def plan_sweep(
    args: DataModelingArgs,
    planned: Sequence[Planned],
    hardware: Hardware,
    *,
    mfu: float = MFU,
    measure: Measure | None = None,
) -> dict[str, Any]:
    """Points, and the whole on this hardware; `measure` looks for what has been seen before."""

    def look(one: Planned, asked: AskedCounts) -> Measured | None:
        commit = {"model_commit": one.preparation.resolved.commit}
        run = one.preparation.args.model_copy(update=commit)
        return measured_before(args.output_dir, run, hardware, asked.suite)

    cache = Cache.default() if args.eval_cache else None
    points = [_point(one, hardware, mfu, measure or look, cache) for one in planned]
    at_once = _runs_at_once(args, planned, hardware)
    found: dict[str, Any] = plain(
        {
            "made": utc_now(),
            "hardware": {**asdict(hardware), "runs_at_once": at_once},
            "mfu": mfu,
            "points": points,
            "whole": _whole(args, planned, points, at_once, hardware),
        }
    )
    return found


def _point(
    one: Planned, hardware: Hardware, mfu: float, measure: Measure, cache: Cache | None
) -> dict[str, Any]:
    preparation = one.preparation
    hardware = hardware.at(preparation.args.precision)
    counts = count_run(preparation)
    asked = count_asked(one, hardware.kind, cache)
    shape = shape_of(load_config(preparation.resolved))
    seen = measure(one, asked)
    update = _update_seconds(preparation, counts, shape, hardware, mfu, seen)
    evaluation = _evaluation_seconds(preparation, asked, shape, hardware, mfu, seen)
    beside = unknown("loading, preparing and waiting for the disk: no run of this model was seen")
    if seen is not None and seen.beside_seconds is not None:
        beside = Figure(seen.beside_seconds, "measured here", seen.source)
    return {
        "label": point_label(one.point),
        "n_runs": len(one.runs),
        "run": {**asdict(counts), "updates": counts.updates},
        "asked": asdict(asked),
        "update_seconds": update.to_json(),
        "evaluation_seconds": evaluation.to_json(),
        "beside_seconds": beside.to_json(),
        "run_seconds": _run_seconds(counts, update, evaluation, beside).to_json(),
        "memory_bytes": _memory(preparation, shape, hardware, seen).to_json(),
        "checkpoint_bytes": preparation.checkpoint_bytes(),
        "run_bytes_at_most": preparation.run_bytes(),
        "passing_bytes": preparation.passing_bytes(),
    }


def _update_seconds(
    preparation: Preparation,
    counts: RunCounts,
    shape: Shape | None,
    hardware: Hardware,
    mfu: float,
    seen: Measured | None,
) -> Figure:
    if seen is not None and seen.seconds_per_label is not None:
        labels = counts.labels / counts.steps_per_epoch
        value = seen.seconds_per_label * labels
        return Figure(value, "measured here", f"{labels:,.0f} labels an update, as {seen.source}")
    if shape is None or hardware.flops is None:
        return unknown(_why_no_time(shape))
    args = preparation.args
    tokens = counts.trained_tokens / counts.updates
    context = mean_context(preparation.windows.segments)
    flops = training_flops(
        shape,
        tokens,
        context,
        recomputed=args.gradient_checkpointing,
        adapter=args.lora_rank is not None,
    )
    rate = mfu * hardware.flops * args.processes
    how = (
        f"{flops:.3g} FLOP ({tokens:,.0f} tokens, {shape.n_in_products:,} weights in products, "
        f"{context:,.0f} tokens attended to) / ({mfu:g} MFU × {_units(hardware, args.processes)})"
    )
    return Figure(flops / rate, "projected", how)


def _evaluation_seconds(
    preparation: Preparation,
    asked: AskedCounts,
    shape: Shape | None,
    hardware: Hardware,
    mfu: float,
    seen: Measured | None,
) -> Figure:
    if seen is not None and seen.evaluation_seconds is not None:
        return Figure(seen.evaluation_seconds, "measured here", f"the same sets, as {seen.source}")
    if shape is None or hardware.flops is None:
        return unknown(_why_no_time(shape))
    args = preparation.args
    flops = forward_flops(shape, asked.scored_tokens, asked.scored_context)
    flops += forward_flops(shape, asked.loss_tokens, args.chunk_size / 2)
    how = (
        f"{flops:.3g} FLOP ({asked.scored_tokens:,} tokens of questions, {asked.loss_tokens:,} of "
        f"documents) / ({mfu:g} MFU × {_units(hardware, args.processes)})"
    )
    if asked.beam_prompts and args.beam_search != "never":
        how += f"; beam search of {asked.beam_prompts:,} prompts is unknown and comes beside it"
    return Figure(flops / (mfu * hardware.flops * args.processes), "projected", how)


def _why_no_time(shape: Shape | None) -> str:
    if shape is None:
        return "no run of this model was seen, and its configuration names its sizes otherwise"
    return (
        "no run of this model on this device was seen, and its peak is not known: --probe "
        "measures, --device_flops states"
    )


def _units(hardware: Hardware, processes: int) -> str:
    assert hardware.flops is not None
    peak = f"{hardware.flops / 1e12:g} TFLOP/s"
    return peak if processes == 1 else f"{processes} × {peak}"


def _run_seconds(counts: RunCounts, update: Figure, evaluation: Figure, beside: Figure) -> Figure:
    if update.value is None or (evaluation.value is None and counts.evaluations):
        return unknown("an update's or an evaluation's time is")
    n = len(counts.evaluations)
    value = counts.updates * update.value + n * (evaluation.value or 0.0) + (beside.value or 0.0)
    how = f"{counts.updates:,} updates + {n} evaluations"
    how += " + the rest" if beside.value is not None else "; loading and saving come beside it"
    known = [figure for figure in (update, evaluation, beside) if figure.value is not None]
    basis = weakest(known) if beside.value is not None else "projected"
    return Figure(value, basis, how)


def _memory(
    preparation: Preparation, shape: Shape | None, hardware: Hardware, seen: Measured | None
) -> Figure:
    if seen is not None and seen.memory_bytes is not None:
        return Figure(seen.memory_bytes, "measured here", f"the peak of {seen.source}")
    if shape is None:
        return unknown("the configuration names its sizes otherwise")
    args = preparation.args
    config = load_config(preparation.resolved)
    layout = trained_layout(args)
    state: float = needed_bytes(args, config)
    if args.processes > 1:  # shares in training, and all weights while the model is asked
        asked = state * (layout.weight + layout.optimizer / args.processes) / layout.trained
        state = max(state / args.processes, asked)
    size = 1 if args.micro_batch_size == "auto" else args.micro_batch
    tokens = size * args.chunk_size
    bytes_each = torch.empty((), dtype=pick_dtype(args.precision, torch.device(hardware.kind)))
    element = bytes_each.itemsize
    kept = activation_bytes(shape, tokens, element, recomputed=args.gradient_checkpointing)
    head = head_bytes(shape, tokens, hardware.kind, element)
    how = (
        f"{gibibytes(state)} state ({layout.trained:.4g} bytes a trained parameter) + "
        f"{gibibytes(kept)} activations of {size} × {args.chunk_size:,} tokens + {gibibytes(head)} "
        "loss"
    )
    if hardware.kind == "cuda":
        how += "; what libraries hold comes beside it"
        return Figure(state + kept + head, "projected", how)
    # Libraries and the dataset, which a run has in memory as this process has them.
    here = int(psutil.Process().memory_info().rss)
    how += f" + {gibibytes(here)} that this process holds already"
    return Figure(state + kept + head + here, "projected", how)


def _runs_at_once(args: DataModelingArgs, planned: Sequence[Planned], hardware: Hardware) -> int:
    if args.execution_mode == "in_process":
        return 1
    each = max(1, args.gpus_per_job) if hardware.kind == "cuda" else 1
    slots = max(1, hardware.units // each)
    n_runs = sum(len(one.runs) for one in planned)
    return max(1, min(slots, args.max_workers or slots, n_runs))


def _whole(
    args: DataModelingArgs,
    planned: Sequence[Planned],
    points: Sequence[dict[str, Any]],
    at_once: int,
    hardware: Hardware,
) -> dict[str, Any]:
    runs = [point for point in points for _ in range(point["n_runs"])]
    each = max(1, args.gpus_per_job)
    seconds = _makespan(args, runs, at_once)
    busy = sum(run["run_seconds"]["value"] or 0.0 for run in runs)
    gpu_hours = unknown("a run's time is")
    if hardware.kind == "cpu":
        gpu_hours = Figure(0.0, "counted", "no GPU is used")
    elif seconds.value is not None:
        gpu_hours = Figure(busy * each / 3600, seconds.basis, "all runs, each on its GPUs")
    least, most = disk_bounds(planned)
    return {
        "runs": len(runs),
        "updates": sum(run["run"]["updates"] for run in runs),
        "evaluations": sum(len(run["run"]["evaluations"]) for run in runs),
        "checkpoints": sum(len(run["run"]["checkpoints"]) for run in runs),
        "questions": sum(
            len(run["run"]["evaluations"]) * run["asked"]["questions"] for run in runs
        ),
        "tokens": sum(run["run"]["trained_tokens"] for run in runs),
        "seconds": seconds.to_json(),
        "gpu_hours": gpu_hours.to_json(),
        "disk_bytes": [least, most],
        "disk_reserved": needed(args, list(planned)),
    }


def _makespan(args: DataModelingArgs, runs: Sequence[dict[str, Any]], at_once: int) -> Figure:
    """Jobs in their order, each to the first place that is free.

    What the untouched model answers is asked once: jobs that begin later find it.
    """
    figures = [Figure(**run["run_seconds"]) for run in runs]
    if any(figure.value is None for figure in figures):
        return unknown("a run's time is")
    free = [0.0] * at_once
    asked: set[str] = set()
    for run, figure in zip(runs, figures, strict=True):
        seconds = figure.value or 0.0
        place = min(range(at_once), key=free.__getitem__)
        starts = "start" in run["run"]["evaluations"] and args.eval_cache and not args.metric_files
        if starts and run["asked"]["suite"] in asked and free[place] > 0:
            seconds -= run["evaluation_seconds"]["value"] or 0.0
        asked.add(run["asked"]["suite"])
        free[place] += seconds
    how = f"{len(runs)} runs, {at_once} at a time, in the order of their jobs"
    return Figure(max(free), weakest(figures), how)


def disk_bounds(planned: Sequence[Planned]) -> tuple[int, int]:
    """What a sweep leaves on the disk, at least and at most (bytes).

    Weights and the copy of the dataset are known; windows, records and logs are at most what is
    reserved for them. The first checkpoint is stored once for all runs of the same model.
    """
    least = planned[0].preparation.args.structured_dataset.stat().st_size
    starts: set[tuple[Any, ...]] = set()
    for one in planned:
        preparation = one.preparation
        others = preparation.run_bytes() - OTHER_BYTES_PER_RUN
        if any(moment.step == 0 for moment in preparation.checkpoints):
            others -= preparation.checkpoint_bytes()
            args, layout = preparation.args, trained_layout(preparation.args)
            kind = (args.model, args.revision, layout.weight, args.lora(), args.keep_checkpoints)
            if kind not in starts:
                least += preparation.checkpoint_bytes()
            starts.add(kind)
        least += others * len(one.runs)
    return least, least + OTHER_BYTES_PER_RUN * sum(len(one.runs) for one in planned)
