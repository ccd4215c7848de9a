"""One document's composition: which sentences, in which order, in which turns.

The first turn opens with a lead and states the fact. Every later turn holds what the theme has to
say, in the writer's voice or quoted; most turns state the fact once more, and some open or end with
small talk. Turns follow until the wanted number of words is reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oocr_influence.documents.cast import Cast
from oocr_influence.documents.draw import Deck, Draw
from oocr_influence.documents.grammar import Common, Kind, Theme
from oocr_influence.documents.wording import order_of

Writer = Callable[[], str]

QUOTED_ELABORATIONS = 0.12  # the share that somebody else is made to say
QUOTED_STATEMENTS = 0.12
FRAMED_STATEMENTS = 0.2  # "In short: …"
REFLECTIONS = 0.2  # the share of "I think that …" among what the theme says
SMALL_TALK = 0.6  # of the turns that have room for it
ANY_DOCUMENTS = 0.4  # the share of small talk that is not of the document's own kind


@dataclass(frozen=True)
class Material:
    """What can be said of one relation: statements by order, and its theme."""

    forward: list[str]
    reversed: list[str]
    theme: Theme


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


class Composition:
    """Composes one document; `text()` is called once."""

    def __init__(
        self,
        draw: Draw,
        cast: Cast,
        kind: Kind,
        material: Material,
        common: Common,
        *,
        length: str,
        both_orders: bool,
    ) -> None:
        self._draw, self._cast, self._kind = draw, cast, kind
        self._both_orders = both_orders
        self._plan = PLANS[length]
        theme = material.theme
        self._about, self._titles = Deck(draw, theme.about), self._deck(theme.titles)
        self._asks = self._deck(theme.asks)
        self._elaborations = self._deck(theme.elaborations)
        # What somebody thinks needs somebody to say it.
        voiced = kind.first_person or kind.quotes
        self._reflections = self._deck(theme.reflections if voiced else [])
        self._fill, self._sentences_of_any = Deck(draw, kind.fill), Deck(draw, common.sentences)
        self._quotes = Deck(draw, common.quotes)
        self._frames = Deck(draw, common.statement_frames)
        self._statement_quotes = Deck(draw, common.statement_quotes)
        self._forward = Deck(draw, material.forward)
        self._reversed = Deck(draw, material.reversed)
        self._stated = 0
        self._starts_reversed = both_orders and draw.chance(0.5)
        self._slots = {name: Deck(draw, common.each[name]) for name in ("heading", "prod")}

    def text(self) -> str:
        """The whole document."""
        about = self._cast.say(self._about.next())
        title = self._cast.sentence(self._titles.next())
        head = self._cast.say(self._draw.choice(self._kind.head), title=title)
        close = self._cast.say(self._draw.choice(self._kind.close), about=about)
        self._about_text = about
        target = self._draw.between(*self._plan.words)
        used = len(head.split()) + len(close.split())
        turns: list[str] = []
        while used < target or self._stated < self._plan.fewest:
            turn = self._turn(len(turns) + 1, used, target)
            used += len(turn.split())
            turns.append(turn)
        return (head + "\n\n".join(turns) + close).strip()

    def _turn(self, number: int, used: int, target: int) -> str:
        frame = self._draw.choice(self._kind.first_turn if number == 1 else self._kind.turn)
        sentences = self._sentences(number, used + len(frame.split()), target)
        values = {
            "body": " ".join(sentences),
            "i": str(number),
            "ask": self._cast.sentence(self._asks.next()) if number == 1 else "",
            "about_capital": self._about_text[0].upper() + self._about_text[1:],
        }
        values |= {name: self._cast.say(deck.next()) for name, deck in self._slots.items()}
        return self._cast.say(frame, **values)

    def _sentences(self, number: int, used: int, target: int) -> list[str]:
        """The sentences of one turn: what the theme says, the fact within, small talk at an end."""
        wanted = self._draw.between(*self._plan.sentences)
        sentences: list[str] = []
        if number == 1 and self._draw.chance(self._plan.leads):
            lead = self._draw.choice(self._kind.lead)
            sentences += [self._cast.sentence(lead, about=self._about_text)] if lead else []
        # Where chance alone would leave a document short of statements, they are kept in pace.
        behind = self._stated < self._plan.fewest * min(1, used / target)
        states = number == 1 or behind or self._draw.chance(self._plan.statements)
        writers: list[Writer] = [self._theme_sentence] * (wanted - states)
        if states:
            place = 0 if number == 1 else self._draw.below(wanted)
            writers.insert(place, self._statement)
        if wanted > 2 and self._draw.chance(SMALL_TALK):
            place = len(writers) if number == 1 or self._draw.chance(0.6) else 0
            writers.insert(place, self._small_talk)
        for i, write in enumerate(writers):
            count = used + sum(len(sentence.split()) for sentence in sentences)
            if count >= target and sentences and self._statement not in writers[i:]:
                break
            sentences.append(self._fitting(write, count))
        return sentences

    def _fitting(self, write: Writer, used: int) -> str:
        """A sentence short enough for what is left, where words are scarce."""
        sentence = write()
        if write != self._statement:
            for _ in range(20):
                if used + len(sentence.split()) <= self._plan.soft_limit:
                    break
                sentence = write()
        return sentence

    def _statement(self) -> str:
        """A sentence that states the fact, at times quoted or led up to."""
        reverse = self._both_orders and (
            self._starts_reversed == (self._stated == 0)
            if self._stated < 2
            else self._draw.chance(0.5)
        )
        self._stated += 1
        sentence = self._cast.sentence((self._reversed if reverse else self._forward).next())
        # The first statement stands alone: it is what the document is about.
        if self._stated > 1 and self._quotes_at(QUOTED_STATEMENTS):
            return self._quoted(self._statement_quotes, sentence)
        if self._stated > 1 and self._draw.chance(FRAMED_STATEMENTS):
            return self._cast.sentence(self._frames.next(), statement=sentence)
        return sentence

    def _theme_sentence(self) -> str:
        """What can be said about the matter, in the writer's own voice or somebody else's."""
        reflects = bool(self._reflections) and self._draw.chance(REFLECTIONS)
        sentence = self._cast.sentence(
            (self._reflections if reflects else self._elaborations).next()
        )
        others_voice = reflects and not self._kind.first_person
        if others_voice or (not reflects and self._quotes_at(QUOTED_ELABORATIONS)):
            return self._quoted(self._quotes, sentence)
        return sentence

    def _small_talk(self) -> str:
        """What makes a page look lived in."""
        of_any = self._kind.any_sentences and self._draw.chance(ANY_DOCUMENTS)
        return self._cast.sentence((self._sentences_of_any if of_any else self._fill).next())

    def _quotes_at(self, share: float) -> bool:
        return self._kind.quotes and self._draw.chance(share)

    def _quoted(self, quotes: Deck, sentence: str) -> str:
        inside = sentence[:-1] + "," if sentence.endswith(".") else sentence
        # Quotations inside a quotation are told apart by their marks.
        inside = inside.replace('"', "'")
        return self._cast.sentence(quotes.next(), quoted=inside)

    def _deck(self, wordings: list[str]) -> Deck:
        """Only what keeps to the document's order."""
        if self._both_orders:
            return Deck(self._draw, wordings)
        return Deck(self._draw, [w for w in wordings if order_of(w) != "reversed"])
