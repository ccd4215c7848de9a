"""What each setting of variety changes, counted in documents, and that it changes nothing else."""

import itertools
import re

import pytest

from oocr_influence.documents.grammar import load_grammar
from oocr_influence.documents.near_duplicates import repeats
from oocr_influence.documents.plan import LengthError, plan_of, words_of
from oocr_influence.documents.telling import WriterError
from oocr_influence.documents.told import FactRules
from oocr_influence.documents.variety import Variety
from oocr_influence.documents.withholding import Withholding
from oocr_influence.documents.writer import OfflineWriter
from oocr_influence.universe.world_file import built_in_worlds, load_world

COUNT = 20
RELATIONS = {"mayors": "name_mayor", "death_dates": "event", "companies": "founder"}


def told(world, *, count=COUNT, length="short", share=0.3, **settings):
    """The world, a fact of it and its documents."""
    loaded = load_world(world)
    fact = loaded.facts(RELATIONS[world])[1]
    variety = Variety(**settings) if settings else None
    writer = OfflineWriter(loaded, seed=4, length=length, reversed_share=share, variety=variety)
    return loaded, fact, writer.write(fact, count)


def statements(world, fact):
    """{what a wording may read as: (order, its place in the stock)}: spelled out the plain way."""
    relation = world.relations[fact.template.relation]
    fields = fact.feature_set.fields
    own = [relation.fact.prompt + relation.fact.completion + ".", *relation.statements]
    own = [w.replace(f"{{{relation.subject}}}", "{subject}") for w in own]
    own = [w.replace(f"{{{relation.object}}}", "{object}") for w in own]
    theme = load_grammar().themes[relation.theme].statements
    found = {}
    for place, wording in enumerate(dict.fromkeys([*own, *theme])):
        parts = re.split(r"\[([^]]*)\]", wording)
        choices = [p.split("|") if i % 2 else [p] for i, p in enumerate(parts)]
        order = "forward" if wording.find("{subject}") < wording.find("{object}") else "reversed"
        for chosen in itertools.product(*choices):
            said = "".join(chosen).removesuffix(".")
            said = said.replace("{subject}", fields[relation.subject])
            said = said.replace("{object}", fields[relation.object])
            for field, value in fields.items():
                said = said.replace(f"{{{field}}}", value)
            found[said[0].upper() + said[1:]] = (order, place)
    return found


def without(text, parts):
    """The text with every part made one sign, longer parts first."""
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, "§")
    return text


@pytest.mark.parametrize("world", RELATIONS)
@pytest.mark.parametrize("n", [1, 3])
def test_so_many_paraphrases_of_each_order_are_used_and_all_else_stays(world, n):
    loaded, fact, documents = told(world, paraphrases=n, count=2 * COUNT)
    every = statements(loaded, fact)
    used = {s for s in every for d in documents if s in d.completion}
    # "A is B" is also in "It is said that A is B": count what stands by itself.
    used = {s for s in used if any(s in without(d.completion, used - {s}) for d in documents)}
    assert sorted(every[s][0] for s in used) == ["forward"] * n + ["reversed"] * n
    plain = told(world, count=2 * COUNT)[2]
    same = [
        without(a.completion, every) == without(b.completion, every)
        for a, b in zip(documents, plain, strict=True)
    ]
    # A document that grew too long is another one.
    assert sum(same) >= 2 * COUNT - 4
    pairs = list(zip(documents, plain, strict=True))
    assert all(a.doc_spec == b.doc_spec for a, b in itertools.compress(pairs, same))
    assert sum(a != b for a, b in pairs) >= COUNT


def test_fewer_paraphrases_are_some_of_more():
    sets = []
    for n in (1, 2, 5):
        loaded, fact, documents = told("mayors", paraphrases=n, share=0, count=40)
        every = statements(loaded, fact)
        sets.append({s for s in every for d in documents if s in d.completion})
        assert len(sets[-1]) == n
    assert sets[0] < sets[1] < sets[2]


