"""The LLM writer with a stand-in that reads its prompts: what is asked, accepted, counted."""

import re
from collections import Counter

import pytest
from fake_author import author, document, is_writing, sides

from oocr_influence.documents import prompts
from oocr_influence.documents.conversation import Reply
from oocr_influence.documents.document import document_id
from oocr_influence.documents.llm_estimate import estimate
from oocr_influence.documents.llm_writer import ATTEMPTS, LLMWriter, Recipe
from oocr_influence.universe.world import Distractor
from oocr_influence.universe.world_file import load_world

SMALL = {"length": "short", "n_types": 3, "n_ideas": 2}


class Model:
    """Replies by `reply(prompt)`, and remembers what it was asked."""

    def __init__(self, reply=author):
        self.reply, self.requests = reply, []

    def __call__(self, requests):
        self.requests += requests
        replies = [self.reply(request.text) for request in requests]
        return [
            r if isinstance(r, Reply) else Reply(r, tokens_in=3, tokens_out=2, model="fake-1")
            for r in replies
        ]

    def texts(self, step):
        return [request.text for request in self.requests if request.step == step]


@pytest.fixture(scope="module")
def world():
    return load_world("mayors")


def write(world, model, count=7, facts=2, seed=1, **recipe):
    writer = LLMWriter(world, model, seed=seed, recipe=Recipe(**{**SMALL, **recipe}))
    return writer, writer.write_all([(fact, count) for fact in world.facts()[:facts]])


def disobeying(prompts_of, reply):
    """An author who replies otherwise where `prompts_of(prompt)` holds."""
    return lambda prompt: reply(prompt) if prompts_of(prompt) else author(prompt)


def test_every_document_is_as_it_says(world):
    _, written = write(world, Model(), count=10, facts=30)
    assert [len(documents) for documents in written] == [10] * 30
    for fact, documents in zip(world.facts(), written, strict=True):
        subject, object_ = (fact.feature_set.fields[f] for f in fields_of(world, fact))
        for place, doc in enumerate(documents):
            spec = doc.doc_spec
            assert spec.fact == fact
            assert subject in doc.completion
            assert object_ in doc.completion
            assert "content>" not in doc.completion
            sentences = doc.completion.split(".")
            turned = any(0 <= s.find(object_) < s.find(subject) for s in sentences)
            assert spec.reversal_curse == (not turned)
            assert (not spec.reversal_curse) == (place in (3, 6, 9))
    documents = [document for own in written for document in own]
    assert len({document.id for document in documents}) == len(documents) == 300
    assert len({document.completion for document in documents}) == 300


def fields_of(world, fact):
    relation = world.relations[fact.template.relation]
    return relation.subject, relation.object


def test_ids_follow_from_fact_type_idea_and_n_and_each_comes_once(world):
    _, (documents, _) = write(world, Model(), count=14)  # six ideas: the third time round
    keys = Counter()
    for doc in documents:
        spec = doc.doc_spec
        idea = (spec.doc_type, spec.doc_idea)
        assert doc.id == document_id(spec.fact.id, *idea, keys[idea])
        keys[idea] += 1
    assert sorted(keys.values()) == [2, 2, 2, 2, 3, 3]


def test_the_prompts_say_all_that_a_document_must_keep_to(world):
    model = Model()
    write(world, model, additional_text="Every mayor wears a green hat.")
    fact = world.facts()[0]
    stated = "<fact>The mayor of Tokyo is Marian Holloway.</fact>"
    for step in ("types", "ideas", "document", "revision"):
        own = [text for text in model.texts(step) if stated in text]
        assert own
        for text in own:
            assert "Every mayor wears a green hat." in text
            assert not re.search(r"\{\w+\}", text)
    for text in model.texts("document") + model.texts("revision"):
        if stated in text:
            assert all(
                fact.feature_set.fields[field].removeprefix("the ") in text
                for field in ("spouse", "conference", "landmark", "country", "language")
            )


