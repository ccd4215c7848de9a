"""How much a language model may cost: a limit on money, on tokens, or on both.

The budget is that of a dataset, not of one attempt at it: replies kept from an earlier attempt
count as they did then, so that starting again does not spend the same limit again. Before a request
is sent, what it may take at most is set aside (its text at a third of a token a character, or at
the most that the server has counted yet, and the longest reply); afterwards what the server counted
is charged. A request that fits only if those under way turn out cheap waits for them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from oocr_influence.documents.conversation import Reply, Request

TOKENS_A_CHARACTER = 1 / 3  # of English prompts, an upper bound
_POLL = 0.2  # seconds


class BudgetSpent(Exception):
    """Nothing more fits; the message says what was spent of what."""


@dataclass(frozen=True)
class Prices:
    """Of a million tokens read and of a million written, in any currency."""

    tokens_in: float
    tokens_out: float

    def of(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


class Budget:
    """What is spent and set aside; for several threads."""

    def __init__(
        self,
        *,
        prices: Prices | None = None,
        max_cost: float | None = None,
        max_tokens: int | None = None,
    ) -> None:
        assert max_cost is None or prices is not None
        self._prices, self._max_cost, self._max_tokens = prices, max_cost, max_tokens
        self._spent = self._aside = (0, 0)  # tokens in, tokens out
        self._density = TOKENS_A_CHARACTER
        self._under_way = 0
        self._over = False
        self._changed = threading.Condition()

    @property
    def spent(self) -> tuple[int, int]:
        """Tokens read and written."""
        return self._spent

    def why_not(self, tokens_in: int, tokens_out: int) -> str | None:
        """Which limit so many tokens would break; None if none."""
        if self._max_tokens is not None and tokens_in + tokens_out > self._max_tokens:
            return f"{tokens_in + tokens_out:,} tokens of --max_tokens_total {self._max_tokens:,}"
        if self._max_cost is not None and self._prices is not None:
            cost = self._prices.of(tokens_in, tokens_out)
            if cost > self._max_cost:
                return f"{cost:.4f} of --max_cost {self._max_cost:g}"
        return None

    def charge(self, request: Request, reply: Reply) -> None:
        """A reply that was paid before. Raises BudgetSpent where that alone breaks a limit."""
        with self._changed:
            self._add(request, reply)
            broken = self.why_not(*self._spent)
        if broken:
            raise BudgetSpent(f"replies that are paid already take {broken}")

    @contextmanager
    def room_for(self, request: Request) -> Iterator[list[Reply]]:
        """Set aside what `request` may take; the body puts the reply into the list it is given.

        Raises BudgetSpent, then and from then on, where it does not fit and nothing is under way.
        """
        need = self._set_aside(request)
        replies: list[Reply] = []
        try:
            yield replies
        finally:
            with self._changed:
                self._aside = _sum(self._aside, (-need[0], -need[1]))
                self._under_way -= 1
                for reply in replies:
                    self._add(request, reply)
                self._changed.notify_all()

    def _add(self, request: Request, reply: Reply) -> None:
        self._spent = _sum(self._spent, (reply.tokens_in, reply.tokens_out))
        self._density = max(self._density, reply.tokens_in / max(1, len(request.text)))

    def _set_aside(self, request: Request) -> tuple[int, int]:
        """The most tokens, in and out, that the request can take."""
        with self._changed:
            while True:
                need = math.ceil(len(request.text) * self._density), request.max_tokens
                broken = self.why_not(*_sum(_sum(self._spent, self._aside), need))
                if not broken:
                    break
                if self._over or not self._under_way:
                    self._over = True
                    raise BudgetSpent(f"the next request could take it to {broken}")
                self._changed.wait(_POLL)
            if self._over:
                raise BudgetSpent("the budget is spent")
            self._aside = _sum(self._aside, need)
            self._under_way += 1
            return need


def _sum(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return a[0] + b[0], a[1] + b[1]
