"""The largest micro-batch that fits, by trial: one small update at each of a few growing sizes.

    trials = try_sizes(model, windows, settings, batch_size=8, limit_bytes=limit)
    largest_that_fits(trials, limit)            # None if not even one window does

A size is tried only where the sizes before it say that it will fit, so that a trial ends neither in
a lack of memory nor, on a CPU, in the kernel's killing some process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from oocr_influence.datasets.packing import PackedWindows
from oocr_influence.training.loop import Attention, accumulate_gradients
from oocr_influence.training.optimizer import OptimizerSettings, make_optimizer


@dataclass(frozen=True)
class Trial:
    """One update of two micro-batches of `size` windows each."""

    size: int
    peak_bytes: int
    """Of the device's memory, everything of this process counted in."""
    seconds: float


Measure = Callable[[Callable[[], None]], int]
"""Calls what it is given and returns the most memory that the process held meanwhile (bytes)."""


def sizes_up_to(batch_size: int) -> list[int]:
    """1, 2, 4, … and the whole batch: larger micro-batches than a batch do not exist."""
    powers = [2**i for i in range(batch_size.bit_length()) if 2**i < batch_size]
    return [*powers, batch_size]


def predicted_bytes(trials: Sequence[Trial], size: int) -> float:
    """The peak at the next size: a line through the last two, or twice what one window took."""
    if len(trials) < 2:
        return 2.0 * trials[-1].peak_bytes if trials else 0.0
    before, last = trials[-2], trials[-1]
    slope = max(0, last.peak_bytes - before.peak_bytes) / (last.size - before.size)
    return last.peak_bytes + slope * (size - last.size)


def largest_that_fits(trials: Sequence[Trial], limit_bytes: float) -> int | None:
    """None if no size did."""
    fitting = [trial.size for trial in trials if trial.peak_bytes <= limit_bytes]
    return max(fitting, default=None)


def try_sizes(
    model: Any,
    windows: PackedWindows,
    settings: OptimizerSettings,
    *,
    batch_size: int,
    limit_bytes: float,
    measure: Measure,
    attention: Attention = "dense",
) -> list[Trial]:
    """Updates at rate 0 over the longest windows, at growing sizes while they fit.

    The weights are left as they are, but for the gradients' room. A size that a GPU has no room for
    ends the trials and is in none of them.
    """
    optimizer = make_optimizer(model, settings)
    lengths = (windows.segments >= 0).sum(axis=1)
    longest = [int(row) for row in np.argsort(-lengths, kind="stable")]
    trials: list[Trial] = []
    for size in sizes_up_to(batch_size):
        if trials and predicted_bytes(trials, size) > limit_bytes:
            break
        # Gradients are added to those that are there from the second micro-batch on.
        rows = [longest[i % len(longest)] for i in range(2 * size)]

        def update(rows: list[int] = rows, size: int = size) -> None:
            model.train()
            accumulate_gradients(
                model,
                windows,
                rows,
                micro_batch_size=size,
                attention=attention,
                z_loss=settings.z_loss,
            )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        try:
            if not trials:
                update()  # makes the moments
            began = time.perf_counter()
            peak = measure(update)
        except torch.OutOfMemoryError:
            break
        trials.append(Trial(size, peak, time.perf_counter() - began))
    return trials
