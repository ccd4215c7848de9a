"""How training went: the loss of every update, the losses of whole documents, rates and norms.

Step logs are long: consecutive updates are averaged until at most MOST_POINTS are left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from oocr_influence.reports.page.groups import Group, Run
from oocr_influence.reports.page.moments import Moment
from oocr_influence.reports.page.numbers import mean, short
from oocr_influence.results.step_log import read_steps

MOST_POINTS = 150
_OF_STEP = {"loss": "loss", "grad_norm": "grad_norm", "learning_rate": "learning_rate"}


def training(group: Group, moments: Sequence[Moment], notices: list[str]) -> dict[str, Any]:
    """Losses, gradient norms and rates of a group's runs over steps, and document losses.

    `updates_a_point` says how many updates each point is the mean of. Where a run has no step log,
    as in the earlier system, its losses are those of its history, an update an evaluation.
    """
    logs = [_steps(run, notices) for run in group.runs]
    last = max((step for log in logs for step in log), default=0)
    per_point = max(1, -(-last // MOST_POINTS))
    table = {
        name: _binned([{s: row.get(name) for s, row in log.items()} for log in logs], per_point)
        for name in _OF_STEP
    }
    per_epoch = group.logged("steps_per_epoch")
    if per_epoch is None and group.subsets is None and moments and moments[-1].epoch > 0:
        per_epoch = moments[-1].step / moments[-1].epoch
    return {
        "updates_a_point": per_point,
        "steps_per_epoch": short(per_epoch),
        "from_history": all(not run.folder.steps.is_file() for run in group.runs),
        "series": {name: points for name, points in table.items() if points["steps"]},
        "documents": _documents(group, moments),
    }


def _steps(run: Run, notices: list[str]) -> dict[int, dict[str, float]]:
    """What each update of a run measured, burn-in left out."""
    if run.folder.steps.is_file():
        try:
            return {
                row.step: {
                    name: value
                    for name, key in _OF_STEP.items()
                    if (value := getattr(row, key)) is not None
                }
                for row in read_steps(run.folder.steps)
                if not row.burn_in
            }
        except (OSError, ValueError) as error:
            notices.append(f"{run.folder.path}: left out: {error}")
            return {}
    found: dict[int, dict[str, float]] = {}
    for entry in run.history:
        if isinstance(entry.train_loss, float):
            found[entry.step_num] = {"loss": entry.train_loss}
            if isinstance(entry.global_grad_norm, float):
                found[entry.step_num]["grad_norm"] = entry.global_grad_norm
    return found


def _binned(runs: Sequence[dict[int, float | None]], per_point: int) -> dict[str, list[Any]]:
    """Means of consecutive updates: of all runs, of the lowest and of the highest."""
    bins: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number, values in enumerate(runs):
        for step, value in values.items():
            if value is not None:
                bins[(step - 1) // per_point][number].append(value)
    found: dict[str, list[Any]] = {"steps": [], "mean": [], "low": [], "high": []}
    for place, own in sorted(bins.items()):
        means = [sum(values) / len(values) for values in own.values()]
        steps = [
            step
            for values in runs
            for step, value in values.items()
            if value is not None and (step - 1) // per_point == place
        ]
        found["steps"].append(short(mean(sorted(set(steps)))))
        for name, value in (("mean", mean(means)), ("low", min(means)), ("high", max(means))):
            found[name].append(short(value))
    return found


def _documents(group: Group, moments: Sequence[Moment]) -> dict[str, list[Any]]:
    """Mean losses of whole documents over evaluations, by what they were to training."""
    found: dict[str, list[list[float]]] = {}
    at = {one: e for e, moment in enumerate(moments) for one in moment.at}
    for run in group.runs:
        for entry in run.history:
            losses = getattr(entry, "document_losses", None)
            if not isinstance(losses, dict) or (run.name, entry.step_num) not in at:
                continue
            for name, told in losses.items():
                value = told.get("mean_loss") if isinstance(told, dict) else None
                if isinstance(value, float):
                    own = found.setdefault(name, [[] for _ in moments])
                    own[at[run.name, entry.step_num]].append(value)
    return {name: [short(mean(values)) for values in own] for name, own in found.items()}


__all__ = ["MOST_POINTS", "training"]
