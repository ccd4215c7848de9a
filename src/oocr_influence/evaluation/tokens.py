"""Where a prompt ends and its answer begins, in tokens.

Prompt and completion are tokenised together, as the model read them in training; the answer starts
at the prompt's own token length. Where the tokenizer merges characters of both into one token, the
pair is `merged`: the answer then starts at the first token that differs from the prompt's own, so
that no character of the completion is ever given away as context.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Tokens = tuple[int, ...]

CHUNK = 4096  # texts a call of the tokenizer: bounds the memory of a set of 100 x 100 pairs


@dataclass(frozen=True)
class Pair:
    """A prompt and one completion: the model reads `prefix` and is asked for `answer`."""

    prefix: Tokens
    answer: Tokens
    merged: bool


def encode(tokenizer: Any, texts: Sequence[str]) -> list[Tokens]:
    """Token ids of each text, behind exactly one BOS where the tokenizer has one."""
    bos = tokenizer.bos_token_id
    rows: list[Tokens] = []
    for start in range(0, len(texts), CHUNK):
        encoded = tokenizer(
            list(texts[start : start + CHUNK]),
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,
        )
        rows.extend(tuple(row) for row in encoded["input_ids"])
    return rows if bos is None else [(bos, *_without_leading(row, bos)) for row in rows]


def _without_leading(row: Tokens, token: int) -> Tokens:
    """Some tokenizers add a BOS whatever they are told, and a text may spell one out."""
    start = 0
    while start < len(row) and row[start] == token:
        start += 1
    return row[start:]


def split_pair(prompt: Tokens, joint: Tokens) -> Pair | None:
    """Cut `joint` (prompt and completion) behind the prompt.

    None where no cut leaves both something to read and something to score.
    """
    n = len(prompt)
    if 0 < n < len(joint) and joint[:n] == prompt:
        return Pair(prompt, joint[n:], merged=False)
    boundary = min(_common_length(prompt, joint), len(joint) - 1)
    if boundary < 1:
        return None
    return Pair(joint[:boundary], joint[boundary:], merged=True)


def _common_length(first: Tokens, second: Tokens) -> int:
    length = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        length += 1
    return length


class PairTokenizer:
    """Tokenises (prompt, completion) pairs, each distinct text and pair once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._prompts: dict[str, Tokens] = {}
        self._pairs: dict[tuple[str, str], Pair | None] = {}

    def add(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Tokenise all pairs that are new, in few calls of the tokenizer."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._pairs]
        prompts = [p for p in dict.fromkeys(p for p, _ in new) if p not in self._prompts]
        self._prompts.update(zip(prompts, encode(self._tokenizer, prompts), strict=True))
        joint = encode(self._tokenizer, [prompt + completion for prompt, completion in new])
        for pair, tokens in zip(new, joint, strict=True):
            self._pairs[pair] = split_pair(self._prompts[pair[0]], tokens)

    def prompt(self, prompt: str) -> Tokens:
        """The prompt's own tokens, BOS included."""
        return self._prompts[prompt]

    def pair(self, prompt: str, completion: str) -> Pair:
        """The pair's tokens. Raises ValueError where nothing would be left to read or to score."""
        pair = self._pairs[prompt, completion]
        if pair is None:
            raise ValueError(
                f"prompt {prompt!r} with completion {completion!r} leaves no token to read before "
                "the answer, or none to score; the tokenizer has no BOS or merges them into one"
            )
        return pair
