"""What the parts of one run share: its folder, its log, and whoever started it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import Preparation
from oocr_influence.cli.run_tracking import RunTracking
from oocr_influence.models.team import ALONE, Team
from oocr_influence.results.cache import Cache
from oocr_influence.results.checkpoints import folder_bytes
from oocr_influence.results.experiment_log import ExperimentLog
from oocr_influence.results.provenance import Phases
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import StepRow
from oocr_influence.training.loop import StepLog

Report = Callable[[Mapping[str, Any]], None]


class RunStopped(Exception):
    """The run was asked to stop and did so between two steps; it can be gone on with."""

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder


class RunTakenOverError(RuntimeError):
    """This attempt was taken for dead and replaced; what it would write is its successor's."""


@dataclass
class Control:
    """What a run tells and asks of whoever started it."""

    report: Report = lambda values: None
    stop_requested: Callable[[], bool] = lambda: False
    may_save: Callable[[], bool] = lambda: True
    began: Callable[[Path], None] = lambda folder: None
    """Told of the run's folder as soon as there is one."""


@dataclass
class RunContext:
    """One run while it goes on."""

    preparation: Preparation
    folder: RunFolder
    log: ExperimentLog
    phases: Phases
    control: Control
    cache: Cache | None
    last_step: StepLog | StepRow | None = None
    team: Team = ALONE
    """The processes that train it, of which this one leads."""
    written_bytes: int = 0
    """What lies in its folder, as last counted."""
    tracking: RunTracking = field(default_factory=RunTracking)
    """Who else is told of its steps and evaluations."""

    @property
    def args(self) -> TrainingArgs:
        return self.preparation.args

    @property
    def total_steps(self) -> int:
        return self.preparation.schedule.total_steps

    def report(self, step: int, message: str, **about: Any) -> None:
        """Tell how far the run is; `about` is its `loss`, or the `evaluation` that it is at."""
        told = {"completed": step, "total": self.total_steps, "message": message, **about}
        self.control.report({**told, "disk_bytes": self.written_bytes})

    def look_at_disk(self) -> None:
        """Count anew what the run has written: so much less of the disk is kept for it."""
        self.written_bytes = folder_bytes(self.folder.path)

    def waiting(self, what: str) -> Callable[[], None]:
        """What to do while another process works for this one too: say so, and stop if asked."""

        def wait() -> None:
            self.report(0, f"waiting for the {what}")
            self.stop_if_asked()

        return wait

    def should_stop(self) -> bool:
        """Whether it was asked to, before its last step was made."""
        made = self.last_step
        finished = made and not made.burn_in and made.step == self.total_steps
        return self.control.stop_requested() and not finished

    def stop_if_asked(self) -> None:
        """Raises RunStopped."""
        if self.should_stop():
            made = self.last_step.step if self.last_step else 0
            raise RunStopped(f"asked to stop after step {made}", self.folder.path)

    def check_may_save(self) -> None:
        """Raises RunTakenOverError if another attempt has replaced this one."""
        if not self.control.may_save():
            raise RunTakenOverError(
                "another attempt of this job has taken over: nothing more is written"
            )
