"""The figures of a page for papers and slides: PNG and SVG, drawn by matplotlib.

draw_figures(data, Path("report_figures"))    # the paths of what was drawn
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from oocr_influence.reports.curves import check_drawing, save
from oocr_influence.reports.page.data import PageData
from oocr_influence.reports.page.drawing import look_of, plural
from oocr_influence.reports.page.drawn_curves import curves_figure
from oocr_influence.reports.page.drawn_heat import heat_figure
from oocr_influence.reports.page.drawn_lines import (
    Line,
    Panel,
    metric_domain,
    metric_lines,
    own_domain,
)
from oocr_influence.reports.page.drawn_rows import ending_rows, once_rows, rows_figure

SUFFIXES = (".png", ".svg")
_Told = Mapping[str, Any]
_SPLITS = {"asked": "", "relation": "_by_relation", "form": "_by_form", "examples": "_by_examples"}
_MOST_NAMED = 8
_COURSES = (
    ("loss", "loss of the batch", "nats a token"),
    ("grad_norm", "norm of the gradient", "before clipping"),
    ("learning_rate", "learning rate", ""),
)


def draw_figures(
    data: PageData, folder: Path, *, metrics: Sequence[str] | None = None
) -> list[Path]:
    """Draw every figure as PNG and SVG; `metrics` are those of curves and heat maps, None all.

    Raises ModuleNotFoundError with the remedy where matplotlib is not installed.
    """
    check_drawing()
    drawn = []
    for stem, figure in page_figures(data, metrics=metrics):
        for path in (folder / f"{stem}{suffix}" for suffix in SUFFIXES):
            save(figure, path)
            drawn.append(path)
    return drawn


def page_figures(
    data: PageData, *, metrics: Sequence[str] | None = None
) -> Iterator[tuple[str, Any]]:
    """Each figure's name, and the figure; docs/reports.md lists the names."""
    groups = data.head["groups"]
    told = [one for one in data.head["metrics"] if metrics is None or one["key"] in metrics]
    names = _file_names([group["name"] for group in groups])
    if (known := _known(groups)) is not None:
        yield "known", known
    for metric in told if len(groups) > 1 else ():
        if (figure := _compared(groups, metric)) is not None:
            yield f"groups_{metric['key']}", figure
    for name, group, heat in zip(names, groups, data.detail["heat"], strict=True):
        for metric in told:
            for split, ending in _SPLITS.items():
                if (figure := _over_epochs(group, split, metric)) is not None:
                    yield f"{name}_{metric['key']}{ending}", figure
            if heat["values"].get(metric["key"]):
                yield f"{name}_{metric['key']}_sets", _sets(group, heat, data.head["sets"], metric)
        if (figure := _training(group)) is not None:
            yield f"{name}_training", figure


def _known(groups: Sequence[_Told]) -> Any:
    """What was known in the end, by kind of question."""
    measured = "rank" if ending_rows(groups, "rank") else "accuracy"
    rows = ending_rows(groups, measured)
    if not rows:
        return None
    ended = [group for group in groups if group["ending"]]
    read = [
        f"{group['name'] + ' ' if len(ended) > 1 else ''}at epoch {group['ending']['epoch']:g}, "
        f"{plural(group['ending']['n_runs'], 'run')}"
        for group in ended[:_MOST_NAMED]
    ]
    if len(ended) > _MOST_NAMED:
        read.append(f"and {len(ended) - _MOST_NAMED} more")
    over = {_spread_of(group) for group in ended}
    note = f"Read {'; '.join(read)}. Large dot: mean over all questions of the kind. "
    note += f"Bar: its 95 % bootstrap interval over {' or '.join(sorted(over))}. "
    if any(row.start is not None for row in rows):
        note += "Ring: the same mean at the first evaluation. "
    if measured == "rank":
        note += "Small dots: entities. Dashed line: chance; what ends there is not known. "
    if measured == "rank" and any(group["ending"]["metric"] == "rank" for group in ended):
        note += "Ranks of the earlier system are strict: ties count as better. "
    return rows_figure(
        rows,
        x_label="mean rank of the right answer" if measured == "rank" else "share of right answers",
        told_label="mean [95 %]",
        least=1 if measured == "rank" else 0,
        title=f"{_title(groups)}: what was known in the end",
        note=note,
    )


def _spread_of(group: _Told) -> str:
    if group["subsets"] is not None:
        return "entities and subsets"
    return "entities and runs" if group["ending"]["n_runs"] > 1 else "entities alone"


def _compared(groups: Sequence[_Told], metric: _Told) -> Any:
    """A metric over epochs, a panel a group, on one scale."""
    charts = [
        (group["name"], metric_lines(group, _lines(group, "asked"), metric))
        for group in groups
        if len(group["evaluations"]) > 1
    ]
    title = f"{metric['label']}, by group"
    most = max(groups, key=lambda group: group["n_runs"])
    return _metric_figure(charts, metric, title, _curves_note(most, metric, charts, compared=True))


def _over_epochs(group: _Told, split: str, metric: _Told) -> Any:
    """A metric over epochs, a panel a value of the split; None where the group has none."""
    lines = [line for line in _lines(group, split) if metric["key"] in line["series"]]
    if not lines:
        return None
    by = {"asked": "", "form": ", by type of question"}.get(split, f", by {split}")
    title = f"{group['name']}: {metric['label']}{by}"
    if len(group["evaluations"]) == 1:
        return rows_figure(
            once_rows(lines, metric),
            x_label=metric["label"],
            told_label="mean (lowest to highest run)",
            least=1 if metric["ranks"] else 0,
            title=title,
            note=f"{_explained(metric)} Asked once. "
            f"Dot: mean over {plural(group['n_runs'], 'run')}; "
            "line: from the lowest to the highest run, no interval."
            + (" Dashed line: chance." if metric["ranks"] else ""),
        )
    charts = [
        (panel, metric_lines(group, [line for line in lines if line["panel"] == panel], metric))
        for panel in dict.fromkeys(line["panel"] for line in lines)
    ]
    return _metric_figure(charts, metric, title, _curves_note(group, metric, charts))


