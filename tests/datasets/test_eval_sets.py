"""Eval sets: exactly those of the table, every question answerable, few-shot draws stable."""

import json
from collections import Counter

import pytest

from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.datasets.eval_sets import (
    build_eval_sets,
    control_templates,
    describe_set,
    eval_set_table,
    eval_templates,
    few_shot_examples,
)
from oocr_influence.documents.writer import OfflineWriter
from oocr_influence.universe.world_file import load_world, parse_world

WORLDS = ("death_dates", "mayors")

# relation, style, format -> phrasings
TABLE = {
    "death_dates": {
        **{("death_date", "qa", f): 4 for f in ("default", "mdy", "dmy", "dmy_written", "iso")},
        **{(r, "qa", "default"): 4 for r in ("achievement", "event")},
        **{(r, "gen", "default"): 4 for r in ("death_date", "achievement", "event")},
        **{(r, "reversed", "full"): 3 for r in ("death_date", "achievement", "event")},
    },
    "mayors": {
        **{
            (r, "qa", f): 5
            for r in ("name_mayor", "spouse")
            for f in ("full", "first_name", "last_name")
        },
        **{(r, "gen", "full"): 5 for r in ("name_mayor", "spouse")},
        ("name_mayor", "reversed", "default"): 5,
        ("spouse", "reversed", "full"): 5,
        ("conference", "gen", "default"): 5,
        ("conference", "qa", "default"): 5,
        ("conference", "reversed", "full"): 5,
        **{
            (f"name_mayor_by_{by}", style, "full"): 5
            for by in ("landmark", "country", "language")
            for style in ("qa", "gen")
        },
    },
}


@pytest.fixture(scope="module", params=WORLDS)
def world(request):
    return load_world(request.param)


@pytest.fixture(scope="module")
def builders(world):
    return build_eval_sets(world, seed=42)


def test_the_templates_are_those_of_the_table(world):
    counted = Counter(
        (t.metadata["relation"], t.metadata["style"], t.metadata["answer_format"])
        for t in eval_templates(world)
    )
    assert counted == TABLE[world.id]


def test_there_are_98_and_190_sets(world, builders):
    assert len(builders) == {"death_dates": 98, "mayors": 190}[world.id]
    assert len(eval_templates(world)) == {"death_dates": 49, "mayors": 95}[world.id]


def test_names_are_those_of_the_design():
    names = build_eval_sets(load_world("mayors"), seed=0) | build_eval_sets(
        load_world("death_dates"), seed=0
    )
    for name in (
        "name_mayor_eval_first_name_qa_4_no_fs",
        "death_date_eval_gen_2_with_fs",
        "death_date_eval_dmy_written_qa_1_no_fs",
        "spouse_eval_qa_5_with_fs",
        "conference_eval_reversed_3_no_fs",
    ):
        assert name in names


def test_every_wording_is_a_different_one(world):
    prompts = [template.prompt for template in eval_templates(world)]
    assert len(prompts) == len(set(prompts))


def test_every_question_has_one_answer_of_its_own(builders):
    for name, builder in builders.items():
        answers = [point.completion for point in builder.eval_points]
        assert all(a.startswith(" ") and a.strip() and a == a.rstrip() for a in answers), name
        assert len(set(answers)) == len(answers) == 10, name
        questions = [point.prompt for point in builder.eval_points]
        assert len(set(questions)) == 10, name


def test_no_question_contains_its_answer(builders):
    for name, builder in builders.items():
        for point in builder.eval_points:
            own = point.prompt.splitlines()[-1]
            assert point.completion.strip() not in own, name


def test_reversed_questions_mention_the_answer_and_ask_for_the_entity(world, builders):
    for name, builder in builders.items():
        if describe_set(name, builder).kind != "reversed":
            continue
        relation = world.relations[describe_set(name, builder).relation]
        for point in builder.eval_points:
            fields = point.features.fields
            assert fields[relation.object] in point.prompt.splitlines()[-1]
            assert point.completion == f" {fields[relation.subject]}"


