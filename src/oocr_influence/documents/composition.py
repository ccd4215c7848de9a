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
from oocr_influence.documents.plan import Plan
from oocr_influence.documents.sentences import CORE, Sentence
from oocr_influence.documents.wording import order_of

Writer = Callable[[], Sentence]
BODY = "\0"  # stands for a turn's sentences in its frame

QUOTED_ELABORATIONS = 0.12  # the share that somebody else is made to say
QUOTED_STATEMENTS = 0.12
FRAMED_STATEMENTS = 0.2  # "In short: …"
REFLECTIONS = 0.2  # the share of "I think that …" among what the theme says
SMALL_TALK = 0.6  # of the turns that have room for it
LEAD = "lead"  # not a stock: the sentence that a document opens with
ANY_DOCUMENTS = 0.4  # the share of small talk that is not of the document's own kind


@dataclass(frozen=True)
class Material:
    """What can be said of one relation: statements by order, and its theme."""

    forward: list[str]
    reversed: list[str]
    theme: Theme


class Composition:
    """Composes one document: `draw()` draws it, `text()` puts it together.

    In between, the cores of `sentences` may be exchanged.
    """

    def __init__(
        self,
        draw: Draw,
        cast: Cast,
        kind: Kind,
        material: Material,
        common: Common,
        *,
        plan: Plan,
        both_orders: bool,
    ) -> None:
        self._draw, self._cast, self._kind = draw, cast, kind
        self._both_orders = both_orders
        self._plan = plan
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
        self._head = self._close = ""
        self._turns: list[tuple[str, list[Sentence]]] = []  # frame, sentences

    @property
    def sentences(self) -> list[Sentence]:
        """What stands in the turns, in order; not the leads."""
        return [s for _, sentences in self._turns for s in sentences if s.stock != LEAD]

    def draw(self) -> None:
        """Draw the whole document; called once."""
        about = self._cast.say(self._about.next())
        title = self._cast.sentence(self._titles.next())
        self._head = self._cast.say(self._draw.choice(self._kind.head), title=title)
        self._close = self._cast.say(self._draw.choice(self._kind.close), about=about)
        self._about_text = about
        target = self._draw.between(*self._plan.words)
        used = len(self._head.split()) + len(self._close.split())
        while used < target or self._stated < self._plan.fewest:
            turn = self._turn(len(self._turns) + 1, used, target)
            used += len(_filled(*turn).split())
            self._turns.append(turn)

    def text(self) -> str:
        """The document as it stands."""
        return (self._head + "\n\n".join(_filled(*t) for t in self._turns) + self._close).strip()

    def _turn(self, number: int, used: int, target: int) -> tuple[str, list[Sentence]]:
        frame = self._draw.choice(self._kind.first_turn if number == 1 else self._kind.turn)
        sentences = self._sentences(number, used + len(frame.split()), target)
        values = {
            "body": BODY,
            "i": str(number),
            "ask": self._cast.sentence(self._asks.next()) if number == 1 else "",
            "about_capital": self._about_text[0].upper() + self._about_text[1:],
        }
        values |= {name: self._cast.say(deck.next()) for name, deck in self._slots.items()}
        return self._cast.say(frame, **values), sentences

    def _sentences(self, number: int, used: int, target: int) -> list[Sentence]:
        """The sentences of one turn: what the theme says, the fact within, small talk at an end."""
        wanted = self._draw.between(*self._plan.sentences)
        sentences: list[Sentence] = []
        if number == 1 and self._draw.chance(self._plan.leads):
            lead = self._draw.choice(self._kind.lead)
            if lead:
                said = self._cast.sentence(lead, about=self._about_text)
                sentences.append(Sentence(LEAD, self._kind.lead, lead, said))
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
        count = used + sum(_words(sentence) for sentence in sentences)
        for i, write in enumerate(writers):
            if count >= target and sentences and self._statement not in writers[i:]:
                break
            sentence = self._fitting(write, count)
            sentences.append(sentence)
            count += _words(sentence)
        return sentences

    def _fitting(self, write: Writer, used: int) -> Sentence:
        """A sentence short enough for what is left, where words are scarce."""
        sentence = write()
        if write != self._statement:
            for _ in range(20):
                if used + _words(sentence) <= self._plan.soft_limit:
                    break
                sentence = write()
        return sentence

    def _statement(self) -> Sentence:
        """A sentence that states the fact, at times quoted or led up to."""
        reverse = self._both_orders and (
            self._starts_reversed == (self._stated == 0)
            if self._stated < 2
            else self._draw.chance(0.5)
        )
        self._stated += 1
        if reverse:
            sentence = self._said("reversed", self._reversed)
        else:
            sentence = self._said("forward", self._forward)
        # The first statement stands alone: it is what the document is about.
        if self._stated > 1 and self._quotes_at(QUOTED_STATEMENTS):
            return self._quoted(self._statement_quotes, sentence)
        if self._stated > 1 and self._draw.chance(FRAMED_STATEMENTS):
            sentence.frame = self._cast.sentence(self._frames.next(), statement=CORE)
        return sentence

    def _theme_sentence(self) -> Sentence:
        """What can be said about the matter, in the writer's own voice or somebody else's."""
        reflects = bool(self._reflections) and self._draw.chance(REFLECTIONS)
        if reflects:
            sentence = self._said("reflections", self._reflections)
        else:
            sentence = self._said("elaborations", self._elaborations)
        others_voice = reflects and not self._kind.first_person
        if others_voice or (not reflects and self._quotes_at(QUOTED_ELABORATIONS)):
            return self._quoted(self._quotes, sentence)
        return sentence

    def _small_talk(self) -> Sentence:
        """What makes a page look lived in."""
        if self._kind.any_sentences and self._draw.chance(ANY_DOCUMENTS):
            return self._said("any", self._sentences_of_any)
        return self._said("fill", self._fill)

    def _quotes_at(self, share: float) -> bool:
        return self._kind.quotes and self._draw.chance(share)

    def _said(self, stock: str, deck: Deck) -> Sentence:
        wording = deck.next()
        return Sentence(stock, deck.cards, wording, self._cast.sentence(wording))

    def _quoted(self, quotes: Deck, sentence: Sentence) -> Sentence:
        sentence.frame = self._cast.sentence(quotes.next(), quoted=CORE)
        sentence.quoted = True
        return sentence

    def _deck(self, wordings: list[str]) -> Deck:
        """Only what keeps to the document's order."""
        if self._both_orders:
            return Deck(self._draw, wordings)
        return Deck(self._draw, [w for w in wordings if order_of(w) != "reversed"])


def _filled(frame: str, sentences: list[Sentence]) -> str:
    return frame.replace(BODY, " ".join(sentence.text for sentence in sentences))


def _words(sentence: Sentence) -> int:
    return len(sentence.text.split())
