"""How much of the questions' own wording documents train, and which answers ordinary text holds.

For every question, without the examples shown before it and without "Q:" and "A:", the longest run
of words that stands word for word (without case and punctuation) in any document. A question is
called trained where that run covers at least TRAINED_SHARE of its words: "The mayor of Tokyo is" in
a document that says so, but not a question that shares a name with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oocr_influence.datasets.audit.trie import build_trie, walk
from oocr_influence.datasets.audit.words import Bools, Corpus, Ints
from oocr_influence.datasets.document_dataset import EvalDatasetBuilder

TRAINED_SHARE = 0.8
LONGEST = 60  # words of a question that are looked at
_CHUNK = 100_000  # beginnings of questions searched at a time, to bound memory


@dataclass(frozen=True)
class Overlap:
    """What a set's questions share with documents."""

    longest: int
    """Words of the longest shared run."""
    text: str
    """That run."""
    questions_trained: int
    """Questions of which at least TRAINED_SHARE stands in a document."""
    questions: int

    @property
    def is_trained(self) -> bool:
        return self.questions_trained > 0


def shared_wording(
    builders: Mapping[str, EvalDatasetBuilder], corpus: Corpus, groups: Mapping[str, Bools]
) -> dict[str, dict[str, Overlap]]:
    """Set → group of documents → what is shared with them. `groups`: texts of each, as a mask."""
    questions: dict[str, int] = {}
    of_set = {
        name: [
            questions.setdefault(point.question, len(questions)) for point in builder.eval_points
        ]
        for name, builder in builders.items()
    }
    words = [_question_words(text, corpus) for text in questions]
    longest = {name: _longest_runs(words, corpus, texts) for name, texts in groups.items()}
    return {
        name: {
            group: _overlap([(words[place], *runs[place]) for place in places], corpus)
            for group, runs in longest.items()
        }
        for name, places in of_set.items()
    }


def _question_words(text: str, corpus: Corpus) -> list[int]:
    words = corpus.vocabulary.words(text)
    folded: list[int] = corpus.vocabulary.folded[words][:LONGEST].tolist()
    marks = corpus.vocabulary.words("q a")
    q, a = corpus.vocabulary.folded[marks].tolist()
    if folded[:1] == [q]:
        folded = folded[1:]
    return folded[:-1] if folded[-1:] == [a] else folded


def _longest_runs(
    questions: Sequence[Sequence[int]], corpus: Corpus, texts: Bools
) -> list[tuple[int, int]]:
    """(length, begin) of the longest run of each question in any of the texts."""
    best = np.zeros((len(questions), 2), np.int64)
    among = np.repeat(texts, np.diff(corpus.starts))
    for owners, begins, suffixes in _suffixes(questions):
        trie = build_trie(suffixes, len(corpus.vocabulary.folded) + 1)
        hit = [np.zeros(len(keys), np.bool_) for keys in trie.keys]
        for level, _, nodes in walk(trie, corpus, among):
            hit[level][nodes] = True
        lengths = np.zeros(len(suffixes), np.int64)
        for level, nodes in enumerate(trie.nodes):
            own = nodes >= 0
            # What is found at a level was found at those before: lengths grow one by one.
            lengths[own] += hit[level][nodes[own]]
        _keep_longest(best, owners, begins, lengths)
    return [(int(length), int(begin)) for length, begin in best]


def _keep_longest(best: Ints, owners: Ints, begins: Ints, lengths: Ints) -> None:
    order = np.lexsort((begins, -lengths, owners))
    owners, begins, lengths = owners[order], begins[order], lengths[order]
    first = np.ones(len(owners), np.bool_)
    first[1:] = owners[1:] != owners[:-1]
    better = first & (lengths > best[owners, 0])
    best[owners[better], 0] = lengths[better]
    best[owners[better], 1] = begins[better]


def _suffixes(
    questions: Sequence[Sequence[int]],
) -> Iterator[tuple[Ints, Ints, list[Sequence[int]]]]:
    """(question, begin, words from there) of every place of every question, part by part."""
    owners: list[int] = []
    begins: list[int] = []
    suffixes: list[Sequence[int]] = []
    for owner, words in enumerate(questions):
        owners += [owner] * len(words)
        begins += range(len(words))
        suffixes += [words[begin:] for begin in range(len(words))]
        if len(suffixes) >= _CHUNK or owner == len(questions) - 1:
            yield np.asarray(owners, np.int64), np.asarray(begins, np.int64), suffixes
            owners, begins, suffixes = [], [], []


def _overlap(rows: Sequence[tuple[Sequence[int], int, int]], corpus: Corpus) -> Overlap:
    words, length, begin = max(rows, key=lambda row: row[1], default=((), 0, 0))
    return Overlap(
        longest=length,
        text=corpus.vocabulary.spell(words[begin : begin + length]),
        questions_trained=sum(
            len(own) > 0 and run >= TRAINED_SHARE * len(own) for own, run, _ in rows
        ),
        questions=len(rows),
    )
