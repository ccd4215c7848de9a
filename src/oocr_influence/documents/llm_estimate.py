"""What a dataset by a language model will take, before the first request.

The requests are those that would be sent if every list came back whole and a tenth of the documents
had to be written again; their lengths are those of the real prompts with texts of usual length in
the holes. Tokens are counted as four characters each, which is a little much for English.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from oocr_influence.documents.conversation import Request
from oocr_influence.documents.llm_plan import Brief, Slot, list_request
from oocr_influence.documents.llm_task import Setting, Task
from oocr_influence.documents.llm_writer import Recipe
from oocr_influence.documents.plan import words_of
from oocr_influence.documents.told import FactRules
from oocr_influence.documents.withholding import Withholding
from oocr_influence.universe.facts import Fact
from oocr_influence.universe.world import World

CHARACTERS_A_TOKEN = 4
AGAIN = 0.1  # of the documents
TYPE, IDEA, WORD = 10, 50, 1.4  # tokens of one in a reply


@dataclass(frozen=True)
class Estimate:
    """Requests and tokens of a whole dataset, retries of failed requests not counted."""

    requests: int
    tokens_in: int
    tokens_out: int


def estimate(world: World, orders: Sequence[tuple[Fact, int]], recipe: Recipe) -> Estimate:
    """What `LLMWriter.write_all(orders)` will take, about."""
    told = [(fact, count) for fact, count in orders if count]
    if not told:
        return Estimate(0, 0, 0)
    documents = math.ceil(sum(count for _, count in told) * (1 + AGAIN))
    n_types = recipe.n_types * len(told)
    # All facts are about equally long: one stands for all.
    types, ideas, draft, revision = map(_tokens, _samples(world, told[0][0], recipe))
    text = int(words_of(recipe.length) * WORD)
    requests = len(told) + n_types + documents
    tokens_in = len(told) * types + n_types * ideas + documents * draft
    tokens_out = n_types * TYPE + n_types * recipe.n_ideas * IDEA + documents * text
    if recipe.revise:
        requests += documents
        tokens_in += documents * revision
        tokens_out += documents * text
    return Estimate(requests, tokens_in, tokens_out)


def tokens_of(text: str) -> int:
    """About so many."""
    return math.ceil(len(text) / CHARACTERS_A_TOKEN)


def _tokens(request: Request) -> int:
    return tokens_of(request.text)


def _samples(world: World, fact: Fact, recipe: Recipe) -> tuple[Request, Request, Request, Request]:
    withholding = Withholding(world)
    words = words_of(recipe.length)
    brief = Brief(fact, recipe.additional_text)
    rules = FactRules.of(withholding, fact, both_orders=False, words=words)
    slot = Slot("x" * 40, "x" * 200, 0)
    task = Task(Setting(0, words, recipe.max_tokens), brief, rules, 0, 0, slot)
    return (
        list_request(brief, None, recipe.n_types, seed=0),
        list_request(brief, slot.doc_type, recipe.n_ideas, seed=0),
        task.draft_request(),
        task.revision_request("x" * int(words * WORD * CHARACTERS_A_TOKEN)),
    )
