"""What was known in the end: each kind of question's mean with its interval, and its entities.

Trained against reversed against two hops is read here. Intervals are those of
`results.mean_interval`, over entities and, where there are several, over runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from oocr_influence.reports.page.curves import order
from oocr_influence.reports.page.groups import Group
from oocr_influence.reports.page.moments import AT, Moment
from oocr_influence.reports.page.numbers import mean, short
from oocr_influence.results.collecting import Collected
from oocr_influence.results.intervals import Interval, mean_interval

_ROWS = f"""
    select run, asked, entity, {{metric}} as value, accuracy, (n_candidates + 1) / 2 as chance
    from questions {AT}
"""
_LABELS = f"""
    select entity, relation, min(trim(completion)) as answer
    from questions {AT}
    where control is null
      and kind = 'trained' and coalesce(answer_format, 'default') in ('default', 'full')
    group by all order by entity, relation
"""


def rank_column(collected: Collected, moment: Moment) -> str:
    """The rank that a group is told by: the tie-averaged one, or the strict one where a system
    that knew no other measured it."""
    found = collected.sql(
        f"select count(rank_tie_averaged) as n from questions {AT}", moment.places()
    )
    return "rank_tie_averaged" if found.column("n")[0].as_py() else "rank"


def ending(
    collected: Collected, group: Group, moments: Sequence[Moment], *, seed: int = 0
) -> dict[str, Any] | None:
    """What a group's runs answer at their last evaluation; None without any question."""
    if not moments:
        return None
    last = moments[-1]
    metric = rank_column(collected, last)
    table = collected.sql(_ROWS.format(metric=metric), last.places())
    values = {name: table.column(name).to_pylist() for name in table.column_names}
    if group.subsets is not None:  # runs of one subset are drawn together, with its documents
        values["run"] = [group.subsets.of_run[run] for run in values["run"]]
    places: dict[str, list[int]] = defaultdict(list)
    for place, asked in enumerate(values["asked"]):
        places[asked or "?"].append(place)
    if not places:
        return None
    return {
        "evaluation": last.name,
        "step": last.step,
        "epoch": short(last.epoch),
        "n_runs": last.n_runs,
        "metric": metric,
        "kinds": [
            _kind(asked, own, values, seed)
            for asked, own in sorted(places.items(), key=lambda one: order(one[0]))
        ],
    }


def entity_labels(collected: Collected, moments: Sequence[Moment]) -> dict[str, str]:
    """What an entity is recognised by: the answers of the trained questions about it."""
    if not moments:
        return {}
    rows = collected.sql(_LABELS, moments[-1].places()).to_pylist()
    answers: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["answer"]:
            answers[row["entity"]].append(row["answer"])
    return {entity: " · ".join(own) for entity, own in answers.items()}


def _kind(
    asked: str, own: Sequence[int], values: dict[str, list[Any]], seed: int
) -> dict[str, Any]:
    by_entity: dict[str, list[float]] = defaultdict(list)
    for place in own:
        if values["value"][place] is not None:
            by_entity[values["entity"][place]].append(values["value"][place])
    chances = [values["chance"][place] for place in own if values["chance"][place] is not None]
    return {
        "asked": asked,
        "rank": _interval("value", own, values, seed),
        "accuracy": _interval("accuracy", own, values, seed),
        "chance": short(mean(chances)),
        "entities": sorted(
            ([entity, short(mean(ranks))] for entity, ranks in by_entity.items()),
            key=lambda one: (one[1] or 0.0, one[0]),
        ),
    }


def _interval(
    name: str, own: Sequence[int], values: dict[str, list[Any]], seed: int
) -> dict[str, Any] | None:
    known = [place for place in own if values[name][place] is not None]
    if not known:
        return None
    found: Interval = mean_interval(
        [values[name][place] for place in known],
        runs=[values["run"][place] for place in known],
        entities=[values["entity"][place] for place in known],
        seed=seed,
    )
    return {
        "mean": short(found.mean),
        "low": short(found.low),
        "high": short(found.high),
        "n_runs": found.n_runs,
        "n_entities": found.n_entities,
        "n_questions": found.n_questions,
    }


__all__ = ["ending", "entity_labels", "rank_column"]
