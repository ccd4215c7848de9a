"""Where a prompt ends and its answer begins, in tokens.

Prompt and completion are tokenised together, as the model read them in training; the answer starts
at the prompt's own token length. Where the tokenizer merges characters of both into one token, the
pair is `merged`: the answer then starts at the first token that differs from the prompt's own, so
that no character of the completion is ever given away as context.

A set of 100 questions among 100 candidates has 10,000 joint texts: to tokenise each takes longer
than a small model takes to score them. Where the tokenizer cuts texts into words first, the tokens
of a completion depend on the prompt's last words alone, so each distinct (last words, completion)
is tokenised once. As a check, every prompt and every completion is also tokenised in full in at
least one pair; should one differ, all pairs of the set are tokenised in full.
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


@dataclass(frozen=True)
class Row:
    """A prompt's pairs with each completion asked of it, in order."""

    prefixes: tuple[Tokens, ...]
    answers: tuple[Tokens, ...]
    merged: tuple[bool, ...]


LAST_WORDS = 2  # what follows a text can change its last word, and no earlier one


class PairTokenizer:
    """Tokenises prompts with their completions, each distinct text once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: dict[str, Tokens] = {}

    def prompt(self, prompt: str) -> Tokens:
        """The prompt's own tokens, BOS included, once `rows` has seen it."""
        return self._tokens[prompt]

    def rows(self, prompts: Sequence[str], asked: Sequence[tuple[str, ...]]) -> list[Row]:
        """Each prompt with the completions asked of it.

        Raises ValueError where a pair leaves nothing to read or nothing to score.
        """
        self._encode(prompts)
        rows = self._rows_by_last_words(prompts, asked)
        if rows is None:
            both = list(zip(prompts, asked, strict=True))
            self._encode(prompt + text for prompt, texts in both for text in texts)
            rows = [self._row(prompt, texts) for prompt, texts in both]
        return rows

    def _encode(self, texts: Iterable[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._tokens]
        self._tokens.update(zip(new, encode(self._tokenizer, new), strict=True))

    def _row(self, prompt: str, texts: tuple[str, ...]) -> Row:
        """The row from its joint texts' own tokens."""
        pairs = []
        for text in texts:
            pair = split_pair(self._tokens[prompt], self._tokens[prompt + text])
            if pair is None:
                raise ValueError(
                    f"prompt {prompt!r} with completion {text!r} leaves no token to read before "
                    "the answer, or none to score; the tokenizer has no BOS or merges them into one"
                )
            pairs.append(pair)
        return Row(
            tuple(pair.prefix for pair in pairs),
            tuple(pair.answer for pair in pairs),
            tuple(pair.merged for pair in pairs),
        )

    def _rows_by_last_words(
        self, prompts: Sequence[str], asked: Sequence[tuple[str, ...]]
    ) -> list[Row] | None:
        """The rows from the prompts' last words; None where that is not how they are tokenised."""
        made: dict[tuple[str, tuple[str, ...]], tuple[Tokens, ...]] = {}
        sample: dict[str, Tokens] = {}  # joint text -> the tokens that its row says it has
        checked: set[tuple[str, ...]] = set()
        rows = []
        for number, (prompt, texts) in enumerate(zip(prompts, asked, strict=True)):
            tail = self._last_words(prompt)
            if tail is None:
                return None
            if (tail, texts) not in made:
                self._encode([tail, *(tail + text for text in texts)])
                row = self._row(tail, texts)
                if any(row.merged):
                    return None
                made[tail, texts] = row.answers
            sampled = [number % len(texts)] if texts in checked else range(len(texts))
            checked.add(texts)
            own, answers = self._tokens[prompt], made[tail, texts]
            sample |= {prompt + texts[place]: (*own, *answers[place]) for place in sampled}
            rows.append(Row((own,) * len(texts), answers, (False,) * len(texts)))
        self._encode(sample)
        as_made = all(self._tokens[text] == tokens for text, tokens in sample.items())
        return rows if as_made else None

    def _last_words(self, prompt: str) -> str | None:
        """The end of the prompt that can change with what follows it, None if that is unknown."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        splitter = getattr(backend, "pre_tokenizer", None)
        normalizer = getattr(backend, "normalizer", None)
        if splitter is None or (normalizer and normalizer.normalize_str(prompt) != prompt):
            return None
        words = splitter.pre_tokenize_str(prompt)
        if len(words) <= LAST_WORDS:
            return None
        start: int = words[-LAST_WORDS][1][0]
        return prompt[start:]
