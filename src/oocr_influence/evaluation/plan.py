"""All questions of a run, tokenised once, before any model: what is read and what is scored.

    plan = build_plan(dataset.eval_dataset_builders, tokenizer)

Every (question, candidate) pair becomes a *path*: the tokens that are read (its group's prefix) and
the tokens that are scored (its answer). Equal paths are one path and equal prefixes one group,
across sets too. Everything is flat arrays, so that the scorers gather instead of looping.

Letters: Q questions of a set, C its candidates, G groups, P paths, E answer tokens of all paths.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from oocr_influence.datasets.document_dataset import (
    AccuracyAndLoss,
    BeamSearch,
    EvalDatasetBuilder,
    EvalPoint,
    Ranks,
    eval_point_id,
)
from oocr_influence.evaluation.tokens import PairTokenizer, Row, Tokens

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

PLAN_VERSION = "eval-plan-1"  # part of the digest: raise it when the same text is planned otherwise
IGNORED_LABEL = -100


@dataclass(frozen=True)
class PlannedSet:
    """One set's questions as rows and its candidates as columns.

    A set whose metrics look at right answers alone (`accuracy_and_loss`, `beam_search`) is scored
    on those alone: its arrays have one column, whose candidate differs from row to row.
    """

    name: str
    points: tuple[EvalPoint, ...]
    ids: tuple[str, ...]
    prompts: tuple[str, ...]
    completions: tuple[str, ...]
    candidates: tuple[str, ...]
    prompt_tokens: tuple[Tokens, ...]
    path_QC: Ints
    merged_QC: Bools
    shown_QC: Bools
    """Whether the candidate is the answer of an example shown before the question."""
    right_Q: Ints
    """Column of the right answer."""
    accuracy_and_loss: bool
    ranks: bool
    beam_search: BeamSearch | None
    metrics: Mapping[str, Mapping[str, Any]]
    """What the file asks for: options by function name."""
    all_candidates: bool
    """Whether a column is a candidate."""

    def candidate(self, question: int, column: int) -> str:
        return self.candidates[column] if self.all_candidates else self.completions[question]

    @property
    def right_path_Q(self) -> Ints:
        """Path of each question's right answer."""
        path_Q: Ints = self.path_QC[np.arange(len(self.points)), self.right_Q]
        return path_Q


@dataclass(frozen=True)
class EvalPlan:
    """Every set of a run as tokens, made by `build_plan`; paths stand in their groups' order."""

    sets: dict[str, PlannedSet]
    prefixes: tuple[Tokens, ...]
    """Tokens that each group reads before any answer (G of them), BOS included."""
    first_path_G: Ints
    """G + 1 entries: group g owns the paths first_path_G[g] to first_path_G[g + 1]."""
    first_token_P: Ints
    """P + 1 entries: path p owns first_token_P[p] to first_token_P[p + 1] of token_E."""
    token_E: Ints
    right_E: Bools
    """Whether the token belongs to a right answer of any question."""
    tokenizer: Any = field(repr=False, compare=False)
    digest: str = ""
    """sha256 over names, tokens and pairs: equal plans score the same things in the same places."""

    @property
    def n_paths(self) -> int:
        return len(self.first_token_P) - 1

    @property
    def path_length_P(self) -> Ints:
        """Answer tokens of each path."""
        return np.diff(self.first_token_P)

    @property
    def path_group_P(self) -> Ints:
        """Group of each path."""
        return np.repeat(np.arange(len(self.prefixes)), np.diff(self.first_path_G))

    def answer(self, path: int) -> Tokens:
        start, end = self.first_token_P[path : path + 2]
        return tuple(self.token_E[start:end].tolist())

    def eval_dataset_rows(self, name: str) -> list[dict[str, Any]]:
        """The set as rows of a Hugging Face dataset: texts, JSON columns, unshifted labels."""
        planned = self.sets[name]
        group_P = self.path_group_P
        rows = []
        for question, point in enumerate(planned.points):
            path = int(planned.right_path_Q[question])
            prefix, answer = self.prefixes[group_P[path]], self.answer(path)
            rows.append(
                {
                    "prompt": planned.prompts[question],
                    "completion": planned.completions[question],
                    "features": point.features.model_dump_json(exclude_unset=True),
                    "fact_template": point.fact_template.model_dump_json(exclude_unset=True),
                    "few_shot_examples": json.dumps(_few_shot_rows(point), ensure_ascii=False),
                    "id": planned.ids[question],
                    "input_ids": [*prefix, *answer],
                    "labels": [IGNORED_LABEL] * len(prefix) + [*answer],
                    "attention_mask": [1] * (len(prefix) + len(answer)),
                }
            )
        return rows


