"""The sweep: one dataset, several data orders, a run each, over the GPUs of this machine.

    python experiments/data_modeling.py \\
      --dataset_builder_path datasets/structured_dataset_mayors_100_w_pretrain.json \\
      --epochs 1 --execution_mode local --experiment_name mayors_1epoch

`--dry_run` prints the resolved configuration, the jobs and the disk they will take, and exits.
"""

from __future__ import annotations

import shlex
import sys
import warnings
from pathlib import Path

from launcher.disk import still_to_write
from launcher.gpus import visible_gpus
from oocr_influence.cli.arguments import INTERRUPTED, UsageError, run_command
from oocr_influence.cli.detach import detach
from oocr_influence.cli.disk import reserve_disk
from oocr_influence.cli.experiment import (
    Experiment,
    record_execution,
    resume_experiment,
    run_experiments,
    start_experiment,
    unfinished_twin,
)
from oocr_influence.cli.extending import (
    add_jobs,
    extended_values,
    known_commits,
    new_jobs,
)
from oocr_influence.cli.extending_subsets import check_extension, further_subsets
from oocr_influence.cli.grid import axes_of
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.plan_hardware import hardware_of
from oocr_influence.cli.plan_sweep import plan_sweep
from oocr_influence.cli.preparation import Preparation
from oocr_influence.cli.subset_plan import SubsetPlan, plan_subsets
from oocr_influence.cli.sweep_arguments import NOT_OF_THE_EXPERIMENT, DataModelingArgs
from oocr_influence.cli.sweep_plan import Planned, needed, plan, plan_all
from oocr_influence.results.atomic import plain, write_json


def main(args: DataModelingArgs) -> int:
    """Plan, check, run; returns 0 only if every job succeeded."""
    if not args.dry_run:
        args.execution().check()
    if args.resume is not None:
        experiment = resume_experiment(args.resume)
        asked = max(1, args.gpus_per_job)
        if "gpus_per_job" in args.model_fields_set and asked != experiment.processes:
            raise UsageError(
                f"--gpus_per_job {args.gpus_per_job}: this experiment was started with "
                f"{experiment.processes} a run, and goes on so: leave it out"
            )
        if args.extend:
            experiment = _extended(args, experiment)
        if args.dry_run:
            print("\n".join(experiment.describe()))
            return 0
        left = still_to_write(experiment.jobs)
        reservation = reserve_disk(experiment.folder.path, left, "what is left of it")
    else:
        if args.gpus_per_job > 1 and not args.dry_run and args.execution().is_here:
            _check_gpus(args.gpus_per_job)
        planned = plan_all(args)
        subsets = plan_subsets(args, planned[0].preparation)
        n_runs, n_bytes = sum(len(one.runs) for one in planned), needed(args, planned)
        if subsets is not None:
            print("\n".join(subsets.describe()))
            n_runs += len(subsets.runs)
            n_bytes += subsets.needed_bytes()
        if args.dry_run:
            return 0
        reservation = reserve_disk(args.output_dir, n_bytes, f"{n_runs} runs")
        experiment = start_all(args, planned, subsets)
    print(f"experiment: {experiment.folder.path}")
    if not args.start:
        reservation.close()
        print(f"nothing runs yet; workers join with: oocr worker {_quoted(experiment)}")
        return 0
    record_execution(experiment, args.repeated())
    if args.detach:
        reservation.close()  # the driver reserves it anew
        return detach(experiment.folder, ["data_modeling", *_how(args, experiment)])
    with reservation:
        result = run_experiments([experiment], args.execution(), reservation)
    print(result.summary())
    if result.ok:
        print(f"check it with: oocr verify {experiment.folder.path}")
        return 0
    print(f"go on with: {_command()} --resume {_quoted(experiment)}")
    return INTERRUPTED if result.interrupted else 1


def _quoted(experiment: Experiment) -> str:
    return shlex.quote(str(experiment.folder.path))


