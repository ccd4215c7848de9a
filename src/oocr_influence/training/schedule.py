"""When things happen in a run: steps, epochs, cadences, learning rates. Pure arithmetic, no torch.

    schedule = Schedule(n_windows=1672, batch_size=8, epochs=1)
    schedule.steps_per_epoch, schedule.total_steps           # 209, 209
    schedule.milestones(epochs_cadence(0.2))                  # 42, 84, 125, 167, 209

Lengths in epochs are exact fractions of their decimal spelling, so that 0.2 epochs of 210 steps are
42 steps on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

LrScheduler = Literal["warmup_linear_warmdown", "warmup_constant"]


def exact(value: float) -> Fraction:
    """The fraction that the decimal spelling of `value` states: 0.1 is 1/10."""
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


@dataclass(frozen=True)
class Cadence:
    """How often something happens: every so many epochs or steps; never, if the length is None."""

    every: float | None
    unit: Literal["epochs", "steps"] = "epochs"

    def __post_init__(self) -> None:
        if self.every is not None and self.every <= 0:
            raise ValueError(f"a cadence of {self.every} {self.unit}: it must be above 0, or None")


@dataclass(frozen=True)
class Milestone:
    """A named moment of a run: `start`, `e1_s42`, `final`; `step` updates have been made."""

    name: str
    step: int
    epoch: float


@dataclass(frozen=True)
class Schedule:
    """The steps of one run over `n_windows` windows.

    An epoch is S = ceil(windows / batch_size) steps whose batch sizes differ by at most one; a run
    is ceil(epochs * S) steps. With `drop_last` an epoch is floor(windows / batch_size) full batches
    and the rest of its windows is not trained (the earlier system's way).

    Raises ValueError if no step would be made.
    """

    n_windows: int
    batch_size: int
    epochs: float
    max_steps: int | None = None
    burn_in_epochs: float = 0
    drop_last: bool = False
    cadence_rounding: Literal["nearest", "up"] = "nearest"

    def __post_init__(self) -> None:
        if self.n_windows < 1 or self.batch_size < 1 or self.epochs <= 0:
            raise ValueError(
                f"{self.n_windows} windows in batches of {self.batch_size} over {self.epochs} "
                "epochs make no step: each must be above 0"
            )
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"batch_size {self.batch_size} is larger than the data set's {self.n_windows} "
                "windows and drop_last drops the only batch: lower batch_size"
            )

    @property
    def steps_per_epoch(self) -> int:
        exact_steps = Fraction(self.n_windows, self.batch_size)
        return math.floor(exact_steps) if self.drop_last else math.ceil(exact_steps)

    @property
    def total_steps(self) -> int:
        steps = math.ceil(exact(self.epochs) * self.steps_per_epoch)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    @property
    def burn_in_steps(self) -> int:
        """Steps at rate 0 before the first step, counted apart from all others."""
        return math.ceil(exact(self.burn_in_epochs) * self.steps_per_epoch)

    def epoch_of(self, step: int) -> int:
        """The epoch, counted from 1, in which the `step`-th update (from 1) is made."""
        return (step - 1) // self.steps_per_epoch + 1

    def batch(self, step: int) -> slice:
        """Which places of the epoch's window order the `step`-th update (from 1) trains."""
        k = (step - 1) % self.steps_per_epoch
        if self.drop_last:
            return slice(k * self.batch_size, (k + 1) * self.batch_size)
        n, s = self.n_windows, self.steps_per_epoch
        return slice(k * n // s, (k + 1) * n // s)

    def name_of(self, step: int) -> str:
        """`start`, `final`, or `e{epoch}_s{step}`."""
        if step == 0:
            return "start"
        if step == self.total_steps:
            return "final"
        return f"e{self.epoch_of(step)}_s{step}"

    def milestones(
        self, cadence: Cadence, *, first: bool = True, final: bool = True
    ) -> list[Milestone]:
        """The moments of a cadence in order: step 0 if `first`, the last step if `final`.

        The ends of epochs are always met, whatever the fraction; the last step is only `final`.
        """
        steps = set(self._cadence_steps(cadence))
        if cadence.every is not None:
            steps.update(range(self.steps_per_epoch, self.total_steps, self.steps_per_epoch))
        steps = {step for step in steps if 0 < step < self.total_steps}
        steps.update([0] if first else [])
        steps.update([self.total_steps] if final else [])
        return [
            Milestone(self.name_of(step), step, step / self.steps_per_epoch)
            for step in sorted(steps)
        ]

    def describe(self, cadence: Cadence) -> str:
        """A cadence in both units, by this schedule's own rounding: "0.2 epochs = 42 steps"."""
        if cadence.every is None:
            return "never but at the ends"
        if cadence.unit == "steps":
            return f"{cadence.every:g} steps = {cadence.every / self.steps_per_epoch:.3g} epochs"
        first = max(1, self._rounded(exact(cadence.every) * self.steps_per_epoch))
        return f"{cadence.every:g} epochs = {first} step{'s' * (first > 1)}"

    def describe_length(self) -> str:
        """How long training is: "5 epochs = 1,045 steps"."""
        if self.max_steps is not None and self.max_steps == self.total_steps:
            return f"{self.total_steps:,} steps (max_steps)"
        return f"{self.epochs:g} epochs = {self.total_steps:,} steps"

    def _rounded(self, steps: Fraction) -> int:
        return math.ceil(steps) if self.cadence_rounding == "up" else _nearest(steps)

    def _cadence_steps(self, cadence: Cadence) -> Iterable[int]:
        if cadence.every is None:
            return
        length = exact(cadence.every)
        if cadence.unit == "epochs":
            length *= self.steps_per_epoch
        if length < 1 and cadence.unit == "steps":
            raise ValueError(f"a cadence of {cadence.every} steps: it must be at least 1")
        for k in range(1, math.ceil(self.total_steps / length) + 1):
            yield self._rounded(k * length)


@dataclass(frozen=True)
class LearningRate:
    """The rate of each step: warm-up, then down or constant; never zero, so every batch teaches.

    Warm-up is w = ceil(warmup_proportion * T) steps (or `warmup_steps`): peak * (t + 1) / w for
    t < w, then peak * (T - t) / (T - w), or peak. `zero_first_rate` is the earlier system's
    t / w, whose first step changes nothing.
    """

    peak: float
    total_steps: int
    warmup_proportion: float = 0.1
    warmup_steps: int | None = None
    scheduler: LrScheduler = "warmup_linear_warmdown"
    zero_first_rate: bool = False

    @property
    def warmup(self) -> int:
        if self.warmup_steps is not None:
            return min(self.warmup_steps, self.total_steps)
        return math.ceil(exact(self.warmup_proportion) * self.total_steps)

    def at(self, t: int) -> float:
        """The rate of update t, counted from 0."""
        w, total = self.warmup, self.total_steps
        if t < w:
            return self.peak * ((t if self.zero_first_rate else t + 1) / w)
        if self.scheduler == "warmup_constant":
            return self.peak
        return self.peak * ((total - t) / (total - w))


def epochs_cadence(every: float | None) -> Cadence:
    """Every so many epochs; None is never."""
    return Cadence(every, "epochs")


def steps_cadence(every: int | None) -> Cadence:
    """Every so many steps; None is never."""
    return Cadence(every, "steps")


def _nearest(value: Fraction) -> int:
    # Halves go up: Python's own round() would send them to the even neighbour.
    return math.floor(value + Fraction(1, 2))
