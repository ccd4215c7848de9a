"""Invented entities: the same for years, no two alike, none that is known."""

import hashlib
import json
import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oocr_influence.universe.fields import expand_field
from oocr_influence.universe.invention import InventionError, untold_entities, with_invented
from oocr_influence.universe.recipes import bare, well_known, words
from oocr_influence.universe.world_checks import check_world
from oocr_influence.universe.world_file import built_in_worlds, load_world, parse_world

# sha256, first 16 hex digits, of what seed 7 invents up to 40 entities. A change here means that a
# seed no longer means what it did: every dataset that was made from one would come out different.
DIGESTS = {
    "birth_dates": "b167441817ecdbf9",
    "companies": "c5ae80204c04f507",
    "death_dates": "94a73abb9daaf1c5",
    "mayors": "deee5e84143c8779",
}
few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def groups_of(world):
    return {group: dict(entities) for group, entities in world.groups.items()}


def everyone(world):
    return [fields for group in world.groups.values() for fields in group.values()]


@pytest.mark.parametrize("name", built_in_worlds())
def test_a_seed_means_the_same_for_years(name):
    world = with_invented(load_world(name), entities=40, seed=7, keep=False)
    text = json.dumps(groups_of(world))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGESTS[name]


@few
@given(
    name=st.sampled_from(built_in_worlds()),
    entities=st.integers(11, 60),
    seed=st.integers(0, 10**9),
    keep=st.booleans(),
)
def test_any_seed_gives_a_usable_world_of_the_size_asked_for(name, entities, seed, keep):
    world = load_world(name)
    made = with_invented(world, entities=entities, seed=seed, keep=keep)
    check_world(made)
    assert len(made.entities) == len(made.controls) == entities
    for relation in made.relations:
        assert len(made.untold_feature_sets(relation)) >= entities
    again = with_invented(world, entities=entities, seed=seed, keep=keep)
    assert again.model_dump_json() == made.model_dump_json()
    if keep:
        assert list(made.entities.items())[: len(world.entities)] == list(world.entities.items())
        assert list(made.controls.items())[: len(world.controls)] == list(world.controls.items())
    else:
        values = {v for fields in everyone(world) for v in fields.values() if not v.isdecimal()}
        assert values.isdisjoint(v for fields in everyone(made) for v in fields.values())
    ids = [fact.id for fact in [*made.facts(), *made.untold_facts()]]
    assert len(set(ids)) == len(ids)
    keys = [made.feature_set(key).id for group in made.groups.values() for key in group]
    assert len(set(keys)) == len(keys)


@few
@given(seed=st.integers(0, 10**6), few=st.integers(11, 40), more=st.integers(41, 80))
def test_a_larger_world_begins_with_the_smaller(seed, few, more):
    world = load_world("companies")
    small, large = (with_invented(world, entities=n, seed=seed) for n in (few, more))
    assert list(large.entities.items())[:few] == list(small.entities.items())


def test_another_seed_gives_others():
    world = load_world("companies")
    one, two = (with_invented(world, entities=50, seed=seed, keep=False) for seed in (1, 2))
    shared = {f["company"] for f in everyone(one)} & {f["company"] for f in everyone(two)}
    assert len(shared) < 5


def whole_words(text, value):
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


@pytest.mark.parametrize("name", built_in_worlds())
def test_nobody_is_mistaken_for_another_or_for_someone_known(name):
    world = load_world(name)
    made = with_invented(world, entities=60, seed=11)
    own = {key for group in world.groups.values() for key in group}
    told = []  # owner, field, one of its strings
    for group in made.groups.values():
        for key, fields in group.items():
            for field, value in fields.items():
                if made.fields[field] == "year":
                    continue
                rendered = expand_field(field, made.fields[field], value)
                told += [(key, field, bare(text)) for text in rendered.values()]
                if key not in own:
                    assert bare(value) not in well_known()
    named = [entry for entry in told if made.fields[entry[1]] != "date"]
    for owner, field, value in named:
        for other, _, text in named:
            if other != owner and value in text:
                assert not whole_words(text, value), (owner, field, value, other, text)


def test_the_well_known_are_consulted():
    for name in ("lincoln", "tokyo", "france", "latvian", "google", "eiffel tower", "kyiv"):
        assert name in well_known()
    world = load_world("companies")
    # The only made-up word of this pattern is nobody's; what stands beside it is known.
    pattern = {**world.inventions, "headquarters": "[Tokyo|Paris|Lima]"}
    with pytest.raises(InventionError, match="no new headquarters"):
        with_invented(world.model_copy(update={"inventions": pattern}), entities=11, seed=0)


