"""Controls of removals: as many documents, none of those on top, of the facts that they match."""

from collections import Counter

import pytest

from oocr_influence.datasets.removal import (
    TooFewOthersError,
    matched_control,
    random_control,
)

FACTS = {"a": list(range(10)), "b": list(range(20, 28)), "c": [40, 41, 43]}
PLACES = sorted(place for own in FACTS.values() for place in own)
FACT_OF = {place: fact for fact, own in FACTS.items() for place in own}
TOP = (7, 22, 3, 5, 40)


def facts_of(places):
    return Counter(FACT_OF[place] for place in places)


@pytest.mark.parametrize("draw", range(20))
def test_controls_have_the_size_of_the_top_and_none_of_its_documents(draw):
    key = (41, "target", "bm25", 5, draw)
    for drawn in (random_control(TOP, PLACES, key=key), matched_control(TOP, FACTS, key=key)):
        assert len(drawn) == len(set(drawn)) == 5
        assert not set(drawn) & set(TOP)
        assert set(drawn) <= set(PLACES)
    assert facts_of(matched_control(TOP, FACTS, key=key)) == {"a": 3, "b": 1, "c": 1}
    assert random_control(TOP, PLACES, key=key) == random_control(TOP, PLACES, key=key)
    assert matched_control(TOP, FACTS, key=key) == matched_control(TOP, FACTS, key=key)


def test_every_other_document_is_as_likely_as_any():
    drawn, matched = Counter(), Counter()
    for draw in range(2000):
        drawn.update(random_control(TOP, PLACES, key=(0, "t", "m", 5, draw)))
        matched.update(matched_control(TOP, FACTS, key=(0, "t", "m", 5, draw)))
    others = set(PLACES) - set(TOP)
    assert set(drawn) == set(matched) == others
    of_random = 2000 * 5 / len(others)  # 625, a deviation of 21
    assert all(abs(n - of_random) < 100 for n in drawn.values())
    left = {"a": 7, "b": 7, "c": 2}
    removed = {"a": 3, "b": 1, "c": 1}
    for place, n in matched.items():
        fact = FACT_OF[place]
        assert abs(n - 2000 * removed[fact] / left[fact]) < 110


def test_too_few_others_are_an_error_and_never_a_smaller_control():
    with pytest.raises(TooFewOthersError, match=r"of fact c… 2 are on top and 1 are left$"):
        matched_control((40, 41, 0), FACTS, key=())
    whole = (*FACTS["c"], *FACTS["b"])
    with pytest.raises(TooFewOthersError, match="b… 8 are on top and 0 are left, and 1 facts more"):
        matched_control(whole, FACTS, key=())
    with pytest.raises(ValueError, match="only 10 are left: at most 10"):
        random_control(tuple(PLACES[:11]), PLACES, key=())
