"""Weights & Biases, online or offline (WANDB_MODE=offline, then `wandb sync`).

Keys, addresses and modes are W&B's own: `wandb login`, and the variables that begin with WANDB_.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from oocr_influence.cli.trackers import NOTHING_TOLD, Moment, TrackedRun
from oocr_influence.cli.wandb_files import stored_values

_TOLD = "told"  # twice the step, and one more where it is an evaluation


class WandbTracker:
    """One W&B run a run of ours, with the same id in every attempt.

    Raises ImportError where the package wandb is missing.
    """

    def __init__(self, project: str) -> None:
        import wandb

        self._wandb: Any = wandb
        self._project = project

    def start(self, run: TrackedRun, told: Moment) -> Moment:
        run.folder.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=self._project,
            id=run.id,
            resume="allow",
            name=run.name,
            group=run.group,
            config=dict(run.config),
            dir=str(run.folder),
            # Its lines would be among the run's own, and the run's in what it uploads.
            settings=self._wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("step", hidden=True)
        self._run.define_metric(_TOLD, hidden=True)
        self._run.define_metric("*", step_metric="step")
        return told if told == NOTHING_TOLD else self._stored(run.folder / "wandb")

    def _stored(self, folder: Path) -> Moment:
        """Up to where an earlier attempt's tellings have outlived it: in its files, or at W&B."""
        if self._run.offline:
            last = max(stored_values(folder, _TOLD), default=None)
        else:
            last = self._run.summary.get(_TOLD)
        return NOTHING_TOLD if last is None else (int(last) // 2, int(last) % 2)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        kind = int(any(name.startswith("eval/") for name in values))
        # Without W&B's own steps: those of an attempt that goes on would begin behind the last.
        self._run.log({"step": step, _TOLD: 2 * step + kind, **values})

    def finish(self, status: str) -> None:
        self._run.summary["status"] = status
        self._run.finish(exit_code=int(status != "completed"))

    def abandon(self) -> None:
        """End its service: at this process's end its own hooks would wait for it."""
        for child in psutil.Process(os.getpid()).children():
            with suppress(psutil.Error):
                if "wandb" in " ".join([child.name(), *child.cmdline()]):
                    child.kill()
