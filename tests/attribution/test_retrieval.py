"""Recall, precision and reciprocal rank: means over every order of documents with equal scores."""

from itertools import pairwise, permutations

import numpy as np
import pytest

from oocr_influence.attribution.retrieval import by_chance, retrieval


def by_every_order(scores, relevant, k):
    """Means over all orders of documents that are by their scores."""
    orders = [
        order
        for order in permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in pairwise(order))
    ]
    reciprocal = [
        1 / next(place for place, d in enumerate(order, 1) if relevant[d]) for order in orders
    ]
    found = [sum(relevant[d] for d in order[:k]) for order in orders]
    return (
        np.mean(reciprocal),
        np.mean(found) / sum(relevant),
        np.mean(found) / min(k, len(scores)),
    )


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_mean_over_all_orders_of_equal_ones(seed):
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, 3, size=(3, 6)).astype(float)  # many ties
    relevant = draw.random((3, 6)) < 0.4
    relevant[:, 0] = True
    for k in (1, 2, 4, 9):
        found = retrieval(scores, relevant, at=(k,))
        for q in range(3):
            mrr, recall, precision = by_every_order(scores[q], relevant[q], k)
            assert found.reciprocal_rank[q] == pytest.approx(mrr)
            assert found.recall[k][q] == pytest.approx(recall)
            assert found.precision[k][q] == pytest.approx(precision)


def test_what_says_the_same_of_all_has_what_chance_has():
    relevant = np.zeros((2, 300), bool)
    relevant[0, :10] = relevant[1, 250:] = True
    constant = retrieval(np.ones((2, 300)), relevant, at=(10, 100))
    chance = by_chance(300, relevant.sum(axis=1), at=(10, 100))
    np.testing.assert_allclose(constant.reciprocal_rank, chance.reciprocal_rank)
    for k in (10, 100):
        np.testing.assert_allclose(constant.recall[k], chance.recall[k])
        np.testing.assert_allclose(constant.precision[k], chance.precision[k])
    draw = np.random.default_rng(0)
    first = [draw.permutation(300)[:10].min() + 1 for _ in range(20_000)]
    assert chance.reciprocal_rank[0] == pytest.approx(np.mean(1 / np.array(first)), rel=0.03)


def test_a_perfect_order_and_one_upside_down():
    relevant = np.array([[True, True, False, False, False]])
    best = retrieval([[5.0, 4, 3, 2, 1]], relevant, at=(2,))
    assert (best.reciprocal_rank[0], best.recall[2][0], best.precision[2][0]) == (1, 1, 1)
    worst = retrieval([[1.0, 2, 3, 4, 5]], relevant, at=(2,))
    assert (worst.reciprocal_rank[0], worst.recall[2][0]) == (pytest.approx(1 / 4), 0)


def test_queries_without_a_document_say_nothing():
    found = retrieval([[1.0, 2.0]], np.zeros((1, 2), bool), at=(1,))
    assert np.isnan([found.reciprocal_rank[0], found.recall[1][0], found.precision[1][0]]).all()
    assert np.isnan(by_chance(2, [0], at=(1,)).reciprocal_rank).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="scores"):
        retrieval([[1.0, 2.0]], np.ones((1, 3), bool))
    with pytest.raises(ValueError, match="k 0"):
        retrieval([[1.0, 2.0]], np.ones((1, 2), bool), at=(0,))
