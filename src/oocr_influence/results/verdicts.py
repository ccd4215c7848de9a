"""What a verification says: typed, each with what to do about it."""

from __future__ import annotations

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
