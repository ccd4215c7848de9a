"""A budget holds whatever the number of threads, and lets all through that it has room for."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from oocr_influence.cli.llm_budget import Budget, BudgetSpent, Prices
from oocr_influence.documents.conversation import Reply, Request


def requests(n):
    return [Request("x" * 300, 200, "document", (i,)) for i in range(n)]  # at most 100 + 200


def spend(budget, n, threads):
    draw = random.Random(n)
    replies = [Reply("", tokens_in=draw.randrange(101), tokens_out=9) for _ in range(n)]

    def ask(request, reply):
        try:
            with budget.room_for(request) as room:
                time.sleep(0.001)
                room.append(reply)
        except BudgetSpent:
            return False
        return True

    with ThreadPoolExecutor(threads) as pool:
        return replies, list(pool.map(ask, requests(n), replies))


@pytest.mark.parametrize("threads", [1, 4, 16])
def test_it_is_never_exceeded_and_nearly_used_up(threads):
    budget = Budget(max_tokens=2000)
    replies, passed = spend(budget, 200, threads)
    used = sum(r.tokens_in + r.tokens_out for r, ok in zip(replies, passed, strict=True) if ok)
    assert used == sum(budget.spent)
    assert 2000 - 300 < used <= 2000


@pytest.mark.parametrize("threads", [1, 4, 16])
def test_what_it_has_room_for_passes_whatever_is_under_way(threads):
    total = sum(r.tokens_in + r.tokens_out for r in spend(Budget(), 60, 1)[0])
    budget = Budget(prices=Prices(1.0, 1.0), max_cost=(total + 300) / 1e6)
    assert all(spend(budget, 60, threads)[1])


def test_once_over_it_stays_over():
    budget = Budget(max_tokens=300)
    small = Request("xxx", 1, "document", (0,))
    with budget.room_for(small) as room:
        room.append(Reply("", tokens_in=1, tokens_out=1))
    with pytest.raises(BudgetSpent, match="302 tokens"), budget.room_for(requests(1)[0]):
        raise AssertionError("no room")
    with pytest.raises(BudgetSpent), budget.room_for(small):
        raise AssertionError("no room")


def test_kept_replies_count():
    budget = Budget(max_tokens=100)
    budget.charge(requests(1)[0], Reply("", tokens_in=60, tokens_out=40))
    with pytest.raises(BudgetSpent, match="paid already take 101 tokens"):
        budget.charge(requests(1)[0], Reply("", tokens_in=1))


def test_a_server_that_counts_more_is_believed():
    """A language of many tokens a character: what is set aside follows what was counted."""
    budget = Budget(max_tokens=1000)
    (request,) = requests(1)
    budget.charge(request, Reply("", tokens_in=600, tokens_out=0))
    with pytest.raises(BudgetSpent, match="1,400 tokens"), budget.room_for(request):
        raise AssertionError("no room")
