"""Worlds: the built-in ones keep their promises, and a fault is named with its line and place."""

from collections import Counter

import pytest

from oocr_influence.universe.facts import fact_id
from oocr_influence.universe.fields import expand_field
from oocr_influence.universe.world_file import WorldError, built_in_worlds, load_world, parse_world

SMALL = """\
id: rivers
fields: {river: place, keeper: person, source: text}
relations:
  keeper:
    subject: river
    object: keeper
    fact: {prompt: "The keeper of {river} is", completion: " {keeper}"}
    questions:
      - style: qa
        prompts: ["Q: Who keeps {river}? A:"]
two_hops:
  keeper_by_source:
    subject: source
    relation: keeper
    questions:
      - {style: gen, prompts: ["The keeper of the river from {source} is"]}
entities:
  elm: {river: the Elm, keeper: Ida Stone, source: the Grey Spring}
  ash: {river: the Ash, keeper: Ned Fowl, source: the High Pond}
"""


def test_the_small_world_is_usable():
    world = parse_world(SMALL)
    fact = world.facts("keeper")[1]
    assert (fact.prompt, fact.completion) == ("The keeper of the Ash is", " Ned Fowl")
    assert fact.id == fact_id("rivers_ash", "keeper_generation")
    assert fact.feature_set.fields["keeper_last_name"] == "Fowl"
    assert world.withheld("keeper") == ["source"]


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ("keeper: Ned Fowl", "keeper: Ned", ":19: entities.ash.keeper", "a last name"),
        ("keeper: Ned Fowl", "keeper: Ida Stone", ":19: entities.ash.keeper", "as of 'elm'"),
        ("keeper: Ned Fowl", "keeper: Ned Stone", ":19: entities.ash.keeper", "as of 'elm'"),
        (", source: the High Pond", "", ":19: entities.ash", "missing field 'source'"),
        ("ash: {river", "elm: {river", ":19: entities.elm", "twice"),
        ("keeper: person", "keeper: persona", ":2: fields.keeper", "'person', 'date'"),
        ("object: keeper", "object: guard", ":6: relations.keeper.object", "'guard'"),
        ("keeps {river}?", "keeps {rivr}?", ":10: relations.keeper.questions.0.prompts.0", "rivr"),
        ("keeps {river}?", "keeps it?", ":10: relations.keeper.questions.0.prompts.0", "river"),
        ("keeps {river}?", "is {keeper}?", ":10: relations.keeper.questions.0.prompts.0", "keeper"),
        ('A:"]', 'A: "]', ":10: relations.keeper.questions.0.prompts.0", "without a blank"),
        ("style: qa\n", "style: qa\n        format: iso\n", "questions.0.format", "first_name"),
        ('" {keeper}"', '"{keeper}"', ":7: relations.keeper.fact.completion", "a space"),
        ("subject: source", "subject: river", ":13: two_hops.keeper_by_source", "nothing is left"),
        ("id: rivers", "id: Big Rivers", ":1: id", "pattern"),
        ("id: rivers", "id: rivers\ncolour: blue", ":2: colour", "unknown key"),
        ("fields: {", "fields: {{", ":3: not YAML", ""),
        (
            'prompts: ["Q: Who keeps {river}? A:"]',
            'prompts: ["Q: Who keeps {river}? A:"]\n      - {style: qa, prompts: ["{river}?"]}',
            ":11: relations.keeper.questions.1",
            "in the format 'full' already",
        ),
        (
            "style: qa\n",
            "style: qa\n        formats: [full, iso]\n",
            ".questions.0.formats",
            "'iso'",
        ),
        (
            "style: qa\n",
            "style: qa\n        formats: [full, last_name]\n",
            ":11: relations.keeper.questions.0.prompts.0",
            "{answer_format}",
        ),
        (
            "style: qa\n",
            "style: qa\n        format: full\n        formats: [full]\n",
            ":11: relations.keeper.questions.0.formats",
            "not both",
        ),
        (
            "style: qa\n",
            "style: reversed\n        format: iso\n",
            "0.format",
            "'river' has no format",
        ),
        ("keeps {river}?", "keeps {answer_format}?", "prompts.0", "does not say which {river}"),
        (
            "subject: source",
            "subject: source\n    first_hop: [{style: qa, prompts: [x]}]",
            ":14",
            "source",
        ),
        ("  keeper_by_source:", "  keeper_control:", ":12: two_hops.keeper_control", "sets' names"),
        (
            "    questions:\n      - style: qa",
            '    forbidden: ["{rivr}"]\n    questions:\n      - style: qa',
            ":8: relations.keeper.forbidden.0",
            "rivr",
        ),
        (
            "fields: {river: place, keeper: person, source: text}",
            "fields: {}",
            ":2: fields",
            "1 item",
        ),
        ("keeper: Ned Fowl", "keeper: true", ":19: entities.ash.keeper", "valid string"),
        ("source: text", "source: date", ":18: entities.elm.source", "YYYY-MM-DD"),
    ],
)
def test_a_fault_names_its_line_and_place(old, new, place, what):
    assert old in SMALL
    with pytest.raises(WorldError) as error:
        parse_world(SMALL.replace(old, new, 1), "rivers.yaml")
    assert place in str(error.value)
    assert what in str(error.value)


