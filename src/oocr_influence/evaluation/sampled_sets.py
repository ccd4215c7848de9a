"""Sampled answers as sets of questions: the right answer among what the model itself says.

    answers = graded(builder, samples, grade_by_rule)      # one list of answers a question
    builder = sampled_set(builder, answers)

The new set asks the same questions. Its candidates are the set's right answers and every sampled
one that is no right answer in other words, so that `ranks` tells whether the model prefers the
truth to its own guesses; each question keeps its answers, how often they came and their grades.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from oocr_influence.datasets.document_dataset import AccuracyAndLoss, EvalDatasetBuilder, Ranks
from oocr_influence.evaluation.grading import Grader, grade_by_rule
from oocr_influence.evaluation.sampling import distinct


@dataclass(frozen=True)
class SampledAnswer:
    """One distinct answer to one question."""

    text: str
    count: int
    equivalent: bool


def graded(
    builder: EvalDatasetBuilder, samples: Sequence[Sequence[str]], grade: Grader
) -> list[list[SampledAnswer]]:
    """The distinct answers to each question of `builder`, most frequent first."""
    return [
        [SampledAnswer(text, n, grade(point, text)) for text, n in distinct(answers).items()]
        for point, answers in zip(builder.eval_points, samples, strict=True)
    ]


def sampled_set(
    builder: EvalDatasetBuilder, answers: Sequence[Sequence[SampledAnswer]]
) -> EvalDatasetBuilder:
    """The set with its sampled answers as candidates; `sampled_answers` of each question says how
    they were graded. Blank answers are kept there, but are no candidates, nor is what was graded as
    right or is, by the rule, the right answer to another question of the set."""
    points = [
        point.model_copy(update={"sampled_answers": [asdict(answer) for answer in own]})
        for point, own in zip(builder.eval_points, answers, strict=True)
    ]
    right = dict.fromkeys(point.completion for point in builder.eval_points)
    texts = dict.fromkeys(a.text for own in answers for a in own if a.text.strip())
    equivalent = {a.text for own in answers for a in own if a.equivalent}
    others = [
        text
        for text in texts
        if text not in right
        and text not in equivalent
        and not any(grade_by_rule(point, text) for point in builder.eval_points)
    ]
    return EvalDatasetBuilder(
        eval_points=points,
        metrics=[
            AccuracyAndLoss(function_name="accuracy_and_loss"),
            Ranks(function_name="ranks"),
        ],
        candidates=[*right, *others],
    )