def _how(args: DataModelingArgs, experiment: Experiment) -> list[str]:
    """The words that go on with an experiment as it is run here."""
    stated = [f"--{name}={value}" for name, value in args.repeated().items()]
    return ["--resume", str(experiment.folder.path), *stated]


def _extended(args: DataModelingArgs, experiment: Experiment) -> Experiment:
    """The experiment with the runs that are asked for beside its own; nothing but that is new."""
    stated = args.model_dump(include=args.model_fields_set - NOT_OF_THE_EXPERIMENT)
    check_extension(experiment, plain(stated))
    known = known_commits(experiment)
    values = extended_values(experiment, stated)
    wanted = DataModelingArgs.model_validate(
        {**values, "dry_run": args.dry_run, "max_workers": args.max_workers}
    )
    planned = plan_all(wanted, lambda run: known.get((run.model, run.revision)))
    new = new_jobs(experiment, [one.group() for one in planned])
    subsets = further_subsets(experiment, wanted, planned[0].preparation)
    if subsets is not None:
        print("\n".join(subsets.describe()))
        new += subsets.jobs(experiment.folder)
    print(f"{len(new)} new jobs beside {len(experiment.jobs)}")
    if not args.dry_run:
        if subsets is not None:
            subsets.write(experiment.folder)
        add_jobs(experiment, new, stated, axes=axes_of([one.point for one in planned]))
    return Experiment(experiment.folder, [*experiment.jobs, *new])


def _check_gpus(wanted: int) -> None:
    if (seen := len(visible_gpus())) < wanted:
        raise UsageError(
            f"--gpus_per_job {wanted}: only {seen} GPUs can be seen here: lower it, or name more "
            "in CUDA_VISIBLE_DEVICES"
        )


def start(args: DataModelingArgs, runs: list[TrainingArgs], preparation: Preparation) -> Experiment:
    """Make the experiment's folder of a sweep without a grid; see `start_all`."""
    return start_all(args, [Planned(args, runs, preparation)])


def start_all(
    args: DataModelingArgs, planned: list[Planned], subsets: SubsetPlan | None = None
) -> Experiment:
    """Make the experiment's folder; says so where an unfinished one of the same arguments lies."""
    preparation = planned[0].preparation
    recorded = args.of_the_experiment() | {
        "n_pretraining_examples": preparation.args.n_pretraining_examples,
        "micro_batch_size": preparation.args.micro_batch_size,
        "gradient_checkpointing": preparation.args.gradient_checkpointing,
    }
    twin = unfinished_twin(args.output_dir, recorded)
    if twin is not None:
        print(
            "an unfinished experiment of the same arguments is there; to go on with it instead:\n"
            f"  {_command()} --resume {shlex.quote(str(twin.path))}"
        )
    experiment = start_experiment(
        args.experiment_name,
        args.output_dir,
        preparation.args.structured_dataset,
        recorded,
        [one.group() for one in planned],
        subsets=subsets,
        micro_batch_trial=preparation.micro_batch_trial,
        axes=axes_of([one.point for one in planned]) or None,
    )
    _write_plan(args, planned, subsets, experiment)
    return experiment


def _write_plan(
    args: DataModelingArgs,
    planned: list[Planned],
    subsets: SubsetPlan | None,
    experiment: Experiment,
) -> None:
    """What is expected, for `oocr plan --against`; a sweep does not depend on it."""
    try:
        hardware = hardware_of(on_cpu=args.gpus_per_job == 0, here=args.execution().is_here)
        write_json(experiment.folder.plan, plan_sweep(args, planned, hardware, subsets=subsets))
    except Exception as error:
        warnings.warn(f"no plan.json was written: {type(error).__name__}: {error}", stacklevel=2)


def _command() -> str:
    script = Path(sys.argv[0]).name
    if script == "data_modeling.py":
        return "python experiments/data_modeling.py"
    return "oocr data_modeling"


__all__ = ["DataModelingArgs", "UsageError", "main", "plan", "plan_all", "start", "start_all"]

if __name__ == "__main__":
    run_command(DataModelingArgs, main)
