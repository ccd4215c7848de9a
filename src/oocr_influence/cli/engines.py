"""Where a sweep's runs get their GPUs from: this machine, Slurm or a Ray cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from launcher.disk import DiskReservation
from launcher.driver import Driver
from launcher.engine import Engine, EngineError
from launcher.gpus import visible_gpus
from launcher.in_process import InProcessOrchestrator
from launcher.jobs import Job
from launcher.local_orchestrator import LocalSweepOrchestrator
from launcher.ray_engine import RayEngine
from launcher.slurm_engine import SlurmEngine
from launcher.slurm_settings import SlurmSettings
from oocr_influence.cli.arguments import UsageError

# What changes results or is needed to reach models and caches. A Ray node has an environment of its
# own, in which another number of threads, say, gives other last bits on a CPU.
_OF_LIBRARIES = ("OMP_", "MKL_", "OPENBLAS_", "TORCH", "PYTORCH_", "CUBLAS_", "CUDNN_", "NCCL_")
_OF_PLACES = ("HF_", "TRANSFORMERS_", "TOKENIZERS_", "OOCR_", "PYTHONPATH", "PYTHONHASHSEED")

# Seconds that a run may take to stop: an update, and then its state, which is 60 GB for 7 billion
# parameters. One that is done sooner is not waited for.
GRACE = 180.0

ExecutionMode = Literal["local", "in_process", "slurm", "ray"]


@dataclass(frozen=True)
class Execution:
    """How and where the jobs of experiments are run; no result depends on it."""

    mode: ExecutionMode = "local"
    max_workers: int | None = None
    strangers: Literal["wait", "leave", "use"] = "wait"
    gpus_per_job: int = 1
    slurm_settings: Path | None = None
    ray_address: str = "auto"

    @property
    def is_here(self) -> bool:
        """Whether the runs are on this machine."""
        return self.mode in ("local", "in_process")

    def sweep(
        self, jobs: list[Job], processes: int, reservation: DiskReservation | None = None
    ) -> Driver | InProcessOrchestrator:
        """Who runs these jobs, of so many processes each.

        Raises EngineError where a cluster's settings are wrong.
        """
        gpus = 0 if self.gpus_per_job == 0 else processes
        if self.is_here and not visible_gpus():
            gpus = min(gpus, 1)
        shared: dict[str, Any] = {
            "gpus_per_job": gpus,
            "max_workers": self.max_workers,
            "strangers": self.strangers,
            "grace": GRACE,
        }
        if self.mode == "in_process":
            return InProcessOrchestrator(jobs, **shared)
        if self.mode == "local":
            return LocalSweepOrchestrator(jobs, reservation=reservation, **shared)
        return Driver(
            jobs, engine=self.engine(gpus), reservation=reservation, env=_passed_on(), **shared
        )

    def check(self) -> None:
        """Raise UsageError if the cluster cannot be used, before anything is made."""
        if self.is_here:
            return
        try:
            engine = self.engine(self.gpus_per_job)
            engine.check()
            engine.close()
        except EngineError as error:
            raise UsageError(f"--execution_mode {self.mode}: {error}") from error

    def engine(self, gpus: int) -> Engine:
        """The cluster's engine, for runs of so many GPUs."""
        if self.mode == "slurm":
            path = self.slurm_settings
            settings = SlurmSettings() if path is None else SlurmSettings.from_toml(path)
            return SlurmEngine(settings, gpus=gpus)
        return RayEngine(self.ray_address, gpus=gpus)


def _passed_on() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_OF_LIBRARIES + _OF_PLACES)
    }