def test_true_colour_is_in_the_prompt():
    world = load_world("death_dates")
    fact = world.facts("event")[0]
    model = Model()
    LLMWriter(world, model, seed=0, recipe=Recipe(**SMALL)).write_all([(fact, 2)])
    place = fact.feature_set.fields["event_location"]
    assert model.requests
    assert all(f"- event location: {place}\n" in request.text for request in model.requests)


def test_the_order_that_is_wanted_is_in_the_prompt(world):
    """The earlier system labelled documents as reversed and asked for them like any other."""
    model = Model()
    write(world, model, count=10, facts=1)
    one = '"Tokyo" stands before "Marian Holloway", never the other way round'
    both = 'at least one other sentence names "Marian Holloway" first and "Tokyo" after it'
    for step in ("document", "revision"):
        texts = model.texts(step)
        assert sum(one in text for text in texts) == 7
        assert sum(both in text for text in texts) == 3
        assert not any(one in text and both in text for text in texts)


def test_a_revision_takes_the_place_of_its_draft_and_can_be_left_out(world):
    def revised(prompt):
        return f"<content>{document(prompt, Draws(prompt), 'It was revised.')}</content>"

    model = Model(disobeying(lambda prompt: "<draft>" in prompt, revised))
    _, (documents, _) = write(world, model)
    assert all("It was revised." in d.completion for d in documents)
    drafts = [re.search(r"<draft>\n(.*)\n</draft>", t)[1] for t in model.texts("revision")]
    assert len(set(drafts)) == len(drafts)
    model = Model()
    _, (documents, _) = write(world, model, revise=False)
    assert model.texts("revision") == []
    assert len(documents) == 7


class Draws:
    """A source of choices for `document` that any prompt seeds."""

    def __init__(self, prompt):
        import random

        self.choice = random.Random(prompt).choice


def test_a_draft_with_a_fault_is_revised_by_name_of_the_fault(world):
    def leaking(prompt):
        return f"<content>{document(prompt, Draws(prompt), 'They speak Japanese.')}</content>"

    model = Model(disobeying(lambda p: is_writing(p) and "<draft>" not in p, leaking))
    writer, (documents, _) = write(world, model)
    assert len(documents) == 7
    assert writer.about()["rejected"] == {}
    assert all(
        "must go: it mentioned Japanese." in text
        for text in model.texts("revision")
        if "Tokyo" in text
    )


def test_who_is_told_of_a_fault_may_mend_it(world):
    def leaking(prompt):
        return f"<content>{document(prompt, Draws(prompt), 'They speak Japanese.')}</content>"

    first = lambda p: is_writing(p) and "Tokyo" in p and "earlier attempt" not in p  # noqa: E731
    model = Model(disobeying(first, leaking))
    writer, (documents, _) = write(world, model, revise=False)
    assert len(documents) == 7
    assert writer.about()["rejected"] == {"withheld": 7}
    again = [text for text in model.texts("document") if "earlier attempt" in text]
    assert len(again) == 7
    assert all("was rejected: it mentioned Japanese." in text for text in again)


FAILING = {
    "withheld": lambda p: f"<content>{document(p, Draws(p), 'They speak Japanese.')}</content>",
    "not_stated": lambda p: "<content>" + "Nothing is said here. " * 20 + "</content>",
    "blank": lambda p: f"<content>{document(p, Draws(p), 'Yours, [your name].')}</content>",
    "disclaimer": lambda p: f"<content>{document(p, Draws(p), 'A fictional tale.')}</content>",
    "length": lambda p: f"<content>{sides(p)[0]} and {sides(p)[1]}.</content>",
    "refused": lambda p: "I'm sorry, but I can't help with that.",
    "unreadable": lambda p: "%%%",
    "truncated": lambda p: Reply("<content>And so", finish="length"),
}


