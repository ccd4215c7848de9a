"""Which runs differ by their seed alone, or by subset and seed: a page draws each such group as
one line with its spread.

groups = find_groups(read_runs(collected))
groups[0].name, len(groups[0].runs), groups[0].differing
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oocr_influence.reports.page.run_subsets import Subsets, subsets_of
from oocr_influence.results.atomic import plain
from oocr_influence.results.collected_runs import read_log
from oocr_influence.results.collecting import Collected
from oocr_influence.results.naming import unstamped
from oocr_influence.results.run_folder import ALL_DOCS_RUNS, RUNS_FOLDERS, RunFolder
from oocr_influence.results.variants import variant_of

_SETTINGS = re.compile(r"_all_docs_num_epochs_.+_lr_.+_dataset_.+$", re.DOTALL)
# Where a run lies and who asked for it, which decides no number.
_PLACES = {
    "output_dir",
    "experiment_name",
    "structured_dataset",
    "sweep_id",
    "dataset_builder_path",
}


@dataclass(frozen=True)
class Run:
    """One run: its row of the table `runs`, its folder and what its log says besides."""

    row: Mapping[str, Any]
    folder: RunFolder
    log_dict: Mapping[str, Any]
    history: Sequence[Any] = ()

    @property
    def name(self) -> str:
        return str(self.row["run"])

    @property
    def args(self) -> dict[str, Any]:
        found = plain(json.loads(self.row["args"] or "{}"))
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Group:
    """Runs of one point of one experiment: alike but for their seeds, or subsets and seeds."""

    name: str
    experiment: str
    variant: str
    runs: tuple[Run, ...]
    differing: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Arguments that are not the same in all runs, with each run's value; the order seed too."""
    subsets: Subsets | None = None
    """Which subset of the documents each run trained; None where all trained all."""

    @property
    def args(self) -> dict[str, Any]:
        """The arguments that all runs share."""
        shared = {**self.runs[0].args}
        return {key: value for key, value in shared.items() if key not in self.differing}

    def logged(self, key: str) -> Any:
        """What the logs of all runs say alike; None where they differ or do not say."""
        values = [run.log_dict.get(key) for run in self.runs]
        known = [value for value in values if value is not None]
        return known[0] if known and all(value == known[0] for value in known) else None


def read_runs(collected: Collected) -> list[Run]:
    """Every collected run, in the order of their folders."""
    runs = []
    for row in collected.runs.to_pylist():
        folder = RunFolder(Path(row["path"]))
        log, _ = read_log(folder)
        told = _plain_values(log.log_dict) if log else {}
        runs.append(Run(row, folder, told, tuple(log.history) if log else ()))
    return runs


def _plain_values(log_dict: Mapping[str, Any]) -> dict[str, Any]:
    """What of a log is plain: the earlier system kept some values in pickles."""
    found = {}
    for key, value in log_dict.items():
        with suppress(TypeError):
            found[key] = plain(value)
    return found


def find_groups(runs: Sequence[Run]) -> list[Group]:
    """The runs by experiment, kind of run and point of the grid, in order."""
    members: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        parent = run.folder.path.parent.name
        kind = parent if parent in RUNS_FOLDERS and parent != ALL_DOCS_RUNS else ""
        key = (str(run.folder.experiment.path), kind, variant_of(run.folder))
        members.setdefault(key, []).append(run)
    names = _names(list(members))
    return [
        Group(
            names[key],
            Path(key[0]).name,
            key[2],
            tuple(own),
            _differing(own),
            subsets_of([(run.name, run.args, run.folder) for run in own]),
        )
        for key, own in members.items()
    ]


def differences(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """The arguments in which groups differ, with each group's value; None where it has none.

    What differs within a group, as seeds do, is told of there.
    """
    within = {key for group in groups for key in group.differing}
    keys = sorted({key for group in groups for key in group.args} - _PLACES - within)
    table = {key: [group.args.get(key) for group in groups] for key in keys}
    for key in ("dataset_digest", "model_commit", "weights_digest", "commit_hash"):
        values = [group.logged(key) for group in groups]
        if sum(value is not None for value in values) > 1:
            table[key] = values
    return {key: values for key, values in table.items() if not _all_equal(values)}


def _differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    args = [run.args for run in runs]
    keys = sorted({key for one in args for key in one} - _PLACES)
    table = {key: [one.get(key) for one in args] for key in keys}
    return {key: values for key, values in table.items() if not _all_equal(values)}


def _all_equal(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _names(keys: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """What each group is called: the experiment's name, its letters where two have one name."""
    experiments = {experiment for experiment, _, _ in keys}
    sharing = Counter(_called(Path(experiment).name) for experiment in experiments)
    names = {}
    for key in keys:
        folder = Path(key[0]).name
        name = _called(folder)
        if sharing[name] > 1:
            name = f"{name} ({folder.removesuffix('_' + unstamped(folder))})"
        kind = key[1].removeprefix("data_modeling_runs_")
        name = f"{name} ({kind} subsets)" if kind else name
        names[key] = ", ".join(part for part in (name, key[2]) if part)
    return names


def _called(folder: str) -> str:
    """What the person called an experiment, or a run that is its own experiment."""
    return _SETTINGS.sub("", unstamped(folder))


__all__ = ["Group", "Run", "differences", "find_groups", "read_runs"]