def test_no_list_has_a_word_twice_and_every_pattern_is_of_known_parts():
    stock = words()
    for name, items in stock["lists"].items():
        assert max(Counter(items).values()) == 1, name
        assert all(isinstance(item, str) and item == item.strip() for item in items), name
    for name, parts in stock["made_up"].items():
        for part in ("starts", "middles", "ends"):
            assert max(Counter(parts[part].split()).values()) == 1, (name, part)
    known = {*stock["lists"], *stock["made_up"], *stock["patterns"]}
    assert len(known) == sum(len(stock[part]) for part in stock)
    for pattern in stock["patterns"].values():
        assert set(re.findall(r"\{(\w+)\}", pattern)) <= known


def test_dates_lie_in_their_range_and_years_before_them():
    world = load_world("death_dates")
    made = with_invented(world, entities=200, seed=5, keep=False)
    dates = [fields["death_date"] for fields in everyone(made)]
    assert len(set(dates)) == len(dates) == 200 + 200 + 300
    for fields in everyone(made):
        date = fields["death_date"]
        assert "1840-01-01" <= date <= "1999-12-31"
        assert int(date[8:]) > 12
        assert 15 <= int(date[:4]) - int(fields["event_year"]) <= 45


def test_a_thousand_entities_of_every_world():
    for name in built_in_worlds():
        made = with_invented(load_world(name), entities=1000, seed=0)
        check_world(made)
        assert len(made.entities) == 1000
        assert len(made.untold) == 1500


def test_two_hops_stay_where_documents_join_their_facts():
    assert with_invented(load_world("mayors"), entities=11, seed=0).two_hops == {}
    companies = load_world("companies")
    assert with_invented(companies, entities=11, seed=0).two_hops == companies.two_hops
    mayors = load_world("mayors")
    assert with_invented(mayors, entities=10, seed=0) is mayors


@pytest.mark.parametrize(("entities", "relations"), [(10, 3), (10, 2), (7, 4), (100, 3), (5, 1)])
def test_as_many_are_left_to_ask_as_there_are_entities(entities, relations):
    count = untold_entities(entities, relations)
    for withheld in range(relations):
        asked = sum(i % relations != withheld for i in range(count))
        assert relations == 1 or asked >= entities
    assert relations == 1 or count - relations < entities * relations / (relations - 1)


SMALL = """\
id: rivers
fields: {river: place, mouth: date, fish: text, dry: year}
relations:
  mouth:
    subject: river
    object: mouth
    fact: {prompt: "{river} was first crossed on", completion: " {mouth}"}
inventions:
  mouth: {first: 1804-01-13, last: 1804-02-29}
  fish: "[trout|eel]"
  dry: {before: mouth, least: 1, most: 3}
entities:
  elm: {river: Elmbeck, mouth: 1850-01-13, fish: pike, dry: 1848}
"""


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"[trout|eel]"', '"{trout}"', r":10: inventions\.fish: no list \{trout\}"),
        ('"[trout|eel]"', '"[trout|eel"', "unbalanced brackets"),
        ('"[trout|eel]"', "{first: 1800, last: 1900}", "a text is invented by a pattern"),
        ("{first: 1804-01-13, last: 1804-02-29}", '"{person}"', "a date is invented from a range"),
        ("last: 1804-02-29", "last: 1804-02-30", "YYYY-MM-DD"),
        ("last: 1804-02-29", "last: 1799-02-23", "ends at 1799-02-23"),
        ("before: mouth", "before: fish", "'before' makes a year"),
        ("least: 1,", "least: 5,", "'most' is 3"),
        ("fish: text, dry: year", "dry: year, fish: text", ""),
        ("mouth: date, fish: text, dry: year", "dry: year, fish: text, mouth: date", "above 'dry'"),
        ("  fish:", "  fisch:", r":10: inventions\.fisch: unknown name"),
    ],
)
def test_a_recipe_that_cannot_be_is_named_with_its_line(old, new, what):
    assert old in SMALL
    if not what:
        assert parse_world(SMALL.replace(old, new, 1)).entities
        return
    with pytest.raises(ValueError, match=what):
        parse_world(SMALL.replace(old, new, 1), "rivers.yaml")


def test_too_little_to_draw_from_is_said_by_field():
    # Text that nobody asks for must differ too: it would name another entity.
    with pytest.raises(InventionError, match="no new fish for entity 2 of 'entities'"):
        with_invented(parse_world(SMALL), entities=4, seed=0)
    without = parse_world(SMALL.replace('  fish: "[trout|eel]"\n', ""))
    with pytest.raises(InventionError, match=r"state inventions\.fish in its file"):
        with_invented(without, entities=4, seed=0)