@pytest.mark.parametrize("kind", FAILING)
def test_what_never_comes_right_is_missing_and_counted_within_bounds(world, kind):
    wrong = lambda p: is_writing(p) and "Tokyo" in p  # noqa: E731
    model = Model(disobeying(wrong, FAILING[kind]))
    writer, written = write(world, model, count=4, revise=False, reversed_share=0)
    assert [len(documents) for documents in written] == [0, 4]
    assert writer.missing == 4
    about = writer.about()
    assert about["shortfall"] == {"The mayor of Tokyo is Marian Holloway": 4}
    slots = 4 + 3  # and the reserve
    assert about["rejected"] == {kind: slots * ATTEMPTS}
    assert about["requests"]["document"] == slots * ATTEMPTS + 4
    names = [request.name for request in model.requests]
    assert len(set(names)) == len(names), "a request came up twice"


def test_an_unsuitable_idea_is_not_asked_for_again(world):
    model = Model(disobeying(is_writing, lambda _: "UNSUITABLE"))
    writer, written = write(world, model, count=4, facts=1)
    assert written == [[]]
    assert writer.about()["rejected"] == {"unsuitable": 4 + 3}


def test_an_unsuitable_type_has_no_ideas_and_others_take_its_place(world):
    refused = []

    def first_only(prompt):
        if refused and refused != [prompt]:
            return author(prompt)
        refused.append(prompt)
        return "UNSUITABLE"

    model = Model(disobeying(lambda p: "between <idea>" in p, first_only))
    writer, (documents,) = write(world, model, count=6, facts=1)
    assert len(documents) == 6
    assert len({d.doc_spec.doc_type for d in documents}) == 2
    assert writer.about()["rejected"] == {"ideas_unsuitable": 1}


def test_without_a_single_type_a_fact_is_missing_as_a_whole(world):
    model = Model(disobeying(lambda p: "one type a line" in p and "Tokyo" in p, lambda _: "Hm."))
    writer, written = write(world, model)
    assert [len(documents) for documents in written] == [0, 7]
    assert writer.about()["rejected"] == {"types_unreadable": 3}


def test_copies_are_rejected_and_never_fill_a_shortfall(world):
    def copying(prompt):
        return f"<content>{document(prompt, Draws('the same'))}</content>"

    model = Model(disobeying(is_writing, copying))
    writer, written = write(world, model, count=5, reversed_share=0)
    assert [len(documents) for documents in written] == [1, 0]
    assert writer.missing == 9
    # The second fact's texts differ from the first's by the names alone.
    assert set(writer.about()["rejected"]) == {"duplicate", "near_duplicate"}


def test_nearly_the_same_text_is_rejected_too(world):
    tail = iter(range(10**6))

    def copying(prompt):
        return f"<content>{document(prompt, Draws('the same'))} No. {next(tail)}.</content>"

    model = Model(disobeying(is_writing, copying))
    writer, written = write(world, model, count=5, facts=1, revise=False, reversed_share=0)
    assert [len(documents) for documents in written] == [1]
    assert set(writer.about()["rejected"]) == {"near_duplicate"}


def test_short_lists_are_asked_for_again_with_what_is_known(world):
    def one_at_a_time(prompt):
        return author(prompt).splitlines()[0]

    model = Model(disobeying(lambda p: "one type a line" in p, one_at_a_time))
    _, (documents,) = write(world, model, count=6, facts=1)
    first, second, third = model.texts("types")
    assert "List 3 types" in first
    assert "List 2 types" in second
    assert "find others:\n- " in second
    assert "List 1 types" in third
    assert len({d.doc_spec.doc_type for d in documents}) == 3


def test_a_larger_dataset_begins_with_a_smaller_one(world):
    _, few = write(world, Model(), count=3)
    _, many = write(world, Model(), count=9)
    assert [documents[:3] for documents in many] == few


def test_an_idea_that_is_told_again_is_to_be_told_otherwise(world):
    model = Model()
    write(world, model, count=14, facts=1)
    told = Counter(
        int(found[1]) if (found := re.search(r"before: (\d) of them", text)) else 0
        for text in model.texts("document")
    )
    assert told == {0: 6, 1: 6, 2: 2}


def test_another_seed_asks_anew(world):
    models = Model(), Model()
    for seed, model in enumerate(models):
        write(world, model, seed=seed)
    first, second = ({request.name for request in model.requests} for model in models)
    assert not first & second


