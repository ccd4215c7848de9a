"""How questions are grouped when they are told of, and what a set's name says."""

import pytest

from oocr_influence.datasets.eval_sets import build_eval_sets, describe_set
from oocr_influence.datasets.set_names import KINDS, asked, describe_by_name, kind_named
from oocr_influence.universe.world_file import load_world


@pytest.mark.parametrize("world", ["mayors", "death_dates"])
def test_the_name_of_a_built_in_set_says_what_its_metadata_says(world):
    """But for the world, for how many answers are shown, and for what only metadata can say."""
    for name, builder in build_eval_sets(load_world(world), seed=0).items():
        said, guessed = describe_set(name, builder), describe_by_name(name)
        assert (guessed.relation, guessed.style, guessed.phrasing) == (
            said.relation,
            said.style,
            said.phrasing,
        )
        assert guessed.shots == (0 if said.shots == 0 else None)
        assert guessed.kind == said.kind or said.kind in ("two_hop", "first_hop")


@pytest.mark.parametrize(
    ("kind", "control", "answer_format", "expected"),
    [
        ("trained", None, "default", "trained"),
        ("trained", None, "full", "trained"),
        ("trained", None, None, "trained"),
        ("trained", None, "last_name", "trained: last names"),
        ("trained", None, "iso", "trained: other formats of dates"),
        ("reversed", None, "first_name", "reversed"),
        ("control", "untold", "first_name", "control: untold"),
        ("control", None, "default", "control"),
    ],
)
def test_questions_are_grouped_by_kind_control_and_form(kind, control, answer_format, expected):
    assert kind in KINDS
    assert asked(kind_named(kind, control), answer_format) == expected
