"""What models answer, before and after: one row a relation, style, answer format and kind.

Each kind ends with a row of all its questions.

    rows = before_after_table(find_runs(Path("outputs")))
    print(render_text(rows))

Numbers come from the questions' own records, those added by `oocr evaluate` included. The rank is
the tie-averaged one, so that a model without any opinion stands at chance, (n + 1) / 2 of n
candidates. Where an experiment has several runs, a number is the mean over them and the standard
deviation after ± is that between them.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oocr_influence.datasets.set_names import KINDS, asked, kind_named
from oocr_influence.reports.results_text import aligned
from oocr_influence.results.merged_evaluations import is_evaluated, read_merged
from oocr_influence.results.naming import unstamped
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.variants import variant_of

GROUPS = ("kind", "relation", "style", "answer_format")
# A kind, where answers in another format than the documents' are kinds of their own.
ASKED = "asked"
_NUMBERS = ("rank_tie_averaged", "accuracy", "n_candidates", "rank_swapped")
_COLUMNS = {
    "kind": "kind",
    ASKED: "asked",
    "relation": "relation",
    "style": "style",
    "answer_format": "format",
}
_NOTHING = "–"
_ALL = "all"
_SWAPPED = "control: swapped"


@dataclass(frozen=True)
class Average:
    """A mean over runs and the standard deviation between them, None for a single run."""

    mean: float
    spread: float | None = None


@dataclass(frozen=True)
class Row:
    """One group of questions of one experiment; numbers are None where no question has one."""

    experiment: str
    """Its name, and the point of its grid."""
    group: Mapping[str, str]
    """Values of `kind`, `relation`, … by which the questions were grouped."""
    n_runs: int
    n_questions: int
    """Of one run."""
    rank_before: Average | None
    rank_after: Average | None
    chance_rank: float | None
    accuracy_before: Average | None
    accuracy_after: Average | None


@dataclass(frozen=True)
class _Means:
    """One group in one evaluation of one run."""

    n: int
    rank: float | None
    accuracy: float | None
    chance: float | None


def before_after_table(
    runs: Iterable[RunFolder],
    *,
    by: Sequence[str] = GROUPS,
    before: str = "start",
    after: str = "final",
) -> list[Row]:
    """Rows for every experiment of `runs`, and for every point of its grid, trained ones first.

    A kind of several groups has a last row of all its questions, `all` in the other columns. Each
    control is a kind of its own; `control: swapped` grades the trained questions by other entities'
    answers. `by` may name ASKED instead of the kind. Runs that lack one of the two evaluations are
    left out (see `runs_without`).
    """
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[_Means, _Means]]] = defaultdict(list)
    for run in runs:
        if _lacks(run, before, after):
            continue
        wanted = [*dict.fromkeys((*by, "kind", "answer_format", "control")), *_NUMBERS]
        tables = [read_merged(run, name, wanted).records for name in (before, after)]
        # Sets that were added later may have been asked at one of the two alone.
        common = set.intersection(*(set(table.column("set").to_pylist()) for table in tables))
        first, last = (_means(table, by, common) for table in tables)
        variant = variant_of(run)
        name = f"{run.experiment.name}: {variant}" if variant else run.experiment.name
        for key in last:
            if key in first:
                groups[name, key].append((first[key], last[key]))
    rows = [_row(name, dict(zip(by, key, strict=True)), groups[name, key]) for name, key in groups]
    return sorted(rows, key=lambda row: (row.experiment, _order(row.group)))


def runs_without(
    runs: Iterable[RunFolder], before: str = "start", after: str = "final"
) -> list[RunFolder]:
    """The runs that cannot enter the table: unfinished ones and those of the earlier system."""
    return [run for run in runs if _lacks(run, before, after)]


def render_text(rows: Sequence[Row]) -> str:
    """The table for a terminal: a block an experiment, columns aligned."""
    blocks = []
    for title, header, lines in _blocks(rows):
        blocks.append("\n".join([title, *aligned([header, *lines])]))
    return "\n\n".join(blocks) if blocks else "no run has both evaluations"


def render_markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown: a heading and a table an experiment."""
    blocks = []
    for title, header, lines in _blocks(rows):
        cells = [header, ["---"] * len(header), *lines]
        table = "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in cells)
        blocks.append(f"### {_escaped(title)}\n\n{table}")
    return "\n\n".join(blocks) if blocks else "No run has both evaluations."


def render_overview(rows: Sequence[Row]) -> str:
    """Mean ranks alone, a row a group and a column an experiment, for a terminal."""
    names = list(dict.fromkeys(row.experiment for row in rows))
    groups = sorted({tuple(row.group.items()) for row in rows}, key=lambda g: _order(dict(g)))
    cells = {(tuple(row.group.items()), row.experiment): row for row in rows}
    short = [unstamped(name) for name in names]
    header = ["mean rank", *(short if len(set(short)) == len(short) else names)]
    lines = []
    for group in groups:
        found = (cells.get((group, name)) for name in names)
        ranks = (_change(row.rank_before, row.rank_after) if row else _NOTHING for row in found)
        lines.append([" ".join(value for _, value in group), *ranks])
    return "\n".join(aligned([header, *lines]))


