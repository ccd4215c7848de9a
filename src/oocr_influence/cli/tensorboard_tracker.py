"""TensorBoard: event files in the run's folder.

tensorboard --logdir outputs      # every run by its folder
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from oocr_influence.cli.trackers import NOTHING_TOLD, Moment, TrackedRun


class TensorboardTracker:
    """Writes through torch.utils.tensorboard.

    Raises ImportError where the package tensorboard is missing.
    """

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make = SummaryWriter

    def start(self, run: TrackedRun, told: Moment) -> Moment:
        """What is told again hides what an attempt told after the state that was gone on from."""
        goes_on = told != NOTHING_TOLD and run.rewound_to is not None
        again = min(told, run.rewound_to) if goes_on and run.rewound_to is not None else told
        self._writer = self._make(
            log_dir=str(run.folder / "tensorboard"),
            purge_step=again[0] + 1 if goes_on else None,
            flush_secs=10,
        )
        if not goes_on:
            about = {"name": run.name, "id": run.id, "group": run.group, **run.config}
            text = json.dumps(about, indent=1, default=str, ensure_ascii=False)
            self._writer.add_text("config", "```\n" + text + "\n```", 0)
            self._writer.flush()
        return again

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, status: str) -> None:
        self._writer.close()

    def abandon(self) -> None:
        pass
