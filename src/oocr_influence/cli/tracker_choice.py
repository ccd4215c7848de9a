"""The trackers that a run asks for, by name; what they take is imported when they are made."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from oocr_influence.cli.trackers import Moment, TrackedRun, Tracker


def trackers_of(logging_type: str, wandb_project: str | None) -> dict[str, Callable[[], Tracker]]:
    """How each tracker that is asked for is made, by name; imports happen when it is."""

    def wandb() -> Tracker:
        from oocr_influence.cli.wandb_tracker import WandbTracker

        project = wandb_project or os.environ.get("WANDB_PROJECT") or "oocr_influence"
        return WandbTracker(project)

    def tensorboard() -> Tracker:
        from oocr_influence.cli.tensorboard_tracker import TensorboardTracker

        return TensorboardTracker()

    known: dict[str, Callable[[], Tracker]] = {
        "stdout": StdoutTracker,
        "wandb": wandb,
        "tensorboard": tensorboard,
    }
    return {name: known[name] for name in logging_type.split(",") if name in known}


class StdoutTracker:
    """A line a moment, into the job's log or onto the terminal."""

    def start(self, run: TrackedRun, told: Moment) -> Moment:
        print(f"{run.name} ({run.id})", flush=True)
        return told

    def log(self, step: int, values: Mapping[str, float]) -> None:
        told = "  ".join(f"{name} {value:.6g}" for name, value in values.items())
        print(f"step {step}  {told}", flush=True)

    def finish(self, status: str) -> None:
        pass

    def abandon(self) -> None:
        pass