def _metric_figure(
    charts: Sequence[tuple[str, list[Line]]], metric: _Told, title: str, note: str
) -> Any:
    charts = [(name, lines) for name, lines in charts if lines]
    if not charts:
        return None
    domain = metric_domain([lines for _, lines in charts], metric)
    top_is_low = metric["ranks"] or metric["key"] == "normalised_rank"
    unit = metric["label"] if len(charts) == 1 else ""
    panels = [
        Panel(name.replace("_", " "), lines, domain, unit=unit, top_is_low=top_is_low)
        for name, lines in charts
    ]
    return curves_figure(panels, title=title, note=note)


def _curves_note(
    group: _Told,
    metric: _Told,
    charts: Sequence[tuple[str, list[Line]]],
    *,
    compared: bool = False,
) -> str:
    lines = [line for _, own in charts for line in own]
    over = "subsets and seeds" if group["subsets"] is not None else "seeds"
    note = f"{_explained(metric, top=True)} "
    if group["n_runs"] > 1:
        thin = "; thin lines: the runs" if any(len(line.runs) > 1 for line in lines) else ""
        runs = "a group's runs" if compared else plural(group["n_runs"], "run")
        note += f"Line: mean over {runs}; band: lowest to highest run, "
        note += f"the spread over {over}, no interval{thin}. "
    else:
        note += "One run. "
    if any(line.chance is not None for line in lines):
        note += "Dashed: chance. "
    if any(line.swapped is not None for line in lines):
        note += "Thin dotted: trained questions graded by another entity's answer. "
    if any(line.name.startswith("control") for line in lines):
        note += "Grey: controls, about entities that no document tells this of. "
    return note


def _explained(metric: _Told, *, top: bool = False) -> str:
    better = {"low": " Lower is better", "high": " Higher is better"}.get(metric["better"], "")
    on_top = ", and drawn on top" if top and metric["ranks"] else ""
    label = metric["label"][0].upper() + metric["label"][1:]
    told = f"{label}: {metric['explained']}."
    return f"{told}{better}{on_top}." if better else told


def _sets(group: _Told, heat: _Told, sets: Sequence[_Told], metric: _Told) -> Any:
    colour = f"The deeper the blue, the {'lower' if metric['better'] == 'low' else 'higher'}"
    colour += " (better)." if metric["better"] else "."
    if metric["ranks"]:
        colour = "Blue is better than chance, white is chance, orange is worse."
    mean = "mean over runs" if group["n_runs"] > 1 else "of the one run"
    note = f"A row is one set of questions (one wording), a column one evaluation, a cell {mean}. "
    title = f"{group['name']}: {metric['label']} of every set"
    return heat_figure(group, heat, sets, metric, title=title, note=f"{note}{colour}")


def _training(group: _Told) -> Any:
    """Losses, norms and rates of every update, and losses of whole documents."""
    training, panels = group["training"], []
    epochs = training["steps_per_epoch"]
    for key, label, unit in _COURSES:
        series = training["series"].get(key)
        if series is None:
            continue
        x = [step / epochs for step in series["steps"]] if epochs else series["steps"]
        curve = {name: series[name] for name in ("mean", "low", "high")}
        lines = [Line(name=key, look=look_of("trained"), x=x, plain=True, **curve)]
        x_label = "epochs of training" if epochs else "updates"
        panels.append(Panel(label, lines, own_domain(lines), unit=unit, x_label=x_label))
    x = [one["epoch"] for one in group["evaluations"]]
    lines = [
        Line(name=name, look=look_of(name), x=x, mean=mean)
        for name, mean in training["documents"].items()
    ]
    if lines:
        panels.append(
            Panel("loss of whole documents", lines, own_domain(lines), unit="nats a token")
        )
    if not panels:
        return None
    per_point = training["updates_a_point"]
    note = f"A point is {'one update' if per_point == 1 else f'the mean of {per_point} updates'}. "
    if training["from_history"]:
        note = "No step log was kept: losses are those of the history, one an evaluation. "
    if group["n_runs"] > 1:
        note += f"Line: mean over {plural(group['n_runs'], 'run')}; band: lowest to highest run. "
    if lines:
        note += (
            "Documents: a fixed sample at each evaluation, trained ones, unseen ones of the same "
            "facts, pretraining text."
        )
    return curves_figure(panels, title=f"{group['name']}: training", note=note)


def _lines(group: _Told, split: str) -> list[_Told]:
    return [line for line in group["lines"] if line["split"] == split]


def _title(groups: Sequence[_Told]) -> str:
    return groups[0]["name"] if len(groups) == 1 else f"{len(groups)} groups"


def _file_names(names: Sequence[str]) -> list[str]:
    """Each group's name as a file's, numbered where two would be the same."""
    found: list[str] = []
    for name in names:
        stem = re.sub(r"[^0-9A-Za-z.-]+", "_", name).strip("_") or "group"
        numbered = (stem, *(f"{stem}_{n}" for n in range(2, len(names) + 2)))
        taken = {"groups", *(one.lower() for one in found)}
        found.append(next(one for one in numbered if one.lower() not in taken))
    return found


__all__ = ["SUFFIXES", "draw_figures", "page_figures"]
