"""Adding subsets, and runs on each, to a sweep over subsets: what was drawn first stays as it is.

    oocr data_modeling --resume outputs/…_subsets --extend --n_datasets_train 200

Subset i depends on the seed, the split and i alone, and run n of a subset on n: so what is added is
what a sweep of that size would have had from the start. New runs have the arguments of the old.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from launcher.jobs import Job
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.experiment import Experiment
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import Preparation, resolve_for
from oocr_influence.cli.subset_block import JOB_FUNCTION, SubsetRun
from oocr_influence.cli.subset_plan import SubsetPlan, plan_subsets
from oocr_influence.cli.sweep_arguments import DataModelingArgs
from oocr_influence.datasets.subsets import SPLITS, Split
from oocr_influence.results.digests import file_digest
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.run_folder import ExperimentFolder

_SIZES = tuple(f"{name}_{split}" for name in ("n_datasets", "runs_per_dataset") for split in SPLITS)
# How runs are divided into jobs and tried again; none of these changes what a run is.
_OF_JOBS = {"runs_per_job", "lost_retries", "hang_minutes", "out_of_memory_retry"}


def is_of_subsets(job: Job) -> bool:
    """Whether a job makes runs on subsets."""
    return job.spec.function == JOB_FUNCTION


def sizes_there(experiment: Experiment) -> dict[str, int]:
    """`n_datasets_*` and `runs_per_dataset_*` as they are by now, for the splits that have subsets.

    A sweep that was extended before has more than it began with.
    """
    folder, found = experiment.folder, {}
    for split in SPLITS:
        if numbers := folder.subset_numbers(split):
            found[f"n_datasets_{split}"] = len(numbers)
            found[f"runs_per_dataset_{split}"] = max(
                _about(folder, split, index)["n_runs"] for index in numbers
            )
    return found


def check_extension(experiment: Experiment, stated: Mapping[str, Any]) -> None:
    """Raise UsageError, naming the flags, for an extension that would not only add.

    `stated` are the flags as JSON.
    """
    if not any(map(is_of_subsets, experiment.jobs)):
        if asked := [f"--{name}" for name in _SIZES if name in stated]:
            raise UsageError(
                f"{', '.join(asked)}: this experiment has no runs on subsets to add to: start a "
                "new sweep for them"
            )
        return
    there, faults = sizes_there(experiment), []
    for name in _SIZES:
        if name in there and name in stated and stated[name] < there[name]:
            faults.append(f"--{name} {stated[name]}: it is {there[name]}, and can only become more")
    if changed := sorted(_changed(experiment, stated)):
        flags = ", ".join(f"--{name}" for name in changed)
        faults.append(
            f"{flags}: runs on subsets are there with another value; such a sweep is extended by "
            f"{', '.join(f'--{name}' for name in _SIZES)} and --runs_per_dataset_all_docs alone: "
            "start a new sweep"
        )
    if faults:
        raise UsageError("\n       ".join(faults))


def further_subsets(
    experiment: Experiment, wanted: DataModelingArgs, preparation: Preparation
) -> SubsetPlan | None:
    """The subsets that are asked for, and those of their runs that no job makes; None for neither.

    Raises UsageError where a subset that is there would be drawn otherwise, or where the model is
    of another commit by now.
    """
    blocks = [job.spec.args for job in experiment.jobs if is_of_subsets(job)]
    if not blocks:
        return None
    there = [SubsetRun(*one) for block in blocks for one in block["runs"]]
    first = {name: value for name, value in blocks[0].items() if name != "runs"}
    shared = TrainingArgs.model_validate(first)
    resolve_for(shared)  # of the commit that the first runs trained, or refused
    plan = plan_subsets(wanted, preparation)
    assert plan is not None
    _check_drawn(experiment.folder, plan)
    return replace(plan, shared=shared, there=frozenset(there))


def _changed(experiment: Experiment, stated: Mapping[str, Any]) -> set[str]:
    """Stated flags that runs on subsets depend on, and that differ from the sweep's own."""
    began = read_experiment_log(experiment.folder.experiment_log).args or {}
    fields = DataModelingArgs.model_fields
    points: Iterable[Mapping[str, Any]] = stated.get("grid") or ()
    changed = {name for point in points for name in point}
    for name, value in stated.items():
        before = began.get(name, fields[name].get_default(call_default_factory=True))
        if name != "grid" and value != before:
            changed.add(name)
    of_all = {name for name in fields if "all_docs" in name} - {"all_docs_data_order_seed"}
    return changed - {*_SIZES, *_OF_JOBS, *of_all}


def _check_drawn(folder: ExperimentFolder, plan: SubsetPlan) -> None:
    digest = file_digest(folder.structured_dataset)
    for split in SPLITS:
        for index in folder.subset_numbers(split):
            written = json.loads(folder.subset_builder(split, index).read_text(encoding="utf-8"))
            drawn = plan.reference(folder, split, index, digest)
            if written["sha256"] != drawn["sha256"]:
                raise UsageError(
                    f"{folder.structured_dataset} has changed since its subsets were drawn: put it "
                    "back"
                )
            if written != drawn:
                raise UsageError(
                    f"--extend: subset {index} of the {split} split would be another one in a "
                    f"sweep of this size{_why(plan.args)}: start a new sweep"
                )


def _why(args: DataModelingArgs) -> str:
    if args.compat != "earlier":
        return ""
    return " (--compat earlier draws both splits from one generator, the train split first)"


def _about(folder: ExperimentFolder, split: Split, index: int) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(
        folder.subset_metadata(split, index).read_text(encoding="utf-8")
    )
    return about
