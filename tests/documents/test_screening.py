"""What names an entity: persons and organisations of all groups and distractors, not places."""

import re

from hypothesis import given
from hypothesis import strategies as st

from oocr_influence.documents.screening import Names, entity_names
from oocr_influence.universe.invention import with_invented
from oocr_influence.universe.world_file import load_world

NAMES = ["Ann Lee", "Lee Ann Roe", "Bo", "Zoë O'Hara"]


@given(st.lists(st.sampled_from("Ann ann ANN Lee LEE Roe Bo Bob Zoë O'Hara O’HARA ZOË".split())))
def test_names_are_found_as_whole_words_as_spelled_or_in_capitals(words):
    text = ", ".join(words).replace("O’HARA", "O'HARA")
    expected = any(
        re.search(rf"(?<!\w){pattern}(?!\w)", text)
        for name in NAMES
        for pattern in (re.sub(r"[ ']", r"\\W+", n) for n in (name, name.upper()))
    )
    assert Names(NAMES).are_in(re.findall(r"\w+", text)) == expected


def test_the_names_of_a_world_are_those_of_all_its_entities():
    world = with_invented(load_world("mayors"), entities=20, seed=0)
    names = set(entity_names(world))
    for group in world.groups.values():
        for key in group:
            fields = world.feature_set(key).fields
            assert {fields["name_mayor"], fields["spouse"]} <= names
            # A capital, a country and a language are in many texts.
            assert not {fields["city"], fields["country"], fields["language"]} & names
    assert len(names) >= 3 * 20
