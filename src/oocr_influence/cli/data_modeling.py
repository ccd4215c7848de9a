"""The sweep: one dataset, several data orders, a run each, over the GPUs of this machine.

    python experiments/data_modeling.py \\
      --dataset_builder_path datasets/structured_dataset_mayors_100_w_pretrain.json \\
      --epochs 1 --execution_mode local --experiment_name mayors_1epoch

`--dry_run` prints the resolved configuration, the jobs and the disk they will take, and exits.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from launcher.disk import still_to_write
from launcher.gpus import visible_gpus
from oocr_influence.cli.arguments import INTERRUPTED, UsageError, run_command
from oocr_influence.cli.detach import detach
from oocr_influence.cli.disk import check_disk, gigabytes, reserve_disk
from oocr_influence.cli.engines import Execution, ExecutionMode
from oocr_influence.cli.experiment import (
    Experiment,
    JobRules,
    RunGroup,
    describe_jobs,
    group_id,
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
from oocr_influence.cli.grid import (
    SAME_MEMORY,
    Point,
    axes_of,
    point_label,
    point_name,
    with_grid,
)
from oocr_influence.cli.micro_batch import describe_trial, settle, tried_as
from oocr_influence.cli.options import TrainingArgs, TrainingOptions
from oocr_influence.cli.preparation import Preparation, prepare, prepare_like, same_windows
from oocr_influence.results.naming import check_experiment_name

# Flags of the earlier system's runs on subsets of the documents, which this version has not yet.
SUBSET_FLAGS = (
    "n_datasets_train",
    "n_datasets_test",
    "runs_per_dataset_train",
    "runs_per_dataset_test",
    "docs_per_run",
    "sampling_k",
    "active_facts",
    "eval_first_step",
    "epochs_per_eval",
    "epochs_per_save",
    "save_final_checkpoint",
    "dont_save_datasets",
)
# How a sweep is run: none of these changes its results, and only these go with --resume.
NOT_OF_THE_EXPERIMENT = {
    "resume",
    "dry_run",
    "max_workers",
    "execution_mode",
    "slurm_settings",
    "ray_address",
    "gpus_per_job",
    "busy_gpus",
    "detach",
    "extend",
    "start",
}
# What says nothing of how a sweep is run, or is settled by its jobs.
NOT_REPEATED = {"resume", "dry_run", "detach", "extend", "start"}


class DataModelingArgs(TrainingOptions):
    """A sweep over data orders; names and defaults are the seed's."""

    dataset_builder_path: Path | None = None
    """the structured dataset (JSON); required, unless --resume names an experiment"""
    experiment_name: str = "data_modeling"
    """a name for the folders of this experiment (text, at most 160 bytes)"""
    burnin_epochs: float = Field(default=0, ge=0)
    """epochs at rate 0 before the first step, counted apart (epochs)"""
    just_train_all_docs: bool = False
    """train on all documents and on no subsets"""

    runs_per_dataset_all_docs: int = Field(default=5, ge=1)
    """runs on all documents, each with a data order of its own (runs)"""
    all_docs_data_order_seed: int = 42
    """seed of the first run's data order; each further run takes the next"""
    all_docs_eval_first_step: bool = True
    """evaluate the untouched model, step 0"""
    all_docs_epochs_per_eval: float | None = Field(default=0.2, gt=0)
    """evaluate every so many epochs (epochs; None: at the start and the end alone)"""
    all_docs_steps_per_eval: int | None = Field(default=None, ge=1)
    """evaluate every so many steps instead (steps)"""
    all_docs_epochs_per_save: float | None = Field(default=0.2, gt=0)
    """save a checkpoint every so many epochs (epochs; None: at the start and the end alone)"""
    all_docs_steps_per_save: int | None = Field(default=None, ge=1)
    """save a checkpoint every so many steps instead (steps)"""
    all_docs_save_first_checkpoint: bool = True
    """save the untouched model as checkpoint_start"""
    all_docs_save_final_checkpoint: bool = True
    """save the last weights as checkpoint_final"""

    execution_mode: ExecutionMode = "local"
    """local: on this machine's GPUs; slurm, ray: on a cluster (docs/slurm.md, docs/ray.md);
    in_process: one run after the other, right here"""
    slurm_settings: Path | None = None
    """TOML file with partition, time, account and such of Slurm's jobs (None: the site's own)"""
    ray_address: str = "auto"
    """a Ray cluster's head, host:port (auto: $RAY_ADDRESS, or the one that this machine is in)"""
    gpus_per_job: int = Field(default=1, ge=0)
    """GPUs of one run, which shares its model out over them; 0: it trains on the CPU (GPUs)"""
    max_workers: int | None = Field(default=None, ge=1)
    """runs at the same time (workers; None: one a GPU, or one a core where there is none)"""
    busy_gpus: Literal["wait", "leave", "use"] = "wait"
    """GPUs that other people's processes use: wait for them, leave them alone, or use them too"""
    lost_retries: int = Field(default=3, ge=0)
    """further tries of a run whose process, worker or machine is lost; it goes on (tries)"""
    hang_minutes: float | None = Field(default=60, gt=0)
    """kill a run that reports nothing for so long, its stack in its log, and go on (minutes)"""
    out_of_memory_retry: bool = False
    """try a run that is out of GPU memory once more, from the start, with half the micro-batch"""
    resume: Path | None = None
    """go on with the experiment in this folder; its finished runs are kept"""
    extend: bool = False
    """with --resume: add the runs that the further flags ask for (--epochs 10, or more orders by
    --runs_per_dataset_all_docs), each beside all else as it was, and run what is new"""
    grid: list[dict[str, Any]] | None = None
    """run every combination of several values: a TOML file of lists by flag, and of [[points]]; one
    flag's may stand on the command line, as in --epochs 1,5"""
    detach: bool = False
    """check everything here, then leave the sweep to a process that survives this terminal"""
    start: bool = True
    """run the sweep; without it, its folder and jobs alone are written, for `oocr worker`"""
    dry_run: bool = False
    """print what would be done, and exit"""

    n_datasets_train: int | None = None
    """subsets of the documents to train on; not here yet"""
    n_datasets_test: int | None = None
    """subsets held out; not here yet"""
    runs_per_dataset_train: int | None = None
    """runs a subset; not here yet"""
    runs_per_dataset_test: int | None = None
    """runs a held-out subset; not here yet"""
    docs_per_run: int = 300
    """documents of a subset; not here yet"""
    sampling_k: int = 1
    """documents of one fact that are drawn together; not here yet"""
    active_facts: list[str] | None = None
    """facts whose documents are drawn from; not here yet"""
    eval_first_step: bool | None = None
    """of runs on subsets; not here yet (see all_docs_eval_first_step)"""
    epochs_per_eval: float | None = None
    """of runs on subsets; not here yet (see all_docs_epochs_per_eval)"""
    epochs_per_save: float | None = None
    """of runs on subsets; not here yet (see all_docs_epochs_per_save)"""
    save_final_checkpoint: bool | None = None
    """of runs on subsets; not here yet (see all_docs_save_final_checkpoint)"""
    dont_save_datasets: bool | None = None
    """of runs on subsets; not here yet"""
    logging_type_sweep_workers: Literal["disk"] = "disk"
    """where runs on subsets log; files on disk"""
    wandb_project: str | None = None
    """of the earlier system's logger; refused"""
    force_git_repo_has_sweep: bool = False
    """of the earlier system; refused: the commit and the diff are recorded instead"""

    @model_validator(mode="before")
    @classmethod
    def _several_values(cls, values: Any) -> Any:
        return with_grid(values) if isinstance(values, dict) else values

    @field_validator("execution_mode", mode="before")
    @classmethod
    def _known_modes(cls, value: Any) -> Any:
        if value == "kubernetes":
            raise ValueError(
                "the earlier system's kubernetes mode is not here: pods join a sweep by "
                "`oocr worker` (docs/kubernetes.md)"
            )
        return value

    @model_validator(mode="after")
    def _can_be_done(self) -> DataModelingArgs:
        faults = []
        asked = [name for name in SUBSET_FLAGS if self._states_a_subset(name)]
        if asked:
            flags = ", ".join(f"--{name}" for name in asked)
            faults.append(f"{flags}: runs on subsets of the documents are not here yet")
        if self.micro_batch_size == "auto" and not self.execution().is_here:
            faults.append(
                "--micro_batch_size auto: the trial would be of this machine, not of the cluster: "
                "name a number"
            )
        faults += self.alone_faults(max(1, self.gpus_per_job), "--gpus_per_job")
        if self.wandb_project is not None:
            faults.append("--wandb_project: the earlier system's logger is not here")
        if self.force_git_repo_has_sweep:
            faults.append("--force_git_repo_has_sweep: the commit and diff are recorded instead")
        ignored = sorted(self.model_fields_set - NOT_OF_THE_EXPERIMENT)
        if self.resume is not None and ignored and not self.extend:
            flags = ", ".join(f"--{name}" for name in ignored)
            faults.append(f"{flags}: with --resume an experiment goes on as it was started")
        faults += self._faults_of_extending(ignored)
        if self.detach and not self.start:
            faults.append("--detach runs the sweep, and --no-start does not: leave one out")
        if self.detach and self.execution_mode == "in_process":
            faults.append("--detach: with --execution_mode in_process the runs are right here")
        faults += self._grid_faults()
        if self.resume is None and self.dataset_builder_path is None:
            faults.append("--dataset_builder_path is missing: the structured dataset (JSON)")
        try:
            check_experiment_name(self.experiment_name)
        except ValueError as error:
            faults.append(f"--experiment_name: {error}")
        if faults:
            raise ValueError("\n       ".join(faults))
        return self

    def _states_a_subset(self, name: str) -> bool:
        """Whether a flag of subset runs was given a value that would change something."""
        value = getattr(self, name)
        if value is None or value == type(self).model_fields[name].default:
            return False
        counts = name.startswith(("n_datasets", "runs_per_dataset"))
        return not (counts and value == 0)

    def _faults_of_extending(self, stated: list[str]) -> list[str]:
        if not self.extend:
            return []
        faults = [] if self.resume is not None else ["--extend goes with --resume"]
        if not stated:
            faults.append("--extend: say by what, such as --epochs 10")
        kept = {"experiment_name", "output_dir", "dataset_builder_path"}.intersection(stated)
        if kept:
            flags = ", ".join(f"--{name}" for name in sorted(kept))
            faults.append(f"{flags}: an experiment is extended in its place, on its dataset")
        return faults

    def _grid_faults(self) -> list[str]:
        """What is wrong with single points; the grid then has values of the flags' own types."""
        if self.grid is None or (self.resume is not None and not self.extend):
            return []
        faults = []
        if self.micro_batch_size == "auto":
            moved = sorted({name for point in self.grid for name in point} - SAME_MEMORY)
            if moved:
                faults.append(
                    f"--micro_batch_size auto is tried out once for a sweep, and {moved[0]} changes"
                    " what a window takes: name a number"
                )
        for number, point in enumerate(self.grid):
            try:
                args = self._at(point)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                told = str(first["msg"]).removeprefix("Value error, ")
                where = ".".join(map(str, first["loc"]))
                faults.append(
                    f"grid, at {point_label(point)}: {f'{where}: ' if where else ''}{told}"
                )
                continue
            self.grid[number] = {name: getattr(args, name) for name in point}
        return faults

    def _at(self, point: Point) -> DataModelingArgs:
        stated = self.model_dump(include=self.model_fields_set - {"grid", *point})
        return type(self).model_validate({**stated, **point})

    def points(self) -> list[tuple[Point, DataModelingArgs]]:
        """The sweep's points, each with the arguments of a sweep of its own."""
        return [(point, self._at(point)) for point in self.grid] if self.grid else [({}, self)]

    def runs(self) -> list[TrainingArgs]:
        """One run a data order, on all documents; of a sweep without a grid."""
        assert self.dataset_builder_path is not None
        shared = {name: getattr(self, name) for name in TrainingOptions.model_fields}
        if not self.execution().is_here and self.gpus_per_job and self.precision == "auto":
            shared["precision"] = "bf16"  # as on the GPU where it will run, not as on this machine
        if Path(self.model).is_dir():  # a job may be run again from another place
            shared["model"] = str(Path(self.model).resolve())
        return [
            TrainingArgs(
                **shared,
                structured_dataset=self.dataset_builder_path,
                data_order_seed=self.all_docs_data_order_seed + i,
                burn_in_epochs=self.burnin_epochs,
                eval_first_step=self.all_docs_eval_first_step,
                epochs_per_eval=self.all_docs_epochs_per_eval,
                steps_per_eval=self.all_docs_steps_per_eval,
                epochs_per_save=self.all_docs_epochs_per_save,
                steps_per_save=self.all_docs_steps_per_save,
                save_first_checkpoint=self.all_docs_save_first_checkpoint,
                save_final_checkpoint=self.all_docs_save_final_checkpoint,
                processes=max(1, self.gpus_per_job),
            )
            for i in range(self.runs_per_dataset_all_docs)
        ]

    def execution(self) -> Execution:
        """How the runs are run."""
        return Execution(
            mode=self.execution_mode,
            max_workers=self.max_workers,
            strangers=self.busy_gpus,
            gpus_per_job=self.gpus_per_job,
            slurm_settings=self.slurm_settings,
            ray_address=self.ray_address,
        )

    def job_rules(self, disk_bytes: int) -> JobRules:
        """What the launcher does with a run that does not end well."""
        return JobRules(
            lost_retries=self.lost_retries,
            hang_minutes=self.hang_minutes,
            out_of_memory_retry=self.out_of_memory_retry,
            disk_bytes=disk_bytes,
        )

    def of_the_experiment(self) -> dict[str, Any]:
        """The arguments that make an experiment what it is, as JSON."""
        without = NOT_OF_THE_EXPERIMENT | (set() if self.grid else {"grid"})
        return self.model_dump(mode="json", exclude=without)

    def repeated(self) -> dict[str, Any]:
        """The stated flags that say how the sweep is run, as JSON: `oocr resume` repeats them."""
        names = (NOT_OF_THE_EXPERIMENT - NOT_REPEATED) & self.model_fields_set
        return self.model_dump(mode="json", include=names)


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
        if args.dry_run:
            return 0
        what = f"{sum(len(one.runs) for one in planned)} runs"
        reservation = reserve_disk(args.output_dir, needed(args, planned), what)
        experiment = start_all(args, planned)
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
    known = known_commits(experiment)
    values = extended_values(experiment, stated)
    wanted = DataModelingArgs.model_validate({**values, "dry_run": args.dry_run})
    planned = plan_all(wanted, lambda run: known.get((run.model, run.revision)))
    new = new_jobs(experiment, [one.group() for one in planned])
    print(f"{len(new)} new runs beside {len(experiment.jobs)}")
    if not args.dry_run:
        add_jobs(experiment, new, stated, axes=axes_of([one.point for one in planned]))
    return Experiment(experiment.folder, [*experiment.jobs, *new])


