"""Adding runs to an experiment that is there: what is asked for, what of it is new.

    oocr data_modeling --resume outputs/…_mayors --extend --epochs 10

The flags that are stated take the place of the experiment's own, and all others stay as they were;
of the runs that this asks for, those that the experiment has are left alone. So the same line twice
adds nothing, and a flag that is stated with an old value and a new one adds the new.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from launcher.jobs import Job
from launcher.ledger import utc_now
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.experiment import Experiment, RunGroup, jobs_of
from oocr_influence.cli.extending_subsets import is_of_subsets, sizes_there
from oocr_influence.cli.grid import AXES, combined, merged_axes
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.models.resolve import default_revision
from oocr_influence.results.experiment_log import ExperimentLog, read_experiment_log
from oocr_influence.results.naming import escaped


def extended_values(experiment: Experiment, stated: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a sweep of all that is asked for, on the experiment's own dataset.

    Raises UsageError where the experiment did not write down its arguments.
    """
    began = read_experiment_log(experiment.folder.experiment_log).args
    if not began:
        raise UsageError(f"{experiment.folder.path} has no arguments in its log to begin with")
    values = {name: value for name, value in began.items() if name != "grid"}
    if "model" in stated and "revision" not in stated:
        if values.get("revision") != default_revision(str(values["model"])):
            raise UsageError("--model: name its --revision too, since the experiment has one")
        values.pop("revision")
    changed = {name: value for name, value in stated.items() if name != "grid"}
    several = {name for point in stated.get("grid") or [] for name in point}
    alone = {name: value for name, value in changed.items() if name in AXES and name not in several}
    points = combined(began.get("grid") or [{}], [alone])
    points = combined(points, stated.get("grid") or [{}])
    values |= sizes_there(experiment) | changed
    if points != [{}]:
        values["grid"] = points
    return values | {
        "dataset_builder_path": experiment.folder.structured_dataset,
        "gpus_per_job": experiment.processes,
    }


def known_commits(experiment: Experiment) -> dict[tuple[str, str | None], str]:
    """The commit that each model and revision of the experiment was resolved to."""
    args = [job.spec.args for job in experiment.jobs]
    return {
        (one["model"], one.get("revision")): one["model_commit"]
        for one in args
        if one.get("model_commit")
    }


def new_jobs(experiment: Experiment, groups: Sequence[RunGroup]) -> list[Job]:
    """Those of the groups' runs that the experiment does not have."""
    # Through the class, so that runs of a version with fewer arguments are known again.
    known = [_canonical(job.spec.args) for job in experiment.jobs if not is_of_subsets(job)]
    taken = {job.spec.id for job in experiment.jobs}
    new = []
    for job in jobs_of(experiment.folder, groups):
        args = _canonical(job.spec.args)
        if args in known:
            continue
        known.append(args)
        if job.spec.id in taken:  # it differs in what its id does not name
            text = json.dumps(args, sort_keys=True)
            job_id = f"{job.spec.id}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
            label = f"{job.spec.label} ({job_id[-8:]})"
            job = Job(
                replace(job.spec, id=job_id, label=label), job.folder.parent / escaped(job_id)
            )
        taken.add(job.spec.id)
        new.append(job)
    return new


def add_jobs(
    experiment: Experiment, jobs: Sequence[Job], stated: Mapping[str, Any], *, axes: Sequence[str]
) -> None:
    """Write the jobs, and into the experiment's log what was added and when."""
    log = ExperimentLog.resume(experiment.folder.experiment_log)
    before = log.log_dict
    entry = {"at": utc_now(), "args": stated, "jobs": [job.spec.id for job in jobs]}
    if jobs:
        log.update(
            jobs=[*before.get("jobs", []), *entry["jobs"]],
            axes=merged_axes(before.get("axes", []), axes),
            extensions=[*before.get("extensions", []), entry],
            status="running",
        )
        log.write()
    for job in jobs:
        job.write()


def _canonical(args: Mapping[str, Any]) -> dict[str, Any]:
    return TrainingArgs.model_validate(dict(args)).model_dump(mode="json")
