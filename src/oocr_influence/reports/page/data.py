"""All that a page says, as one plain object: what is short in `head`, what is long in `detail`.

    data = page_data(collected)
    data.head["groups"][0]["sentences"]

Every number comes from records; null is what they do not say.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from oocr_influence.reports.page.curves import MeansTable
from oocr_influence.reports.page.endings import ending
from oocr_influence.reports.page.groups import Group, Run, differences, find_groups, read_runs
from oocr_influence.reports.page.metrics import main_metric
from oocr_influence.reports.page.numbers import mean, short
from oocr_influence.reports.page.questions import QuestionTable
from oocr_influence.reports.page.resources import disk, phases
from oocr_influence.reports.page.training import training
from oocr_influence.reports.page.words import replay, status_words, what_was_run
from oocr_influence.results.collecting import Collected

VERSION = 1
_LAST_LINES = 20


@dataclass(frozen=True)
class PageData:
    """What a page shows."""

    head: dict[str, Any]
    detail: dict[str, Any]
    """`heat`, by group, and `questions`."""


def page_data(
    collected: Collected,
    *,
    sweeps: Sequence[Mapping[str, Any]] = (),
    datamodels: Sequence[Mapping[str, Any]] = (),
    attributions: Sequence[Mapping[str, Any]] = (),
) -> PageData:
    """Everything about the collected runs.

    `sweeps` is what the launcher says of their experiments: `experiment`, `counts` of jobs by state
    (None where there is no ledger), and `failed`, the jobs that did not end well. `datamodels` is
    what sweeps over subsets say of facts and answers, one of each, and `attributions` what methods
    of attribution gave, one of each table of scores: docs/reports.md says what they hold.
    """
    runs = read_runs(collected)
    groups = find_groups(runs)
    table = MeansTable(collected, groups)
    notices = list(collected.notices)
    asked = QuestionTable(table.sets)
    told, heats = [], [table.heat(number) for number in range(len(groups))]
    for number, group in enumerate(groups):
        asked.add(collected, table.moments[number])
        told.append(_group(collected, group, number, table, notices))
    present = {key: True for group in told for line in group["lines"] for key in line["series"]}
    main = main_metric(table.metrics, present)
    head = {
        "version": VERSION,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": _software(),
        "title": _title(groups),
        "groups": told,
        "differences": differences(groups) if len(groups) > 1 else {},
        "metrics": [metric.to_json() for metric in table.metrics if present.get(metric.key)],
        "main_metric": main.key if main else None,
        "sets": table.sets,
        "entities": {entity: asked.label(entity) for entity in _entities(told, datamodels)},
        "runs": [
            _run(run, group, number) for number, group in enumerate(groups) for run in group.runs
        ],
        "datamodels": [*datamodels],
        "attributions": [*attributions],
        "sweeps": [{k: v for k, v in one.items() if k != "failed"} for one in sweeps],
        "failures": [
            *_failed_runs([run for run in runs if not _has_ledger(run, sweeps)]),
            *(job for one in sweeps for job in one["failed"]),
        ],
        "disk": disk(runs),
        "notices": [*notices, *collected.notices[len(notices) :]],
    }
    return PageData(head, {"heat": heats, "questions": asked.to_json()})


def _group(
    collected: Collected,
    group: Group,
    number: int,
    table: MeansTable,
    notices: list[str],
) -> dict[str, Any]:
    moments, chance = table.moments[number], _chance(collected, group)
    return {
        "name": group.name,
        "experiment": group.experiment,
        "folder": str(group.runs[0].folder.experiment.path),
        "earlier": all(run.row["earlier"] for run in group.runs),
        "n_runs": len(group.runs),
        "subsets": None if group.subsets is None else group.subsets.to_json(),
        "status": status_words(group),
        "sentences": what_was_run(group, moments, table.sets_of(number)),
        "evaluations": [one.to_json() | {"epoch": short(one.epoch)} for one in moments],
        "chance": chance,
        "lines": table.lines(number, chance),
        "ending": ending(collected, group, moments),
        "training": training(group, moments, notices),
        "phases": phases(group),
        "replay": replay(group),
        "args": group.args,
    }


def _entities(
    groups: Sequence[Mapping[str, Any]], datamodels: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Whom figures tell of, each once."""
    endings = [group["ending"] for group in groups if group["ending"]]
    asked = [entity for one in endings for kind in one["kinds"] for entity, _ in kind["entities"]]
    facts = [
        fact["entity"]
        for one in datamodels
        for fact in (one.get("effects") or {}).get("facts", [])
        if fact["entity"] is not None
    ]
    return list(dict.fromkeys([*asked, *facts]))


def _chance(collected: Collected, group: Group) -> dict[str, float]:
    """What a guess has as its rank, by set: the mean of (n + 1) / 2 over the questions."""
    runs = [run.name for run in group.runs]
    rows = collected.sql(
        "select set, avg((n_candidates + 1) / 2) as chance from questions "
        "where list_contains($1::varchar[], run) and n_candidates is not null "
        "group by all order by set",
        [runs],
    ).to_pylist()
    return {row["set"]: short(row["chance"]) or 0.0 for row in rows}


def _run(run: Run, group: Group, number: int) -> dict[str, Any]:
    row = run.row
    names = ("run", "status", "path", "earlier", "data_order_seed", "epochs", "learning_rate")
    told = {name: row[name] for name in (*names, "total_steps", "n_documents", "n_tokens")}
    reached = [entry.step_num for entry in run.history]
    return {
        **told,
        "group": number,
        "subset": None if group.subsets is None else group.subsets.of_run[run.name],
        "letters": _letters(run.name),
        "seconds": short(row["time_taken"]),
        "steps": max(reached, default=None),
        "device": run.log_dict.get("device"),
        "eval_seconds": short(mean([m * 60 for m in _numbers(run)])),
        "resumed": len(run.log_dict.get("resumed") or []),
        "disk": sum(disk([run]).values()),
    }


def _numbers(run: Run) -> list[float]:
    return [entry.eval_time for entry in run.history if isinstance(entry.eval_time, float)]


def _has_ledger(run: Run, sweeps: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the launcher tells of this run: its job has the last word on how it ended."""
    name = run.folder.experiment.name
    return any(one["experiment"] == name and one["counts"] is not None for one in sweeps)


def _failed_runs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Runs whose log says that they failed, with the last lines that they printed."""
    return [
        {
            "experiment": run.folder.experiment.name,
            "label": run.name,
            "state": str(run.row["status"]),
            "attempt": None,
            "message": str(run.log_dict.get("error") or ""),
            "log": str(run.folder.text_log),
            "lines": _last_lines(run),
        }
        for run in runs
        if run.row["status"] in ("failed", "unfinished")
    ]


def _last_lines(run: Run) -> list[str]:
    try:
        with run.folder.text_log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line[:500] for line in text.splitlines() if line.strip()][-_LAST_LINES:]


def _letters(name: str) -> str:
    parts = name.split("_")
    return parts[4] if len(parts) > 5 else name


def _title(groups: Sequence[Group]) -> str:
    names = list(dict.fromkeys(group.name for group in groups)) or ["nothing begun yet"]
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _software() -> str:
    try:
        return f"oocr-influence {version('oocr-influence')}"
    except PackageNotFoundError:
        return "oocr-influence"


__all__ = ["VERSION", "PageData", "page_data"]
