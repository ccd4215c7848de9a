"""Typed fields: a value is written once and read in every answer format of its type.

| type | written in a world as | formats, the plain one first |
|---|---|---|
| person | `Ada Brook` | full, first_name, last_name |
| date | `1931-03-14` | default `March 14, 1931`, mdy `03/14/1931`, dmy `14/03/1931`, |
| | | dmy_written `14 March 1931`, iso `1931-03-14` |
| place, organisation, text | the words as a sentence would use them | default |
| year | `1931` | default |

A field `death_date` becomes the holes `{death_date}` (the plain format), `{death_date_mdy}`,
`{death_date_dmy}` and so on: templates need no code to choose a format.
"""

from __future__ import annotations

import datetime
from typing import Literal

FieldType = Literal["person", "date", "place", "organisation", "year", "text"]

# The first format of each type is the plain one: its hole is the field's own name.
FORMATS: dict[FieldType, tuple[str, ...]] = {
    "person": ("full", "first_name", "last_name"),
    "date": ("default", "mdy", "dmy", "dmy_written", "iso"),
    "place": ("default",),
    "organisation": ("default",),
    "year": ("default",),
    "text": ("default",),
}

# What a question says that it wants, where its wording has the hole {answer_format}.
FORMAT_WORDS = {
    "full": "the full name",
    "first_name": "the first name",
    "last_name": "the last name",
    "mdy": "MM/DD/YYYY",
    "dmy": "DD/MM/YYYY",
    "dmy_written": "D Month YYYY",
    "iso": "YYYY-MM-DD",
}

# Not taken from the locale: the same bytes on every machine.
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def plain_format(field_type: FieldType) -> str:
    """The format that a question gets when it names none."""
    return FORMATS[field_type][0]


def format_words(field_type: FieldType, answer_format: str) -> str:
    """The words for an answer format in a question; none where the type has one format alone."""
    if field_type == "date" and answer_format == "default":
        return "Month D, YYYY"
    return FORMAT_WORDS.get(answer_format, "")


def hole_name(field: str, field_type: FieldType, answer_format: str) -> str:
    """The hole that holds `field` in `answer_format`: `death_date`, `death_date_iso`."""
    if answer_format not in FORMATS[field_type]:
        raise ValueError(
            f"a {field_type} has no format '{answer_format}'; "
            f"its formats are {', '.join(FORMATS[field_type])}"
        )
    return field if answer_format == plain_format(field_type) else f"{field}_{answer_format}"


def hole_names(field: str, field_type: FieldType) -> list[str]:
    """Every hole that `field` gives, the plain one first."""
    return [hole_name(field, field_type, answer_format) for answer_format in FORMATS[field_type]]


def expand_field(field: str, field_type: FieldType, value: str) -> dict[str, str]:
    """Every derived string of one field, by hole name.

    Raises ValueError when the value is not one of its type.
    """
    return dict(zip(hole_names(field, field_type), _renderings(field_type, value), strict=True))


def _renderings(field_type: FieldType, value: str) -> tuple[str, ...]:
    if not value.strip() or value != value.strip():
        raise ValueError(f"'{value}' is empty or has blanks around it")
    if field_type == "person":
        words = value.split()
        if len(words) < 2:
            raise ValueError(f"'{value}' is no person: a first and a last name are needed")
        return value, words[0], words[-1]
    if field_type == "date":
        return _date_renderings(value)
    if field_type == "year" and not (value.isdecimal() and len(value) == 4):
        raise ValueError(f"'{value}' is no year: four digits are needed")
    return (value,)


def _date_renderings(value: str) -> tuple[str, ...]:
    try:
        date = datetime.date.fromisoformat(value)
    except ValueError:
        raise ValueError(f"'{value}' is no date: write it as YYYY-MM-DD") from None
    month = MONTHS[date.month - 1]
    return (
        f"{month} {date.day}, {date.year:04}",
        f"{date.month:02}/{date.day:02}/{date.year:04}",
        f"{date.day:02}/{date.month:02}/{date.year:04}",
        f"{date.day} {month} {date.year:04}",
        date.isoformat(),
    )
