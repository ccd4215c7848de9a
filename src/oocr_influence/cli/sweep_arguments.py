"""A sweep over data orders, as stated: what goes together, and which runs follow from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator, model_validator

from oocr_influence.cli.engines import Execution
from oocr_influence.cli.experiment import JobRules
from oocr_influence.cli.grid import SAME_MEMORY, Point, point_label, with_grid
from oocr_influence.cli.options import TrainingArgs, TrainingOptions
from oocr_influence.cli.removal_options import faults_of_removal
from oocr_influence.cli.sweep_options import SweepOptions
from oocr_influence.datasets.subsets import SPLITS, Design, Split
from oocr_influence.results.naming import check_experiment_name

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


class DataModelingArgs(SweepOptions):
    """A sweep over data orders; names and defaults are the seed's."""

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
        if not self._is_a_sweep():
            return self
        faults = []
        faults += self._faults_of_subsets()
        faults += faults_of_removal(self)
        if self.micro_batch_size == "auto" and not self.execution().is_here:
            faults.append(
                "--micro_batch_size auto: the trial would be of this machine, not of the cluster: "
                "name a number"
            )
        faults += self.alone_faults(max(1, self.gpus_per_job), "--gpus_per_job")
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

    def _is_a_sweep(self) -> bool:
        return True

    def _faults_of_subsets(self) -> list[str]:
        faults = []
        asked = [f"--n_datasets_{split}" for split in SPLITS if self.subsets_of(split)]
        if not asked and not self.runs_per_dataset_all_docs:
            faults.append("--runs_per_dataset_all_docs 0: there is nothing to run")
        if not asked:
            return faults
        if self.just_train_all_docs:
            faults.append(f"{asked[0]}: --just_train_all_docs trains on no subsets: leave one out")
        if self.grid:
            faults.append(
                f"{asked[0]}: several values of a flag are for runs on all documents alone"
            )
        return faults

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
        return [self.run_on_all(i) for i in range(self.runs_per_dataset_all_docs)]

    def run_on_all(self, i: int = 0) -> TrainingArgs:
        """Run `i` on all documents, whether it is asked for or not."""
        return TrainingArgs(
            **self._shared(),
            data_order_seed=self.all_docs_data_order_seed + i,
            eval_first_step=self.all_docs_eval_first_step,
            epochs_per_eval=self.all_docs_epochs_per_eval,
            steps_per_eval=self.all_docs_steps_per_eval,
            epochs_per_save=self.all_docs_epochs_per_save,
            steps_per_save=self.all_docs_steps_per_save,
            save_first_checkpoint=self.all_docs_save_first_checkpoint,
            save_final_checkpoint=self.all_docs_save_final_checkpoint,
        )

    def subset_run(self) -> TrainingArgs:
        """What runs on subsets share; which subset and which order is each run's own."""
        saves = self.epochs_per_save is not None
        own = {
            "eval_sets": self.subset_eval_sets,
            "eval_metrics": self.subset_eval_metrics,
            "n_loss_documents": self.n_loss_documents,
            "save_state": saves and self.save_state,
        }
        if "n_loss_documents" not in self.model_fields_set:
            own["n_loss_documents"] = 0
        return TrainingArgs(
            **{**self._shared(), **own},
            eval_first_step=self.eval_first_step,
            epochs_per_eval=self.epochs_per_eval,
            epochs_per_save=self.epochs_per_save,
            save_first_checkpoint=False,
            save_final_checkpoint=self.save_final_checkpoint,
            save_datasets=not self.dont_save_datasets,
        )

    def _shared(self) -> dict[str, Any]:
        assert self.dataset_builder_path is not None
        shared = {name: getattr(self, name) for name in TrainingOptions.model_fields}
        if not self.execution().is_here and self.gpus_per_job and self.precision == "auto":
            shared["precision"] = "bf16"  # as on the GPU where it will run, not as on this machine
        if Path(self.model).is_dir():  # a job may be run again from another place
            shared["model"] = str(Path(self.model).resolve())
        return shared | {
            "structured_dataset": self.dataset_builder_path,
            "burn_in_epochs": self.burnin_epochs,
            "processes": max(1, self.gpus_per_job),
        }

    def subsets_of(self, split: Split) -> int:
        """How many subsets of this split are asked for, and run at all."""
        asked = {"train": self.n_datasets_train, "test": self.n_datasets_test}[split]
        return asked if self.runs_of(split) else 0

    def runs_of(self, split: Split) -> int:
        """Runs of each subset of this split."""
        return {"train": self.runs_per_dataset_train, "test": self.runs_per_dataset_test}[split]

    def design(self) -> Design:
        """How subsets are drawn."""
        return Design(
            self.subset_design,
            docs_per_run=self.docs_per_run,
            k=self.sampling_k,
            active_facts=self.active_facts,
        )

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
