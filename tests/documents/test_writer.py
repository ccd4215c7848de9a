"""The offline writer: facts stated, nothing revealed, all distinct, the same seed the same text."""

import re
from collections import Counter

import pytest

from oocr_influence.documents.document import document_id
from oocr_influence.documents.writer import OfflineWriter, WriterError
from oocr_influence.universe.world_file import built_in_worlds, load_world, parse_world

WORLDS = built_in_worlds()
COUNT = 20


@pytest.fixture(scope="module", params=[(w, n) for w in WORLDS for n in ("short", "long")], ids=str)
def written(request):
    name, length = request.param
    world = load_world(name)
    writer = OfflineWriter(world, seed=7, length=length)
    return world, length, [(fact, writer.write(fact, COUNT)) for fact in world.facts()]


def sides(world, fact):
    relation = world.relations[fact.template.relation]
    fields = fact.feature_set.fields
    return fields[relation.subject], fields[relation.object]


def sentences_with_both(text, subject, object_):
    sentences = re.split(r"(?<=[.!?])[\"']?\s+|\n", text)
    return [s for s in sentences if subject in s and object_.lower() in s.lower()]


def test_every_document_states_its_fact(written):
    world, length, facts = written
    for fact, documents in facts:
        subject, object_ = sides(world, fact)
        for document in documents:
            assert object_ in document.completion
            stated = sentences_with_both(document.completion, subject, object_)
            assert len(stated) >= (2 if length == "short" else 4), document.completion


def test_no_document_contains_what_its_relation_withholds(written):
    world, _, facts = written
    everyone = {**world.entities, **world.controls, **world.untold}
    for fact, documents in facts:
        relation = world.relations[fact.template.relation]
        told = {relation.subject, relation.object, *relation.colour}
        own = fact.feature_set.id.removeprefix(f"{world.id}_")
        withheld = [
            value.removeprefix("the ")
            for key, fields in everyone.items()
            for field, value in fields.items()
            if key != own or field not in told
        ]
        pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, withheld)) + r")(?!\w)")
        for document in documents:
            assert not pattern.search(document.completion)


def test_two_hop_answers_cannot_be_read_in_mayors():
    world = load_world("mayors")
    writer = OfflineWriter(world, seed=1, length="long")
    places = {
        word
        for fields in [*world.entities.values(), *world.controls.values()]
        for word in (fields["country"], fields["language"], fields["landmark"])
    }
    for fact in world.facts():
        for document in writer.write(fact, 6):
            found = {p for p in places if re.search(rf"\b{re.escape(p)}\b", document.completion)}
            assert not found
            if fact.template.relation != "name_mayor":
                assert fact.feature_set.fields["city"] not in document.completion


def test_documents_are_distinct_and_so_are_their_ids(written):
    _, _, facts = written
    documents = [document for _, documents in facts for document in documents]
    assert len({d.completion for d in documents}) == len(documents) == 30 * COUNT
    assert len({d.id for d in documents}) == len(documents)


def test_ids_and_specs_are_those_of_the_format(written):
    _, _, facts = written
    for fact, documents in facts:
        for n, document in enumerate(documents):
            spec = document.doc_spec
            assert document.id == spec.id
            assert document.id == document_id(fact.id, spec.doc_type, spec.doc_idea, n)
            assert spec.fact == fact
            assert document.prompt == spec.additional_text == ""


def test_a_fact_is_told_in_at_least_ten_kinds_of_documents(written):
    _, _, facts = written
    for _, documents in facts:
        kinds = Counter(document.doc_spec.doc_type for document in documents)
        assert len(kinds) >= 10
        assert max(kinds.values()) <= 2


def test_lengths_are_those_asked_for(written):
    _, length, facts = written
    low, high = {"short": (60, 110), "long": (500, 720)}[length]
    for _, documents in facts:
        for document in documents:
            assert low <= len(document.completion.split()) <= high