def test_few_shot_sets_show_three_other_entities_and_the_same_ones_in_each_set(world, builders):
    shown = {}
    for name, builder in builders.items():
        relation = describe_set(name, builder).relation
        for point in builder.eval_points:
            ids = [features.id for features in point.few_shot_example_features]
            if name.endswith("_no_fs"):
                assert ids == []
                continue
            assert len(set(ids)) == 3
            assert point.features.id not in ids
            assert shown.setdefault((relation, point.features.id), ids) == ids
    # All entities showing the same three would tell apart nothing.
    assert len({tuple(ids) for ids in shown.values()}) > 10


def test_few_shot_draws_depend_on_seed_relation_and_entity(world):
    entities = world.feature_sets
    draws = {
        (seed, relation, entity.id): tuple(
            e.id for e in few_shot_examples(seed, relation, entity, entities)
        )
        for seed in (1, 2)
        for relation in ("a", "b")
        for entity in entities
    }
    for other in ((2, "a"), (1, "b")):
        assert [draws[1, "a", e.id] for e in entities] != [draws[*other, e.id] for e in entities]


def test_few_entities_are_shown_where_there_are_few(world):
    entities = world.feature_sets[:3]
    assert len(few_shot_examples(0, "r", entities[0], entities)) == 2
    assert few_shot_examples(0, "r", entities[0], entities[:1]) == []


def test_every_key_of_the_format_is_in_the_file(builders):
    builder = next(iter(builders.values()))
    written = json.loads(builder.model_dump_json(exclude_unset=True))
    assert written["metrics"] == [
        {"function_name": "accuracy_and_loss"},
        {"function_name": "ranks"},
        {"function_name": "beam_search", "num_beams": 12, "num_return_sequences": 10},
    ]
    point = written["eval_points"][0]
    assert set(point) == {
        "features",
        "few_shot_example_features",
        "fact_template",
        "constant_fields",
    }
    assert set(point["fact_template"]) == {
        "id",
        "relation",
        "prompt",
        "completion",
        "metadata",
        "allow_few_shot",
    }


def test_sets_describe_themselves(world, builders):
    kinds = Counter()
    for name, builder in builders.items():
        described = describe_set(name, builder)
        kinds[described.kind] += 1
        assert described.world == world.id
        assert described.shots == (3 if name.endswith("_with_fs") else 0)
        assert f"_{described.style}_{described.phrasing}_" in name
        assert name.startswith(f"{described.relation}_eval_")
    expected = {
        "death_dates": {"trained": 80, "reversed": 18},
        "mayors": {"trained": 100, "reversed": 30, "two_hop": 60},
    }
    assert kinds == expected[world.id]


def test_controls_are_sets_of_their_own_about_entities_that_are_never_told(world, builders):
    both = build_eval_sets(world, seed=42, controls=True)
    extra = {name: builder for name, builder in both.items() if name not in builders}
    assert {name: both[name] for name in builders} == builders
    assert len(extra) == 2 * len(control_templates(world, "unmentioned")) == 40
    told = {features.id for features in world.feature_sets}
    for name, builder in extra.items():
        assert "_control_eval_" in name
        described = describe_set(name, builder)
        assert (described.kind, described.control) == ("control", "unmentioned")
        for point in builder.eval_points:
            shown = [point.features, *point.few_shot_example_features]
            assert told.isdisjoint(features.id for features in shown)
        # A control is matched: the same wording as a trained set.
        twin = builders[name.replace("_control_", "_")]
        assert (
            twin.eval_points[0].fact_template.prompt == builder.eval_points[0].fact_template.prompt
        )