def _lacks(run: RunFolder, *names: str) -> bool:
    return not all(is_evaluated(run, name) for name in names)


def _means(table: Any, by: Sequence[str], sets: set[str]) -> dict[tuple[str, ...], _Means]:
    """Each group's means over the questions of `sets` in one evaluation."""
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    absent: list[Any] = [None] * table.num_rows
    swapped = _swapped_rows(columns, by, sets)
    if "kind" in columns:
        controls = columns.get("control", absent)
        named = zip(columns["kind"], controls, strict=True)
        columns["kind"] = [kind and kind_named(kind, control) for kind, control in named]
        formats = columns.get("answer_format", absent)
        pairs = zip(columns["kind"], formats, strict=True)
        columns[ASKED] = [kind and asked(kind, form) for kind, form in pairs]
    keys = zip(*(columns.get(name, absent) for name in by), strict=True)
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, (key, name) in enumerate(zip(keys, columns["set"], strict=True)):
        if name not in sets:
            continue
        group = tuple(_NOTHING if part is None else str(part) for part in key)
        places[group].append(place)
    places |= _totals(places)

    def values(name: str, rows: list[int]) -> list[float]:
        column = columns.get(name, absent)
        return [float(column[row]) for row in rows if column[row] is not None]

    def means(rows: list[int], rank: str, accuracy: str | None) -> _Means:
        return _Means(
            n=len(rows),
            rank=_mean(values(rank, rows)),
            accuracy=_mean(values(accuracy, rows)) if accuracy else None,
            chance=_mean([(n + 1) / 2 for n in values("n_candidates", rows)]),
        )

    found = {key: means(rows, "rank_tie_averaged", "accuracy") for key, rows in places.items()}
    if swapped:
        found[_SWAPPED, *[_ALL] * (len(by) - 1)] = means(swapped, "rank_swapped", None)
    return found


def _swapped_rows(columns: Mapping[str, list[Any]], by: Sequence[str], sets: set[str]) -> list[int]:
    """The trained questions that another entity's answer was graded on too, where kinds are told
    apart first."""
    if not by or by[0] not in ("kind", ASKED) or not {"kind", "rank_swapped"} <= columns.keys():
        return []
    rows = zip(columns["set"], columns["kind"], columns["rank_swapped"], strict=True)
    return [
        place
        for place, (name, kind, rank) in enumerate(rows)
        if name in sets and kind == "trained" and rank is not None
    ]


def _totals(places: Mapping[tuple[str, ...], list[int]]) -> dict[tuple[str, ...], list[int]]:
    """The rows of every first part (a kind) that has several groups, under `all`."""
    totals: dict[tuple[str, ...], list[int]] = {}
    for first in dict.fromkeys(group[0] for group in places):
        own = [rows for group, rows in places.items() if group[0] == first]
        if len(own) > 1:
            rest = len(next(iter(places))) - 1
            totals[(first, *[_ALL] * rest)] = [row for rows in own for row in rows]
    return totals


def _row(experiment: str, group: Mapping[str, str], pairs: list[tuple[_Means, _Means]]) -> Row:
    first, last = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Row(
        experiment=experiment,
        group=group,
        n_runs=len(pairs),
        n_questions=last[0].n,
        rank_before=_average(one.rank for one in first),
        rank_after=_average(one.rank for one in last),
        chance_rank=_mean([one.chance for one in last if one.chance is not None]),
        accuracy_before=_average(one.accuracy for one in first),
        accuracy_after=_average(one.accuracy for one in last),
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _average(values: Iterable[float | None]) -> Average | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Average(math.fsum(known) / len(known), statistics.stdev(known) if known[1:] else None)


def _order(group: Mapping[str, str]) -> tuple[Any, ...]:
    kind = group.get("kind", group.get(ASKED, ""))
    known = kind.partition(":")[0]  # of a control: which one
    place = KINDS.index(known) if known in KINDS else len(KINDS)
    values = tuple(group.values())
    return (place, kind, set(values[1:]) == {_ALL}, *values)


def _blocks(rows: Sequence[Row]) -> Iterable[tuple[str, list[str], list[list[str]]]]:
    """Title, header and cells of every experiment's table."""
    for name in dict.fromkeys(row.experiment for row in rows):
        own = [row for row in rows if row.experiment == name]
        n_runs = max(row.n_runs for row in own)
        spread = "; mean ± standard deviation between runs" if n_runs > 1 else ""
        header = [_COLUMNS.get(key, key) for key in own[0].group]
        header += ["questions", "mean rank", "by chance", "accuracy"]
        yield (
            f"{name} ({n_runs} run{'s' * (n_runs > 1)}{spread})",
            header,
            [
                [
                    *row.group.values(),
                    str(row.n_questions),
                    _change(row.rank_before, row.rank_after),
                    _NOTHING if row.chance_rank is None else f"{row.chance_rank:.1f}",
                    _change(row.accuracy_before, row.accuracy_after),
                ]
                for row in own
            ],
        )


def _change(before: Average | None, after: Average | None) -> str:
    return f"{_told(before)} → {_told(after)}"


def _told(value: Average | None) -> str:
    if value is None:
        return _NOTHING
    return f"{value.mean:.2f}" + (f" ± {value.spread:.2f}" if value.spread is not None else "")


def _escaped(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
