"""Wordings: alternatives and holes, orders, draws that never change."""

import re
from collections import Counter

import pytest

from oocr_influence.documents.cast import Cast
from oocr_influence.documents.draw import Deck, Draw
from oocr_influence.documents.grammar import load_grammar
from oocr_influence.documents.wording import as_sentence, holes, order_of, spell_out
from oocr_influence.universe.fields import FORMATS, plain_format
from oocr_influence.universe.world_file import built_in_worlds, load_world


def test_holes_are_filled_and_one_alternative_is_drawn():
    said = {spell_out("{a} [saw {b}|left]", str.upper, Draw(i)) for i in range(50)}
    assert said == {"A saw B", "A left"}


def test_brackets_without_alternatives_stay():
    assert spell_out("see [1]", str.upper, Draw(0)) == "see [1]"


@pytest.mark.parametrize(
    ("wording", "order"),
    [
        ("{subject} married {object}", "forward"),
        ("{object_last_name} married {subject}", "reversed"),
        ("{subject} and {object}, that is {subject_last_name}", "reversed"),
        ("{subject}, or {subject_last_name}", "single"),
        ("nobody", "single"),
        ("{subject} [met {object}|left]", "forward"),
    ],
)
def test_the_order_is_that_of_the_holes(wording, order):
    assert order_of(wording) == order


def test_sentences_begin_with_a_capital_also_inside_quotation_marks():
    assert as_sentence('"the end," he said.') == '"The end," he said.'
    assert as_sentence("1849 was mild.") == "1849 was mild."


def test_draws_are_the_same_on_every_machine_and_python():
    draw = Draw("a", 1)
    assert [draw.below(1000) for _ in range(6)] == [161, 116, 247, 173, 937, 843]
    assert Draw("a", 1).shuffled("abcdef") == list("cbdefa")


def test_a_deck_gives_every_card_before_any_again():
    deck = Deck(Draw(0), "abcde")
    for _ in range(3):
        assert sorted(deck.next() for _ in range(5)) == list("abcde")


def test_weights_are_kept():
    draw = Draw(0)
    counts = Counter(draw.weighted([("a", 3.0), ("b", 1.0)]) for _ in range(4000))
    assert 0.70 < counts["a"] / 4000 < 0.80


def wordings(grammar):
    """Every wording of the grammar, with the holes that only its place fills."""
    for kind in grammar.kinds.values():
        yield from [*kind.head, *kind.first_turn, *kind.turn, *kind.lead, *kind.fill, *kind.close]
    for theme in grammar.themes.values():
        for part in (theme.about, theme.titles, theme.asks, theme.statements):
            yield from part
        yield from [*theme.elaborations, *theme.reflections]
    common = grammar.common
    for lists in (common.once, common.each):
        for choices in lists.values():
            yield from choices
    yield from [*common.quotes, *common.statement_frames, *common.statement_quotes]
    yield from common.sentences


def test_every_wording_of_the_grammar_can_be_spelled_out():
    grammar = load_grammar()
    places = dict.fromkeys(
        "title about about_capital ask body i quoted statement".split(), "something"
    )
    for role in ("subject", "object"):
        for field_type, formats in FORMATS.items():
            for answer_format in formats:
                suffix = "" if answer_format == plain_format(field_type) else f"_{answer_format}"
                places[role + suffix] = "something"
    for wording in wordings(grammar):
        for i in range(6):
            said = Cast(Draw(i), grammar.common, grammar.names, places).say(wording)
            assert not set(said) & set("{}|[]"), wording


def test_themes_name_only_formats_of_their_types():
    for name, theme in load_grammar().themes.items():
        known = set()
        for role, field_type in (("subject", theme.subject), ("object", theme.object)):
            formats = () if field_type == "any" else FORMATS[field_type][1:]
            known |= {role, *(f"{role}_{f}" for f in formats)}
        for part in (theme.statements, theme.elaborations, theme.reflections, theme.titles):
            for wording in part:
                roles = {h for h in holes(wording) if h.startswith(("subject", "object"))}
                assert roles <= known, f"{name}: {wording}"


def test_every_theme_but_the_general_states_its_fact_in_both_orders():
    for name, theme in load_grammar().themes.items():
        orders = Counter(order_of(statement) for statement in theme.statements)
        assert orders["single"] == 0, name
        if name != "general":
            assert min(orders["forward"], orders["reversed"]) >= 6, name


@pytest.mark.parametrize("world", built_in_worlds())
def test_the_grammar_names_nothing_of_the_built_in_worlds(world):
    # The writer draws again where a document reveals something: it should hardly ever have to.
    loaded = load_world(world)
    groups = (loaded.entities, loaded.controls, loaded.untold)
    entities = [fields for group in groups for fields in group.values()]
    values = [v.removeprefix("the ") for fields in entities for v in fields.values()]
    found = re.compile(r"\b(" + "|".join(map(re.escape, values)) + r")\b")
    for wording in wordings(load_grammar()):
        assert not found.search(wording), wording
