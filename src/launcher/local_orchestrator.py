"""Run jobs on this machine: as many at once as it has GPUs for, in the order given.

    result = LocalSweepOrchestrator(jobs, gpus_per_job=1).run()
    print(result.summary())

Jobs that have ended well before are skipped, so the same call after a crash goes on. A job that
fails stops no other. SIGINT, SIGTERM and SIGHUP end the sweep in order: the jobs are asked to stop,
given `grace` seconds, then killed; a second signal kills at once.
"""

from __future__ import annotations

from typing import Any

from launcher.driver import Driver
from launcher.in_process import InProcessOrchestrator
from launcher.local_engine import LocalEngine
from launcher.outcomes import JobOutcome, SweepResult

__all__ = ["InProcessOrchestrator", "JobOutcome", "LocalSweepOrchestrator", "SweepResult"]


class LocalSweepOrchestrator(Driver):
    """Jobs on the GPUs that this machine's sweeps share, or on its cores where it has none."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, engine=LocalEngine(), **settings)
