"""Which folders are experiments and runs, ours or the earlier system's, whole or unfinished."""

from __future__ import annotations

from pathlib import Path

from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.naming import by_time, is_stamped
from oocr_influence.results.run_folder import (
    RUNS_FOLDERS,
    SUBSET_BUILDER,
    ExperimentFolder,
    RunFolder,
)


def is_run(path: Path) -> bool:
    """Whether this is a run's folder, ours or the earlier system's, whole or unfinished."""
    if not path.is_dir() or not is_stamped(path.name) or is_experiment(path):
        return False
    run = RunFolder(path)
    traces = (run.owner_file, run.experiment_log, run.text_log, run.saved_objects, run.train_set)
    return any(trace.exists() for trace in traces) or bool(run.checkpoints())


def is_experiment(path: Path) -> bool:
    """Whether this is an experiment's folder, ours or the earlier system's."""
    if any((path / name).is_dir() for name in RUNS_FOLDERS):
        return True
    # One that ended before its first run.
    experiment = ExperimentFolder(path)
    begun = experiment.structured_dataset.is_file() or experiment.jobs.is_dir()
    return is_stamped(path.name) and begun


def find_experiments(path: Path) -> list[ExperimentFolder]:
    """The experiments at `path`: itself, or those in an outputs folder.

    Raises FileNotFoundError if there is nothing at `path`.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    if is_experiment(path):
        return [ExperimentFolder(path)]
    if is_run(path):
        return []
    return [ExperimentFolder(child) for child in _real_folders(path) if is_experiment(child)]


def find_runs(path: Path) -> list[RunFolder]:
    """The runs at `path`: itself, those of an experiment, of its runs folder or of all outputs,
    where runs made on their own lie beside experiments.

    Raises FileNotFoundError if there is nothing at `path`.
    """
    if is_run(path):
        return [RunFolder(path)]
    runs = [run for experiment in find_experiments(path) for run in runs_of(experiment)]
    return runs + [RunFolder(child) for child in _real_folders(path) if is_run(child)]


def dataset_file(run: RunFolder) -> Path | None:
    """The structured dataset of a run, in its experiment's folder or where its arguments say."""
    try:
        stated = (read_experiment_log(run.experiment_log).args or {}).get("structured_dataset")
    except (OSError, ValueError):
        stated = None
    places = [run.experiment.structured_dataset]
    if isinstance(stated, str):
        # By the place of the experiment, which may have been moved since.
        subset = run.experiment.path / Path(stated).parent.name / Path(stated).name
        is_subset = stated.endswith(SUBSET_BUILDER)
        places = [subset, Path(stated)] if is_subset else [*places, Path(stated)]
    return next((place.resolve() for place in places if place.is_file()), None)


def _real_folders(parent: Path) -> list[Path]:
    """The folders in `parent` by time: no links, which may lead anywhere, and no hidden ones."""
    if not parent.is_dir():
        return []
    folders = [
        path
        for path in parent.iterdir()
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
    ]
    return sorted(folders, key=by_time)


def runs_of(experiment: ExperimentFolder) -> list[RunFolder]:
    """The runs of an experiment in the order of their beginning."""
    parents = [experiment.path / name for name in RUNS_FOLDERS]
    found = [path for parent in parents for path in _real_folders(parent)]
    return [RunFolder(path) for path in found if is_run(path)]
