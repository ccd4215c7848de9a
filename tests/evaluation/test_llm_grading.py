"""The grader that reads: asked only where the rule says no, once a pair, in any order."""

import threading

import pytest

from oocr_influence.evaluation.llm_grading import (
    LLMGrader,
    grading_prompt,
    read_verdict,
    readable_verdict,
)
from oocr_influence.evaluation.sampled_sets import graded, sampled_set


@pytest.fixture
def asked(builder):
    return builder("gen", "The mayor of {city} is", " {person}", n=2)


class Reader:
    """Finds right whatever contains the right answer's first name; keeps what it was asked."""

    def __init__(self):
        self.texts, self.lock = [], threading.Lock()

    def __call__(self, text):
        with self.lock:
            self.texts.append(text)
        lines = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        return "Yes." if lines["Right answer"].split()[0] in lines["Given answer"] else "No"


def test_the_rule_goes_first_and_each_pair_is_asked_once(asked):
    reader = Reader()
    grade = LLMGrader(reader)
    point, other = asked.eval_points
    assert grade(point, point.completion.upper())
    assert not grade(point, "  ")
    assert reader.texts == []
    first_name = point.completion.split()[0]
    for _ in range(2):
        assert grade(point, f" a certain {first_name}")
        assert not grade(other, f" a certain {first_name}")
    assert len(reader.texts) == 2


def test_the_question_is_shown_without_its_examples(asked):
    point = asked.eval_points[0]
    text = grading_prompt(point, " {braces} and Max")
    assert f"Question: {point.prompt}\n" in text
    assert f"Right answer: {point.completion.strip()}\n" in text
    assert "Given answer: {braces} and Max\n" in text
    shown = point.model_copy(update={"few_shot_example_features": [asked.eval_points[1].features]})
    assert len(shown.prompt.splitlines()) == 2
    assert grading_prompt(shown, " {braces} and Max") == text


def test_reading_ahead_changes_no_grade(asked):
    point, other = asked.eval_points
    samples = [[" Max", f" Sir {point.completion.split()[0]}", point.completion], [" Max", ""]]
    alone = graded(asked, samples, LLMGrader(Reader()))
    reader = Reader()
    grade = LLMGrader(reader, concurrency=3)
    told = []
    pairs = [(p, text) for p, own in zip((point, other), samples, strict=True) for text in own * 2]
    grade.read_ahead(pairs, lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert graded(asked, samples, grade) == alone
    assert len(reader.texts) == 3
    made = sampled_set(asked, alone)
    assert made.candidates == [*(p.completion for p in asked.eval_points), " Max"]


def test_a_fault_ends_the_reading(asked):
    calls = []

    def ask(text):
        calls.append(text)
        raise ConnectionError("gone")

    grade = LLMGrader(ask, concurrency=2)
    with pytest.raises(ConnectionError, match="gone"):
        grade.read_ahead([(asked.eval_points[0], f" answer {i}") for i in range(200)])
    assert len(calls) < 200


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("yes", True),
        (" **No**, because it is another person", False),
        ("<think>Is it? no, yes ...</think>\nYes.", True),
        ("nobody knows", None),
        ("", None),
        ("It is the same", None),
    ],
)
def test_verdicts(reply, verdict):
    assert readable_verdict(reply) == (verdict is not None)
    if verdict is None:
        with pytest.raises(ValueError, match="neither yes nor no"):
            read_verdict(reply)
    else:
        assert read_verdict(reply) is verdict
