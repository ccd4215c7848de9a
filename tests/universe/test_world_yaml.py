"""Writing worlds: what is read back is what was written, and the schema is the model's."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from oocr_influence.universe.invention import with_invented
from oocr_influence.universe.world import World
from oocr_influence.universe.world_file import built_in_worlds, load_world, parse_world
from oocr_influence.universe.world_yaml import schema_text, world_schema, world_yaml

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", built_in_worlds())
def test_a_built_in_world_survives_writing_and_reading(name):
    world = load_world(name)
    assert parse_world(world_yaml(world)) == world
    large = with_invented(world, entities=30, seed=2)
    assert parse_world(world_yaml(large)) == large


# Words with what YAML and templates take to mean something.
texts = st.text(
    st.sampled_from("ab Zé:#'\"-?!,[]&*|>%@`~0189\\/\t"), min_size=1, max_size=12
).filter(lambda text: text.strip() == text)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(texts, min_size=2, max_size=6, unique_by=lambda text: text.casefold()),
    description=st.text(max_size=20).filter(str.isprintable),
    constant=texts,
    statement=texts,
)
def test_any_words_survive_writing_and_reading(values, description, constant, statement):
    world = World.model_validate(
        {
            "id": "any",
            "description": description,
            "constants": {"c": constant},
            "fields": {"a": "text", "b": "text"},
            "relations": {
                "r": {
                    "subject": "a",
                    "object": "b",
                    "fact": {"prompt": "{a}: {c}", "completion": " {b}"},
                    "statements": [f"{{a}} {statement} {{b}}"],
                    "questions": [{"style": "qa", "prompts": [f"{statement} {{a}}?"]}],
                }
            },
            "entities": {f"e{i}": {"a": v, "b": f"{v} {i}"} for i, v in enumerate(values)},
        }
    )
    assert parse_world(world_yaml(world)) == world


def test_an_entity_is_a_line_and_parts_are_explained():
    text = world_yaml(load_world("companies"))
    lines = text.splitlines()
    assert (
        sum(line.startswith("  harrowick_looms: {company: Harrowick Looms,") for line in lines) == 1
    )
    assert "founded_year: 1887, product: the Velmora" in text
    assert "        formats: [full, first_name, last_name]" in lines
    for part in ("fields", "relations", "two_hops", "inventions", "entities", "controls", "untold"):
        assert lines[lines.index(f"{part}:") - 1].startswith("# "), part


def test_the_published_schema_is_the_models():
    published = (DOCS / "world.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "renew it: oocr world schema > docs/world.schema.json"
    assert json.loads(published) == world_schema()


def test_the_schema_knows_every_key_and_says_what_it_means():
    schema = world_schema()
    world = schema["$defs"]["World"]
    assert world["additionalProperties"] is False
    for name in built_in_worlds():
        text = (
            Path(load_world.__code__.co_filename).parent / "worlds" / f"{name}.yaml"
        ).read_text()
        assert set(yaml.safe_load(text)) <= set(world["properties"])
    value = world["properties"]["entities"]["additionalProperties"]["additionalProperties"]
    # 1931 without quotation marks is an integer to an editor.
    assert value["type"] == ["string", "integer"]
    relation = schema["$defs"]["Relation"]["properties"]
    assert all("description" in relation[key] for key in ("subject", "object", "forbidden"))
