"""What is known of experiments before a word is written about them: their records, as data.

The launcher's ledger is another room's; whoever calls gives what it says as a `Ledger`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from oocr_influence.results.collected_runs import status_of
from oocr_influence.results.dataset_counts import DatasetCounts, count_dataset
from oocr_influence.results.experiment_log import LoggedExperiment, read_experiment_log
from oocr_influence.results.finding import dataset_file, runs_of
from oocr_influence.results.naming import is_stamped, unstamped
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder
from oocr_influence.results.upkeep import read_cleanups
from oocr_influence.results.variants import variant_of
from oocr_influence.results.verification import RunReport, is_completed, is_earlier


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try of a job; None is what its records do not say."""

    number: int
    host: str | None = None
    node: str | None = None
    """What an engine calls the machine, or its part: a node of Slurm's, an id of Ray's."""
    gpus: str | None = None
    """As CUDA_VISIBLE_DEVICES named them; empty for a core."""
    started_at: str | None = None
    ended_at: str | None = None
    seconds: float | None = None
    status: str | None = None
    """ok, failed, interrupted, lost, hung; None while nobody has said how it ended."""
    error: str = ""
    run: str | None = None
    """The name of the run's folder, as the job gave it back."""
    patch: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """A run that was planned, and its tries."""

    id: str
    label: str
    args: Mapping[str, Any]
    state: str
    """waiting, running, stopping, interrupted, failed or done."""
    attempts: Sequence[Attempt] = ()

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def started_at(self) -> str | None:
        return self.attempts[0].started_at if self.attempts else None


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What the launcher wrote down of an experiment's jobs."""

    jobs: Sequence[JobRecord] = ()
    driver: Mapping[str, Any] | None = None
    """Of the last who drove it: engine, gpus_per_job, at_once, driver, started_at, ended_at."""
    stop: Mapping[str, Any] | None = None
    """Who asked it to stop, and when, where that stands."""
    workers: Sequence[Mapping[str, Any]] = ()
    """Each with host and places, as far as known."""


@dataclass(frozen=True)
class RunRecord:
    """A run's folder as it lies there."""

    folder: RunFolder
    log: LoggedExperiment | None
    status: str
    variant: str
    complete: bool
    earlier: bool

    @property
    def args(self) -> Mapping[str, Any]:
        return (self.log.args if self.log else None) or {}

    @property
    def logged(self) -> Mapping[str, Any]:
        return self.log.log_dict if self.log else {}

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.logged.get("provenance") or {}

    @property
    def seed(self) -> Any:
        return self.args.get("data_order_seed")


@dataclass(frozen=True)
class ExperimentRecord:
    """An experiment; a run that was made on its own is one of a single run."""

    folder: ExperimentFolder
    log: LoggedExperiment | None
    runs: Sequence[RunRecord]
    ledger: Ledger
    cleanups: Sequence[Mapping[str, Any]]
    dataset: DatasetCounts | None
    dataset_fault: str | None
    alone: bool

    @property
    def name(self) -> str:
        """What the person called it."""
        stated = self.args.get("experiment_name") if self.alone else None
        return str(stated or unstamped(self.folder.name))

    @property
    def args(self) -> Mapping[str, Any]:
        return (self.log.args if self.log else None) or {}

    @property
    def logged(self) -> Mapping[str, Any]:
        return self.log.log_dict if self.log else {}

    @property
    def provenance(self) -> Mapping[str, Any]:
        own = self.logged.get("provenance")
        return own or next((run.provenance for run in self.runs if run.provenance), {})

    @property
    def earlier(self) -> bool:
        """Whether the earlier system wrote it."""
        return bool(self.runs) and all(run.earlier for run in self.runs)

    @property
    def planned(self) -> list[Mapping[str, Any]]:
        """The arguments of every run that was planned, of deleted ones too."""
        jobs = [job.args for job in self.ledger.jobs]
        own = [run.args for run in self.runs if self.job_of(run) is None and run.args]
        return [*jobs, *own]

    @property
    def n_planned(self) -> int:
        return len(self.ledger.jobs) or len(self.runs)

    @property
    def n_done(self) -> int:
        """Runs that came to their end, of which some may have been deleted since."""
        if self.ledger.jobs:
            return sum(job.state == "done" for job in self.ledger.jobs)
        return sum(run.complete for run in self.runs)

    @cached_property
    def _job_of(self) -> dict[str, JobRecord]:
        """By the run's name: the job that says that it made it, or the one of its arguments."""
        jobs = self.ledger.jobs
        found = {a.run: job for job in jobs for a in job.attempts if a.run is not None}
        for run in self.runs:
            if run.folder.name not in found and (job := _of_these_arguments(jobs, run.args)):
                found[run.folder.name] = job
        return found

    def job_of(self, run: RunRecord) -> JobRecord | None:
        """The job that made a run; None for one that was made by hand."""
        return self._job_of.get(run.folder.name)

    def runs_of(self, job: JobRecord) -> list[RunRecord]:
        """The runs of a job that are still there."""
        return [run for run in self.runs if self.job_of(run) is job]

    def values(self, name: str) -> list[Any]:
        """The different values of an argument over all runs; empty where none says it."""
        found: list[Any] = []
        for args in self.planned:
            if name in args and args[name] not in found:
                found.append(args[name])
        return found

    @property
    def started_at(self) -> str | None:
        """When the experiment was begun, as it wrote down, or as its folder is called in UTC.

        None for the earlier system's: it is not known in which time zone it named folders.
        """
        collected = self.provenance.get("collected")
        if collected or self.earlier:
            return str(collected) if collected else None
        return stamp_of(self.folder.name)


