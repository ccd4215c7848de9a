"""The questions of an evaluation plan as queries, and which facts answer each.

    queries = make_queries(builders, build_plan(builders, tokenizer), documents.facts)
    queries.rows[0]["fact_ids"]

A query's value is the summed log-probability of its right answer, as `logprob` of an evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oocr_influence.attribution.passages import Passage
from oocr_influence.attribution.trained_documents import StatedFact
from oocr_influence.datasets.document_dataset import EvalDatasetBuilder, EvalPoint
from oocr_influence.datasets.eval_sets import describe_set
from oocr_influence.datasets.packing import IGNORED
from oocr_influence.evaluation.plan import EvalPlan

Row = dict[str, Any]
# Nothing that documents tell answers these.
_UNANSWERED = ("control", "first_hop")


@dataclass(frozen=True)
class Queries:
    """Questions with their right answers: rows, texts and one passage each."""

    rows: Sequence[Row]
    texts: Sequence[str]
    """The question itself, without the examples shown before it, and its right answer."""
    passages: Sequence[Passage]
    """Prompt and answer as they are scored; the answer's tokens are labelled."""


def make_queries(
    builders: Mapping[str, EvalDatasetBuilder], plan: EvalPlan, facts: Sequence[StatedFact]
) -> Queries:
    """Every question of the plan's sets, set by set; `builders` are those of the plan."""
    rows: list[Row] = []
    texts, passages = [], []
    group_P = plan.path_group_P
    for name, planned in plan.sets.items():
        told = describe_set(name, builders[name])
        for index, point in enumerate(planned.points):
            path = int(planned.right_path_Q[index])
            prefix, answer = plan.prefixes[int(group_P[path])], plan.answer(path)
            tokens_T = np.array([*prefix, *answer], np.int64)
            in_answer_T = np.arange(len(tokens_T)) >= len(prefix)
            labels_T = np.where(in_answer_T, tokens_T, IGNORED)
            passages.append(Passage(len(rows), tokens_T, labels_T))
            texts.append(point.question + point.completion)
            rows.append(
                {
                    "set": name,
                    "index": index,
                    "id": planned.ids[index],
                    "entity": point.features.id,
                    "relation": told.relation,
                    "kind": told.kind,
                    "control": told.control,
                    "answer_format": told.answer_format,
                    "shots": told.shots,
                    "fact_ids": facts_that_answer(point, told.relation, told.kind, facts),
                    "prompt": planned.prompts[index],
                    "completion": planned.completions[index],
                }
            )
    return Queries(rows, texts, passages)


def facts_that_answer(
    point: EvalPoint, relation: str, kind: str, facts: Iterable[StatedFact]
) -> list[str]:
    """Ids of the facts that answer a question, out of those of its own entity.

    Those of the question's own relation, whatever the form in which it wants the answer. Where the
    entity has none (a question of two hops, files of older writers), those that end in the answer,
    or else those that hold it. None for a control and for the first of two hops, which no document
    tells.
    """
    if kind in _UNANSWERED:
        return []
    own = [fact for fact in facts if fact.entity == point.features.id]
    answer = point.completion.strip()
    rules = (
        lambda fact: fact.relation == relation,
        lambda fact: fact.completion.strip() == answer,
        lambda fact: answer in fact.prompt + fact.completion,
    )
    for rule in rules:
        if found := [fact.id for fact in own if rule(fact)]:
            return found
    return []
