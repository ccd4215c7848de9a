"""Where a run can be followed beside the disk: one small interface, a class a service.

    --logging_type stdout,tensorboard,wandb

The disk is always written and is what counts; a tracker is told the same numbers. It works in a
thread of its own (`tracker_thread.py`) and may fail in any way without the run's noticing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

LOGGING_TYPES = ("disk", "stdout", "wandb", "tensorboard")

Moment = tuple[int, int]
"""An update, counted with those of burn-in, and what is told of it: 0 its step, 1 its evaluation.
Tellings of a run have increasing moments."""
NOTHING_TOLD: Moment = (-1, 0)


@dataclass(frozen=True)
class TrackedRun:
    """A run as its trackers see it; the same for all attempts at it."""

    id: str
    """Of this run alone: time and letters of its folder."""
    name: str
    group: str | None
    """The sweep that it belongs to."""
    config: Mapping[str, Any]
    folder: Path
    """Where a tracker may keep files."""
    rewound_to: Moment | None = None
    """In an attempt that goes on: the last moment of the state that it goes on from."""


class Tracker(Protocol):
    """A service that is told of one run. Every method may block or raise."""

    def start(self, run: TrackedRun, told: Moment) -> Moment:
        """Begin, or go on with what earlier attempts told up to `told`.

        Returns up to where nothing has to be told again.
        """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one moment."""

    def finish(self, status: str) -> None:
        """The run is `completed`, `interrupted` or `failed`; all that was told is stored."""

    def abandon(self) -> None:
        """Called from another thread where it hangs: let go of what would hold up the process."""


def logging_types(value: Any) -> Any:
    """A text of names, each once and the disk first; raises ValueError for an unknown one."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return value
    names = [str(name).strip() for name in names]
    if unknown := [name for name in names if name not in LOGGING_TYPES]:
        raise ValueError(f"no {', '.join(unknown)} here; choose among {', '.join(LOGGING_TYPES)}")
    return ",".join(name for name in LOGGING_TYPES if name == "disk" or name in names)


def missing_packages(logging_type: str) -> list[str]:
    """A line for each tracker that was asked for and is not installed."""
    return [
        f"--logging_type {name}: it is not installed here (pip install 'oocr-influence[{name}]'); "
        "runs go on without it"
        for name in logging_type.split(",")
        if name in ("wandb", "tensorboard") and importlib.util.find_spec(name) is None
    ]
