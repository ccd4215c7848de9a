"""Which of a run's checkpoints are written, and which are kept.

keeping = Keeping.parse("all")                  every one of the schedule
Keeping.parse("3")                              the last three, and `start`
Keeping.parse("start,e1_s42,final")             these, and no other is ever written
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oocr_influence.training.schedule import Milestone


@dataclass(frozen=True)
class Keeping:
    """All checkpoints; or the last so many of the trained ones; or those of these names."""

    last: int | None = None
    names: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Keeping:
        """Raises ValueError if the text is neither `all`, nor a number, nor a list of names."""
        words = [word.strip() for word in text.split(",")]
        if words == ["all"]:
            return cls()
        if len(words) == 1 and words[0].lstrip("-").isdecimal():
            if int(words[0]) < 1:
                raise ValueError(f"{text} keeps no checkpoint: give all, a number from 1, or names")
            return cls(last=int(words[0]))
        if not all(words):
            raise ValueError(f"{text!r} has an empty name: give all, a number, or start,e1_s42,…")
        return cls(names=tuple(words))

    def unknown(self, scheduled: Sequence[Milestone]) -> list[str]:
        """Names that are none of the schedule's."""
        known = {moment.name for moment in scheduled}
        return [name for name in self.names or () if name not in known]

    def written(self, scheduled: Sequence[Milestone]) -> list[Milestone]:
        """The checkpoints that a run writes, in order."""
        return [m for m in scheduled if self.names is None or m.name in self.names]

    def kept(self, scheduled: Sequence[Milestone], *, until: int | None = None) -> list[Milestone]:
        """The checkpoints that are there after step `until` (None: at the end), in order.

        The untouched model's stays where only the last ones do: it is what they are compared with,
        and in a sweep it takes no space of its own.
        """
        made = [m for m in self.written(scheduled) if until is None or m.step <= until]
        if self.last is None:
            return made
        trained = [m for m in made if m.step > 0]
        return [m for m in made if m.step == 0] + trained[-self.last :]
