"""Agreement of methods and what is on top, against SciPy and sorting by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from oocr_influence.attribution.agreement import agreement, top_share


def test_agreement_is_the_mean_rank_correlation_over_queries():
    draw = np.random.default_rng(1)
    scores = {name: draw.integers(0, 6, size=(4, 20)) for name in "abc"}
    scores["a"][2] = 3  # says nothing of the third query
    found = agreement(scores)
    for i, one in enumerate("abc"):
        for j, other in enumerate("abc"):
            queries = [q for q in range(4) if q != 2 or "a" not in (one, other)]
            each = [spearmanr(scores[one][q], scores[other][q]).statistic for q in queries]
            assert found[i, j] == pytest.approx(np.mean(each))


def test_a_method_that_says_nothing_agrees_with_none():
    scores = {"same": np.ones((2, 5)), "other": np.arange(10).reshape(2, 5)}
    found = agreement(scores)
    assert np.isnan(found[0]).all()
    assert found[1, 1] == pytest.approx(1)


def test_the_share_of_the_first_documents():
    scores = [[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]]
    names, shares = top_share(scores, ["a", "a", "b", "b", "b", "c"], k=2)
    assert names == ["a", "b", "c"]
    np.testing.assert_allclose(shares, [[1, 0, 0], [0, 0.5, 0.5]])


def test_equal_scores_count_as_in_every_order():
    _, shares = top_share([[1, 0, 0, 0]], ["a", "b", "b", "c"], k=2)
    np.testing.assert_allclose(shares, [[0.5, 1 / 3, 1 / 6]])
    _, nothing = top_share([[7, 7, 7, 7]], ["a", "b", "b", "c"], k=3)
    np.testing.assert_allclose(nothing, [[0.25, 0.5, 0.25]])
    _, few = top_share([[1, 2]], ["a", "b"], k=10)
    np.testing.assert_allclose(few, [[0.5, 0.5]])
