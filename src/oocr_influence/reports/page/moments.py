"""The evaluations of a group, and which answers of its runs stand beside each other in each.

    moments = moments_of(rows, by_order=group.subsets is not None)
    collected.sql(f"select … from questions {AT}", moments[-1].places())

Runs that differ by their seeds alone are asked after the same updates. Runs on subsets are not:
they have as many windows, and so as many updates, as their documents fill. There the untouched
model, the first, second, … evaluation in between and `final` stand beside each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# Answers of the runs at a moment, in any table with `run` and `step`.
AT = (
    "semi join (select unnest($1::varchar[]) as run, unnest($2::bigint[]) as step) "
    "using (run, step)"
)
FINAL = "final"


@dataclass(frozen=True)
class Moment:
    """An evaluation of a group's runs."""

    name: str
    step: int
    """Updates before it; of runs that differ in them the most."""
    epoch: float
    at: tuple[tuple[str, int], ...]
    """The runs that have come to it, each with its step there."""

    @property
    def n_runs(self) -> int:
        """How many runs have come to it."""
        return len(self.at)

    def places(self) -> list[list[Any]]:
        """Runs and steps, as the parameters of `AT`."""
        return [[run for run, _ in self.at], [step for _, step in self.at]]

    def to_json(self) -> dict[str, Any]:
        """What a page tells of it."""
        steps = [step for _, step in self.at]
        told = {"name": self.name, "step": self.step, "epoch": self.epoch, "n_runs": self.n_runs}
        return told | {"steps": [min(steps), max(steps)]}


def moments_of(rows: Iterable[tuple[str, str, int, float]], *, by_order: bool) -> list[Moment]:
    """The moments of `(run, evaluation, step, epoch)`: by step, or by their order in each run."""
    names: dict[tuple[str, int], list[str]] = {}
    epochs: dict[tuple[str, int], float] = {}
    for run, name, step, epoch in rows:
        names.setdefault((run, step), []).append(name)
        epochs[run, step] = epoch
    found: dict[tuple[int, int], list[tuple[str, int]]] = {}
    before: dict[str, int] = {}
    for run, step in sorted(names):
        if not by_order:
            key = (0, step)
        elif step == 0 or FINAL in names[run, step]:
            key = (0 if step == 0 else 2, 0)
        else:
            key = (1, before.get(run, 0))
            before[run] = key[1] + 1
        found.setdefault(key, []).append((run, step))
    return [_moment(found[key], names, epochs) for key in sorted(found)]


def _moment(
    at: Sequence[tuple[str, int]],
    names: dict[tuple[str, int], list[str]],
    epochs: dict[tuple[str, int], float],
) -> Moment:
    own = {step for _, step in at}
    epoch = epochs[at[0]] if len(own) == 1 else sum(epochs[one] for one in at) / len(at)
    return Moment(names[at[0]][0], max(own), epoch, tuple(at))


__all__ = ["AT", "Moment", "moments_of"]
