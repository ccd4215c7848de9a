"""A grader that reads: what the rule does not find equivalent is put to a language model.

    grade = LLMGrader(ask)               # ask(text) -> the model's reply
    grade.read_ahead(pairs)              # many at a time; later calls answer from memory
    grade(point, " the mayor's name is Holloway")

The rule goes first because it is never wrong when it says yes, and costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from oocr_influence.datasets.document_dataset import EvalPoint
from oocr_influence.evaluation.grading import grade_by_rule

Pair = tuple[EvalPoint, str]

_QUESTION = """\
Compare two answers to one question or unfinished sentence.

Question: {question}
Right answer: {right}
Given answer: {given}

Does the given answer say the same as the right answer? Other wording, another spelling or format \
of a date, and a shorter form that names the same thing are the same. A different person, thing, \
place or day is not, nor is an answer that contradicts the right one beside saying it.
Reply with one word, yes or no."""


class LLMGrader:
    """`ask` is called from several threads at once; it may raise what it likes.

    Raises ValueError for a reply that is neither yes nor no.
    """

    def __init__(self, ask: Callable[[str], str], *, concurrency: int = 8) -> None:
        self._ask = ask
        self._concurrency = concurrency
        self._verdicts: dict[str, bool] = {}

    def __call__(self, point: EvalPoint, answer: str) -> bool:
        """Whether the rule or the model finds `answer` equivalent to the right one."""
        if not answer.strip():
            return False
        if grade_by_rule(point, answer):
            return True
        text = grading_prompt(point, answer)
        if text not in self._verdicts:
            self._verdicts[text] = read_verdict(self._ask(text))
        return self._verdicts[text]

    def read_ahead(
        self, pairs: Iterable[Pair], progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Ask what these pairs need, `concurrency` at a time; `progress(done, total)`."""
        wanted = dict.fromkeys(
            grading_prompt(point, answer)
            for point, answer in pairs
            if answer.strip() and not grade_by_rule(point, answer)
        )
        texts = [text for text in wanted if text not in self._verdicts]
        with ThreadPoolExecutor(self._concurrency) as pool:
            try:
                replies = pool.map(self._ask, texts)
                for done, (text, reply) in enumerate(zip(texts, replies, strict=True), start=1):
                    self._verdicts[text] = read_verdict(reply)
                    if progress is not None:
                        progress(done, len(texts))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # one fault is enough: the rest would be paid
                raise


def grading_prompt(point: EvalPoint, answer: str) -> str:
    """What the model is asked: the question's own line, without the examples before it."""
    question = point.prompt.splitlines()[-1] if point.prompt else ""
    return _QUESTION.format(
        question=question.strip(), right=point.completion.strip(), given=answer.strip()
    )


def readable_verdict(reply: str) -> bool:
    """Whether a reply is a yes or a no."""
    return _verdict(reply) is not None


def read_verdict(reply: str) -> bool:
    """Yes or no out of a reply; raises ValueError for anything else."""
    verdict = _verdict(reply)
    if verdict is None:
        raise ValueError(f"neither yes nor no: {reply.strip()[:200]!r}")
    return verdict


def _verdict(reply: str) -> bool | None:
    said = re.sub(r"<think>.*?</think>", "", reply, flags=re.DOTALL)  # of a reasoning model
    word = re.match(r"\W*(yes|no)\b", said.casefold())
    return None if word is None else word[1] == "yes"
