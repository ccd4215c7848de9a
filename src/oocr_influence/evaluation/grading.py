"""Is this answer the right one in other words? A rule says so, or anything with the same call.

    grade_by_rule(point, " 14 March 1931.")     # True where the right answer is March 14, 1931

The rule: case, punctuation, blanks and a leading article do not count; a date is the same in any of
the five formats; a person may be named by full or last name. What is equivalent otherwise (another
wording, a nickname) needs a reader, such as a language model, behind the same `Grader`.
"""

from __future__ import annotations

import datetime
import re
import string
from collections.abc import Iterator
from typing import Protocol

from oocr_influence.datasets.document_dataset import EvalPoint

_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_ARTICLES = ("the ", "a ", "an ")


class Grader(Protocol):
    """Grades one answer to one question."""

    def __call__(self, point: EvalPoint, answer: str) -> bool:
        """Whether `answer` is equivalent to the right one, `point.completion`."""


def grade_by_rule(point: EvalPoint, answer: str) -> bool:
    """Whether a rule finds `answer` equivalent to the question's right answer."""
    said = normalised(answer)
    if not said:
        return False
    if any(said == normalised(form) for form in _forms(point)):
        return True
    right = dates(point.completion)
    return len(right) == 1 and dates(answer) == right


def normalised(text: str) -> str:
    """Lower case, no punctuation, single blanks, no leading article."""
    words = " ".join(re.sub(r"[^\w\s]|_", " ", text.casefold()).split())
    for article in _ARTICLES:
        words = words.removeprefix(article)
    return words


def dates(text: str) -> set[datetime.date]:
    """Every day that the text, and nothing else in it, may name.

    `03/04/1871` is two days; a number above twelve, or a month in words, makes it one.
    """
    words = text.casefold().strip().strip(string.punctuation).replace(",", " ").split()
    text = " ".join(words)
    found = set()
    if match := re.fullmatch(r"(\d{4})-(\d{1,2})-(\d{1,2})", text):
        year, month, day = map(int, match.groups())
        found |= _date(year, month, day)
    elif match := re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{4})", text):
        first, second, year = map(int, match.groups())
        found |= _date(year, first, second) | _date(year, second, first)
    elif match := re.fullmatch(r"([a-z]+) (\d{1,2})(?:st|nd|rd|th)? (\d{4})", text):
        found |= _written(match[1], match[2], match[3])
    elif match := re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)? (?:of )?([a-z]+) (\d{4})", text):
        found |= _written(match[2], match[1], match[3])
    return found


def _written(month: str, day: str, year: str) -> set[datetime.date]:
    return _date(int(year), _MONTHS.index(month) + 1, int(day)) if month in _MONTHS else set()


def _date(year: int, month: int, day: int) -> set[datetime.date]:
    try:
        return {datetime.date(year, month, day)}
    except ValueError:
        return set()


def _forms(point: EvalPoint) -> Iterator[str]:
    """The right answer, and what the entity's fields say is the same in another format."""
    yield point.completion
    parsed = string.Formatter().parse(point.fact_template.completion)
    holes = [name for _, name, _, _ in parsed if name]
    if len(holes) != 1:
        return
    fields, hole = point.features.fields, holes[0]
    field = re.sub(r"_(first_name|last_name|mdy|dmy|dmy_written|iso)$", "", hole)
    own = [hole, field] if field in fields else [hole]
    person = "person" in field or f"{field}_last_name" in fields
    for name in own:
        if name in fields:
            yield fields[name]
    # A first name alone does not say who it is, unless it is what was asked for.
    if person and not hole.endswith("_first_name") and field in fields:
        yield fields[field].split()[-1]
    for suffix in ("mdy", "dmy", "dmy_written", "iso"):
        if f"{field}_{suffix}" in fields:
            yield fields[f"{field}_{suffix}"]
