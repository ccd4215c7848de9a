"""What one run takes, out of what was seen before, else by formulas whose terms are told.

figures = figures_of_run(preparation, counts, asked, hardware, mfu=0.4, seen=None)
figures.seconds(counts.updates, len(counts.evaluations))    # a Figure
"""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from oocr_influence.cli.device_memory import gibibytes, needed_bytes, trained_layout
from oocr_influence.cli.plan_counts import AskedCounts, RunCounts
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
from oocr_influence.cli.plan_measured import Measured
from oocr_influence.cli.preparation import Preparation
from oocr_influence.models.load import load_config, pick_dtype


@dataclass(frozen=True)
class RunFigures:
    """What an update, an evaluation and the rest of a run take (seconds), and its peak (bytes)."""

    update: Figure
    evaluation: Figure
    beside: Figure
    memory: Figure

    def seconds(self, updates: float, n_evaluations: float) -> Figure:
        """Of a run of so many updates and evaluations."""
        return _run_seconds(updates, n_evaluations, self.update, self.evaluation, self.beside)


def figures_of_run(
    preparation: Preparation,
    counts: RunCounts,
    asked: AskedCounts,
    hardware: Hardware,
    *,
    mfu: float,
    seen: Measured | None,
) -> RunFigures:
    """What is known of a run on this hardware; `seen` goes before formulas."""
    hardware = hardware.at(preparation.args.precision)
    shape = shape_of(load_config(preparation.resolved))
    beside = unknown("loading, preparing and waiting for the disk: no run of this model was seen")
    if seen is not None and seen.beside_seconds is not None:
        beside = Figure(seen.beside_seconds, "measured here", seen.source)
    return RunFigures(
        update=_update_seconds(preparation, counts, shape, hardware, mfu, seen),
        evaluation=_evaluation_seconds(preparation, asked, shape, hardware, mfu, seen),
        beside=beside,
        memory=_peak_memory(preparation, shape, hardware, seen),
    )


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


def _run_seconds(
    updates: float, n_evaluations: float, update: Figure, evaluation: Figure, beside: Figure
) -> Figure:
    if update.value is None or (evaluation.value is None and n_evaluations):
        return unknown("an update's or an evaluation's time is")
    asking = n_evaluations * (evaluation.value or 0.0)
    value = updates * update.value + asking + (beside.value or 0.0)
    how = f"{_count(updates)} updates + {_count(n_evaluations)} evaluations"
    how += " + the rest" if beside.value is not None else "; loading and saving come beside it"
    known = [figure for figure in (update, evaluation, beside) if figure.value is not None]
    basis = weakest(known) if beside.value is not None else "projected"
    return Figure(value, basis, how)


def _peak_memory(
    preparation: Preparation, shape: Shape | None, hardware: Hardware, seen: Measured | None
) -> Figure:
    if seen is not None and seen.memory_bytes is not None:
        return Figure(seen.memory_bytes, "measured here", f"the peak of {seen.source}")
    if shape is None:
        return unknown("the configuration names its sizes otherwise")
    args = preparation.args
    config = load_config(preparation.resolved)
    layout = trained_layout(args)
    state = needed_bytes(args, config)
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


def _count(mean: float) -> str:
    return f"{mean:,.1f}".removesuffix(".0")
