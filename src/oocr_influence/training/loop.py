"""The training loop: packed windows in a seeded order, one optimizer step a batch.

What happens between steps (evaluations, checkpoints, logs) is given as callables; the loop does not
know what they do. Letters: B windows of a micro-batch, T tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch.profiler import record_function

from oocr_influence.datasets.order import window_order
from oocr_influence.datasets.packing import IGNORED, IntArray, PackedWindows
from oocr_influence.models.loss import WindowBatch, labelled_places, window_loss
from oocr_influence.models.packed_attention import Kernel, lay_out, sent
from oocr_influence.training.clipping import scale_down, total_norm
from oocr_influence.training.optimizer import OptimizerSettings, make_optimizer, set_rate
from oocr_influence.training.schedule import LearningRate, Schedule
from oocr_influence.training.state import Place, State, capture, restore
from oocr_influence.training.vanishing import UpdateLosses, UpdateSample

Snapshot = Callable[[], State]
Attention = Literal["dense"] | Kernel
"""How attention stays within documents: by a mask, or by one of `packed_attention`'s kernels."""


@dataclass(frozen=True)
class StepLog:
    """One update: `loss` is the token-mean cross-entropy of its batch, `seconds` its wall time.

    `step` counts from 1; burn-in steps (rate 0) are counted apart, from 1 as well.
    """

    step: int
    epoch: float
    learning_rate: float
    loss: float
    grad_norm: float
    clip_factor: float
    labelled_tokens: int
    windows: list[int]
    seconds: float
    burn_in: bool
    losses_of_update: UpdateLosses | None = None
    """What rounding took of it; None where it was not measured."""


class NonFiniteLossError(FloatingPointError):
    """The loss or the gradient of a step is no number; nothing of that step was applied."""


class Shared(Protocol):
    """How a step is made where the model is shared out over processes (training/shared.py)."""

    def seed(self, seed: int) -> int: ...

    def accumulate_gradients(
        self,
        windows: PackedWindows,
        batch: Sequence[int],
        *,
        micro_batch_size: int,
        attention: Attention = "dense",
        z_loss: float = 0.0,
    ) -> tuple[float, int]: ...

    def clip(self, max_norm: float | None) -> tuple[float, float]: ...

    def gathered(self, state: State) -> State: ...

    def spread(self, state: State, optimizer: torch.optim.Optimizer) -> State: ...


def train(
    model: Any,
    windows: PackedWindows,
    schedule: Schedule,
    rate: LearningRate,
    settings: OptimizerSettings,
    *,
    data_order_seed: int,
    micro_batch_size: int,
    attention: Attention = "dense",
    after_step: Callable[[int, Snapshot], None],
    log_step: Callable[[StepLog], None],
    before_update: Callable[[], None] = lambda: None,
    after_update: Callable[[Snapshot], None] = lambda _: None,
    start: Callable[[], State | None] = lambda: None,
    measured_steps: Collection[int] = (),
    shared: Shared | None = None,
) -> IntArray:
    """Train `model` in place; returns how often each window entered the loss, (N,).

    `after_step(step, snapshot)` is called at step 0, before any update, and after each step.
    Burn-in comes before step 1 and after `after_step(0, …)`. `before_update()` is called when the
    gradients are there: until it returns no weight changes. `after_update(snapshot)` is called
    after every update, those of burn-in included. Both may raise to stop. `snapshot()` is the state
    of this moment in the model's own tensors, which are its until the next `before_update`. Where
    `start()` returns a state, of another process perhaps, training goes on from there, and
    `after_step` is called for its step once more. What rounding takes of an update is measured at
    `measured_steps`, which changes none. `shared` makes the steps of a model of several processes,
    all of which call this; a snapshot then takes all of them too. Raises NonFiniteLossError.
    """
    # Dropout, where a model has it, draws from torch's global generator.
    torch.manual_seed(data_order_seed if shared is None else shared.seed(data_order_seed))
    optimizer = make_optimizer(model, settings, seed=data_order_seed)
    sample = UpdateSample(optimizer, data_order_seed) if measured_steps else None
    exposures: IntArray = np.zeros(len(windows), dtype=np.int64)
    place = Place()
    if (state := start()) is not None:
        own = state if shared is None else shared.spread(state, optimizer)
        place, exposures = restore(own, model, optimizer)
        del own
    del state  # three times the model's size

    def snapshot() -> State:
        state = capture(model, optimizer, place, exposures)
        return state if shared is None else shared.gathered(state)

    accumulate = partial(accumulate_gradients, model)
    clip = partial(_clip, list(model.parameters()))
    modules = list(model.modules())
    if shared is not None:
        accumulate, clip = shared.accumulate_gradients, shared.clip  # type: ignore[assignment]
    after_step(place.training_step, snapshot)
    for burn_in, step, batch in _batches(schedule, data_order_seed, after=place):
        started = time.perf_counter()
        learning_rate = 0.0 if burn_in else rate.at(step - 1)
        set_rate(optimizer, learning_rate)
        if not all(module.training for module in modules):  # an evaluation may have left it so
            model.train()
        loss, labelled = accumulate(
            windows,
            batch,
            micro_batch_size=micro_batch_size,
            attention=attention,
            z_loss=settings.z_loss,
        )
        with record_function("clip"):
            norm, clip_factor = clip(settings.max_grad_norm)
        if not (np.isfinite(loss) and np.isfinite(norm)):
            raise NonFiniteLossError(
                f"step {step}: loss {loss}, gradient norm {norm}; nothing was applied. Lower "
                "--learning_rate, or train with --precision fp32"
            )
        with record_function("wait"):
            before_update()
        losses = None
        with record_function("step"):
            if sample is not None and not burn_in and step in measured_steps:
                losses = sample.measure(optimizer.step)
            else:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if not burn_in:
            exposures[batch] += 1
        place = Place(in_training=not burn_in, step=step)
        log_step(
            StepLog(
                step=step,
                epoch=step / schedule.steps_per_epoch,
                learning_rate=learning_rate,
                loss=loss,
                grad_norm=norm,
                clip_factor=clip_factor,
                labelled_tokens=labelled,
                windows=list(batch),
                seconds=time.perf_counter() - started,
                burn_in=burn_in,
                losses_of_update=losses,
            )
        )
        if not burn_in:
            after_step(step, snapshot)
        after_update(snapshot)
    return exposures


