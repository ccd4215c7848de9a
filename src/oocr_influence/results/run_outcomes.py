"""Whether two runs came to the same: every update's loss, the last weights, every answer.

    outcomes = compare_outcomes(run_a, run_b)
    outcomes.is_same, outcomes.told

Numbers are the same only where they are so bit for bit. What one of the two lacks is named, and
makes nothing the same or different; where nothing at all can be compared, they are not the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oocr_influence.results import checkpoints
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import StepRow, read_steps

_OF_A_STEP = ("loss", "grad_norm", "clip_factor", "learning_rate", "labelled_tokens", "window_ids")
_BY = [("set", "ascending"), ("index", "ascending"), ("id", "ascending")]


@dataclass
class Outcomes:
    """What was compared and how that came out; each entry is a line for a person."""

    same: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def is_same(self) -> bool:
        return bool(self.same) and not self.different

    @property
    def told(self) -> list[str]:
        """Everything in words, differences first."""
        return [
            *(f"differs: {line}" for line in self.different),
            *(f"the same: {line}" for line in self.same),
            *(f"unknown: {line}" for line in self.unknown),
        ]


def compare_outcomes(a: RunFolder, b: RunFolder) -> Outcomes:
    """Compare what is there in both; raises ValueError for a file that cannot be read."""
    found = Outcomes()
    _compare_steps(a, b, found)
    _compare_weights(a, b, found)
    _compare_answers(a, b, found)
    return found


def _compare_steps(a: RunFolder, b: RunFolder, found: Outcomes) -> None:
    if not (a.steps.exists() and b.steps.exists()):
        lacking = _lacking(a.steps.exists(), b.steps.exists())
        found.unknown.append(f"losses: no log of updates in {lacking}")
        return
    left, right = (
        {(not row.burn_in, row.step): row for row in read_steps(run.steps)} for run in (a, b)
    )
    common = sorted(left.keys() & right.keys())
    if len(left) != len(right):
        found.different.append(f"{len(left)} updates in A, {len(right)} in B")
    other = [key for key in common if _differ(left[key], right[key])]
    if other:
        found.different.append(_steps_in_words(left, right, other, len(common)))
    elif common:
        found.same.append(f"loss, gradient norm and windows of {_all(len(common), 'update')}")


def _differ(one: StepRow, other: StepRow) -> bool:
    return any(getattr(one, name) != getattr(other, name) for name in _OF_A_STEP)


def _steps_in_words(
    left: Mapping[Any, StepRow], right: Mapping[Any, StepRow], other: Sequence[Any], n: int
) -> str:
    first = other[0]
    one, two = left[first], right[first]
    kinds = [name for name in _OF_A_STEP if getattr(one, name) != getattr(two, name)]
    gaps = [
        abs(left[key].loss - right[key].loss)  # type: ignore[operator]
        for key in other
        if left[key].loss is not None and right[key].loss is not None
    ]
    largest = f", losses by up to {max(gaps):.3g}" if any(gaps) else ""
    step = f"{'burn-in ' if one.burn_in else ''}update {one.step}"
    return (
        f"{len(other)} of {n} updates{largest}; first {step}, in {', '.join(kinds)} "
        f"(loss {one.loss!r} in A, {two.loss!r} in B)"
    )


def _compare_weights(a: RunFolder, b: RunFolder, found: Outcomes) -> None:
    left, right = final_weights(a), final_weights(b)
    if left is None or right is None:
        lacking = _lacking(left is not None, right is not None)
        found.unknown.append(f"last weights: neither checkpoint_final nor its digest in {lacking}")
    elif left == right:
        found.same.append(f"the last weights, digest {left[:12]}…")
    else:
        found.different.append(f"the last weights: digest {left[:12]}… in A, {right[:12]}… in B")


def final_weights(run: RunFolder) -> str | None:
    """The digest of the last weights: of the checkpoint, or, where it is gone, as recorded."""
    if run.checkpoint("final").is_dir():
        return checkpoints.content_digest(run.checkpoint("final"))
    recorded = read_experiment_log(run.experiment_log).log_dict.get("final_weights_digest")
    return recorded if isinstance(recorded, str) else None


def _compare_answers(a: RunFolder, b: RunFolder, found: Outcomes) -> None:
    left, right = a.evaluations(), b.evaluations()
    alone = [f"{name} in {side}" for side, one, two in (("A", left, right), ("B", right, left))
             for name in one if name not in two]  # fmt: skip
    common = [name for name in left if name in right]
    if alone:
        found.different.append(f"evaluations of one alone: {', '.join(alone)}")
    if not common:
        found.unknown.append("answers: no evaluation is in both")
        return
    same, n_answers = [], 0
    for name in common:
        n, told = _compare_evaluation(a, b, name)
        n_answers += n
        if told:
            found.different += [f"evaluation {name}: {line}" for line in told]
        else:
            same.append(name)
    if same:
        found.same.append(f"answers of {', '.join(same)} ({n_answers} compared in all)")


def _compare_evaluation(a: RunFolder, b: RunFolder, name: str) -> tuple[int, list[str]]:
    """How many questions were compared, and how answers differ, in words."""
    tables = [run.read_records(name) for run in (a, b)]
    names = [column for column in tables[0].column_names if column in tables[1].column_names]
    left, right = (_sorted(table.select(names)) for table in tables)
    told = []
    losses = [run.read_evaluation(name).document_losses for run in (a, b)]
    if losses[0] != losses[1]:
        told.append("losses of documents")
    if left.equals(right):
        return left.num_rows, told
    keys = [
        {(row["set"], row["index"], row["id"]): row for row in table.to_pylist()}
        for table in (left, right)
    ]
    common = keys[0].keys() & keys[1].keys()
    if lone := len(keys[0]) + len(keys[1]) - 2 * len(common):
        told.append(f"{lone} questions are asked in one alone")
    other = [key for key in common if keys[0][key] != keys[1][key]]
    if other:
        told.append(_answers_in_words(keys[0], keys[1], other, len(common)))
    return len(common), told


def _answers_in_words(
    left: Mapping[Any, Mapping[str, Any]],
    right: Mapping[Any, Mapping[str, Any]],
    other: Sequence[Any],
    n: int,
) -> str:
    pairs = [(left[key], right[key]) for key in other]
    parts = [f"{len(other)} of {n} questions"]
    gaps = [
        abs(one["loss"] - two["loss"])
        for one, two in pairs
        if one.get("loss") is not None and two.get("loss") is not None
    ]
    if gaps:
        parts.append(f"losses by up to {max(gaps):.3g}")
    for column, words in (("rank", "ranks"), ("accuracy", "right or wrong")):
        changed = sum(one.get(column) != two.get(column) for one, two in pairs)
        if changed:
            parts.append(f"{changed} in {words}")
    return ", ".join(parts)


def _sorted(table: Any) -> Any:
    names = set(table.column_names)
    return table.sort_by([key for key in _BY if key[0] in names]).combine_chunks()


def _lacking(a_has_it: bool, b_has_it: bool) -> str:
    return " and ".join(side for side, has in (("A", a_has_it), ("B", b_has_it)) if not has)


def _all(n: int, what: str) -> str:
    return f"the one {what}" if n == 1 else f"all {n} {what}s"
