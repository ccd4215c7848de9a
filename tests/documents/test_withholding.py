"""What no document may contain: found near its first word as by looking everywhere."""

import re

from oocr_influence.documents.withholding import Withholding, contains
from oocr_influence.universe.invention import with_invented
from oocr_influence.universe.world_file import load_world


def test_what_is_looked_for_near_its_first_word_is_found_as_by_looking_everywhere():
    withholding = Withholding(load_world("mayors"))
    fact = withholding.world.facts()[0]
    naive = withholding.forbidden(fact)
    assert len(naive) > 300
    assert fact.feature_set.fields["city"] not in naive
    for value in naive:
        for text in (f"So it was, {value}.", f"({value})", f"x{value}", f"{value}x", value):
            expected = [
                other for other in naive if re.search(rf"(?<!\w){re.escape(other)}(?!\w)", text)
            ]
            assert withholding.revealed(fact, text) == min(expected, default=None), text


def test_every_value_of_every_other_entity_is_withheld_and_the_own_ones_that_are_not_told():
    world = with_invented(load_world("companies"), entities=15, seed=0)
    withholding = Withholding(world)
    fact = world.facts("founder")[2]
    fields = fact.feature_set.fields
    forbidden = set(withholding.forbidden(fact))
    for key in [*world.entities, *world.controls, *world.untold]:
        other = world.feature_set(key)
        for hole, value in other.fields.items():
            told = other.id == fact.feature_set.id and hole.startswith(("company", "found"))
            assert (value.removeprefix("the ") in forbidden) != told
    assert withholding.own(fact) == [fields["product"].removeprefix("the "), fields["headquarters"]]


def test_words_are_whole_words():
    assert contains("to York, by train", "York")
    assert not contains("to Yorkshire", "York")
    assert not contains("to New-Yorks", "New-York")
