"""Typed fields: every answer format by rule, nothing that is not of its type."""

import pytest

from oocr_influence.universe.fields import FORMATS, expand_field, hole_name


def test_a_date_has_five_different_renderings():
    assert expand_field("died", "date", "1931-03-14") == {
        "died": "March 14, 1931",
        "died_mdy": "03/14/1931",
        "died_dmy": "14/03/1931",
        "died_dmy_written": "14 March 1931",
        "died_iso": "1931-03-14",
    }


def test_a_single_digit_day_is_padded_only_in_digits():
    fields = expand_field("died", "date", "2031-11-05")
    assert fields["died"] == "November 5, 2031"
    assert fields["died_dmy_written"] == "5 November 2031"
    assert fields["died_mdy"] == "11/05/2031"


def test_a_person_has_a_first_and_a_last_name():
    assert expand_field("name", "person", "Ada van Brook") == {
        "name": "Ada van Brook",
        "name_first_name": "Ada",
        "name_last_name": "Brook",
    }


@pytest.mark.parametrize(
    ("field_type", "value", "message"),
    [
        ("date", "14.3.1931", "YYYY-MM-DD"),
        ("date", "1931-02-30", "YYYY-MM-DD"),
        ("person", "Ada", "a first and a last name"),
        ("year", "31", "four digits"),
        ("text", " padded", "blanks"),
        ("place", "", "empty"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_is_needed(field_type, value, message):
    with pytest.raises(ValueError, match=message):
        expand_field("field", field_type, value)


def test_the_plain_format_has_the_fields_own_name_and_unknown_ones_are_refused():
    for field_type, formats in FORMATS.items():
        assert hole_name("field", field_type, formats[0]) == "field"
    with pytest.raises(ValueError, match="default, mdy, dmy, dmy_written, iso"):
        hole_name("field", "date", "roman")
