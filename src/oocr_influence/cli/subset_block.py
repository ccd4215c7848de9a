"""A job of a sweep over subsets: several runs, one after the other, in one process.

What does not change between them is kept (kept_base.py). Each run has a folder of its own; one that
is complete is not made again, whoever made it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oocr_influence.cli.kept_base import KeptBase
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.resuming import find_unfinished
from oocr_influence.cli.run_context import Control, RunStopped
from oocr_influence.cli.run_processes import run
from oocr_influence.cli.run_record import log_lines_to
from oocr_influence.cli.train_extractive import RunningJob
from oocr_influence.datasets.subsets import Split
from oocr_influence.results.atomic import remove_folder
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder
from oocr_influence.training.loop import NonFiniteLossError

JOB_FUNCTION = "oocr_influence.cli.subset_block:run_block"


@dataclass(frozen=True)
class SubsetRun:
    """One run of a sweep over subsets."""

    split: Split
    index: int
    """The subset's number in its split."""
    seed: int
    """Its data order's."""

    def args(self, shared: TrainingArgs, experiment: ExperimentFolder) -> TrainingArgs:
        """Its arguments, out of those that all runs share."""
        return shared.model_copy(
            update={
                "structured_dataset": experiment.subset_builder(self.split, self.index),
                "output_dir": experiment.data_modeling_runs(self.split),
                "data_order_seed": self.seed,
                "subset_split": self.split,
            }
        )

    def completed(self, experiment: ExperimentFolder) -> RunFolder | None:
        """The run's folder, if it is complete."""
        for made in experiment.runs_of_subset(self.split, self.index):
            try:
                logged = read_experiment_log(made.experiment_log)
            except (OSError, ValueError):
                continue
            seed = (logged.args or {}).get("data_order_seed")
            if seed == self.seed and logged.status == "completed":
                return made
        return None


def run_block(args: Mapping[str, Any], job: RunningJob) -> dict[str, Any]:
    """Make the runs of a block that are not complete yet; returns the folders of all.

    A run whose loss diverges fails the job, once all others are made.

    `args` are those that the runs share, and `runs`: a list of [split, index, seed].
    """
    from launcher.jobs import JobInterrupted

    given = {name: value for name, value in args.items() if name != "runs"}
    shared = TrainingArgs.model_validate(given)
    wanted = [SubsetRun(*one) for one in args["runs"]]
    try:
        with log_lines_to(logging.StreamHandler()):
            return {"runs": _Block(shared, wanted, job).run()}
    except RunStopped as stopped:
        raise JobInterrupted(str(stopped)) from None


class _Block:
    def __init__(self, shared: TrainingArgs, wanted: Sequence[SubsetRun], job: RunningJob) -> None:
        self._shared, self._wanted, self._job = shared, wanted, job
        self._experiment = ExperimentFolder(shared.output_dir)
        self._base: KeptBase | None = None

    def run(self) -> list[str]:
        folders, diverged = [], None
        for number, one in enumerate(self._wanted):
            done = one.completed(self._experiment)
            try:
                folders.append(str(done.path) if done else self._make(one, number))
            except NonFiniteLossError as error:  # it would diverge again: the others go on
                diverged = diverged or error
        if diverged is not None:
            raise diverged
        return folders

    def _make(self, one: SubsetRun, number: int) -> str:
        args = one.args(self._shared, self._experiment)
        control = self._control(number, one)
        if control.stop_requested():
            raise RunStopped(f"asked to stop before run {number + 1}", args.output_dir)
        before = self._experiment.runs_of_subset(one.split, one.index)
        for run_folder in before:
            _remove_unbegun(run_folder)
        unfinished = find_unfinished(args, self._job.has_ended, before)
        if args.lora_rank is not None or args.processes > 1:
            return str(run(args, control, unfinished=unfinished)["run"])
        if self._base is None:
            self._base = KeptBase(args)
        made = run_once(
            args, control, self._base.prepare(args), unfinished=unfinished, base=self._base
        )
        return str(made["run"])

    def _control(self, number: int, one: SubsetRun) -> Control:
        return Control(
            report=self._report(number, one),
            stop_requested=lambda: self._job.stop_requested,
            may_save=self._job.may_save,
        )

    def _report(self, number: int, one: SubsetRun) -> Callable[[Mapping[str, Any]], None]:
        """Steps of all runs of the block together, as if all had as many as this one."""
        of_all = len(self._wanted)
        where = f"run {number + 1} of {of_all}, {one.split} subset {one.index} seed {one.seed}"

        def report(values: Mapping[str, Any]) -> None:
            steps = values.get("total")
            told = {**values, "message": f"{where}: {values.get('message', '')}"}
            if steps is not None:
                told["completed"] = number * steps + values.get("completed", 0)
                told["total"] = of_all * steps
            self._job.report(told)

        return report


def _remove_unbegun(run_folder: RunFolder) -> None:
    """Remove what a run left that was killed before it had a log: an empty folder with a name."""
    here = {path.name for path in run_folder.path.iterdir()}
    # Without an owner it may be another worker's, made this moment.
    if here == {run_folder.owner_file.name} and run_folder.ownership()[0] == "free":
        remove_folder(run_folder.path)