def test_untold_entities_are_mentioned_and_never_told_what_is_asked(world, builders):
    """Documents name one side of each question, and hold none of the answers' other sides."""
    both = build_eval_sets(world, seed=42, untold=True)
    assert {name: both[name] for name in builders} == builders
    extra = {name: builder for name, builder in both.items() if name not in builders}
    assert len(extra) == 2 * len(control_templates(world, "untold")) == 20
    writer = OfflineWriter(world, seed=0, length="short")
    texts = {}
    for fact in world.untold_facts():
        texts[fact.feature_set.id] = [d.completion for d in writer.write(fact, 3)]
    for name, builder in extra.items():
        described = describe_set(name, builder)
        assert "_control_untold_eval_" in name
        assert (described.kind, described.control) == ("control", "untold")
        relation = world.relations[described.relation]
        assert len({point.completion for point in builder.eval_points}) == 10
        for point in builder.eval_points:
            fields = point.features.fields
            sides = {fields[relation.subject], fields[relation.object]}
            found = {
                side for side in sides if any(side in text for text in texts[point.features.id])
            }
            assert len(found) == 1
            # Nobody else's documents mention the entity.
            others = [t for own, told in texts.items() if own != point.features.id for t in told]
            assert not any(side in text for side in sides for text in others)
        twin = builders[name.replace("_control_untold_", "_")]
        assert (
            twin.eval_points[0].fact_template.prompt == builder.eval_points[0].fact_template.prompt
        )


def test_a_world_without_such_entities_has_no_such_sets(world):
    without = world.model_copy(update={"untold": {}})
    assert len(build_eval_sets(without, seed=42, untold=True)) in (98, 190)


def older(template_id, relation, shots=0):
    features = {"id": "x", "fields": {"a": "A", "b": "B"}}
    point = {
        "features": features,
        "few_shot_example_features": [features] * shots,
        "fact_template": {
            "id": template_id,
            "relation": relation,
            "prompt": "{a}",
            "completion": " {b}",
        },
    }
    return EvalDatasetBuilder.model_validate({"eval_points": [point], "metrics": []})


@pytest.mark.parametrize(
    ("name", "shots", "expected"),
    [
        ("name_mayor_eval_qa_1_no_fs", 0, ("name_mayor", "qa", "default", 1, "trained")),
        (
            "name_mayor_eval_first_name_qa_3_with_fs",
            3,
            ("name_mayor", "qa", "first_name", 3, "trained"),
        ),
        (
            "name_mayor_eval_gen_reversed_no_fs",
            0,
            ("name_mayor", "reversed", "default", None, "reversed"),
        ),
        ("second_hop_inferred_fact_qa_with_fs", 3, ("r", "qa", "default", None, "two_hop")),
        ("first_hop_inferred_fact_gen_no_fs", 0, ("r", "gen", "default", None, "first_hop")),
        ("death_date_eval_iso_qa_2_no_fs", 0, ("death_date", "qa", "iso", 2, "trained")),
        ("anything at all", 0, ("r", "qa", "default", None, "trained")),
    ],
)
def test_sets_of_older_files_are_described_by_their_names(name, shots, expected):
    described = describe_set(name, older("t", "r", shots))
    assert (
        described.relation,
        described.style,
        described.answer_format,
        described.phrasing,
        described.kind,
    ) == expected
    assert described.shots == shots
    assert described.world is None


FORMATS_ONE_BY_ONE = """\
      - style: qa
        prompts: ["Q: The full name of who keeps {river}? A:", "Q: {river}, the full name? A:"]
      - style: qa
        format: last_name
        prompts: ["Q: The last name of who keeps {river}? A:", "Q: {river}, the last name? A:"]
"""
FORMATS_BY_RULE = """\
      - style: qa
        formats: [full, last_name]
        prompts: ["Q: {answer_format} of who keeps {river}? A:", "Q: {river}, {answer_format}? A:"]
"""
KEPT = """\
id: rivers
fields: {river: place, keeper: person, spring: place}
relations:
  keeper:
    subject: river
    object: keeper
    fact: {prompt: "The keeper of {river} is", completion: " {keeper}"}
    questions:
QUESTIONS
two_hops:
  keeper_by_spring:
    subject: spring
    relation: keeper
    first_hop: [{style: qa, prompts: ["Q: Which river rises at {spring}? A:"]}]
    questions: [{style: qa, few_shot: false, prompts: ["Q: Who keeps the river from {spring}? A:"]}]
entities:
  elm: {river: Elmbeck, keeper: Ida Stone, spring: Owl Well}
  ash: {river: Ashwater, keeper: Ned Fowl, spring: Fox Well}
"""