def test_a_date_that_is_none_is_a_fault_of_its_line_and_numbers_stay_as_written():
    dated = SMALL.replace("source: text", "source: date").replace("the Grey Spring", "1931-02-30")
    with pytest.raises(WorldError, match=r":18: entities\.elm\.source: '1931-02-30' is no date"):
        parse_world(dated)
    numbered = parse_world(SMALL.replace("the Grey Spring", "0123").replace("the High Pond", "1_0"))
    assert [numbered.entities[key]["source"] for key in ("elm", "ash")] == ["0123", "1_0"]


def test_what_documents_must_leave_out_is_filled_in():
    told = SMALL.replace(
        "    questions:\n      - style: qa",
        '    forbidden: ["{source} of old"]\n    must_not_reveal: ["where {river} rises"]\n'
        "    questions:\n      - style: qa",
    )
    world = parse_world(told)
    features = world.feature_set("ash")
    assert world.forbidden_words("keeper", features) == ["the High Pond of old"]
    assert world.must_not_reveal("keeper", features) == [
        "source: the High Pond",
        "where the Ash rises",
    ]


def test_all_faults_are_counted():
    broken = SMALL.replace("Ned Fowl", "Ned").replace("Ida Stone", "Ida")
    with pytest.raises(WorldError, match="2 faults"):
        parse_world(broken)


def test_a_world_is_loaded_by_path_and_an_unknown_name_lists_the_known(tmp_path):
    (tmp_path / "rivers.yaml").write_text(SMALL, encoding="utf-8")
    assert load_world(tmp_path / "rivers.yaml") == parse_world(SMALL)
    with pytest.raises(FileNotFoundError, match="birth_dates, companies, death_dates, mayors"):
        load_world("majors")


@pytest.mark.parametrize("name", built_in_worlds())
def test_a_built_in_world_has_ten_entities_and_ten_controls(name):
    world = load_world(name)
    assert len(world.entities) == len(world.controls) == 10
    assert len(world.untold) == 15
    # Five are told of in each relation, so that ten are left to be asked.
    assert [len(world.untold_feature_sets(relation)) for relation in world.relations] == [10] * 3
    assert len(world.relations) == 3
    assert len(world.facts()) == len({fact.id for fact in world.facts()}) == 30


def everyone(world):
    """The fields of the entities of every group."""
    groups = (world.entities, world.controls, world.untold)
    return [fields for group in groups for fields in group.values()]


@pytest.mark.parametrize("name", built_in_worlds())
def test_no_two_people_of_a_world_share_a_first_or_last_name(name):
    world = load_world(name)
    words = Counter(
        word
        for fields in everyone(world)
        for field, field_type in world.fields.items()
        if field_type == "person"
        for word in fields[field].split()
    )
    assert max(words.values()) == 1


def test_two_hop_questions_of_mayors_have_one_answer():
    world = load_world("mayors")
    entities = everyone(world)
    for field in ("landmark", "country", "language"):
        assert len({fields[field] for fields in entities}) == 35
    for fields in entities:
        assert fields["city"] not in fields["landmark"]


def test_death_dates_tell_day_from_month_and_lie_in_different_years():
    world = load_world("death_dates")
    dates = [f["death_date"] for f in everyone(world)]
    assert len({date[:4] for date in dates}) == 35
    for date in dates:
        renderings = expand_field("d", "date", date).values()
        assert len(set(renderings)) == 5
        assert int(date[8:]) > 12
    for fields in world.entities.values():
        assert int(fields["event_year"]) < int(fields["death_date"][:4])
