"""An experiment as a folder and a list of jobs: planned, written down, run, summed up.

`data_modeling` runs one experiment; `replicate` runs several in one pool of workers.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from launcher.disk import DiskReservation
from launcher.driver import WorkersFailError
from launcher.engine import EngineError
from launcher.jobs import Job, JobSpec, is_alive, load_jobs, read_exit, read_state
from launcher.outcomes import SweepResult
from launcher.status import read_sweep
from launcher.sweep import SweepRunningError
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.engines import Execution
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import Preparation
from oocr_influence.results.digests import file_digest
from oocr_influence.results.experiment_log import ExperimentLog, read_experiment_log
from oocr_influence.results.finding import find_experiments
from oocr_influence.results.provenance import collect_provenance, command_entry
from oocr_influence.results.run_folder import ExperimentFolder

JOB_FUNCTION = "oocr_influence.cli.train_extractive:run_job"
# Imported once a worker: they take seconds, and none of them touches a GPU.
PRELOAD = ("oocr_influence.cli.preload",)
LOGGERS = ("oocr_influence", "launcher")


@dataclass(frozen=True)
class JobRules:
    """What the launcher does with a run that does not end well, and the disk that it keeps."""

    lost_retries: int = 3
    hang_minutes: float | None = None
    out_of_memory_retry: bool = False
    disk_bytes: int = 0

    def on_exit(self, run: TrainingArgs) -> dict[str, dict[str, Any]]:
        """Further tries by kind of end: a run goes on from its last state, with the same bits.

        Another micro-batch changes bits, in bf16 more than the last: such a run begins anew, in a
        folder of its own, and the attempt's record has the change.
        """
        again = {"retry": True, "limit": self.lost_retries}
        rules: dict[str, dict[str, Any]] = dict.fromkeys(("lost", "hung", "-9"), again)
        size = run.micro_batch_size
        if self.out_of_memory_retry and isinstance(size, int) and size > 1:
            halved = {"retry": True, "limit": 1, "patch": {"micro_batch_size": size // 2}}
            rules["OutOfMemoryError"] = halved
        return rules


@dataclass(frozen=True)
class RunGroup:
    """The runs of one point of a grid, or of a sweep that has none: equal but for their orders."""

    runs: Sequence[TrainingArgs]
    rules: JobRules = field(default_factory=JobRules)
    name: str = ""
    """The point's, in ids of jobs."""
    label: str = ""
    """The point's, for people."""


class MoreJobs(Protocol):
    """Jobs of an experiment beside those of runs on all its documents."""

    def write(self, folder: ExperimentFolder) -> None: ...

    def jobs(self, folder: ExperimentFolder) -> list[Job]: ...


@dataclass(frozen=True)
class Experiment:
    """An experiment on disk and its jobs."""

    folder: ExperimentFolder
    jobs: list[Job] = field(default_factory=list)

    @property
    def processes(self) -> int:
        """Processes of each of its runs."""
        return max((int(job.spec.args.get("processes", 1)) for job in self.jobs), default=1)

    def describe(self) -> list[str]:
        """A line a job: done, or still to be run."""
        done = {job.label: (read_exit(job.folder) or {}).get("status") == "ok" for job in self.jobs}
        return [f"{label}: {'done' if ok else 'to be run'}" for label, ok in done.items()]


def start_experiment(
    name: str,
    output_dir: Path,
    dataset_file: Path,
    args: dict[str, Any],
    groups: Sequence[RunGroup],
    subsets: MoreJobs | None = None,
    **about: Any,
) -> Experiment:
    """Make the experiment's folder, its copy of the dataset, its log and its jobs.

    `subsets` writes what further jobs need, and makes them. `about` is written into its log as
    well, where it is not None.
    """
    folder = ExperimentFolder.create(output_dir.resolve(), name)
    shutil.copyfile(dataset_file, folder.structured_dataset)
    jobs = jobs_of(folder, groups)
    if subsets is not None:
        subsets.write(folder)
        jobs += subsets.jobs(folder)
    log = ExperimentLog(folder.experiment_log, experiment_name=folder.name, args=args)
    log.update(
        status="running",
        sweep_id=folder.name,
        provenance=collect_provenance(folder.path),
        commands=[command_entry()],
        dataset_digest=file_digest(folder.structured_dataset),
        jobs=[job.spec.id for job in jobs],
        **{name: value for name, value in about.items() if value is not None},
    )
    log.write()
    for job in jobs:
        job.write()
    return Experiment(folder, jobs)


def resume_experiment(path: Path) -> Experiment:
    """The experiment of an existing folder; its finished jobs are not run again."""
    found = find_experiments(path)
    if len(found) != 1 or not found[0].jobs.is_dir():
        raise UsageError(f"--resume {path} is not the folder of an experiment with jobs")
    jobs = load_jobs(found[0].jobs)
    sweep = read_sweep(found[0].jobs)
    if sweep.driver_alive == "alive":
        raise UsageError(f"--resume {path}: it is being run by {sweep.driven_by()}")
    return Experiment(found[0], jobs)