def accumulate_gradients(
    model: Any,
    windows: PackedWindows,
    batch: Sequence[int],
    *,
    micro_batch_size: int,
    attention: Attention = "dense",
    z_loss: float = 0.0,
) -> tuple[float, int]:
    """Add the gradient of the batch's token-mean loss; returns (mean cross-entropy, labels).

    The mean is over the labelled tokens of the whole batch, however it is cut into micro-batches.
    Any `attention` but dense is for a model that `attention_probe` has switched to it. The host
    waits for the device once, at the end.
    """
    device = next(model.parameters()).device
    labelled = int((windows.labels[list(batch), 1:] != IGNORED).sum())
    total = torch.zeros((), dtype=torch.float32, device=device)
    for micro in _one_ahead(
        to_device(windows, batch[start : start + micro_batch_size], device, attention)
        for start in range(0, len(batch), micro_batch_size)
    ):
        with record_function("forward"):
            loss, cross_entropy = window_loss(model, micro, z_loss=z_loss, divisor=max(labelled, 1))
        with record_function("backward"):
            torch.autograd.backward(loss)
        total += cross_entropy
    return float(total) / max(labelled, 1), labelled


def _one_ahead(batches: Iterator[WindowBatch]) -> Iterator[WindowBatch]:
    """The same batches, each made before the one ahead of it is worked on."""
    ready = next(batches, None)
    while ready is not None:
        now, ready = ready, next(batches, None)
        yield now


def to_device(
    windows: PackedWindows,
    rows: Sequence[int],
    device: torch.device,
    attention: Attention = "dense",
) -> WindowBatch:
    """These windows as tensors, cut to the longest of them: padding costs time and adds nothing."""
    rows = list(rows)
    lengths = (windows.segments[rows] >= 0).sum(axis=1)
    width = max(int(lengths.max()), 2)

    def cut(array: IntArray) -> torch.Tensor:
        return torch.from_numpy(array[rows, :width])

    labels_BT, segments_BT = cut(windows.labels), cut(windows.segments)
    layout = None if attention == "dense" else lay_out(segments_BT.numpy(), attention, device)
    return WindowBatch(
        input_ids_BT=sent(cut(windows.input_ids), device),
        labels_BT=sent(labels_BT, device),
        position_ids_BT=sent(cut(windows.position_ids), device),
        segments_BT=sent(segments_BT, device),
        layout=layout,
        before_L=sent(labelled_places(labels_BT), device),
    )


def _batches(
    schedule: Schedule, seed: int, *, after: Place
) -> Iterator[tuple[bool, int, list[int]]]:
    """(burn_in, step from 1, windows) of every step after a place; burn-in epochs count down from
    0."""
    for burn_in, n_steps in ((True, schedule.burn_in_steps), (False, schedule.total_steps)):
        order: list[int] = []
        for step in range(1, n_steps + 1):
            epoch = schedule.epoch_of(step)
            if step == 1 or epoch != schedule.epoch_of(step - 1):
                order = window_order(schedule.n_windows, seed, 1 - epoch if burn_in else epoch)
            if Place(in_training=not burn_in, step=step) > after:
                yield burn_in, step, order[schedule.batch(step)]


def _clip(parameters: Sequence[torch.nn.Parameter], max_norm: float | None) -> tuple[float, float]:
    """Clip the gradients by their global norm; (the norm before, what they were multiplied by)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = total_norm(gradients)
    return float(norm), scale_down(gradients, norm, max_norm)