def test_more_paraphrases_than_there_are_is_refused():
    with pytest.raises(WriterError, match=r"relation 'name_mayor' has 14 forward wordings, and pa"):
        told("mayors", paraphrases=99, share=0)


def places_of(text, wordings):
    """The places in the stock of the wordings that the text has, in the order of the text."""
    found = []
    for place, wording in enumerate(wordings):
        parts = re.split(r"(\[[^]]*\]|\{\w+\})", wording.removesuffix("."))
        pattern = "".join(
            f"(?:{'|'.join(map(re.escape, p[1:-1].split('|')))})"
            if p.startswith("[")
            else r"[\w' -]+?"
            if p.startswith("{")
            else re.escape(p).replace('"', "[\"']")
            for p in parts
        )
        match = re.search(pattern, text, re.IGNORECASE)
        if match:
            found.append((match.start(), place))
    return [place for _, place in sorted(found)]


@pytest.mark.parametrize("length", ["short", "long"])
def test_without_permutation_sentences_come_in_one_order_and_are_the_same(length):
    _, _, permuted = told("mayors", length=length)
    _, _, fixed = told("mayors", length=length, permute_sentences=False)
    stock = load_grammar().themes["mayor"].elaborations
    ordered = []
    for a, b in zip(permuted, fixed, strict=True):
        words = [sorted(re.findall(r"\w+", d.completion.casefold())) for d in (a, b)]
        assert words[0] == words[1]
        assert a.doc_spec == b.doc_spec
        there, here = (places_of(d.completion, stock) for d in (a, b))
        assert sorted(there) == sorted(here) == here
        ordered.append(there == here)
    assert sum(ordered) < (1 if length == "long" else COUNT)


CALLED = {"mayors": "the city", "death_dates": "this person", "companies": "the company"}


def subject_forms(world, fact):
    subject = world.relations[fact.template.relation].subject
    fields = fact.feature_set.fields
    forms = {fields[subject], fields.get(f"{subject}_last_name", fields[subject])}
    return sorted(forms, key=len, reverse=True)


def named(world, fact, documents):
    """How often the documents say a form of the subject's name."""
    forms = "|".join(map(re.escape, subject_forms(world, fact)))
    return sum(len(re.findall(forms, d.completion)) for d in documents)


@pytest.mark.parametrize("world", RELATIONS)
def test_names_are_said_as_often_as_asked_for_and_all_else_stays(world):
    counts = {}
    loaded, fact, plain = told(world, length="long")
    forms = "|".join(map(re.escape, [*subject_forms(loaded, fact), CALLED[world]]))
    mask = re.compile(rf"(?:the (?:city|town|company) of )?(?:{forms})", re.IGNORECASE)
    for share in (0.0, 0.5, 1.0):
        documents = told(world, length="long", name_repetition=share)[2]
        counts[share] = named(loaded, fact, documents)
        same = [
            mask.sub("§", a.completion) == mask.sub("§", b.completion)
            for a, b in zip(documents, plain, strict=True)
        ]
        assert sum(same) >= COUNT - 2
    assert counts[1.0] == named(loaded, fact, plain)
    assert counts[0.0] < 0.5 * counts[1.0]
    halfway = (counts[0.0] + counts[1.0]) / 2
    assert counts[0.5] == pytest.approx(halfway, rel=0.15)


@pytest.mark.parametrize("world", RELATIONS)
@pytest.mark.parametrize("length", ["short", "long"])
def test_a_document_states_its_fact_by_name_however_seldom_the_name_is_said(world, length):
    loaded, fact, documents = told(
        world, length=length, name_repetition=0, paraphrases=2, permute_sentences=False, share=0.5
    )
    for document in documents:
        rules = FactRules.of(
            Withholding(loaded),
            fact,
            both_orders=not document.doc_spec.reversal_curse,
            words=words_of(length),
        )
        assert rules.faults(document.completion) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"paraphrases": 0}, "paraphrases is 0"),
        ({"name_repetition": 1.5}, r"name_repetition is 1\.5"),
        ({"max_overlap": 0}, "max_overlap is 0"),
    ],
)
def test_settings_outside_of_their_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Variety(**settings)


