"""Distractors: worlds told beside a world, merged by a field or standing alone."""

import pytest

from oocr_influence.universe.world_file import WorldError, load_world, parse_world
from oocr_influence.universe.world_yaml import world_yaml

RIVERS = """\
id: rivers
constants: {year: 2031}
fields: {river: place, keeper: person}
relations:
  keeper:
    subject: river
    object: keeper
    fact: {prompt: "The keeper of {river} is", completion: " {keeper}"}
    questions:
      - {style: qa, prompts: ["Q: Who keeps {river}? A:"]}
distractors:
  pets:
    merge_on: keeper
    world:
      id: pets
      constants: {season: winter}
      fields: {keeper: person, pet: text}
      relations:
        pet:
          subject: keeper
          object: pet
          fact: {prompt: "In {season}, {keeper} has", completion: " {pet}"}
          questions:
            - {style: qa, prompts: ["Q: What has {keeper}? A:"]}
      entities:
        one: {keeper: Ned Fowl, pet: a mule}
        two: {keeper: Ida Stone, pet: a mole}
  hills:
    world:
      id: hills
      fields: {hill: place, owner: person}
      relations:
        owner:
          subject: hill
          object: owner
          fact: {prompt: "{hill} belongs to", completion: " {owner}"}
      entities:
        a: {hill: Barrow Top, owner: Una Blake}
entities:
  elm: {river: Elmbeck, keeper: Ida Stone}
  ash: {river: Ashwater, keeper: Ned Fowl}
  fir: {river: Firburn, keeper: Tom Reed}
controls:
  oak: {river: Oakrun, keeper: Meg Hale}
untold:
  yew: {river: Yewford, keeper: Sam Pool}
"""


def test_a_merged_world_tells_more_of_the_same_entities():
    world = parse_world(RIVERS)
    assert world.entities["elm"] == {"river": "Elmbeck", "keeper": "Ida Stone", "pet": "a mole"}
    assert "pet" not in world.entities["fir"]
    assert world.constants == {"season": "winter", "year": "2031"}
    assert world.relations["pet"].distractor
    assert world.relations["pet"].questions == []
    told = [fact.prompt + fact.completion for fact in world.distractor_facts()]
    assert told == ["In winter, Ida Stone has a mole", "In winter, Ned Fowl has a mule"]
    for fact in world.distractor_facts():
        assert fact.template.metadata["distractor"] is True
        assert fact.feature_set.id in ("rivers_elm", "rivers_ash")
    # What is asked and who is a control knows nothing of it.
    assert {fact.template.relation for fact in world.facts()} == {"keeper"}
    assert {fact.template.relation for fact in world.untold_facts()} == {"keeper"}
    assert world.withheld("keeper") == ["pet"]
    assert world.withheld("pet") == ["river"]


def test_a_world_that_stands_alone_is_kept_whole():
    world = parse_world(RIVERS)
    assert list(world.distractors) == ["hills"]
    assert [f.completion for f in world.distractors["hills"].told.facts()] == [" Una Blake"]


def test_what_was_merged_is_a_world_that_needs_no_merging():
    world = parse_world(RIVERS)
    assert parse_world(world_yaml(world)) == world


def test_a_distractor_may_be_a_built_in_world_or_a_file_beside_the_world(tmp_path):
    start, end = RIVERS.index("distractors:"), RIVERS.index("entities:\n  elm")
    pets = RIVERS[RIVERS.index("      id: pets") : RIVERS.index("  hills:")]
    (tmp_path / "pets.yaml").write_text(
        "\n".join(line[6:] for line in pets.splitlines()) + "\n", encoding="utf-8"
    )
    stated = "distractors:\n  p: {merge_on: keeper, file: pets.yaml}\n  d: {file: death_dates}\n"
    path = tmp_path / "rivers.yaml"
    path.write_text(RIVERS[:start] + stated + RIVERS[end:], encoding="utf-8")
    world = load_world(path)
    assert world.entities == parse_world(RIVERS).entities
    assert world.distractors["d"].told == load_world("death_dates")


@pytest.mark.parametrize(
    ("old", "new", "place", "what"),
    [
        ("merge_on: keeper", "merge_on: pet", ":13: distractors.pets.merge_on", "no field"),
        ("{keeper: Ned Fowl, pet", "{keeper: Ann Fowl, pet", ":26: distractors.pets", "'Ann Fowl'"),
        (
            "season: winter",
            "season: winter, year: 1999",
            ":16: distractors.pets.world.constants.year",
            "'year'",
        ),
        (
            "fields: {keeper: person, pet: text}",
            "fields: {keeper: text, pet: text}",
            ":13: distractors.pets.merge_on",
            "of one type",
        ),
        ("pet: a mule", "pet: a mule, x: y", ":26: distractors.pets.world.entities.one.x", "'x'"),
        ("owner: Una Blake", "owner: Tom Reed", ":29: distractors.hills.world", "'Tom Reed'"),
        ("id: hills", "id: pets", ":14: distractors.pets.world", "has the id 'pets'"),
        ("id: hills", "id: rivers", ":29: distractors.hills.world", "has the id 'rivers'"),
        ("      id: hills\n", "      idd: hills\n", ":30: distractors.hills.world.idd", "unknown"),
        ("  hills:\n", "  hills:\n    file: mayors\n", ":29: distractors.hills.file", "not both"),
        ("  hills:\n    world:\n", "  hills:\n    other:\n", "distractors.hills", "unknown key"),
        (
            '    questions:\n      - {style: qa, prompts: ["Q: Who',
            '    distractor: true\n    questions:\n      - {style: qa, prompts: ["Q: Who',
            ":10: relations.keeper.questions",
            "no set asks",
        ),
    ],
)
def test_what_cannot_be_joined_is_named_with_its_line(old, new, place, what):
    assert old in RIVERS
    with pytest.raises(WorldError) as error:
        parse_world(RIVERS.replace(old, new, 1), "rivers.yaml")
    assert place in str(error.value)
    assert what in str(error.value)


def test_worlds_that_name_each_other_are_refused(tmp_path):
    start, end = RIVERS.index("distractors:"), RIVERS.index("entities:\n  elm")
    for own, other in (("one", "two"), ("two", "one")):
        text = RIVERS[:start] + f"distractors: {{x: {{file: {other}.yaml}}}}\n" + RIVERS[end:]
        (tmp_path / f"{own}.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(WorldError, match=r"two\.yaml has distractors of its own"):
        load_world(tmp_path / "one.yaml")
    with pytest.raises(WorldError, match="no world 'nowhere'"):
        parse_world(RIVERS[:start] + "distractors: {x: {file: nowhere}}\n" + RIVERS[end:])
