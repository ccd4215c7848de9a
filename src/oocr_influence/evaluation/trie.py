"""A group as one sequence: its prefix, then the tree of its answers, ready for one forward pass.

Answers that begin alike share their tokens. The tokens stand in preorder, so the tokens that may
see token j are exactly those from j to the end of its subtree, and one number a token
(`subtree_end`) holds the whole attention mask:

    i attends to j   if and only if   j <= i < subtree_end[j]

The prefix is the trunk: its subtree ends with the sequence. Padding sees itself alone.

Letters: N nodes of a tree, B sequences of a batch, T their padded length, R rows that are read
(positions whose next token is asked for), K answer tokens of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from oocr_influence.evaluation.plan import Bools, EvalPlan, Ints
from oocr_influence.evaluation.tokens import Tokens


@dataclass(frozen=True)
class Trie:
    """Tree of the answers' tokens but their last ones, which are predicted and never read."""

    token_N: Ints
    depth_N: Ints
    subtree_end_N: Ints
    scored_K: Ints
    """Places, among the tokens of all answers in turn, of those that the tree predicts."""
    parent_row_K: Ints
    """For each of them the node that predicts it, -1 for the prefix's end."""


def build_trie(answers: Sequence[Tokens], read: Sequence[bool] | None = None) -> Trie:
    """Tree of `answers` in preorder; answers may repeat or begin one another.

    `read` names the answers whose tokens are read, by default all. The others are scored as far as
    they share the tokens of these, and one token further.
    """
    node_of: dict[tuple[int, int], int] = {}  # (parent, token) -> node
    tokens: list[int] = []
    parents: list[int] = []
    own = (
        answers
        if read is None
        else [a for a, is_read in zip(answers, read, strict=True) if is_read]
    )
    for inner in sorted({answer[:-1] for answer in own}):  # sorted paths arrive in preorder
        node = -1
        for token in inner:
            if (node, token) not in node_of:
                node_of[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = node_of[node, token]
    depths = [0] * len(tokens)
    for node, parent in enumerate(parents):
        depths[node] = 0 if parent < 0 else depths[parent] + 1
    ends = list(range(1, len(tokens) + 1))
    for node in range(len(tokens) - 1, -1, -1):
        if parents[node] >= 0:
            ends[parents[node]] = max(ends[parents[node]], ends[node])
    places, rows = [], []
    first = 0
    for answer in answers:
        node = -1
        for place, token in enumerate(answer, start=first):
            places.append(place)
            rows.append(node)
            if (node, token) not in node_of:
                break
            node = node_of[node, token]
        first += len(answer)
    return Trie(*(np.array(values, np.int64) for values in (tokens, depths, ends, places, rows)))


@dataclass(frozen=True)
class TreeBatch:
    """Several groups as one padded batch, with the places to read their scores from."""

    groups: Ints
    ids_BT: torch.Tensor
    positions_BT: torch.Tensor
    subtree_end_BT: torch.Tensor
    read_R: torch.Tensor
    """Rows of the flattened (B*T) hidden states whose logits are needed, ascending."""
    row_K: torch.Tensor
    """Index into read_R for each answer token, ascending."""
    token_K: torch.Tensor
    entry_K: torch.Tensor
    """The token's place in the plan's token_E."""
    right_K: torch.Tensor
    """Whether the token belongs to a right answer."""

    @property
    def n_tokens(self) -> int:
        """Padded tokens that a forward pass of this batch costs."""
        return self.ids_BT.numel()


@dataclass(frozen=True)
class _Sequence:
    prefix: Tokens
    trie: Trie
    first_entry: int

    @property
    def length(self) -> int:
        return len(self.prefix) + len(self.trie.token_N)


def lay_out(
    plan: EvalPlan,
    token_budget: int,
    groups: Sequence[int] | None = None,
    read_P: Bools | None = None,
) -> list[TreeBatch]:
    """Cut the plan's groups (or those named) into batches of at most `token_budget` padded tokens.

    A group longer than the budget is a batch of its own. Sorted by length, to pad little. `read_P`
    names the paths whose tokens are read, by default all (see `build_trie`).
    """
    tries: dict[tuple[bytes, ...], Trie] = {}  # the questions of a set share their answers
    sequences: dict[int, _Sequence] = {}
    for group in range(len(plan.prefixes)) if groups is None else groups:
        first, last = plan.first_path_G[group : group + 2].tolist()
        starts = plan.first_token_P[first : last + 1]
        entry, end = int(starts[0]), int(starts[-1])
        read = None if read_P is None else read_P[first:last]
        key = (
            plan.token_E[entry:end].tobytes(),
            (starts - entry).tobytes(),
            b"" if read is None else read.tobytes(),
        )
        if key not in tries:
            answers = [plan.answer(path) for path in range(first, last)]
            tries[key] = build_trie(answers, None if read is None else read.tolist())
        sequences[group] = _Sequence(plan.prefixes[group], tries[key], entry)
    ordered = sorted(sequences, key=lambda group: (-sequences[group].length, group))
    batches: list[list[int]] = []
    width = 0
    for group in ordered:
        if not batches or width * (len(batches[-1]) + 1) > token_budget:
            batches.append([])
            width = sequences[group].length  # the longest of its batch comes first
        batches[-1].append(group)
    return [_make_batch(plan, batch, [sequences[group] for group in batch]) for batch in batches]


def _make_batch(plan: EvalPlan, groups: list[int], sequences: list[_Sequence]) -> TreeBatch:
    n_rows, width = len(sequences), max(sequence.length for sequence in sequences)
    ids_BT = np.zeros((n_rows, width), np.int64)
    positions_BT = np.zeros((n_rows, width), np.int64)
    end_BT = np.tile(np.arange(1, width + 1), (n_rows, 1))
    reads, entries = [], []
    for b, sequence in enumerate(sequences):
        trie, prefix, length = sequence.trie, len(sequence.prefix), sequence.length
        ids_BT[b, :length] = [*sequence.prefix, *trie.token_N]
        positions_BT[b, :prefix] = np.arange(prefix)
        positions_BT[b, prefix:length] = prefix + trie.depth_N
        end_BT[b, :prefix] = length
        end_BT[b, prefix:length] = prefix + trie.subtree_end_N
        reads.append(b * width + prefix + trie.parent_row_K)
        entries.append(sequence.first_entry + trie.scored_K)
    read_K, entry_K = np.concatenate(reads), np.concatenate(entries)
    order = np.argsort(read_K, kind="stable")
    read_R, row_K = np.unique(read_K[order], return_inverse=True)
    entry_K = entry_K[order]
    return TreeBatch(
        groups=np.array(groups, np.int64),
        ids_BT=torch.from_numpy(ids_BT),
        positions_BT=torch.from_numpy(positions_BT),
        subtree_end_BT=torch.from_numpy(end_BT),
        read_R=torch.from_numpy(read_R),
        row_K=torch.from_numpy(row_K.reshape(-1)),
        token_K=torch.from_numpy(plan.token_E[entry_K]),
        entry_K=torch.from_numpy(entry_K),
        right_K=torch.from_numpy(plan.right_E[entry_K]),
    )
