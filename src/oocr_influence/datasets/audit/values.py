"""A field's value and every form in which a text may write it: the audit's own rules.

They are made from the value and its type alone, never from the writer's phrases, so that they judge
documents of any writer:

| type | forms |
|---|---|
| person | the whole name; the first and the last of three or more names; the last name alone |
| date | March 14, 1931; March 14th 1931; 14 March 1931; the 14th of March, 1931; months cut to |
| | three letters; 03/14/1931, 14/03/1931 and 1931-03-14, with or without noughts |
| all others | the words without a leading article |

A last name alone is a short form: it counts where the whole name stands in the same document too,
or where a rule says otherwise. Words are compared without case, but a capital letter of the form
must be one in the text: "Polish" is a language and "polish" none. Punctuation does not count.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from oocr_influence.universe.fields import FORMATS, MONTHS

FORMAT_NAMES = frozenset(name for names in FORMATS.values() for name in names)
_ARTICLE = re.compile(r"^(the|an?) ", re.IGNORECASE)
_WRITTEN = re.compile(r"(\d{1,2}) ([A-Z]\w+) (\d{4})|([A-Z]\w+) (\d{1,2}), (\d{4})")


@dataclass(frozen=True)
class Value:
    """What a field holds; equal for two fields that hold the same."""

    kind: str  # person, date, year or text; a place is text
    text: str


@dataclass(frozen=True)
class Form:
    """One way to write a value; `short` forms say too little alone."""

    text: str
    short: bool = False


@cache
def make_value(text: str, field_type: str | None = None) -> Value:
    """The value of a field; without a type, one is read off the text.

    A date in one of our formats is a date; two to four words that all begin with a capital letter
    are treated as a person ("New York" too: its short form needs the whole beside it, like a
    person's); anything else is text.
    """
    text = text.strip()
    date = parse_date(text)
    if date is not None and field_type in (None, "date"):
        return Value("date", date.isoformat())
    if field_type is None:
        words = text.split()
        named = 2 <= len(words) <= 4 and all(word[:1].isupper() for word in words)
        field_type = "person" if named else "text"
    return Value(field_type if field_type in ("person", "year") else "text", text)


def forms(value: Value) -> list[Form]:
    """Every form of the value, the whole ones first."""
    if value.kind == "date":
        date = parse_date(value.text)
        if date is not None:
            return [Form(text) for text in dict.fromkeys(_dates(date))]
    whole = _ARTICLE.sub("", value.text)
    words = whole.split()
    if value.kind != "person" or len(words) < 2:
        return [Form(whole)]
    ends = [Form(f"{words[0]} {words[-1]}")] if len(words) > 2 else []
    return [Form(whole), *ends, Form(words[-1], short=True)]


def parse_date(text: str) -> datetime.date | None:
    """The date that `text` writes as 1931-03-14, March 14, 1931 or 14 March 1931."""
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        pass
    match = _WRITTEN.fullmatch(text)
    if match is None:
        return None
    day, month, year = match.group(1, 2, 3) if match[1] else match.group(5, 4, 6)
    try:
        return datetime.date(int(year), MONTHS.index(month) + 1, int(day))
    except ValueError:
        return None


def base_field(hole: str, fields: Iterable[str]) -> str:
    """The field that a hole is a format of: `death_date` for `death_date_iso`."""
    for name in fields:
        if hole.startswith(f"{name}_") and hole[len(name) + 1 :] in FORMAT_NAMES:
            return name
    return hole


def _dates(date: datetime.date) -> list[str]:
    full = MONTHS[date.month - 1]
    day, year = date.day, f"{date.year:04}"
    ordinal = f"{day}{_ending(day)}"
    written = []
    for month in dict.fromkeys((full, full[:3])):
        written += [f"{month} {day} {year}", f"{day} {month} {year}"]
        written += [f"{month} {ordinal} {year}", f"{month} the {ordinal} {year}"]
        written += [f"{ordinal} {month} {year}", f"{ordinal} of {month} {year}"]
    numbers = []
    for m, d in ((f"{date.month:02}", f"{day:02}"), (str(date.month), str(day))):
        numbers += [f"{m} {d} {year}", f"{d} {m} {year}", f"{year} {m} {d}"]
    return [*written, *numbers]


def _ending(day: int) -> str:
    if 10 < day < 14:
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
