"""The evaluations of the earlier system, which stand in the history of its `experiment_log.json`.

    for evaluation in earlier_evaluations(run, log, notices):
        evaluation.name, evaluation.means, evaluation.records()

An evaluation is called after its step as ours are, `e1_s42`; the one at the end of the last epoch
of a run that went to its end is `final`. The earlier system asked first after its first update,
whose rate was 0: that is `e1_s1`, and no `start`. Values in pickles are read by `earlier_pickles`
alone; one that is refused is left out, and `notices` says so.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oocr_influence.results.collected_sets import described_by_name
from oocr_influence.results.earlier_pickles import RefusedPickle, as_number, as_rows, read_pickle
from oocr_influence.results.experiment_log import (
    HistoryEntry,
    LoggedExperiment,
    PickledReference,
)
from oocr_influence.results.run_folder import RunFolder

_NUMBERS = ("loss", "accuracy", "logprob", "softmargin", "prob")


@dataclass
class _Pickles:
    """The pickles of a run, each read once."""

    run: Path
    notices: list[str]
    known: dict[str, Any] = field(default_factory=dict)

    def value(self, value: Any) -> Any:
        """What a reference leads to, None where it is refused; other values as they are."""
        if not isinstance(value, PickledReference):
            return value
        if value.path not in self.known:
            self.known[value.path] = self._read(value.path)
        return self.known[value.path]

    def rows(self, value: Any) -> list[Any]:
        try:
            return as_rows(self.value(value))
        except RefusedPickle as error:
            self.notices.append(f"{self.run}: left out: {error}")
            return []

    def _read(self, place: str) -> Any:
        path = (self.run / place).resolve()
        try:
            if self.run.resolve() not in path.parents:
                raise RefusedPickle(f"{place} lies outside its run")
            return read_pickle(path)
        except (OSError, RefusedPickle) as error:
            self.notices.append(f"{self.run}: left out: {error}")
            return None


@dataclass(frozen=True)
class EarlierEvaluation:
    """One entry of the history that asked something."""

    name: str
    entry: HistoryEntry
    pickles: _Pickles

    @property
    def train_loss(self) -> float | None:
        return as_number(self.pickles.value(self.entry.train_loss))

    @property
    def eval_seconds(self) -> float | None:
        minutes = as_number(self.pickles.value(self.entry.eval_time))
        return None if minutes is None else 60 * minutes

    def means(self) -> dict[str, dict[str, Any]]:
        """The numbers of each set, with `n` where its questions are there."""
        return {
            name: {
                "n": len(self.pickles.rows(means.get("records"))) or None,
                **{
                    key: as_number(self.pickles.value(value))
                    for key, value in means.items()
                    if key not in ("records", "ranks", "n")
                },
            }
            for name, means in self.entry.eval_results.items()
        }

    def records(self) -> list[dict[str, Any]]:
        """One row a question, as far as the log has them."""
        return [
            row
            for name, means in self.entry.eval_results.items()
            for row in self._rows(name, means)
        ]

    def _rows(self, name: str, means: Mapping[str, Any]) -> list[dict[str, Any]]:
        questions = [
            row for row in self.pickles.rows(means.get("records")) if isinstance(row, dict)
        ]
        ranks = self._ranks(name, means, len(questions))
        described = {key: value for key, value in described_by_name(name).items() if key != "asked"}
        return [
            {
                "set": name,
                "index": index,
                **{key: _text(row.get(key)) for key in ("id", "prompt", "completion")},
                **described,
                **{key: as_number(self.pickles.value(row.get(key))) for key in _NUMBERS},
                "rank": None if rank is None else int(rank),
            }
            for index, (row, rank) in enumerate(zip(questions, ranks, strict=True))
        ]

    def _ranks(self, name: str, means: Mapping[str, Any], n: int) -> list[float | None]:
        """One rank a question; a list that leads to one array of all of them is that array."""
        found = [self.pickles.value(value) for value in self.pickles.rows(means.get("ranks"))]
        if len(found) == 1 and n > 1:
            found = as_rows(found[0])
        if len(found) not in (0, n):
            self.pickles.notices.append(
                f"{self.pickles.run}: {self.name}: {name} has {len(found)} ranks of {n} questions: "
                "left out"
            )
        return [as_number(rank) for rank in found] if len(found) == n else [None] * n


def earlier_evaluations(
    run: RunFolder,
    log: LoggedExperiment,
    notices: list[str],
    *,
    asked_later: Collection[tuple[int | str, str]] = (),
) -> list[EarlierEvaluation]:
    """The evaluations of a run in the order of their steps; of a step that was made twice, as a
    run that went on made it, the later one.

    Sets that `oocr evaluate` asked again, as (step or evaluation, set), are left out: its files say
    more about the same questions.
    """
    by_step = {entry.step_num: entry for entry in log.history if entry.eval_results}
    pickles = _Pickles(run.path, notices)
    epochs = as_number((log.args or {}).get("epochs")) if "time_taken" in log.log_dict else None
    found = []
    for step, entry in sorted(by_step.items()):
        name = _name(run, entry, epochs)
        kept = {
            asked: means
            for asked, means in entry.eval_results.items()
            if not {(step, asked), (name, asked)} & set(asked_later)
        }
        left = entry.model_copy(update={"eval_results": kept})
        found.append(EarlierEvaluation(name, left, pickles))
    return found


def _name(run: RunFolder, entry: HistoryEntry, epochs: float | None) -> str:
    if epochs is not None and entry.epoch_num > epochs - 1e-6:
        return "final"
    # As the run itself names the checkpoint of this step, where it kept one.
    for checkpoint in run.checkpoints():
        if checkpoint.endswith(f"_s{entry.step_num}"):
            return checkpoint
    # Epochs count from 1; one that ends at this step is not the next one.
    return f"e{max(1, math.ceil(round(entry.epoch_num, 9)))}_s{entry.step_num}"


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


__all__ = ["EarlierEvaluation", "earlier_evaluations"]