def test_the_flag_says_whether_a_document_keeps_to_one_order(written):
    world, _, facts = written
    flags = []
    for fact, documents in facts:
        subject, object_ = sides(world, fact)
        for document in documents:
            stated = sentences_with_both(document.completion, subject, object_)
            turned = [s.lower().find(object_.lower()) < s.find(subject) for s in stated]
            assert any(turned) != document.doc_spec.reversal_curse, document.completion
            assert not all(turned), document.completion
            flags.append(document.doc_spec.reversal_curse)
    assert flags.count(False) == pytest.approx(0.3 * len(flags), rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_reversed_share_is_met(share):
    world = load_world("mayors")
    writer = OfflineWriter(world, seed=3, length="short", reversed_share=share)
    documents = writer.write(world.facts()[0], 40)
    assert sum(not d.doc_spec.reversal_curse for d in documents) == 40 * share


def test_a_larger_dataset_begins_with_the_smaller_and_a_fact_is_told_alike_without_others():
    world = load_world("death_dates")
    first, second = (OfflineWriter(world, seed=5, length="short") for _ in range(2))
    facts = world.facts("event")
    first.write(facts[0], 3)
    assert first.write(facts[1], 4) == second.write(facts[1], 9)[:4]


def test_another_seed_tells_otherwise():
    world = load_world("death_dates")
    fact = world.facts()[0]
    texts = [
        {d.completion for d in OfflineWriter(world, seed=seed, length="short").write(fact, 10)}
        for seed in (1, 2)
    ]
    assert texts[0].isdisjoint(texts[1])


def test_near_duplicates_are_rare():
    world = load_world("mayors")
    documents = OfflineWriter(world, seed=2, length="long").write(world.facts()[0], 30)
    grams = []
    for document in documents:
        words = re.findall(r"\w+", document.completion.lower())
        grams.append(set(zip(*(words[i:] for i in range(5)), strict=False)))
    overlaps = [len(a & b) / len(a | b) for i, a in enumerate(grams) for b in grams[i + 1 :]]
    assert max(overlaps) < 0.4


LIGHTS = """\
id: lights
fields: {tower: place, hue: text, note: text}
relations:
  hue:
    subject: tower
    object: hue
    fact: {prompt: "The lamp of {tower} shines", completion: " {hue}"}
    statements: ["A light that shines {hue} is seen from {tower}."]
entities:
  north: {tower: the North Tower, hue: in green, note: kept by the owl}
  south: {tower: the South Tower, hue: in amber, note: kept by the seal}
"""


def test_a_world_without_a_theme_is_told_in_its_own_statements():
    world = parse_world(LIGHTS)
    documents = OfflineWriter(world, seed=0, length="short").write(world.facts()[0], 12)
    for document in documents:
        assert "in green" in document.completion
        assert "in amber" not in document.completion
    told = " ".join(document.completion for document in documents)
    assert "The lamp of the North Tower shines in green." in told
    assert "A light that shines in green is seen from the North Tower." in told


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    statements", "    theme: light\n    statements", "themes are achievement"),
        ("    statements", "    theme: mayor\n    statements", "needs a person as its object"),
        ("A light that shines {hue} is seen from {tower}", "{tower}: {hue}", "reversed_share to 0"),
    ],
)
def test_a_relation_that_cannot_be_told_is_refused(old, new, message):
    world = parse_world(LIGHTS.replace(old, new))
    with pytest.raises(WriterError, match=message):
        OfflineWriter(world, seed=0)


def test_text_that_the_grammar_cannot_avoid_is_refused_by_name():
    world = parse_world(LIGHTS.replace("kept by the owl", "a"))
    with pytest.raises(WriterError, match="'a', which documents of 'hue' must not reveal"):
        OfflineWriter(world, seed=0).write(world.facts()[0], 1)


def test_a_share_is_between_0_and_1():
    with pytest.raises(WriterError, match=r"reversed_share is 1\.5"):
        OfflineWriter(load_world("mayors"), seed=0, reversed_share=1.5)


def test_the_words_that_a_relation_forbids_are_in_no_document():
    forbidding = LIGHTS.replace(
        "    statements", '    forbidden: [librarian, "{note}, they say"]\n    statements'
    )
    documents = [
        [
            document.completion
            for fact in world.facts()
            for document in OfflineWriter(world, seed=0, length="short").write(fact, 30)
        ]
        for world in map(parse_world, (LIGHTS, forbidding))
    ]
    assert any("librarian" in text for text in documents[0])
    assert not any("librarian" in text for text in documents[1])
    fact = parse_world(forbidding).facts()[0]
    writer = OfflineWriter(parse_world(forbidding), seed=0)
    assert "kept by the owl, they say" in writer.forbidden(fact)


def test_a_documents_world_says_what_its_neighbours_own():
    lights = parse_world(LIGHTS)
    other = parse_world(LIGHTS.replace("id: lights", "id: lamps").replace("in green", "in mauve"))
    alone, beside = (OfflineWriter(lights, seed=0, beside=b) for b in ((), (other,)))
    fact = lights.facts()[1]
    assert "in mauve" not in alone.forbidden(fact)
    assert "in mauve" in beside.forbidden(fact)
