"""Where a sweep's runs get their GPUs from: this machine, Slurm or a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from launcher.driver import Driver
from launcher.engine import Engine
from launcher.in_process import InProcessOrchestrator
from launcher.jobs import Job
from launcher.local_orchestrator import LocalSweepOrchestrator
from launcher.ray_engine import RayEngine
from launcher.slurm_engine import SlurmEngine
from launcher.slurm_settings import SlurmSettings

ExecutionMode = Literal["local", "in_process", "slurm", "ray"]
CLUSTERS = ("slurm", "ray")


@dataclass(frozen=True)
class Execution:
    """How and where the jobs of experiments are run; no result depends on it."""

    mode: ExecutionMode = "local"
    max_workers: int | None = None
    strangers: Literal["wait", "leave", "use"] = "wait"
    gpus_per_job: int = 1
    slurm_settings: Path | None = None
    ray_address: str = "auto"

    def sweep(self, jobs: list[Job], **settings: Any) -> Driver | InProcessOrchestrator:
        """Who runs these jobs."""
        settings |= {"max_workers": self.max_workers, "strangers": self.strangers}
        settings["gpus_per_job"] = self.gpus_per_job
        if self.mode == "in_process":
            settings.pop("reservation", None)
            return InProcessOrchestrator(jobs, **settings)
        if self.mode == "local":
            return LocalSweepOrchestrator(jobs, **settings)
        return Driver(jobs, engine=self.engine(), **settings)

    def engine(self) -> Engine:
        """The cluster's engine; raises EngineError where its settings are wrong."""
        if self.mode == "slurm":
            path = self.slurm_settings
            settings = SlurmSettings() if path is None else SlurmSettings.from_toml(path)
            return SlurmEngine(settings, gpus=self.gpus_per_job)
        return RayEngine(self.ray_address, gpus=self.gpus_per_job)