@dataclass(frozen=True, kw_only=True)
class Sweeps:
    """All that a replication record is written from."""

    experiments: Sequence[ExperimentRecord]
    root: Path
    """The folder that paths are told from."""
    written: str
    """The present moment, ISO 8601."""
    here: Mapping[str, Any]
    """The provenance of the process that writes."""
    run_defaults: Mapping[str, Any]
    """This version's defaults of a run's arguments."""
    sweep_defaults: Mapping[str, Any]
    verified: Sequence[RunReport] | None = None
    """None: nothing was verified."""
    job_faults: Sequence[str] = ()
    """What verification says of jobs."""

    def shown(self, path: Path) -> str:
        """A path as one types it in the root; whole where it lies elsewhere."""
        try:
            return str(path.resolve().relative_to(self.root.resolve()))
        except ValueError:
            return str(path.resolve())

    @property
    def runs(self) -> list[tuple[ExperimentRecord, RunRecord]]:
        return [(one, run) for one in self.experiments for run in one.runs]


def read_experiment(
    folder: ExperimentFolder, ledger_of: Callable[[ExperimentFolder], Ledger]
) -> ExperimentRecord:
    """An experiment's records; what cannot be read is unknown, not an error."""
    runs = [_read_run(run) for run in runs_of(folder)]
    log = _log(folder.experiment_log)
    dataset, fault = _dataset(folder, runs)
    cleanups = read_cleanups(folder)
    return ExperimentRecord(folder, log, runs, ledger_of(folder), cleanups, dataset, fault, False)


def read_lone_run(run: RunFolder) -> ExperimentRecord:
    """A run that was made on its own."""
    record = _read_run(run)
    folder = ExperimentFolder(run.path)
    dataset, fault = _dataset(folder, [record])
    return ExperimentRecord(folder, record.log, [record], Ledger(), [], dataset, fault, True)


def _of_these_arguments(jobs: Sequence[JobRecord], args: Mapping[str, Any]) -> JobRecord | None:
    for job in jobs:
        patches: list[Mapping[str, Any]] = [{}, *(attempt.patch for attempt in job.attempts)]
        if any({**job.args, **patch} == args for patch in patches):
            return job
    return None


def stamp_of(name: str) -> str | None:
    """The moment in a folder's name, which in ours is UTC; None where there is none."""
    if not is_stamped(name):
        return None
    year, month, day, time = name.split("_")[:4]
    return f"{year}-{month}-{day}T{time.replace('-', ':')}+00:00"


def _read_run(run: RunFolder) -> RunRecord:
    log = _log(run.experiment_log)
    return RunRecord(
        run,
        log,
        status_of(run, log),
        variant_of(run),
        is_completed(run, log),
        is_earlier(run, log),
    )


def _log(path: Path) -> LoggedExperiment | None:
    try:
        return read_experiment_log(path)
    except (OSError, ValueError):
        return None


def _dataset(
    folder: ExperimentFolder, runs: Sequence[RunRecord]
) -> tuple[DatasetCounts | None, str | None]:
    file = folder.structured_dataset if folder.structured_dataset.is_file() else None
    for run in runs:
        file = file or dataset_file(run.folder)
    if file is None:
        return None, "its file is not there any more"
    try:
        return count_dataset(file.resolve()), None
    except (OSError, ValueError) as error:
        return None, str(error)