def build_plan(
    builders: Mapping[str, EvalDatasetBuilder],
    tokenizer: Any,
    *,
    candidates: Mapping[str, Sequence[str]] | None = None,
) -> EvalPlan:
    """Tokenise every set of `builders` into one plan.

    `candidates` names the completions that a set's answers are ranked among, by default those that
    the set states itself (`builder.candidates`) or else its own distinct completions in the order
    seen; for a set of a subset the caller passes those of the full file. Raises ValueError for a
    right answer that is no candidate, or for a pair that leaves nothing to score.
    """
    pairs = PairTokenizer(tokenizer)
    paths = _Paths()
    sets = {
        name: _plan_set(
            name, builder, pairs, paths, (candidates or {}).get(name, builder.candidates)
        )
        for name, builder in builders.items()
    }
    return _finish(sets, paths, tokenizer)


class _Paths:
    """Numbers prefixes, and the answers of each, as they are first seen."""

    def __init__(self) -> None:
        self.groups: dict[Tokens, int] = {}
        self.answers: list[dict[Tokens, int]] = []
        """For each group its answers, numbered from 0."""
        self.tables: list[tuple[Ints, Ints]] = []
        """For each set the groups and the numbers there of its pairs."""

    def number(self, row: Row) -> tuple[list[int], list[int]]:
        """Group of each of the row's pairs, and the number of its answer there."""
        groups, numbers = [], []
        last: Tokens | None = None
        for prefix, answer in zip(row.prefixes, row.answers, strict=True):
            if prefix is not last:  # a row mostly holds one object
                last = prefix
                group = self.groups.setdefault(prefix, len(self.groups))
                if group == len(self.answers):
                    self.answers.append({})
                own = self.answers[group]
            groups.append(group)
            numbers.append(own.setdefault(answer, len(own)))
        return groups, numbers


