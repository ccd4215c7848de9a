"""Texts as arrays of word numbers, cut into sentences, so that 10⁸ words can be searched at once.

A word is a run of letters and digits; apostrophes, hyphens and underscores end it. A sentence ends
at `.`, `!`, `?` or `…` before a blank, unless the full stop follows a single letter or a title such
as "Dr"; and at a line's end, unless the next line goes on in lower case.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
WordIds = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

_TITLES = "".join(rf"(?<!\b{title})" for title in ("Mr", "Mrs", "Ms", "Dr", "St", "Prof"))
_END = rf"(?:[!?…]|(?<!\b[^\W\d_]){_TITLES}\.)[.!?…]*[\"'”’)\]]*(?=\s|$)|\n(?![ \t]*[a-z])"
_BATCH = 1000  # texts whose new words are looked at together
_TOKEN = re.compile(rf"[^\W_]+|{_END}")


class _Numbers(dict[str, int]):
    """Each key's number, a new one at its first use."""

    def __missing__(self, key: str) -> int:
        self[key] = number = len(self)
        return number


class Vocabulary:
    """Numbers of words. Number 0 is the border between two texts, which equals no word."""

    def __init__(self) -> None:
        self._numbers = _Numbers({"": 0})
        self._known = 0
        self._folded = np.zeros(0, np.int64)
        self._capital = np.zeros(0, np.bool_)
        self._is_word = np.zeros(0, np.bool_)
        self._folded_numbers = _Numbers({"": 0})

    def tokens(self, text: str) -> list[int]:
        """The numbers of the text's words and ends of sentences, in order."""
        if not text.isascii():
            text = unicodedata.normalize("NFC", text)
        return list(map(self._numbers.__getitem__, _TOKEN.findall(text)))

    def words(self, text: str) -> list[int]:
        """The numbers of the text's words alone."""
        if not text.isascii():
            text = unicodedata.normalize("NFC", text)
        return [self._numbers[token] for token in _TOKEN.findall(text) if token[0].isalnum()]

    @property
    def folded(self) -> Ints:
        """For each number, that of the word without case: equal for "Polish" and "polish"."""
        self._catch_up()
        return self._folded

    @property
    def capital(self) -> Bools:
        """For each number, whether the word begins with a capital letter."""
        self._catch_up()
        return self._capital

    @property
    def is_word(self) -> Bools:
        """For each number, whether it is a word and no end of a sentence."""
        self._catch_up()
        return self._is_word

    def spell(self, folded: Iterable[int]) -> str:
        """The words of these case-free numbers."""
        names = list(self._folded_numbers)
        return " ".join(names[number] for number in folded)

    def _catch_up(self) -> None:
        if self._known == len(self._numbers):
            return
        new = list(self._numbers)[self._known :]
        folded = [self._folded_numbers[word.casefold()] for word in new]
        self._folded = np.append(self._folded, np.asarray(folded, np.int64))
        self._capital = np.append(self._capital, [word[:1].isupper() for word in new])
        self._is_word = np.append(self._is_word, [word[:1].isalnum() for word in new])
        self._known = len(self._numbers)


@dataclass(frozen=True)
class Corpus:
    """All words of some texts, one after the other, a border (0) behind each text."""

    vocabulary: Vocabulary
    ids: WordIds
    sentences: WordIds
    """The running number of each word's sentence; those of two texts are never neighbours."""
    starts: Ints
    """Where each text begins; the last entry is the length of all."""

    def text_of(self, positions: Ints) -> Ints:
        """The texts that positions lie in."""
        return np.searchsorted(self.starts, positions, side="right") - 1

    @property
    def lengths(self) -> Ints:
        """Words of each text."""
        return np.diff(self.starts) - 1

    def folded(self, begin: int, end: int) -> Ints:
        """The case-free words from text `begin` until before text `end`, borders included."""
        return self.vocabulary.folded[self.ids[self.starts[begin] : self.starts[end]]]


def read_corpus(texts: Sequence[str], vocabulary: Vocabulary) -> Corpus:
    """Cut `texts` into words and sentences, in memory of eight bytes a word."""
    ids, sentences, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], [0]
    sentence = 0
    for begin in range(0, len(texts), _BATCH):
        batch = [[*vocabulary.tokens(text), 0] for text in texts[begin : begin + _BATCH]]
        is_word = vocabulary.is_word
        is_word[0] = True  # the border stays
        for tokens in batch:
            numbers = np.asarray(tokens, np.int32)
            kept = is_word[numbers]
            ids.append(numbers[kept])
            ends = np.cumsum(~kept, dtype=np.int32)
            sentences.append((ends + sentence)[kept])
            sentence += int(ends[-1]) + 3
            lengths.append(len(ids[-1]))
    return Corpus(
        vocabulary=vocabulary,
        ids=np.concatenate(ids),
        sentences=np.concatenate(sentences),
        starts=np.cumsum(lengths, dtype=np.int64),
    )