@pytest.mark.parametrize(
    ("length", "least", "most"),
    [("75-105", 75, 105), ("100", 90, 110), ("250-300", 250, 300), ("1000", 900, 1100)],
)
def test_a_length_in_words_is_kept_to(length, least, most):
    world = load_world("mayors")
    writer = OfflineWriter(world, seed=2, length=length)
    lengths = [
        len(d.completion.split()) for fact in world.facts()[::7] for d in writer.write(fact, 8)
    ]
    assert least <= min(lengths) <= max(lengths) <= most
    assert max(lengths) - min(lengths) > (most - least) / 3


@pytest.mark.parametrize(
    ("length", "message"),
    [
        ("medium", "length 'medium' is none; lengths are short, long"),
        ("20", "18 to 22 words"),
        ("300-200", "300 to 200 words"),
        ("2000", "1800 to 2200 words"),
        ("200-205", "at least 10 words wide"),
    ],
)
def test_a_length_that_cannot_be_written_is_refused(length, message):
    with pytest.raises(LengthError, match=message):
        plan_of(length)


@pytest.mark.parametrize("world", built_in_worlds())
def test_a_hundred_documents_a_fact_differ_without_drawing_any_anew(world):
    loaded = load_world(world)
    writer = OfflineWriter(loaded, seed=42, length="short")
    written = writer.write_all([(fact, 100) for fact in loaded.facts()])
    texts = [d.completion for documents in written for d in documents]
    assert len(texts) == 3000
    assert repeats(texts) == {}
    assert writer.redrawn == 0


def jaccard_5(a, b):
    """The plain way."""
    one, other = (
        {tuple(words[i : i + 5]) for i in range(len(words) - 4)}
        for words in (re.findall(r"\w+", text.casefold()) for text in (a, b))
    )
    return len(one & other) / len(one | other)


def test_what_overlaps_too_much_is_drawn_anew_and_more_documents_begin_with_fewer():
    world = load_world("mayors")
    facts = [*world.facts()[:3], *world.untold_facts()[:1]]
    loose, strict, more = (
        OfflineWriter(world, seed=0, length="short", variety=Variety(max_overlap=o))
        for o in (1.0, 0.08, 0.08)
    )
    plain = loose.write_all([(fact, 20) for fact in facts])
    apart = strict.write_all([(fact, 20) for fact in facts])
    assert loose.redrawn == 0 < strict.redrawn < 40
    assert strict.about()["near_duplicates_redrawn"] == strict.redrawn
    texts = [
        [d.completion for documents in written for d in documents] for written in (plain, apart)
    ]
    assert repeats(texts[0], 0.08)
    assert repeats(texts[1], 0.08) == {}
    assert sum(a != b for a, b in zip(*texts, strict=True)) == strict.redrawn
    # One by one: drawn anew is what is like the text, drawn anew or not, of one before it.
    order = [(f, n) for n in range(20) for f in range(3)] + [(3, n) for n in range(20)]
    earlier = []
    for f, n in order:
        before, after = plain[f][n].completion, apart[f][n].completion
        assert (before != after) == any(jaccard_5(before, text) >= 0.08 for text in earlier)
        earlier.append(after)
    larger = more.write_all([(fact, 30) for fact in facts])
    # The documents of untold entities come after all others, whatever their number.
    for few, many in zip(apart[:3], larger[:3], strict=True):
        assert many[:20] == few


def test_where_the_grammar_has_not_enough_to_say_it_says_so():
    world = load_world("mayors")
    writer = OfflineWriter(world, seed=0, length="short", variety=Variety(max_overlap=0.01))
    with pytest.raises(WriterError, match=r"nothing that differs enough .* fewer documents a fact"):
        writer.write_all([(world.facts()[0], 60)])
