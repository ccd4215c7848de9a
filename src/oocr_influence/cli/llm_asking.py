"""Batches of requests to a language model: kept replies first, the rest many at a time, in budget.

    complete = PaidReplies(client, kept, budget, concurrency=8)
    replies = complete(requests)          # in the order of the requests

Each reply is kept before anything is made of it, the useless ones too: whoever starts again after
a kill, an error or a spent budget finds all that was paid for. Where one request fails for good,
those under way are waited for and kept, and no further one is sent.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict

from oocr_influence.cli.llm_budget import Budget, BudgetSpent
from oocr_influence.cli.llm_client import LLMClient
from oocr_influence.cli.llm_patience import GivenUp
from oocr_influence.cli.llm_replies import KeptReplies
from oocr_influence.documents.conversation import Reply, Request
from oocr_influence.results.digests import json_digest

LONG_BATCH = 100  # requests


class PaidReplies:
    """The `Complete` of a command; `paid` and `kept` count its replies."""

    def __init__(
        self, client: LLMClient, kept: KeptReplies, budget: Budget, *, concurrency: int
    ) -> None:
        self._client, self._kept, self._budget = client, kept, budget
        self._concurrency = concurrency
        self._counting = threading.Lock()
        self.paid = self.kept = 0
        self._batch = self._left = 0

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        """Raises UsageError where the model cannot be asked, BudgetSpent where it may not."""
        kept = [self._find(request) for request in requests]
        missing = [r for r, reply in zip(requests, kept, strict=True) if reply is None]
        print(_line(requests, len(missing)), file=sys.stderr, flush=True)
        paid = iter(self._ask_all(missing))
        return [next(paid) if reply is None else reply for reply in kept]

    def _find(self, request: Request) -> Reply | None:
        reply = self._kept.get(self._key(request))
        if reply is not None:
            self.kept += 1
            self._budget.charge(request, reply)
        return reply

    def _ask_all(self, requests: Sequence[Request]) -> list[Reply]:
        self._batch = self._left = len(requests)
        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = [pool.submit(self._ask, request) for request in requests]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            except BaseException:  # an interruption: what is under way is paid, and waited for
                self._stop(pool, futures)
                raise
            error = next((e for f in done if (e := f.exception()) is not None), None)
            if error is not None:
                self._stop(pool, futures, at_once=not isinstance(error, BudgetSpent))
        if error is not None:
            raise _first_cause(futures, error)
        return [future.result() for future in futures]

    def _ask(self, request: Request) -> Reply:
        with self._budget.room_for(request) as room:
            reply = self._client.complete(request.text, request.max_tokens)
            asked = {"model": self._client.model, **asdict(request)}
            self._kept.put(self._key(request), reply, asked)
            room.append(reply)
        with self._counting:
            self.paid += 1
            self._say_where_we_are(request.step)
        return reply

    def _say_where_we_are(self, step: str) -> None:
        """A line at each tenth of a batch that takes long."""
        self._left -= 1
        done = self._batch - self._left
        if self._batch >= LONG_BATCH and done * 10 // self._batch > (done - 1) * 10 // self._batch:
            tokens_in, tokens_out = self._budget.spent
            print(
                f"{step}: {done:,} of {self._batch:,}; {tokens_in:,} tokens in and {tokens_out:,} "
                "out so far",
                file=sys.stderr,
                flush=True,
            )

    def _stop(
        self, pool: ThreadPoolExecutor, futures: Sequence[Future[Reply]], *, at_once: bool = True
    ) -> None:
        if at_once:
            self._client.patience.give_up()
        for future in futures:
            future.cancel()
        pool.shutdown(wait=True, cancel_futures=True)

    def _key(self, request: Request) -> str:
        client = self._client
        return json_digest([client.base_url, client.model, client.temperature, request.name])


def _first_cause(futures: Sequence[Future[Reply]], error: BaseException) -> BaseException:
    """The error that others followed from."""
    errors = [e for f in futures if not f.cancelled() and (e := f.exception()) is not None]
    return next((e for e in errors if not isinstance(e, GivenUp)), error)


def _line(requests: Sequence[Request], missing: int) -> str:
    kept = f" ({len(requests) - missing:,} kept from before)" if missing < len(requests) else ""
    return f"{requests[0].step}: {len(requests):,} requests{kept}" if requests else "no requests"
