"""What a verification expects, and what it says: typed, each with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """Something that is missing, wrong or worth knowing."""

    run: str
    severity: Severity
    what: str
    remedy: str
    incomplete: bool = False
    """Whether the run did not get to its end, rather than ended wrong."""


@dataclass(frozen=True)
class Moment:
    """A named moment of a run: `step` updates have been made."""

    name: str
    step: int
    epoch: float


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a run of these arguments over this many windows must have left."""

    evaluations: Sequence[Moment]
    checkpoints: Sequence[Moment]
    batches: Sequence[Sequence[int]]
    """Windows of each update, in order."""
    learning_rates: Sequence[float]
    """Of each update, in order."""
    burn_in_steps: int
    """Updates at rate 0 before the first one that counts."""
    steps_per_epoch: int
    order_digests: Mapping[str, str]
    """Of each epoch's window order, by the epoch's number as text."""
    exposures: int | None
    """How often every document was trained; None where not all were trained equally often."""


@dataclass
class Findings:
    """The findings of one run (or of one experiment's jobs) as they come."""

    run: str
    items: list[Finding] = field(default_factory=list)

    def error(self, what: str, remedy: str, *, incomplete: bool = False) -> None:
        """A fault: the run must not be used as it is."""
        self.items.append(Finding(self.run, "error", what, remedy, incomplete))

    def warning(self, what: str, remedy: str) -> None:
        """Worth a look, and no fault of the results."""
        self.items.append(Finding(self.run, "warning", what, remedy))

    def note(self, what: str, remedy: str) -> None:
        """Worth knowing."""
        self.items.append(Finding(self.run, "note", what, remedy))
