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
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from launcher.disk import still_to_write
from launcher.gpus import visible_gpus
from oocr_influence.cli.arguments import INTERRUPTED, UsageError, run_command
from oocr_influence.cli.disk import check_disk, gigabytes, reserve_disk
from oocr_influence.cli.experiment import (
    Execution,
    Experiment,
    JobRules,
    describe_jobs,
    resume_experiment,
    run_experiments,
    start_experiment,
    unfinished_twin,
)
from oocr_influence.cli.micro_batch import describe_trial, settle
from oocr_influence.cli.options import TrainingArgs, TrainingOptions
from oocr_influence.cli.preparation import Preparation, prepare
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
    "gpus_per_job",
    "busy_gpus",
}


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

    execution_mode: Literal["local", "in_process"] = "local"
    """local: a pool of workers on this machine; in_process: one run after the other, right here"""
    gpus_per_job: int = Field(default=1, ge=1)
    """GPUs of one run, which shares its model out over them (GPUs)"""
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

    @field_validator("execution_mode", mode="before")
    @classmethod
    def _known_modes(cls, value: Any) -> Any:
        if value == "kubernetes":
            raise ValueError("the earlier system's kubernetes mode is not here: use local")
        return value

    @model_validator(mode="after")
    def _can_be_done(self) -> DataModelingArgs:
        faults = []
        asked = [name for name in SUBSET_FLAGS if self._states_a_subset(name)]
        if asked:
            flags = ", ".join(f"--{name}" for name in asked)
            faults.append(f"{flags}: runs on subsets of the documents are not here yet")
        faults += self.alone_faults(self.gpus_per_job, "--gpus_per_job")
        if self.wandb_project is not None:
            faults.append("--wandb_project: the earlier system's logger is not here")
        if self.force_git_repo_has_sweep:
            faults.append("--force_git_repo_has_sweep: the commit and diff are recorded instead")
        ignored = sorted(self.model_fields_set - NOT_OF_THE_EXPERIMENT)
        if self.resume is not None and ignored:
            flags = ", ".join(f"--{name}" for name in ignored)
            faults.append(f"{flags}: with --resume an experiment goes on as it was started")
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

    def runs(self) -> list[TrainingArgs]:
        """One run a data order, on all documents."""
        assert self.dataset_builder_path is not None
        shared = {name: getattr(self, name) for name in TrainingOptions.model_fields}
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
                processes=self.gpus_per_job,
            )
            for i in range(self.runs_per_dataset_all_docs)
        ]

    def execution(self) -> Execution:
        """How the runs are run."""
        return Execution(
            mode=self.execution_mode, max_workers=self.max_workers, strangers=self.busy_gpus
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
        return self.model_dump(mode="json", exclude=NOT_OF_THE_EXPERIMENT)


def main(args: DataModelingArgs) -> int:
    """Plan, check, run; returns 0 only if every job succeeded."""
    if args.resume is not None:
        experiment = resume_experiment(args.resume)
        if "gpus_per_job" in args.model_fields_set and args.gpus_per_job != experiment.processes:
            raise UsageError(
                f"--gpus_per_job {args.gpus_per_job}: this experiment was started with "
                f"{experiment.processes} a run, and goes on so: leave it out"
            )
        if args.dry_run:
            print("\n".join(experiment.describe()))
            return 0
        left = still_to_write(experiment.jobs)
        reservation = reserve_disk(experiment.folder.path, left, "what is left of it")
    else:
        if args.gpus_per_job > 1 and not args.dry_run:
            _check_gpus(args.gpus_per_job)
        runs, preparation = plan(args)
        if args.dry_run:
            return 0
        what = f"{len(runs)} runs"
        reservation = reserve_disk(args.output_dir, needed(args, runs, preparation), what)
        experiment = start(args, runs, preparation)
    print(f"experiment: {experiment.folder.path}")
    with reservation:
        result = run_experiments([experiment], args.execution(), reservation)
    print(result.summary())
    if result.ok:
        print(f"check it with: oocr verify {experiment.folder.path}")
        return 0
    print(f"go on with: {_command()} --resume {shlex.quote(str(experiment.folder.path))}")
    return INTERRUPTED if result.interrupted else 1


def _check_gpus(wanted: int) -> None:
    if (seen := len(visible_gpus())) < wanted:
        raise UsageError(
            f"--gpus_per_job {wanted}: only {seen} GPUs can be seen here: lower it, or name more "
            "in CUDA_VISIBLE_DEVICES"
        )


def plan(args: DataModelingArgs) -> tuple[list[TrainingArgs], Preparation]:
    """The runs of a sweep, checked and described; raises UsageError before anything is written."""
    runs = args.runs()
    preparation = prepare(runs[0], at_most="n_pretraining_examples" not in args.model_fields_set)
    if args.micro_batch_size == "auto" and not args.dry_run:
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
    runs = [run.model_copy(update=settled) for run in runs]
    if args.dry_run:
        print(json.dumps(args.model_dump(mode="json"), indent=1))
    for line in describe_jobs(preparation, runs):
        print(line)
    print(args.describe_treatment())
    if (memory := preparation.describe_memory()) is not None:
        print(memory)
    left = len(runs) * preparation.run_bytes()
    passing = needed(args, runs, preparation) - left
    beside = f", and up to {gigabytes(passing)} while it goes on" if passing else ""
    print(f"disk: {gigabytes(left)} in {args.output_dir}{beside}")
    if args.dry_run:
        check_disk(args.output_dir, left + passing, f"{len(runs)} runs")
    return runs, preparation


def needed(args: DataModelingArgs, runs: list[TrainingArgs], preparation: Preparation) -> int:
    """What the runs will leave on the disk, and take beside that while they go on (bytes)."""
    at_once = min(len(runs), args.max_workers or len(runs))
    return len(runs) * preparation.run_bytes() + at_once * preparation.passing_bytes()


def start(args: DataModelingArgs, runs: list[TrainingArgs], preparation: Preparation) -> Experiment:
    """Make the experiment's folder; says so where an unfinished one of the same arguments lies."""
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
        runs,
        args.job_rules(preparation.run_bytes()),
        micro_batch_trial=preparation.micro_batch_trial,
    )


def _command() -> str:
    script = Path(sys.argv[0]).name
    if script == "data_modeling.py":
        return "python experiments/data_modeling.py"
    return "oocr data_modeling"


__all__ = ["DataModelingArgs", "UsageError", "main", "plan", "start"]

if __name__ == "__main__":
    run_command(DataModelingArgs, main)
