"""All that is known about a checkpoint: its run's own evaluation and those that were added later.

    merged = read_merged(run, "final")
    merged.eval_sets["name_mayor_eval_qa_1_no_fs"]["mean_rank"]

The run's own numbers come first, then the latest added. A set that was asked before, question by
question, counts once; one of the same name with other questions is called `<set>@<suite>`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from oocr_influence.results.evaluation_files import Evaluation
from oocr_influence.results.naming import escaped
from oocr_influence.results.run_folder import RunFolder

_IDENTITY = ("set", "id", "n_candidates")
_SUITE_SHOWN = 8


@dataclass(frozen=True)
class MergedEvaluation:
    """One checkpoint's sets, each once."""

    name: str
    eval_sets: dict[str, dict[str, Any]]
    records: Any
    """One row a question, as a pyarrow Table."""
    suites: tuple[str, ...]
    """The added suites that something was taken from."""


@dataclass(frozen=True)
class Part:
    """What one file adds to what is known about a checkpoint."""

    suite: str | None
    """None for the run's own evaluation."""
    evaluation: Evaluation
    called: dict[str, str]
    """Of each set that counts: its name in the file, and what it is called."""

    @property
    def eval_sets(self) -> dict[str, dict[str, Any]]:
        """The means of the sets that count, by what they are called."""
        found = self.evaluation.eval_sets
        return {self.called[name]: means for name, means in found.items() if name in self.called}


def evaluated(run: RunFolder) -> list[str]:
    """The checkpoints that anything can be read about, in the order of their steps."""
    names = dict.fromkeys([*run.evaluations(), *(name for name, _ in run.added_evaluations())])
    return [name for name in names if is_evaluated(run, name)]


def merged_parts(run: RunFolder, name: str) -> list[Part]:
    """The files about checkpoint `name`, first the run's own, with the sets that count of each.

    Questions are looked at only where there is more than one file. Raises ValueError for a file
    that is no evaluation.
    """
    suites = _parts(run, name)
    if len(suites) == 1:
        evaluation = run.read_evaluation(name, suites[0])
        return [Part(suites[0], evaluation, {called: called for called in evaluation.eval_sets})]
    seen: dict[str, Any] = {}
    found = []
    for suite in suites:
        evaluation = run.read_evaluation(name, suite)
        called = _new_sets(run.read_records(name, _IDENTITY, suite), seen, suite)
        if called or suite is None:
            found.append(Part(suite, evaluation, called))
    return found


def is_evaluated(run: RunFolder, name: str) -> bool:
    """Whether there is anything to read about this checkpoint, the run's own or added."""
    return bool(_parts(run, name))


def read_merged(
    run: RunFolder, name: str, columns: Sequence[str] | None = None
) -> MergedEvaluation:
    """The sets of checkpoint `name`; of the records only `columns`, where they are there.

    Raises FileNotFoundError if it was never evaluated, ValueError for a file that is no evaluation.
    """
    parts = merged_parts(run, name)
    if not parts:
        raise FileNotFoundError(f"{run.path} has no evaluation of {name}")
    wanted = None if columns is None else list(dict.fromkeys([*_IDENTITY, *columns]))
    eval_sets = {called: means for part in parts for called, means in part.eval_sets.items()}
    tables = [
        _chosen(run.read_records(name, wanted, p.suite), p.called, p.evaluation) for p in parts
    ]
    used = [part.suite for part in parts if part.suite is not None]
    # Permissive: whole numbers of one writer are decimals of another.
    records = pa.concat_tables(tables, promote_options="permissive")
    return MergedEvaluation(name, eval_sets, records, tuple(used))


def _parts(run: RunFolder, name: str) -> list[str | None]:
    """None for the run's own evaluation, then the added suites, the latest first."""

    def whole(suite: str | None) -> bool:
        return run.evaluation(name, suite).is_file() and run.records(name, suite).is_file()

    in_file = escaped(name)
    added = [suite for evaluated, suite in run.added_evaluations() if evaluated == in_file]
    added.sort(key=lambda suite: str(run.read_made(name, suite).get("when", "")), reverse=True)
    return [suite for suite in (None, *added) if whole(suite)]


def _new_sets(table: Any, seen: dict[str, Any], suite: str | None) -> dict[str, str]:
    """What each set that is not known yet will be called; `seen` is told."""
    questions: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    own = [column for column in _IDENTITY if column in table.column_names]
    for name, *rest in zip(*(table.column(column).to_pylist() for column in own), strict=True):
        questions[name].append(tuple(rest))
    renamed: dict[str, str] = {}
    for name, asked in questions.items():
        called = name
        if name in seen and seen[name] != asked:
            called = f"{name}@{(suite or '')[:_SUITE_SHOWN]}"
        if called not in seen:
            seen[called] = asked
            renamed[name] = called
    return renamed


def _chosen(table: Any, renamed: dict[str, str], evaluation: Evaluation) -> Any:
    """The rows of the sets in `renamed`, under their new names."""
    if renamed == {name: name for name in evaluation.eval_sets}:
        return table
    names = table.column("set").to_pylist()
    table = table.filter(pa.array(np.array([name in renamed for name in names], dtype=bool)))
    called = [renamed[name] for name in table.column("set").to_pylist()]
    place = table.column_names.index("set")
    return table.set_column(place, "set", pa.array(called, type=pa.string()))


__all__ = [
    "MergedEvaluation",
    "Part",
    "evaluated",
    "is_evaluated",
    "merged_parts",
    "read_merged",
]
