"""Where values are mentioned in texts, in any of their forms."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from oocr_influence.datasets.audit.trie import find_sequences
from oocr_influence.datasets.audit.values import Value, forms
from oocr_influence.datasets.audit.words import Bools, Corpus, Ints


@dataclass(frozen=True)
class Mention:
    """One form of a value in a text."""

    value: Value
    short: bool
    position: int  # of its first word in the corpus
    sentence: int


def find_mentions(values: Sequence[Value], corpus: Corpus) -> Iterator[tuple[int, list[Mention]]]:
    """(text, its mentions in order) for every text that mentions any value.

    Of two mentions of which one lies inside the other the longer counts: "New York" does not
    mention York.
    """
    texts, owners, short = _all_forms(values)
    sequences = [corpus.vocabulary.words(text) for text in texts]
    folded = corpus.vocabulary.folded
    positions, found = find_sequences([folded[s].tolist() for s in sequences], corpus)
    keep = _capitals_agree(positions, found, sequences, corpus)
    positions, found = positions[keep], found[keep]
    lengths = np.asarray([len(sequence) for sequence in sequences], np.int64)[found]
    kept = _outermost(positions, lengths)
    positions, found = positions[kept], found[kept]
    rows = zip(
        corpus.text_of(positions).tolist(),
        positions.tolist(),
        found.tolist(),
        corpus.sentences[positions].tolist(),
        strict=True,
    )
    for text, group in itertools.groupby(rows, key=lambda row: row[0]):
        yield (
            text,
            [
                Mention(values[owners[form]], short[form], position, sentence)
                for _, position, form, sentence in group
            ],
        )


def count_texts(phrases: Sequence[str], corpus: Corpus, texts: Bools) -> list[int]:
    """In how many of the masked texts each phrase stands, by the same rules of case and
    punctuation."""
    sequences = [corpus.vocabulary.words(phrase) for phrase in phrases]
    folded = corpus.vocabulary.folded
    positions, found = find_sequences([folded[s].tolist() for s in sequences], corpus)
    places = corpus.text_of(positions)
    keep = _capitals_agree(positions, found, sequences, corpus) & texts[places]
    pairs = np.unique(found[keep] * len(corpus.starts) + places[keep]) // len(corpus.starts)
    counts: list[int] = np.bincount(pairs, minlength=len(phrases)).tolist()
    return counts


def _outermost(positions: Ints, lengths: Ints) -> Ints:
    """The places, by position, of the finds that do not lie inside a longer one."""
    order = np.lexsort((-lengths, positions))
    if not len(order):
        return order
    begins, ends = positions[order], positions[order] + lengths[order]
    # Longest first at each position: what ends no later than something before it lies inside that.
    reach = np.concatenate([[-1], np.maximum.accumulate(ends)[:-1]])
    # Two values may share a form: finds of equal extent are judged as the first of them.
    same = np.zeros(len(order), np.bool_)
    same[1:] = (begins[1:] == begins[:-1]) & (ends[1:] == ends[:-1])
    firsts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    return order[(ends > reach)[firsts]]


def _all_forms(values: Sequence[Value]) -> tuple[list[str], list[int], list[bool]]:
    texts, owners, short = [], [], []
    for place, value in enumerate(values):
        for form in forms(value):
            texts.append(form.text)
            owners.append(place)
            short.append(form.short)
    return texts, owners, short


def _capitals_agree(
    positions: Ints, found: Ints, sequences: Sequence[Sequence[int]], corpus: Corpus
) -> Bools:
    """Whether each capital letter of a form is one in the text."""
    capital = corpus.vocabulary.capital
    agree = np.ones(len(positions), np.bool_)
    depth = max(map(len, sequences), default=0)
    wanted = np.zeros((len(sequences), depth), np.bool_)
    for row, sequence in zip(wanted, sequences, strict=True):
        row[: len(sequence)] = capital[sequence]
    for place in range(depth):
        asks = np.flatnonzero(wanted[found, place])
        agree[asks] &= capital[corpus.ids[positions[asks] + place]]
    return agree
