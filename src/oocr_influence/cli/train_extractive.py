"""One training run: a structured dataset in, a run folder out.

    oocr train_extractive --structured_dataset datasets/structured_dataset_mayors_100.json
    oocr train_extractive --resume outputs/2026_…

SIGTERM, SIGUSR1 and Ctrl-C stop it after the step it is in, with its state saved, and exit status
75: `--resume` goes on from there with the same bits, as it does from the last checkpoint of a run
that was killed. Sweeps start this same run as a job: `oocr_influence.cli.train_extractive:run_job`.
"""

from __future__ import annotations

import logging
import shlex
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, model_validator

from oocr_influence.cli.arguments import run_command
from oocr_influence.cli.disk import check_disk
from oocr_influence.cli.micro_batch import settle
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import prepare
from oocr_influence.cli.resuming import find_unfinished, unfinished_run
from oocr_influence.cli.run_context import Control, RunStopped
from oocr_influence.cli.run_processes import ProcessDiedError, check_processes, run
from oocr_influence.cli.run_record import log_lines_to
from oocr_influence.cli.run_saving import DiskFullError
from oocr_influence.cli.trackers import missing_packages
from oocr_influence.training.loop import NonFiniteLossError
from oocr_influence.training.probe import AttentionMaskError

__all__ = ["TrainExtractiveArgs", "TrainingArgs", "main", "run_job"]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
TRY_AGAIN = 75  # EX_TEMPFAIL, as of jobs: stopped early, and can be gone on with


class TrainExtractiveArgs(TrainingArgs):
    """A new run, or one to go on with."""

    structured_dataset: Path = Field(default=Path(), validate_default=False)
    """the dataset's file (JSON); required, unless --resume names a run"""
    resume: Path | None = None
    """go on with the unfinished run in this folder, as it was started"""

    @model_validator(mode="after")
    def _new_or_old(self) -> TrainExtractiveArgs:
        stated = sorted(self.model_fields_set - {"resume"})
        if self.resume is not None and stated:
            flags = ", ".join(f"--{name}" for name in stated)
            raise ValueError(f"{flags}: with --resume a run goes on as it was started")
        if self.resume is None and "structured_dataset" not in self.model_fields_set:
            raise ValueError("--structured_dataset is missing: the dataset's file (JSON)")
        return self

    def run(self) -> TrainingArgs:
        """The arguments of the new run alone."""
        return TrainingArgs.model_validate(
            self.model_dump(include=self.model_fields_set - {"resume"})
        )


class RunningJob(Protocol):
    """What a job is given by the launcher that runs it."""

    @property
    def stop_requested(self) -> bool: ...

    def may_save(self) -> bool: ...

    def has_ended(self, attempt: str) -> bool: ...

    def report(self, values: Mapping[str, Any]) -> None: ...


def main(args: TrainExtractiveArgs) -> int:
    """Train one model in this process; returns the exit status."""
    unfinished = None
    if args.resume is not None:
        unfinished, begun = unfinished_run(args.resume)
        check_processes(begun)
        preparation = prepare(begun)
    else:
        at_most = "n_pretraining_examples" not in args.model_fields_set
        check_processes(args)
        preparation = prepare(args.run(), at_most=at_most)
        for line in missing_packages(args.logging_type):
            warnings.warn(line, stacklevel=1)
        needed = preparation.run_bytes() + preparation.passing_bytes()
        check_disk(preparation.args.output_dir, needed, "this run")
    preparation = settle(preparation)
    with log_lines_to(logging.StreamHandler()), stop_signals() as stopped:
        control = Control(stop_requested=stopped.is_set)
        try:
            done = run(preparation.args, control, preparation, unfinished=unfinished)
        except (AttentionMaskError, DiskFullError, NonFiniteLossError, ProcessDiedError):
            return 1  # the log has said why
        except RunStopped as stop:
            folder = shlex.quote(str(stop.folder))
            print(f"go on with: oocr train_extractive --resume {folder}")
            return TRY_AGAIN
    print(done["run"])
    return 0


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that the signals to stop set; a second Ctrl-C interrupts at once."""
    asked = threading.Event()

    def ask(number: int, _: Any) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in STOP_SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_job(args: dict[str, Any], job: RunningJob) -> dict[str, Any]:
    """One run as a job of a sweep; stops between two steps when it is asked to.

    An earlier attempt's run, interrupted or killed, goes on in its own folder.
    """
    from launcher.jobs import JobInterrupted

    control = Control(
        report=job.report, stop_requested=lambda: job.stop_requested, may_save=job.may_save
    )
    try:
        with log_lines_to(logging.StreamHandler()):  # the job's own log
            asked = TrainingArgs.model_validate(args)
            return run(asked, control, unfinished=find_unfinished(asked, job.has_ended))
    except RunStopped as stopped:
        raise JobInterrupted(str(stopped)) from None


if __name__ == "__main__":
    run_command(TrainExtractiveArgs, main)
