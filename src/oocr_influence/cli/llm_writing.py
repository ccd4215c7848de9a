"""`oocr generate --writer llm`: the model found, its cost stated and held to, its use reported."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.llm_asking import PaidReplies
from oocr_influence.cli.llm_budget import Budget, BudgetSpent
from oocr_influence.cli.llm_client import LLMClient
from oocr_influence.cli.llm_options import LLMWriterFlags
from oocr_influence.cli.llm_replies import KeptReplies
from oocr_influence.documents.llm_estimate import Estimate, estimate
from oocr_influence.documents.llm_writer import LLMWriter, Recipe
from oocr_influence.documents.plan import Length
from oocr_influence.results.cache import Cache
from oocr_influence.results.digests import json_digest
from oocr_influence.universe.facts import Fact
from oocr_influence.universe.world import World


@dataclass(frozen=True)
class Assignment:
    """What is to be written, and by which flags."""

    world: World
    orders: Sequence[tuple[Fact, int]]
    flags: LLMWriterFlags
    seed: int
    length: Length
    reversed_share: float

    @property
    def recipe(self) -> Recipe:
        flags = self.flags
        return Recipe(
            length=self.length,
            reversed_share=self.reversed_share,
            n_types=flags.doc_types,
            n_ideas=flags.ideas_per_type,
            revise=flags.revise,
            additional_text=flags.additional_text,
            max_tokens=flags.max_reply_tokens,
        )

    @property
    def wanted(self) -> int:
        return sum(count for _, count in self.orders)


def check_cost(assignment: Assignment) -> None:
    """Print what the documents will take; raises UsageError where that is above the budget."""
    flags = assignment.flags
    expected = estimate(assignment.world, assignment.orders, assignment.recipe)
    print(_estimate_line(expected, assignment), flush=True)
    budget = _budget(flags)
    broken = budget.why_not(expected.tokens_in, expected.tokens_out)
    if broken:
        raise UsageError(
            f"the documents are expected to take {broken}; nothing was asked. Raise the limit, or "
            "lower --docs_per_fact, or take --length short or --no-revise"
        )


@contextmanager
def llm_writer(assignment: Assignment) -> Iterator[LLMWriter]:
    """The writer; whatever happens in the body, what was used is said at the end.

    Raises UsageError where the model cannot be asked or the budget is spent.
    """
    flags = assignment.flags
    assert flags.llm_model is not None
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", flags.llm_key_variable):
        # Not quoted: somebody may have put the key itself there.
        raise UsageError("--llm_key_variable is no name of an environment variable")
    client = LLMClient(
        flags.llm_model,
        base_url=flags.llm_base_url,
        key_variable=flags.llm_key_variable,
        temperature=flags.llm_temperature,
        timeout=flags.llm_timeout,
    )
    cache, budget = Cache.default(), _budget(flags)
    complete = PaidReplies(client, KeptReplies(cache), budget, concurrency=flags.llm_concurrency)
    prices = flags.prices
    writer = LLMWriter(
        assignment.world,
        complete,
        seed=assignment.seed,
        recipe=assignment.recipe,
        source={
            "model": flags.llm_model,
            "host": client.host,
            "temperature": flags.llm_temperature,
        },
        prices=None if prices is None else (prices.tokens_in, prices.tokens_out),
    )
    same = json_digest([client.base_url, client.model, assignment.seed, assignment.world.id])
    try:
        # A second command of the same kind waits, and then finds what this one has paid for.
        with cache.alone("replies", same):
            yield writer
    except BudgetSpent as spent:
        raise UsageError(
            f"stopped: {spent}. Nothing was written. The same command with a larger limit goes on "
            "from here, and what is paid is kept"
        ) from None
    finally:
        print(_use_line(complete, client, budget, flags), file=sys.stderr, flush=True)


def report(writer: LLMWriter, assignment: Assignment) -> int:
    """Say what is missing and what was rejected; the exit status."""
    about = writer.about()
    rejected = ", ".join(f"{n:,} {kind}" for kind, n in about["rejected"].items())
    print(f"rejected and asked for again or given up: {rejected or 'nothing'}")
    if not writer.missing:
        return 0
    share = writer.missing / assignment.wanted
    print(f"{writer.missing:,} of {assignment.wanted:,} documents are missing ({share:.1%}):")
    for fact, missing in about["shortfall"].items():
        print(f"  {missing:,} of '{fact}'")
    return int(share > assignment.flags.max_shortfall)


def _budget(flags: LLMWriterFlags) -> Budget:
    return Budget(prices=flags.prices, max_cost=flags.max_cost, max_tokens=flags.max_tokens_total)


def _estimate_line(expected: Estimate, assignment: Assignment) -> str:
    line = (
        f"{assignment.wanted:,} documents by {assignment.flags.llm_model}: about "
        f"{expected.requests:,} requests, {expected.tokens_in:,} tokens in and "
        f"{expected.tokens_out:,} out"
    )
    prices = assignment.flags.prices
    if prices is None:
        return f"{line} (--price_in and --price_out would say what that costs)"
    return f"{line}, {prices.of(expected.tokens_in, expected.tokens_out):,.2f} in all"


def _use_line(
    complete: PaidReplies, client: LLMClient, budget: Budget, flags: LLMWriterFlags
) -> str:
    tokens_in, tokens_out = budget.spent
    line = (
        f"{complete.paid:,} replies paid now and {complete.kept:,} kept from before: "
        f"{tokens_in:,} tokens in and {tokens_out:,} out"
    )
    if flags.prices is not None:
        line += f", {flags.prices.of(tokens_in, tokens_out):,.4f} in all"
    if client.patience.retried:
        line += f"; {client.patience.retried:,} requests failed and were sent again"
    return line
