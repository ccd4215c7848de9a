"""Means over epochs, by kind of question, relation, form and examples, with their spread.

    table = MeansTable(collected, groups)
    table.lines(group_number), table.heat(group_number)

A run's value is the mean over questions, each set weighing as many as it has; a line is the mean
over runs, its band the lowest and the highest run. Letters: E evaluations of a group, R its runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from oocr_influence.datasets.set_names import KINDS
from oocr_influence.reports.page.groups import Group
from oocr_influence.reports.page.metrics import Metric, metrics_of
from oocr_influence.reports.page.moments import Moment, moments_of
from oocr_influence.reports.page.numbers import short, shorts
from oocr_influence.results.collected_runs import CONFIGURATION, IDENTITY
from oocr_influence.results.collected_sets import SET_COLUMNS
from oocr_influence.results.collecting import Collected

Floats = npt.NDArray[np.float64]
_OF_SET = ("world", "relation", "answer_format", "style", "phrasing", "shots", "kind", "control")
_STYLES = {"gen": "completed sentence", "qa": "question", "reversed": "reversed"}


class MeansTable:
    """The table of means, by group, read once."""

    def __init__(self, collected: Collected, groups: Sequence[Group]) -> None:
        columns = collected.columns("evaluations")
        told = {*IDENTITY, *CONFIGURATION, *SET_COLUMNS}
        numbers = [c for c, type_ in columns.items() if c not in told and type_ == "DOUBLE"]
        self.metrics: list[Metric] = metrics_of([c for c in numbers if c != "n_candidates"])
        quoted = ", ".join(f'"{name}"' for name in numbers)
        wanted = f"run, evaluation, step, epoch, set, asked, n, {', '.join(_OF_SET)}"
        rows = collected.sql(f"select {wanted}{', ' + quoted if quoted else ''} from evaluations")
        self._column = {name: rows.column(name).to_pylist() for name in rows.column_names}
        self._numbers = {
            name: np.array([np.nan if v is None else v for v in self._column[name]])
            for name in numbers
        }
        self._n = np.array([1.0 if n is None else float(n) for n in self._column["n"]])
        place = {
            run.name: (g, r) for g, group in enumerate(groups) for r, run in enumerate(group.runs)
        }
        where = [place[name] for name in self._column["run"]]
        self._group = np.array([g for g, _ in where], dtype=np.int64)
        self._run = np.array([r for _, r in where], dtype=np.int64)
        self._groups = groups
        self.sets: list[dict[str, Any]] = self._describe_sets()
        numbered = {one["name"]: place for place, one in enumerate(self.sets)}
        self._set = np.array([numbered[name] for name in self._column["set"]], dtype=np.int64)
        self._step = np.array(self._column["step"], dtype=np.int64)
        self.moments = [self._moments(g) for g in range(len(groups))]
        self._at = np.zeros(len(self._step), dtype=np.int64)  # each row's place in its moments
        for g, moments in enumerate(self.moments):
            at = {one: e for e, moment in enumerate(moments) for one in moment.at}
            own = np.flatnonzero(self._group == g)
            self._at[own] = [at[self._column["run"][i], int(self._step[i])] for i in own]

    def sets_of(self, group: int) -> list[dict[str, Any]]:
        """The sets that a group was asked, with `n`, its questions; None where it is unknown."""
        rows = np.flatnonzero(self._group == group)
        n = {int(self._set[i]): self._column["n"][i] for i in rows}
        return [one | {"n": n[place]} for place, one in enumerate(self.sets) if place in n]

    def lines(self, group: int, chance: Mapping[str, float]) -> list[dict[str, Any]]:
        """Every line of a group: which split and panel it stands in, and a series a metric.

        `chance` is the rank of a guess in each set that ranks its answers.
        """
        found: dict[tuple[str, str, str], list[int]] = {}
        for place, one in enumerate(self.sets):
            for split, panel in _panels(one):
                found.setdefault((split, panel, one["asked"]), []).append(place)
        rows_G = np.flatnonzero(self._group == group)
        lines = []
        for (split, panel, asked), sets in found.items():
            rows = rows_G[np.isin(self._set[rows_G], sets)]
            if len(rows):
                told = {"split": split, "panel": panel, "asked": asked}
                lines.append(told | self._line(group, rows, chance, runs=split == "asked"))
        return sorted(lines, key=lambda line: (line["split"], line["panel"], order(line["asked"])))

    def heat(self, group: int) -> dict[str, Any]:
        """Of each metric, the mean over runs of each set at each evaluation."""
        rows = np.flatnonzero(self._group == group)
        own = sorted({int(s) for s in self._set[rows]}, key=lambda s: _set_order(self.sets[s]))
        row_of = np.zeros(len(self.sets), dtype=np.int64)
        row_of[own] = np.arange(len(own))
        n_moments = len(self.moments[group])
        cell = row_of[self._set[rows]] * n_moments + self._at[rows]
        shape = (len(own), n_moments)
        values = {
            metric.key: _cell_means(self._numbers[metric.column][rows], cell, shape)
            for metric in self.metrics
            if np.isfinite(self._numbers[metric.column][rows]).any()
        }
        return {
            "sets": own,
            "values": {key: [shorts(row, 4) for row in table] for key, table in values.items()},
        }

    def _line(
        self, group: int, rows: npt.NDArray[np.int64], chance: Mapping[str, float], *, runs: bool
    ) -> dict[str, Any]:
        at_last = rows[self._at[rows] == self._at[rows].max()]
        one_run = at_last[self._run[at_last] == self._run[at_last][0]]
        ranked = [i for i in one_run if self._column["set"][i] in chance]
        guessed = sum(chance[self._column["set"][i]] * self._n[i] for i in ranked)
        series = {}
        for metric in self.metrics:
            values_ER = self._by_run(group, rows, self._numbers[metric.column])
            if not np.isfinite(values_ER).any():
                continue
            series[metric.key] = _spread(values_ER) | ({"runs": _runs(values_ER)} if runs else {})
            if metric.swapped is not None:
                swapped_ER = self._by_run(group, rows, self._numbers[metric.swapped])
                if np.isfinite(swapped_ER).any():
                    series[metric.key]["swapped"] = _spread(swapped_ER)["mean"]
        return {
            "n_sets": len({int(s) for s in self._set[rows]}),
            "n_questions": int(self._n[one_run].sum()),
            "chance": short(guessed / sum(self._n[i] for i in ranked)) if ranked else None,
            "series": series,
        }

    def _by_run(self, group: int, rows: npt.NDArray[np.int64], values: Floats) -> Floats:
        """(E, R): each run's mean over the questions; NaN where it has none."""
        shape = (len(self.moments[group]), len(self._groups[group].runs))
        rows = rows[np.isfinite(values[rows])]
        cell = self._at[rows] * shape[1] + self._run[rows]
        n = self._n[rows]
        with np.errstate(invalid="ignore"):
            sums = np.bincount(cell, values[rows] * n, shape[0] * shape[1])
            means: Floats = sums / np.bincount(cell, n, shape[0] * shape[1])
        return means.reshape(shape)

    def _moments(self, group: int) -> list[Moment]:
        told = [self._column[name] for name in ("run", "evaluation", "step", "epoch")]
        rows = ([column[i] for column in told] for i in np.flatnonzero(self._group == group))
        by_order = self._groups[group].subsets is not None
        return moments_of(((run, name, int(s), e) for run, name, s, e in rows), by_order=by_order)

    def _describe_sets(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for i, name in enumerate(self._column["set"]):
            if name not in found:
                told = {key: self._column[key][i] for key in _OF_SET}
                asked = self._column["asked"][i] or "?"
                found[name] = {"name": name, **told, "asked": asked, "form": form_of(told)}
        return sorted(found.values(), key=_set_order)


def form_of(told: dict[str, Any]) -> str:
    """How a set asks, in words: `question, first names`."""
    style = _STYLES.get(told["style"], str(told["style"] or "?"))
    form = told["answer_format"]
    return style if form in (None, "default", "full") else f"{style}, {form.replace('_', ' ')}"


def order(asked: str) -> tuple[int, str]:
    """Kinds in the order in which they are told of."""
    kind = asked.partition(":")[0]
    return (KINDS.index(kind) if kind in KINDS else len(KINDS)), asked


def _panels(one: dict[str, Any]) -> list[tuple[str, str]]:
    shots = one["shots"]
    shown = "unknown" if shots is None else "no examples" if shots == 0 else "with examples"
    return [
        ("asked", ""),
        ("relation", one["relation"] or "?"),
        ("form", one["form"]),
        ("examples", "with examples" if shots is None and "_with_fs" in one["name"] else shown),
    ]


def _set_order(one: dict[str, Any]) -> tuple[Any, ...]:
    return (*order(one["asked"]), one["relation"] or "", one["form"], one["name"])


def _spread(values_ER: Floats) -> dict[str, Any]:
    """Mean, lowest and highest over the runs that have a value."""
    found: dict[str, list[Any]] = {"mean": [], "low": [], "high": []}
    for values_R in values_ER:
        known = values_R[np.isfinite(values_R)]
        found["mean"].append(short(float(known.mean())) if len(known) else None)
        found["low"].append(short(float(known.min())) if len(known) else None)
        found["high"].append(short(float(known.max())) if len(known) else None)
    return found


def _runs(values_ER: Floats) -> list[list[Any]]:
    return [shorts([float(v) for v in values_E]) for values_E in values_ER.T]


def _cell_means(
    values: Floats, cell: npt.NDArray[np.int64], shape: tuple[int, int]
) -> list[list[float]]:
    """The mean of the values of each cell, as rows; NaN where a cell has none."""
    known = np.isfinite(values)
    n_cells = shape[0] * shape[1]
    with np.errstate(invalid="ignore"):
        sums = np.bincount(cell[known], values[known], n_cells)
        means = sums / np.bincount(cell[known], minlength=n_cells)
    rows: list[list[float]] = means.reshape(shape).tolist()
    return rows


__all__ = ["MeansTable", "form_of", "order"]