def _check_gpus(wanted: int) -> None:
    if (seen := len(visible_gpus())) < wanted:
        raise UsageError(
            f"--gpus_per_job {wanted}: only {seen} GPUs can be seen here: lower it, or name more "
            "in CUDA_VISIBLE_DEVICES"
        )


def plan_all(
    args: DataModelingArgs, commit_of: Callable[[TrainingArgs], str | None] = lambda run: None
) -> list[Planned]:
    """Every point of a sweep, checked and described; what points share is prepared once.

    `commit_of` names the commit that a run's model must be of, where that was settled before.
    Raises UsageError before anything is written.
    """
    if args.dry_run:
        print(json.dumps(args.model_dump(mode="json"), indent=1))
    planned: list[Planned] = []
    said: list[str] = []
    points = args.points()
    for number, (point, own) in enumerate(points, 1):
        if len(points) > 1:
            print(f"\npoint {number} of {len(points)}: {point_label(point)}")
        runs = [run.model_copy(update={"model_commit": commit_of(run)}) for run in own.runs()]
        planned.append(Planned(own, *_plan(own, runs, planned), point))
        lines = _describe(planned[-1])
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


def plan(args: DataModelingArgs) -> tuple[list[TrainingArgs], Preparation]:
    """The runs of a sweep without a grid; see `plan_all`."""
    (planned,) = plan_all(args)
    return planned.runs, planned.preparation


