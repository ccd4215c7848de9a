"""Documents ranked for a target: by summed scores, with ties drawn and told."""

from collections import Counter

import numpy as np
import pytest

from oocr_influence.attribution.targets import find_targets, queries_of, rank
from oocr_influence.results.attributions import Attributions

N_D = 30


def made_table(scores_QD=None):
    documents = [
        {
            "id": f"d{d // 2}",
            "occurrence": d % 2,
            "type": "synthetic_document",
            "fact_id": f"id{d % 3}",
            "relation": "mayor",
            "entity": f"city{d % 3}",
        }
        for d in range(N_D)
    ]
    documents.append(
        {"id": "p", "occurrence": 0, "type": "pretraining_document", "fact_id": None}
        | dict.fromkeys(("relation", "entity"))
    )
    asked = [("qa_1", ["id0"]), ("qa_1", ["id1"]), ("hop_2", ["id0"]), ("control", [])]
    queries = [
        {"set": name, "index": q, "id": f"q{q}", "fact_ids": facts}
        for q, (name, facts) in enumerate(asked)
    ]
    if scores_QD is None:
        scores_QD = np.random.default_rng(3).normal(size=(4, N_D + 1))
    return Attributions(
        documents, queries, {"dot": {"unit": ""}}, {"dot": np.asarray(scores_QD, np.float32)}
    )


KEYS = [(f"d{d // 2}", d % 2) for d in range(N_D)]


def test_a_fact_and_a_set_are_targets_of_their_queries():
    table = made_table()
    found = find_targets(table, ["mayor:city0", "qa_1", "id1", "mayor:*"])
    assert {t.name: t.queries for t in found} == {
        "mayor:city0": (0, 2),
        "qa_1": (0, 1),
        "mayor:city1": (1,),
    }
    assert [t.name for t in found] == ["mayor:city0", "qa_1", "mayor:city1"]
    assert queries_of(table, found[0]) == [
        {"set": "qa_1", "index": 0, "id": "q0"},
        {"set": "hop_2", "index": 2, "id": "q2"},
    ]


def test_the_order_is_that_of_a_naive_sum():
    table = made_table()
    (target,) = find_targets(table, ["mayor:city0"])
    # Some of the documents, in another order than the table's.
    among = KEYS[::-1][:20]
    ranking = rank(table, target, "dot", among=among, seed=41)
    summed = {}
    for place, row in enumerate(table.documents):
        key = (row["id"], row["occurrence"])
        summed[key] = sum(float(table.scores["dot"][q][place]) for q in (0, 2))
    expected = sorted(among, key=lambda key: -summed[key])
    assert [among[i] for i in ranking.order] == expected
    np.testing.assert_allclose(ranking.scores, [summed[key] for key in expected])
    assert all(ranking.ties(k) == (0, 0) for k in range(1, 20))
    negative = sum(summed[key] <= 0 for key in expected[:15])
    assert ranking.not_positive(15) == negative > 0  # the sign is taken as it is: they come last
    assert ranking.not_positive(1) == 0


def test_equal_scores_are_drawn_and_told():
    scores = np.zeros((4, N_D + 1))
    scores[0, :4] = 2  # four on top, then 26 of the same score
    table = made_table(scores)
    (target,) = find_targets(table, ["mayor:city0"])
    tops = Counter()
    for seed in range(300):
        ranking = rank(table, target, "dot", among=KEYS, seed=seed)
        again = rank(table, target, "dot", among=KEYS, seed=seed)
        np.testing.assert_array_equal(ranking.order, again.order)
        assert set(ranking.order[:4].tolist()) == {0, 1, 2, 3}
        assert ranking.ties(4) == (0, 0)  # which four they are is no matter of chance
        assert ranking.ties(3) == (4, 3)
        assert ranking.ties(10) == (26, 6)
        tops.update(ranking.order[4:10].tolist())
    assert len(tops) == 26
    assert all(abs(n - 300 * 6 / 26) < 35 for n in tops.values())  # 69, a deviation of 7


def test_what_states_the_fact_is_on_top_by_the_dataset_itself():
    table = made_table()
    (target,) = find_targets(table, ["qa_1"])
    ranking = rank(table, target, "facts", among=KEYS, seed=0)
    assert {d % 3 for d in ranking.order[:20].tolist()} == {0, 1}
    assert ranking.scores.tolist() == [1.0] * 20 + [0.0] * 10


def test_unknown_names_are_refused_with_what_there_is():
    table = made_table()
    with pytest.raises(ValueError, match=r"'mayor:x'. Facts: mayor:city0, mayor:city1. Sets: qa_1"):
        find_targets(table, ["mayor:city0", "mayor:x"])
    with pytest.raises(ValueError, match="no method 'bm25' there: dot, and facts"):
        rank(table, find_targets(table, ["qa_1"])[0], "bm25", among=KEYS, seed=0)
