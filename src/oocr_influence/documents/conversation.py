"""A request to a language model and its reply, as data; who carries them is the caller's business.

A writer hands a `Complete` a batch of requests and gets their replies in the same order, however
they were answered: one by one, many at a time, or from what was kept of an earlier attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from oocr_influence.universe.facts import sha256_hex


@dataclass(frozen=True)
class Request:
    """One question. Requests of the same words on another `occasion` are answered anew."""

    text: str
    max_tokens: int
    step: str  # what is asked for: types, ideas, document, revision
    occasion: tuple[str | int, ...]  # seed, fact, attempt; never sent

    @property
    def name(self) -> str:
        """A digest of the whole request."""
        return sha256_hex(repr((self.text, self.max_tokens, self.step, self.occasion)))


@dataclass(frozen=True)
class Reply:
    """What came back, whatever it is worth.

    `finish` is the server's word for why it ends: `stop`, `length` (cut off at `max_tokens`),
    `content_filter`. Tokens are the server's count; where it gave none, `counted` is false and they
    are estimated.
    """

    text: str
    finish: str = "stop"
    refused: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    counted: bool = True
    model: str = ""  # as the server names it, a dated version as a rule

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Reply:
        """What `dataclasses.asdict` gave, by this version or another."""
        return cls(**{name: value[name] for name in cls.__dataclass_fields__ if name in value})


Complete = Callable[[Sequence[Request]], Sequence[Reply]]