def _plan_set(
    name: str,
    builder: EvalDatasetBuilder,
    pairs: PairTokenizer,
    paths: _Paths,
    candidates: Sequence[str] | None,
) -> PlannedSet:
    points = tuple(builder.eval_points)
    prompts = tuple(point.prompt for point in points)
    completions = tuple(point.completion for point in points)
    columns = tuple(dict.fromkeys(completions if candidates is None else candidates))
    ranks = any(isinstance(metric, Ranks) for metric in builder.metrics)
    # A metric that is not known here may look at any candidate.
    all_candidates = any(
        not isinstance(metric, AccuracyAndLoss | BeamSearch) for metric in builder.metrics
    )
    beams = [metric for metric in builder.metrics if isinstance(metric, BeamSearch)]
    missing = sorted(set(completions) - set(columns))
    if missing:
        raise ValueError(
            f"set '{name}': the right answer {missing[0]!r} is not among its candidates "
            f"({len(missing)} such answers); pass the distinct completions of the full file"
        )
    asked = [columns if all_candidates else (completion,) for completion in completions]
    rows = pairs.rows(prompts, asked)
    shape = (len(points), len(columns) if all_candidates else 1)
    numbered = np.array([paths.number(row) for row in rows], np.int64)
    numbered = numbered.reshape(shape[0], 2, shape[1])
    group_QC, path_QC = numbered[:, 0], numbered[:, 1].copy()
    paths.tables.append((group_QC, path_QC))
    shown = [{answer for _, answer in point.few_shot_examples} for point in points]
    return PlannedSet(
        name=name,
        points=points,
        ids=tuple(
            eval_point_id(index, prompt, completion)
            for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ),
        prompts=prompts,
        completions=completions,
        candidates=columns,
        prompt_tokens=tuple(pairs.prompt(prompt) for prompt in prompts),
        path_QC=path_QC,
        merged_QC=np.array([row.merged for row in rows], bool).reshape(shape),
        shown_QC=np.array(
            [[text in seen for text in texts] for texts, seen in zip(asked, shown, strict=True)],
            bool,
        ).reshape(shape),
        right_Q=np.array(
            [texts.index(text) for texts, text in zip(asked, completions, strict=True)], np.int64
        ),
        accuracy_and_loss=any(isinstance(metric, AccuracyAndLoss) for metric in builder.metrics),
        ranks=ranks,
        beam_search=beams[0] if beams else None,
        metrics={
            metric.function_name: metric.model_dump(exclude={"function_name"})
            for metric in reversed(builder.metrics)  # of two alike the first counts
        },
        all_candidates=all_candidates,
    )


def _finish(sets: dict[str, PlannedSet], paths: _Paths, tokenizer: Any) -> EvalPlan:
    """Number paths in the order of their groups, flatten them, and take the digest."""
    first_path_G = np.concatenate([[0], np.cumsum([len(own) for own in paths.answers])])
    first_path_G = first_path_G.astype(np.int64)
    for group_QC, path_QC in paths.tables:
        path_QC += first_path_G[group_QC]
    flat: dict[tuple[Tokens, ...], tuple[Ints, Ints]] = {}  # questions of a set share answers
    lengths, tokens = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for own in paths.answers:
        answers = tuple(own)
        if answers not in flat:
            flat[answers] = (
                np.array([len(answer) for answer in answers], np.int64),
                np.array([token for answer in answers for token in answer], np.int64),
            )
        lengths.append(flat[answers][0])
        tokens.append(flat[answers][1])
    length_P = np.concatenate(lengths)
    right_P = np.zeros(len(length_P), bool)
    for planned in sets.values():
        right_P[planned.right_path_Q] = True
    plan = EvalPlan(
        sets=sets,
        prefixes=tuple(paths.groups),
        first_path_G=first_path_G,
        first_token_P=np.concatenate([[0], np.cumsum(length_P)]),
        token_E=np.concatenate(tokens),
        right_E=np.repeat(right_P, length_P),
        tokenizer=tokenizer,
    )
    return replace(plan, digest=_digest(plan))


def _digest(plan: EvalPlan) -> str:
    digest = hashlib.sha256(PLAN_VERSION.encode())
    for planned in plan.sets.values():
        beams = planned.beam_search
        header = [
            planned.name,
            planned.ids,
            planned.candidates,
            [planned.accuracy_and_loss, planned.ranks, beams and beams.model_dump()],
            planned.prompt_tokens,
        ]
        digest.update(json.dumps(header).encode())
        digest.update(planned.path_QC.tobytes() + planned.right_Q.tobytes())
    digest.update(json.dumps(plan.prefixes).encode())
    for array in (plan.first_path_G, plan.first_token_P, plan.token_E):
        digest.update(array.astype("<i8").tobytes())
    return digest.hexdigest()


def _few_shot_rows(point: EvalPoint) -> list[dict[str, Any]]:
    return [
        {"prompt": prompt, "completion": completion, "features": features.model_dump()}
        for (prompt, completion), features in zip(
            point.few_shot_examples, point.few_shot_example_features, strict=True
        )
    ]
