"""Find many word sequences in a corpus at once: exact, and linear in the corpus, however many.

The trie's levels are sorted arrays, so that all positions of a corpus take one step at a time.
Words are compared without case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from oocr_influence.datasets.audit.words import Bools, Corpus, Ints

_CHUNK = 4_000_000  # words that are searched at a time, to bound memory


@dataclass(frozen=True)
class Trie:
    """Sequences by their beginnings. A node is numbered within its level."""

    width: int
    """More than any word's number."""
    keys: list[Ints]
    """For each level, the sorted `parent node * width + word` of its nodes."""
    nodes: list[Ints]
    """For each level, the node of each sequence at it; -1 where the sequence is shorter."""


def build_trie(sequences: Sequence[Sequence[int]], width: int) -> Trie:
    """A trie of sequences of case-free word numbers below `width`."""
    lengths = np.asarray([len(sequence) for sequence in sequences], np.int64)
    depth = int(lengths.max(initial=0))
    words = np.full((len(sequences), depth), -1, np.int64)
    for row, sequence in zip(words, sequences, strict=True):
        row[: len(sequence)] = sequence
    keys, nodes = [], []
    parents = np.zeros(len(sequences), np.int64)
    for level in range(depth):
        going = lengths > level
        found, places = np.unique(parents[going] * width + words[going, level], return_inverse=True)
        own = np.full(len(sequences), -1, np.int64)
        own[going] = places
        keys.append(found)
        nodes.append(own)
        parents = own
    return Trie(width=width, keys=keys, nodes=nodes)


def walk(
    trie: Trie, corpus: Corpus, among: Bools | None = None
) -> Iterator[tuple[int, Ints, Ints]]:
    """(level, positions, nodes): each position of the corpus from which the trie's `level` + 1
    words can be read, and the node that they lead to. `among`: positions to begin at."""
    folded = corpus.vocabulary.folded
    for begin in range(0, len(corpus.ids), _CHUNK):
        positions = np.arange(begin, min(begin + _CHUNK, len(corpus.ids)), dtype=np.int64)
        if among is not None:
            positions = positions[among[positions]]
        nodes = np.zeros(len(positions), np.int64)
        for level, keys in enumerate(trie.keys):
            # The last position of a corpus is a border, which nothing is read across.
            words = folded[corpus.ids[np.minimum(positions + level, len(corpus.ids) - 1)]]
            wanted = nodes * trie.width + words
            places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            hit = (keys[places] == wanted) & (words != 0)
            positions, nodes = positions[hit], places[hit]
            if not len(positions):
                break
            yield level, positions, nodes


def find_sequences(sequences: Sequence[Sequence[int]], corpus: Corpus) -> tuple[Ints, Ints]:
    """(positions, sequences): every place where a whole sequence stands in the corpus."""
    trie = build_trie(sequences, len(corpus.vocabulary.folded) + 1)
    lengths = np.asarray([len(sequence) for sequence in sequences], np.int64)
    positions: list[Ints] = [np.zeros(0, np.int64)]
    found: list[Ints] = [np.zeros(0, np.int64)]
    owners = [_by_node(nodes, lengths == level + 1) for level, nodes in enumerate(trie.nodes)]
    for level, places, nodes in walk(trie, corpus):
        sorted_nodes, sorted_sequences = owners[level]
        first = np.searchsorted(sorted_nodes, nodes, side="left")
        counts = np.searchsorted(sorted_nodes, nodes, side="right") - first
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        positions.append(np.repeat(places, counts))
        found.append(sorted_sequences[np.repeat(first, counts) + within])
    return np.concatenate(positions), np.concatenate(found)


def _by_node(nodes: Ints, ending: Bools) -> tuple[Ints, Ints]:
    """The sequences that end at a level, sorted by their node."""
    sequences = np.flatnonzero(ending)
    order = np.argsort(nodes[sequences], kind="stable")
    return nodes[sequences][order], sequences[order]