def run_experiments(
    experiments: Sequence[Experiment],
    execution: Execution,
    reservation: DiskReservation | None = None,
) -> SweepResult:
    """Run all jobs of all experiments in one pool, in the order given, and log how they ended.

    Where there are GPUs, each job has as many as the largest has processes.
    """
    processes = max((experiment.processes for experiment in experiments), default=1)
    jobs = [job for experiment in experiments for job in experiment.jobs]
    for experiment in experiments:
        _record_command(experiment)
    with _text_logs([experiment.folder for experiment in experiments]):
        try:
            result = execution.sweep(jobs, processes, reservation).run()
        except (SweepRunningError, EngineError, WorkersFailError) as error:
            raise UsageError(str(error)) from error
        logging.getLogger("oocr_influence").info(result.summary())
    for experiment in experiments:
        _record_end(experiment, result)
    return result


def unfinished_twin(output_dir: Path, args: dict[str, Any]) -> ExperimentFolder | None:
    """The newest experiment of the same arguments that is neither finished nor running."""
    if not output_dir.is_dir():
        return None
    for folder in reversed(find_experiments(output_dir)):
        try:
            logged = read_experiment_log(folder.experiment_log)
        except (OSError, ValueError):
            continue  # the earlier system's, or a broken one: not ours to resume
        jobs = folder.job_folders()
        done = all((read_exit(job) or {}).get("status") == "ok" for job in jobs)
        alive = any(is_alive(read_state(job)) for job in jobs)
        if logged.args == args and jobs and not done and not alive:
            return folder
    return None


def describe_jobs(preparation: Preparation, runs: Sequence[TrainingArgs]) -> list[str]:
    """The plan of a sweep of equal runs: data, steps, jobs."""
    seeds = ", ".join(str(run.data_order_seed) for run in runs)
    each = f", {runs[0].processes} GPUs each" if runs[0].processes > 1 else ""
    return [
        preparation.describe_data(),
        preparation.describe_schedule(),
        f"{len(runs)} runs{each}, data order seeds {seeds}",
    ]


def jobs_of(folder: ExperimentFolder, groups: Sequence[RunGroup]) -> list[Job]:
    """A job a run; the same run in two groups is one."""
    jobs: list[Job] = []
    for group in groups:
        for run in group.runs:
            job = _job(folder, run, group)
            if all(job.spec.args != other.spec.args for other in jobs):
                jobs.append(job)
    return jobs


def group_id(group: RunGroup, run: TrainingArgs) -> str:
    """The id of a run's job: `all_docs_epochs_5_lr_0.0001_seed_42`."""
    point = f"{group.name}_" if group.name else ""
    return f"all_docs_{point}seed_{run.data_order_seed}"


def record_execution(experiment: Experiment, flags: Mapping[str, Any]) -> None:
    """Write down how the experiment is run now, for `oocr resume`."""
    log = ExperimentLog.resume(experiment.folder.experiment_log)
    log.update(execution=dict(flags))
    log.write()


def _job(folder: ExperimentFolder, run: TrainingArgs, group: RunGroup) -> Job:
    job_id, rules = group_id(group, run), group.rules
    label = f"{run.experiment_name} {group.label + ', ' if group.label else ''}seed"
    args = run.model_copy(
        update={
            "structured_dataset": folder.structured_dataset,
            "output_dir": folder.all_docs_runs,
            "sweep_id": folder.name,
        }
    )
    spec = JobSpec(
        id=job_id,
        function=JOB_FUNCTION,
        args=args.model_dump(mode="json"),
        label=f"{label} {run.data_order_seed}",
        preload=PRELOAD,
        on_exit=rules.on_exit(run),
        silence_limit=None if rules.hang_minutes is None else 60 * rules.hang_minutes,
        disk_bytes=rules.disk_bytes,
    )
    return Job(spec, folder.job(job_id))


def _record_command(experiment: Experiment) -> None:
    """Add this process's command to the experiment's, if it is not the last of them already."""
    log = ExperimentLog.resume(experiment.folder.experiment_log)
    before, own = log.log_dict.get("commands", []), command_entry()
    if before and all(before[-1].get(name) == own[name] for name in ("host", "pid", "command")):
        return
    log.update(commands=[*before, own])
    log.write()


def _record_end(experiment: Experiment, result: SweepResult) -> None:
    """Status and outcomes of an experiment's own jobs, into its log."""
    own = {job.folder for job in experiment.jobs}
    outcomes = [outcome for outcome in result.outcomes if outcome.job.folder in own]
    ended = "interrupted" if result.interrupted else "failed"
    log = ExperimentLog.resume(experiment.folder.experiment_log)
    log.update(
        status="completed" if all(o.status == "ok" for o in outcomes) else ended,
        outcomes={
            o.job.spec.id: {"status": o.status, "seconds": o.seconds, "message": o.message}
            for o in outcomes
        },
    )
    log.write()


@contextmanager
def _text_logs(folders: Sequence[ExperimentFolder]) -> Iterator[None]:
    """Send the log lines of the sweep to each experiment's `experiment.log`."""
    handlers = []
    for folder in folders:
        handler = logging.FileHandler(folder.text_log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        handlers.append(handler)
    try:
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.INFO)
            for handler in handlers:
                logging.getLogger(name).addHandler(handler)
        yield
    finally:
        for handler in handlers:
            for name in LOGGERS:
                logging.getLogger(name).removeHandler(handler)
            handler.close()
