"""Questions that cannot be answered from the documents, or have more than one answer.

| fault | a question |
|---|---|
| unstated | whose answer no document states: neither the fact itself nor, for a question of two |
| | hops, a fact of the same entity that has the answer as its object |
| told control | of a control set, although documents state its fact |
| ambiguous | whose words stand in the same set again, with another answer |
| few-shot | that shows fewer examples than its set's others, itself, its own answer, or entities |
| | that the set does not ask about |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Literal

from oocr_influence.datasets.audit.knowledge import Knowledge, asked_and_given, fields_of
from oocr_influence.datasets.audit.values import Value
from oocr_influence.datasets.document_dataset import EvalDatasetBuilder, EvalPoint
from oocr_influence.datasets.eval_sets import describe_set
from oocr_influence.datasets.set_names import WITH_FEW_SHOT

Fault = Literal["unstated", "told control", "ambiguous", "few-shot"]


@dataclass(frozen=True)
class QuestionFault:
    """One question of a set that cannot measure what it is meant to."""

    fault: Fault
    set: str
    question: int  # its place in the set
    what: str


def check_questions(
    builders: Mapping[str, EvalDatasetBuilder], knowledge: Knowledge, stated: Set[str]
) -> list[QuestionFault]:
    """Every faulty question; `stated` are the ids of facts that a trained document states."""
    told = _Told(knowledge, stated)
    faults: list[QuestionFault] = []
    for name, builder in builders.items():
        kind = describe_set(name, builder).kind
        for place, point in enumerate(builder.eval_points):
            fault = told.fault(point, kind)
            if fault is not None:
                faults.append(QuestionFault(fault[0], name, place, fault[1]))
        faults += _ambiguous(name, builder)
        faults += _few_shot(name, builder)
    return faults


def shared_answers(builder: EvalDatasetBuilder) -> int:
    """Questions of the set whose answer is also that of another, differently worded one."""
    askers: dict[str, set[str]] = defaultdict(set)
    for point in builder.eval_points:
        askers[point.completion].add(point.question)
    return sum(len(askers[point.completion]) > 1 for point in builder.eval_points)


class _Told:
    """What the documents tell, as questions need it."""

    def __init__(self, knowledge: Knowledge, stated: Set[str]) -> None:
        self._knowledge = knowledge
        self._pairs = knowledge.pairs(stated)
        claims = knowledge.claims
        self._entities = {claim.entity for claim in claims.values()}
        self._sides = {claim.fields for claim in claims.values()}
        self._values: dict[str, set[Value]] = defaultdict(set)
        self._objects: dict[str, set[Value]] = defaultdict(set)
        for claim in map(claims.__getitem__, stated):
            # "" stands for all entities, for questions about one that no fact knows.
            for entity in (claim.entity, ""):
                self._values[entity].update(claim.values)
                self._objects[entity].update(claim.objects)

    def fault(self, point: EvalPoint, kind: str) -> tuple[Fault, str] | None:
        given, asked = asked_and_given(self._knowledge, point)
        is_told = any(frozenset((one, other)) in self._pairs for one in given for other in asked)
        answer = f"'{point.question}{point.completion}'"
        if kind == "control":
            return ("told control", f"documents state {answer}") if is_told else None
        # What a first hop asks is known of the world, not of the documents.
        if is_told or kind == "first_hop":
            return None
        if kind != "two_hop" and self._is_direct(point):
            return "unstated", f"no document states {answer}"
        # The answer must be told of the entity; the hop to it is known otherwise. Where facts have
        # the asked field as their object, only those tell it: not one that it is the subject of.
        own = point.features.id if point.features.id in self._entities else ""
        names = set(fields_of(point.fact_template.completion, point.features))
        told = self._objects if any(names & answers for _, answers in self._sides) else self._values
        return (
            None
            if asked & told[own]
            else ("unstated", f"no document states the answer of {answer}")
        )

    def _is_direct(self, point: EvalPoint) -> bool:
        """Whether the question joins fields that facts join, in whichever order."""
        template, features = point.fact_template, point.features
        given = set(fields_of(template.prompt, features))
        asked = set(fields_of(template.completion, features))
        return any(
            (subject & given and answer & asked) or (answer & given and subject & asked)
            for subject, answer in self._sides
        )


def _ambiguous(name: str, builder: EvalDatasetBuilder) -> Iterator[QuestionFault]:
    answers: dict[str, set[str]] = defaultdict(set)
    for point in builder.eval_points:
        answers[point.question].add(point.completion)
    for place, point in enumerate(builder.eval_points):
        question = point.question
        if len(answers[question]) > 1:
            several = ", ".join(sorted(answers[question]))
            yield QuestionFault("ambiguous", name, place, f"'{question}' has the answers{several}")


def _few_shot(name: str, builder: EvalDatasetBuilder) -> Iterator[QuestionFault]:
    points = builder.eval_points
    asked = {point.features.id for point in points}
    most = max((len(point.few_shot_example_features) for point in points), default=0)
    wanted = most or int(name.endswith(WITH_FEW_SHOT) and len(points) > 1)
    for place, point in enumerate(points):
        shown = point.few_shot_example_features
        strangers = sorted({features.id for features in shown} - asked)
        answers = {answer for _, answer in point.few_shot_examples}
        what = None
        if len(shown) < wanted:
            what = f"it shows {len(shown)} examples where others show {wanted}"
        elif point.features.id in {features.id for features in shown}:
            what = f"it shows its own entity '{point.features.id}'"
        elif point.completion in answers:
            what = f"its answer '{point.completion.strip()}' is shown before it"
        elif strangers:
            what = f"it shows '{strangers[0]}', which the set does not ask about"
        if what is not None:
            yield QuestionFault("few-shot", name, place, what)
