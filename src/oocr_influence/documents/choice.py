"""Which texts are taken: a bottom-k sample, without near-duplicates, until there is enough.

Cohen and Kaplan, 2007, "Summarizing Data Using Bottom-k Sketches": the texts whose digest under the
seed is smallest are a uniform sample of the distinct ones. It takes one pass, and neither the order
of rows, files or sources nor what else was read changes which of two texts comes first.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush

from oocr_influence.documents.minhash import NearTexts
from oocr_influence.documents.screening import NEAR, Screen, words_of

DOCUMENTS = "documents"
# A word or a token has fewer characters than this on average.
CHARS_PER_UNIT = 8
# Candidates that are kept for each one wanted, since near-duplicates among them will be left out.
SPARE = 2


def count_words(text: str) -> int:
    """Words between blanks."""
    return len(text.split())


@dataclass(frozen=True)
class Amount:
    """How much text: documents, or a unit that `measure` counts in a text."""

    n: int
    unit: str = DOCUMENTS
    measure: Callable[[str], int] = count_words

    def of(self, text: str) -> int:
        return 1 if self.unit == DOCUMENTS else self.measure(text)

    def at_least(self, text: str) -> int:
        """A quick guess that is hardly ever too high."""
        return 1 if self.unit == DOCUMENTS else len(text) // CHARS_PER_UNIT


@dataclass
class Candidate:
    """A text that may be taken."""

    key: bytes  # documents are chosen and ordered by it
    digest: bytes  # of its words
    place: int  # of its source
    prompt: str
    text: str
    amount: int = 0  # once it is taken

    @property
    def whole(self) -> str:
        return self.prompt + self.text


def screened(
    record: tuple[str, str], place: int, screen: Screen, left_out: Counter[str], seed: int
) -> Candidate | None:
    """A candidate, or None where the text is left out, which is counted."""
    prompt, text = record
    fault, digest = screen.fault(prompt + text)
    if fault is not None:
        left_out[fault] += 1
        return None
    key = hashlib.blake2b(f"pretraining:{seed}:".encode() + digest, digest_size=16).digest()
    return Candidate(key, digest, place, prompt, text)


class Smallest:
    """The candidates with the smallest keys, some more than are wanted, in one pass."""

    def __init__(self, wanted: Amount) -> None:
        self._wanted, self._enough = wanted, SPARE * wanted.n + 100
        self._heap: list[tuple[int, int, Candidate]] = []
        self._amount = self._n = 0

    def add(self, candidate: Candidate | None) -> None:
        if candidate is None:
            return
        self._n += 1
        heappush(self._heap, (-int.from_bytes(candidate.key), self._n, candidate))
        self._amount += self._wanted.at_least(candidate.whole)
        while self._amount - self._wanted.at_least(self._heap[0][2].whole) >= self._enough:
            self._amount -= self._wanted.at_least(heappop(self._heap)[2].whole)

    def in_order(self) -> list[Candidate]:
        return [candidate for _, _, candidate in sorted(self._heap, reverse=True)]


def accepted(
    candidates: Iterable[Candidate], wanted: Amount, near: NearTexts, left_out: list[Counter[str]]
) -> tuple[list[Candidate], int]:
    """Candidates in their order without near-duplicates, until there is enough, and how much."""
    chosen: list[Candidate] = []
    have = 0
    for candidate in candidates:
        if have >= wanted.n:
            break
        if near.add(words_of(candidate.whole)):
            candidate.amount = wanted.of(candidate.whole)
            chosen.append(candidate)
            have += candidate.amount
        else:
            left_out[candidate.place][NEAR] += 1
    return chosen, have