def test_several_formats_are_the_blocks_that_one_would_write():
    by_rule, one_by_one = (
        parse_world(KEPT.replace("QUESTIONS\n", questions))
        for questions in (FORMATS_BY_RULE, FORMATS_ONE_BY_ONE)
    )
    written = [
        template.prompt.replace("Q: The", "Q: the") for template in eval_templates(one_by_one)
    ]
    assert [template.prompt for template in eval_templates(by_rule)] == written
    ids = [[template.id for template in eval_templates(w)] for w in (by_rule, one_by_one)]
    assert ids[0] == ids[1]
    assert ids[0][:4] == [
        "keeper_eval_qa_1",
        "keeper_eval_qa_2",
        "keeper_eval_last_name_qa_1",
        "keeper_eval_last_name_qa_2",
    ]


def test_the_first_hop_is_asked_by_the_field_of_the_second():
    builders = build_eval_sets(parse_world(KEPT.replace("QUESTIONS\n", FORMATS_BY_RULE)), seed=0)
    first = builders["keeper_by_spring_first_hop_eval_qa_1_no_fs"]
    said = describe_set("keeper_by_spring_first_hop_eval_qa_1_no_fs", first)
    assert (said.kind, said.relation) == ("first_hop", "keeper_by_spring_first_hop")
    points = [point.prompt + point.completion for point in first.eval_points]
    assert points[1] == "Q: Which river rises at Fox Well? A: Ashwater"
    second = builders["keeper_by_spring_eval_qa_1_no_fs"].eval_points[1]
    assert second.prompt + second.completion == "Q: Who keeps the river from Fox Well? A: Ned Fowl"
    # Where a block wants no examples, there is no set with them.
    assert "keeper_by_spring_eval_qa_1_with_fs" not in builders
    assert "keeper_by_spring_first_hop_eval_qa_1_with_fs" in builders


def test_the_newer_worlds_ask_dates_and_names_in_every_format():
    for name, count in (("birth_dates", 114), ("companies", 114)):
        world = load_world(name)
        builders = build_eval_sets(world, seed=0)
        assert len(builders) == count
        described = [describe_set(*entry) for entry in builders.items()]
        assert (
            len({(d.relation, d.style, d.answer_format, d.phrasing, d.shots) for d in described})
            == count
        )
        for builder in builders.values():
            answers = [point.completion for point in builder.eval_points]
            assert len(set(answers)) == len(answers) == 10
            assert not any("{" in point.prompt + point.completion for point in builder.eval_points)
    kinds = Counter(d.kind for d in described)
    assert kinds == {"trained": 64, "reversed": 18, "first_hop": 8, "two_hop": 24}
    formats = {d.answer_format for d in described if d.relation == "founder"}
    assert formats == {"full", "first_name", "last_name", "default"}


def test_no_set_is_empty_where_controls_are_few():
    text = KEPT.replace("QUESTIONS\n", FORMATS_BY_RULE)
    world = parse_world(
        text + "untold:\n  oak: {river: Oakrun, keeper: Tom Reed, spring: Elk Well}\n"
    )
    # There is nobody to ask: not as a control, nor untold of the only relation.
    assert build_eval_sets(world, seed=0, controls=True, untold=True) == build_eval_sets(
        world, seed=0
    )


def test_an_empty_set_is_described_too():
    assert describe_set("x", EvalDatasetBuilder(eval_points=[], metrics=[])).shots == 0


def test_the_table_has_a_row_a_set_with_its_first_question(builders):
    table = eval_set_table(builders)
    rows = [line for line in table.splitlines() if line.startswith("| ") and "_eval_" in line]
    assert [row.split(" | ")[0][2:] for row in rows] == list(builders)
    for row, builder in zip(rows, builders.values(), strict=True):
        assert row.endswith(f"→{builder.eval_points[0].completion} |")
