"""What a sweep will do, before anything runs: its points, each checked, prepared and described."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from oocr_influence.cli.disk import check_disk, gigabytes
from oocr_influence.cli.experiment import RunGroup, describe_jobs, group_id
from oocr_influence.cli.grid import Point, point_label, point_name
from oocr_influence.cli.micro_batch import describe_trial, settle, tried_as
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import Preparation, prepare, prepare_like, same_windows
from oocr_influence.cli.sweep_arguments import DataModelingArgs
from oocr_influence.cli.trackers import missing_packages


@dataclass(frozen=True)
class Planned:
    """One point of a sweep, checked."""

    args: DataModelingArgs
    runs: list[TrainingArgs]
    preparation: Preparation
    point: Point = field(default_factory=dict)

    def group(self) -> RunGroup:
        """As the experiment's jobs are made of it."""
        rules = self.args.job_rules(self.preparation.run_bytes())
        return RunGroup(self.runs, rules, point_name(self.point), point_label(self.point))


def plan_all(
    args: DataModelingArgs, commit_of: Callable[[TrainingArgs], str | None] = lambda run: None
) -> list[Planned]:
    """Every point of a sweep, checked and described; what points share is prepared once.

    `commit_of` names the commit that a run's model must be of, where that was settled before.
    Raises UsageError before anything is written.
    """
    if args.dry_run:
        print(json.dumps(args.model_dump(mode="json"), indent=1))
    for line in missing_packages(args.logging_type):
        warnings.warn(line, stacklevel=2)
    planned: list[Planned] = []
    said: list[str] = []
    n_points = len(args.points())
    for one in planned_points(args, commit_of):
        planned.append(one)
        if n_points > 1:
            print(f"\npoint {len(planned)} of {n_points}: {point_label(one.point)}")
        if one.preparation.micro_batch_trial is not None:
            print(describe_trial(one.preparation.micro_batch_trial))
        lines = _describe(one)
        for line in lines:
            if line not in said:  # of the point before
                print(line)
        said = lines
    for line in _describe_whole(args, planned):
        print(line)
    if args.dry_run:
        n_runs = sum(len(one.runs) for one in planned)
        check_disk(args.output_dir, needed(args, planned), f"{n_runs} runs")
    return planned


def planned_points(
    args: DataModelingArgs,
    commit_of: Callable[[TrainingArgs], str | None] = lambda run: None,
    *,
    weights: bool = True,
) -> Iterator[Planned]:
    """Every point of a sweep, checked, in turn (see `plan_all`); `weights` as of `prepare`."""
    before: list[Planned] = []
    for point, own in args.points():
        runs = [run.model_copy(update={"model_commit": commit_of(run)}) for run in own.runs()]
        before.append(Planned(own, *_plan(own, runs, before, weights), point))
        yield before[-1]


def plan(args: DataModelingArgs) -> tuple[list[TrainingArgs], Preparation]:
    """The runs of a sweep without a grid; see `plan_all`."""
    (planned,) = plan_all(args)
    return planned.runs, planned.preparation


def _plan(
    args: DataModelingArgs, runs: list[TrainingArgs], before: list[Planned], weights: bool
) -> tuple[list[TrainingArgs], Preparation]:
    """The runs of one point, settled, and what their first was found to be."""
    first = runs[0] if runs else args.run_on_all()
    alike = next(
        (one for one in before if same_windows(one.args.run_on_all(), args.run_on_all())), None
    )
    if alike is not None:
        preparation = prepare_like(alike.preparation, first, weights=weights)
    else:
        at_most = "n_pretraining_examples" not in args.model_fields_set
        preparation = prepare(first, at_most=at_most, weights=weights)
    if args.micro_batch_size == "auto" and not args.dry_run:
        if alike is not None:
            preparation = tried_as(preparation, alike.preparation)
        else:
            workers = args.max_workers or os.cpu_count() or 1
            preparation = settle(preparation, runs_at_once=max(1, min(len(runs), workers)))
    settled = {
        "micro_batch_size": preparation.args.micro_batch_size,
        "gradient_checkpointing": preparation.args.gradient_checkpointing,
        # Every run trains the commit that is resolved now, whatever the branch does meanwhile.
        "model_commit": preparation.resolved.commit,
        "n_pretraining_examples": preparation.args.n_pretraining_examples,
    }
    return [run.model_copy(update=settled) for run in runs], preparation


def _describe(planned: Planned) -> list[str]:
    memory = planned.preparation.describe_memory()
    return [
        *(describe_jobs(planned.preparation, planned.runs) if planned.runs else ()),
        planned.args.describe_treatment(),
        *([] if memory is None else [memory]),
    ]


def _describe_whole(args: DataModelingArgs, planned: list[Planned]) -> list[str]:
    left = sum(len(one.runs) * one.preparation.run_bytes() for one in planned)
    passing = needed(args, planned) - left
    beside = f", and up to {gigabytes(passing)} while it goes on" if passing else ""
    disk = f"disk: {gigabytes(left)} in {args.output_dir}{beside}"
    if len(planned) == 1:
        return [disk]
    groups = [one.group() for one in planned]
    ids = [group_id(group, run) for group in groups for run in group.runs]
    return [f"\n{len(ids)} runs, {len(planned)} points:", *(f"  {one}" for one in ids), disk]


def needed(args: DataModelingArgs, planned: list[Planned]) -> int:
    """What the runs will leave on the disk, and take beside that while they go on (bytes)."""
    n_runs = sum(len(one.runs) for one in planned)
    if not n_runs:
        return 0
    at_once = min(n_runs, args.max_workers or n_runs)
    left = sum(len(one.runs) * one.preparation.run_bytes() for one in planned)
    return left + at_once * max(one.preparation.passing_bytes() for one in planned)
