"""One training run: a structured dataset in, a run folder out.

    oocr train_extractive --structured_dataset datasets/structured_dataset_mayors_100.json

Sweeps start this same run as a job: `oocr_influence.cli.train_extractive:run_job`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from oocr_influence.cli.arguments import run_command
from oocr_influence.cli.one_run import Control, RunStopped, run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import check_disk, prepare
from oocr_influence.cli.run_record import log_lines_to
from oocr_influence.training.loop import NonFiniteLossError
from oocr_influence.training.probe import AttentionMaskError

__all__ = ["TrainingArgs", "main", "run_job"]


class RunningJob(Protocol):
    """What a job is given by the launcher that runs it."""

    @property
    def stop_requested(self) -> bool: ...

    def may_save(self) -> bool: ...

    def report(self, values: Mapping[str, Any]) -> None: ...


def main(args: TrainingArgs) -> int:
    """Train one model in this process; returns the exit status."""
    preparation = prepare(args, at_most="n_pretraining_examples" not in args.model_fields_set)
    check_disk(args.output_dir, preparation.run_bytes(), "this run")
    with log_lines_to(logging.StreamHandler()):
        try:
            print(run_once(preparation.args, preparation=preparation)["run"])
        except (AttentionMaskError, NonFiniteLossError):
            return 1  # the log has said why
    return 0


def run_job(args: dict[str, Any], job: RunningJob) -> dict[str, Any]:
    """One run as a job of a sweep; stops between two steps when it is asked to."""
    from launcher.jobs import JobInterrupted

    control = Control(
        report=job.report, stop_requested=lambda: job.stop_requested, may_save=job.may_save
    )
    try:
        with log_lines_to(logging.StreamHandler()):  # the job's own log
            return run_once(TrainingArgs.model_validate(args), control)
    except RunStopped as stopped:
        raise JobInterrupted(str(stopped)) from None


if __name__ == "__main__":
    run_command(TrainingArgs, main)