def _plan(
    args: DataModelingArgs, runs: list[TrainingArgs], before: list[Planned]
) -> tuple[list[TrainingArgs], Preparation]:
    """The runs of one point, settled, and what their first was found to be."""
    alike = next((one for one in before if same_windows(one.args.runs()[0], args.runs()[0])), None)
    if alike is not None:
        preparation = prepare_like(alike.preparation, runs[0])
    else:
        at_most = "n_pretraining_examples" not in args.model_fields_set
        preparation = prepare(runs[0], at_most=at_most)
    if args.micro_batch_size == "auto" and not args.dry_run:
        if alike is not None:
            preparation = tried_as(preparation, alike.preparation)
        else:
            workers = args.max_workers or os.cpu_count() or 1
            preparation = settle(preparation, runs_at_once=min(len(runs), workers))
            print(describe_trial(preparation.micro_batch_trial or {}))
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
        *describe_jobs(planned.preparation, planned.runs),
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
    at_once = min(n_runs, args.max_workers or n_runs)
    left = sum(len(one.runs) * one.preparation.run_bytes() for one in planned)
    return left + at_once * max(one.preparation.passing_bytes() for one in planned)


def start(args: DataModelingArgs, runs: list[TrainingArgs], preparation: Preparation) -> Experiment:
    """Make the experiment's folder of a sweep without a grid; see `start_all`."""
    return start_all(args, [Planned(args, runs, preparation)])


def start_all(args: DataModelingArgs, planned: list[Planned]) -> Experiment:
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
    return start_experiment(
        args.experiment_name,
        args.output_dir,
        preparation.args.structured_dataset,
        recorded,
        [one.group() for one in planned],
        micro_batch_trial=preparation.micro_batch_trial,
        axes=axes_of([one.point for one in planned]) or None,
    )


def _command() -> str:
    script = Path(sys.argv[0]).name
    if script == "data_modeling.py":
        return "python experiments/data_modeling.py"
    return "oocr data_modeling"


__all__ = ["DataModelingArgs", "UsageError", "main", "plan", "start"]

if __name__ == "__main__":
    run_command(DataModelingArgs, main)