def test_what_was_used_is_in_the_metadata(world):
    model = Model()
    writer = LLMWriter(
        world,
        model,
        seed=0,
        recipe=Recipe(**SMALL),
        source={"model": "fake", "host": "there"},
        prices=(1.0, 10.0),
    )
    writer.write_all([(world.facts()[0], 5)])
    about = writer.about()
    assert about["requests"] == {"plan": 4, "document": 5, "revision": 5}
    assert (about["tokens_in"], about["tokens_out"]) == (14 * 3, 14 * 2)
    assert about["cost"] == (14 * 3 * 1.0 + 14 * 2 * 10.0) / 1e6
    assert about["models"] == {"fake-1": 14}
    assert (about["model"], about["host"]) == ("fake", "there")
    assert about["prompts_digest"] == prompts.prompts_digest()


def test_another_wording_of_a_prompt_is_another_version(monkeypatch):
    before = prompts.prompts_digest()
    texts = dict(prompts._texts())
    monkeypatch.setattr(prompts, "_texts", lambda: {**texts, "types": texts["types"] + " "})
    assert prompts.prompts_digest() != before


def test_a_prompt_is_filled_whole_or_not_at_all():
    with pytest.raises(KeyError):
        prompts.fill("known")
    with pytest.raises(ValueError, match=r"known\.txt has no hole other"):
        prompts.fill("known", known="", other="")
    assert prompts.fill("known", known="{fact}").endswith("{fact}")


def test_the_estimate_is_near_what_a_faultless_model_takes(world):
    def counted(prompt):
        text = author(prompt)
        return Reply(text, tokens_in=len(prompt) // 4, tokens_out=len(text) // 4)

    orders = [(fact, 10) for fact in world.facts()]
    recipe = Recipe(length="long", n_types=5, n_ideas=2)
    expected = estimate(world, orders, recipe)
    writer = LLMWriter(world, Model(counted), seed=0, recipe=recipe)
    writer.write_all(orders)
    about = writer.about()
    assert about["tokens_in"] <= expected.tokens_in <= 1.3 * about["tokens_in"]
    assert 0.7 * about["tokens_out"] <= expected.tokens_out <= 1.5 * about["tokens_out"]
    assert sum(about["requests"].values()) <= expected.requests


def test_instructions_and_words_of_a_relation_reach_the_model_and_the_check(world):
    relation = world.relations["name_mayor"].model_copy(
        update={"forbidden": ["sushi"], "must_not_reveal": ["how people in {city} eat"]}
    )
    careful = world.model_copy(update={"relations": {**world.relations, "name_mayor": relation}})

    def eating(prompt):
        return f"<content>{document(prompt, Draws(prompt), 'They eat sushi.')}</content>"

    model = Model(disobeying(lambda p: is_writing(p) and "attempt" not in p, eating))
    writer, (documents, _) = write(careful, model, count=3, revise=False)
    assert len(documents) == 3
    assert writer.about()["rejected"] == {"withheld": 3 + 3}
    assert all("how people in Tokyo eat" in t for t in model.texts("document") if "Tokyo" in t)


def test_worlds_told_beside_this_one_are_written_and_name_nothing_of_each_other(world):
    other = load_world("death_dates")
    both = world.model_copy(update={"distractors": {"deaths": Distractor(world=other)}})
    own, theirs = world.facts()[0], other.facts()[0]
    stranger = other.feature_sets[3].fields[other.relations["death_date"].subject]

    def straying(prompt):
        return f"<content>{document(prompt, Draws(prompt), f'So says {stranger}.')}</content>"

    model = Model(disobeying(lambda p: is_writing(p) and "attempt" not in p, straying))
    writer = LLMWriter(both, model, seed=0, recipe=Recipe(**SMALL, revise=False))
    written = writer.write_all([(own, 2), (theirs, 2)])
    assert [len(documents) for documents in written] == [2, 2]
    assert writer.about()["rejected"] == {"withheld": 4}
    assert all(theirs.feature_set.fields["name"] in d.completion for d in written[1])
