"""A control that costs nothing: each question graded by another entity's right answer.

Every candidate of a set is scored anyway, so that each metric of the right answer has its null
level beside it: `loss_swapped`, `logprob_swapped`, `prob_swapped` and `rank_swapped` (tie-averaged)
are those of `completion_swapped`. What a model has learnt about the answers as such, and not about
whose they are, moves both alike.

The entities of a set stand in a circle, ordered by a keyed hash of (seed, relation, entity), and
each takes the answer of the next one whose answer differs: a derangement that is the same for all
wordings, formats and styles of a relation. Where examples are shown before the question, the
swapped answer may be one of theirs, as may any other candidate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from oocr_influence.datasets.document_dataset import EvalPoint
from oocr_influence.evaluation.plan import Ints, PlannedSet

SWAPPED_METRICS = ("loss_swapped", "logprob_swapped", "prob_swapped", "rank_swapped")
SEED = 0


def swapped_answers(planned: PlannedSet, seed: int = SEED) -> Ints:
    """Column (Q,) of the answer that each question is graded by instead; -1 where all answers of
    the set are the same."""
    order = _circle(planned.points, seed)
    columns = {text: column for column, text in enumerate(planned.candidates)}
    answers = planned.completions
    swapped_Q = np.full(len(answers), -1, np.int64)
    for place, question in enumerate(order):
        for other in (*order[place + 1 :], *order[:place]):
            if answers[other] != answers[question]:
                swapped_Q[question] = columns[answers[other]]
                break
    return swapped_Q


def _circle(points: Sequence[EvalPoint], seed: int) -> list[int]:
    def key(place: int) -> tuple[bytes, int]:
        point = points[place]
        text = f"swapped_answers:{seed}:{point.fact_template.relation}:{point.features.id}"
        return hashlib.blake2b(text.encode(), digest_size=16).digest(), place

    return sorted(range(len(points)), key=key)
