"""One row a question: what was asked, every metric, every candidate's score, the model's own words.

All rows of an evaluation have the same keys (`None` where a set does not ask for a metric), of
types that both JSON and Parquet hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oocr_influence.evaluation.metrics import (
    BEAM_METRICS,
    QUESTION_METRICS,
    SWAPPED_METRICS,
    Columns,
    PathSums,
    QuestionBeams,
)
from oocr_influence.evaluation.plan import EvalPlan, Ints, PlannedSet
from oocr_influence.evaluation.scores import Scores

DESCRIPTION_COLUMNS = (
    "world",
    "relation",
    "answer_format",
    "style",
    "phrasing",
    "shots",
    "kind",
    "control",
)
METRIC_COLUMNS = (*QUESTION_METRICS, *SWAPPED_METRICS, "completion_swapped")
KNOWN_COLUMNS = (*METRIC_COLUMNS, *BEAM_METRICS)
INTEGERS = {"rank", "n_ties", "n_candidates"}


def set_records(
    plan: EvalPlan,
    planned: PlannedSet,
    columns: Columns,
    sums: PathSums,
    scores: Scores,
    beams: list[QuestionBeams] | None,
    description: Mapping[str, Any],
    own: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The set's questions as rows, in order; `own` names columns of metrics that are not ours."""
    described = {name: description.get(name) for name in DESCRIPTION_COLUMNS}
    values = {name: column.tolist() for name, column in columns.items()}
    rows = []
    for question in range(len(planned.points)):
        row = {
            "set": planned.name,
            "index": question,
            "id": planned.ids[question],
            "entity": planned.points[question].features.id,
            "prompt": planned.prompts[question],
            "completion": planned.completions[question],
            **described,
            **{name: _value(name, values.get(name), question) for name in METRIC_COLUMNS},
            "merged": bool(planned.merged_QC[question, planned.right_Q[question]]),
            "n_merged": int(planned.merged_QC[question].sum()),
            **_answer_tokens(plan, planned, scores, question),
            **_candidates(planned, sums, question),
            **_beams(beams[question] if beams is not None else None),
            **{name: _value(name, values.get(name), question) for name in own},
        }
        rows.append(row)
    return rows


def _value(name: str, values: list[Any] | None, question: int) -> Any:
    if values is None or values[question] != values[question]:  # NaN: does not apply
        return None
    return int(values[question]) if name in INTEGERS else values[question]


def _answer_tokens(
    plan: EvalPlan, planned: PlannedSet, scores: Scores, question: int
) -> dict[str, Any]:
    path = int(planned.right_path_Q[question])
    here = slice(*plan.first_token_P[path : path + 2].tolist())
    return {
        "answer_token_ids": plan.token_E[here].tolist(),
        "answer_token_logprobs": scores.logprob_E[here].tolist(),
        "softmargin_tokens": scores.softmargin_E[here].tolist(),
    }


def _candidates(planned: PlannedSet, sums: PathSums, question: int) -> dict[str, Any]:
    path_C = planned.path_QC[question]
    return {
        "candidate_texts": [planned.candidate(question, column) for column in range(len(path_C))],
        "candidate_logprobs": _unless_pruned(sums, path_C),
        "candidate_n_tokens": sums.length_P[path_C].tolist(),
    }


def _unless_pruned(sums: PathSums, path_C: Ints) -> list[float | None]:
    logprobs: list[float | None] = sums.logprob_P[path_C].tolist()
    if sums.pruned_P is None:
        return logprobs
    return [None if gone else p for p, gone in zip(logprobs, sums.pruned_P[path_C], strict=True)]


def _beams(beams: QuestionBeams | None) -> dict[str, Any]:
    if beams is None:
        names = (*BEAM_METRICS, "beam_texts", "beam_token_ids", "beam_logprobs", "beam_probs")
        return dict.fromkeys(names)
    return {
        "beam_rank": beams.rank,
        "beam_prob_right": beams.prob_right,
        "beam_texts": beams.texts,
        "beam_token_ids": [list(tokens) for tokens in beams.tokens],
        "beam_logprobs": beams.logprobs,
        "beam_probs": beams.probs,
    }
