"""How long a document is: the words of `--length`, and the plan that a composition follows."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

# "short", "long", a number of words ("300": within a tenth of it) or a range ("250-400").
Length = str

FEWEST_WORDS, MOST_WORDS = 65, 1500
LEAST_WIDTH = 10  # words between the ends of a range
LAST_SENTENCE = 30  # words by which the sentence that reaches the wanted number may pass it
SHORT = 150  # words up to which a document is built like the short ones
WORDS_A_STATEMENT = 110  # of a longer one: at least so often is the fact stated


class LengthError(ValueError):
    """A length that cannot be written; the message says which can."""


@dataclass(frozen=True)
class Plan:
    """How much is written, in words and sentences."""

    words: tuple[int, int]  # writing stops at a number of words drawn from this range
    soft_limit: int  # another sentence is looked for when one would lead beyond this
    hard_limit: int  # a document beyond this is not used
    sentences: tuple[int, int]  # of a turn, statement included
    statements: float  # the share of later turns that state the fact again
    fewest: int  # statements of a document; two are needed to state it in both orders
    leads: float  # the share of documents that open with a lead
    least: int = 0  # a document of fewer words is not used


PLANS = {
    "short": Plan(
        words=(62, 76),
        soft_limit=100,
        hard_limit=110,
        sentences=(2, 3),
        statements=1.0,
        fewest=2,
        leads=0.4,
    ),
    "long": Plan(
        words=(500, 620),
        soft_limit=660,
        hard_limit=720,
        sentences=(3, 6),
        statements=0.7,
        fewest=5,
        leads=1.0,
    ),
}
_WORDS = {"short": 80, "long": 550}


def plan_of(length: Length) -> Plan:
    """The plan of a length. Raises LengthError."""
    if length in PLANS:
        return PLANS[length]
    least, most = _range(length)
    short = most <= SHORT
    return Plan(
        words=(least, max(least, most - LAST_SENTENCE)),
        soft_limit=most,
        hard_limit=most,
        sentences=(2, 3) if short else (3, 6),
        statements=1.0 if short else 0.7,
        fewest=2 if short else max(2, least // WORDS_A_STATEMENT),
        leads=0.4 if short else 1.0,
        least=least,
    )


def words_of(length: Length) -> int:
    """About how many words a document of this length has. Raises LengthError."""
    return _WORDS[length] if length in _WORDS else sum(_range(length)) // 2


def _range(length: Length) -> tuple[int, int]:
    """The fewest and the most words."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", length)
    if found is None:
        raise LengthError(
            f"length '{length}' is none; lengths are short, long, a number of words (300) or a "
            "range of them (250-400)"
        )
    least, most = int(found[1]), int(found[2] or found[1])
    if found[2] is None:
        least, most = math.ceil(0.9 * least), math.floor(1.1 * most)
    if least < FEWEST_WORDS or most > MOST_WORDS or most - least < LEAST_WIDTH:
        raise LengthError(
            f"length '{length}' means {least} to {most} words; documents have {FEWEST_WORDS} to "
            f"{MOST_WORDS}, and a range is at least {LEAST_WIDTH} words wide"
        )
    return least, most
