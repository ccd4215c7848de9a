"""A plan of a sweep, and a plan beside what happened, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def render_plan(plan: Mapping[str, Any]) -> str:
    """The whole, then each point's run; every number with what it rests on."""
    hardware, whole = plan["hardware"], plan["whole"]
    lines = [f"planned for {_hardware(hardware)}; {hardware['runs_at_once']} runs at a time", ""]
    least, most = whole["disk_bytes"]
    basis, how = _counts(plan["subsets"]) if "subsets" in plan else ("counted", "")
    rows = [
        ("runs", f"{whole['runs']:,}", "counted", f"in {whole['jobs']:,} jobs"),
        ("updates", f"{whole['updates']:,}", basis, how),
        ("tokens trained", f"{whole['tokens']:,}", basis, how),
        ("evaluations", f"{whole['evaluations']:,}", basis, how),
        ("questions answered", f"{whole['questions']:,}", basis, how),
        ("checkpoints", f"{whole['checkpoints']:,}", basis, how),
        ("time", *_row(whole["seconds"], duration)),
        ("GPU hours", *_row(whole["gpu_hours"], "{:,.1f}".format)),
        ("disk", f"{size(least)} to {size(most)}", "counted", "weights, and room for records"),
        ("disk, reserved", size(whole["disk_reserved"]), "counted", "with what passes again"),
    ]
    lines += ["the whole", *_table(rows)]
    for point in plan["points"]:
        lines += ["", *_point(point)]
    if "subsets" in plan:
        lines += ["", *_subsets(plan["subsets"])]
    return "\n".join(lines)


def _point(point: Mapping[str, Any]) -> list[str]:
    run, asked = point["run"], point["asked"]
    where = f" at {point['label']}" if point["label"] else ""
    data = (
        f"{run['documents']:,} documents → {run['tokens']:,} tokens → {run['windows']:,} windows → "
        f"{run['steps_per_epoch']:,} steps an epoch"
    )
    burn_in = f" after {run['burn_in_steps']:,} of burn-in" if run["burn_in_steps"] else ""
    rows = [
        ("data", data, "counted", ""),
        ("steps", f"{run['total_steps']:,}{burn_in}", "counted", ""),
        ("evaluations", f"{len(run['evaluations'])}", "counted", _names(run["evaluations"])),
        ("checkpoints", f"{len(run['checkpoints'])}", "counted", _names(run["checkpoints"])),
        ("asked each time", _asked(asked), "counted", f"{asked['scored_tokens']:,} tokens"),
        ("an update", *_row(point["update_seconds"], duration)),
        ("an evaluation", *_row(point["evaluation_seconds"], duration)),
        ("loading, saving", *_row(point["beside_seconds"], duration)),
        ("the run", *_row(point["run_seconds"], duration)),
        ("peak memory", *_row(point["memory_bytes"], lambda n: f"{n / 2**30:,.1f} GiB")),
        ("a checkpoint", size(point["checkpoint_bytes"]), "counted", ""),
    ]
    return [f"each of {point['n_runs']:,} runs{where}", *_table(rows)]


def _counts(part: Mapping[str, Any]) -> tuple[str, str]:
    """What counts over subsets rest on."""
    n_subsets = sum(split["subsets"] for split in part["splits"].values())
    if part["subsets_counted"] == n_subsets:
        return "counted", ""
    return "projected", f"by {part['subsets_counted']:,} of {n_subsets:,} subsets"


def _subsets(part: Mapping[str, Any]) -> list[str]:
    """Runs on subsets, which differ in their windows and steps."""
    asked, evaluations = part["asked"], part["run"]["evaluations"]
    lines = [
        (
            split,
            f"{one['subsets']:,} subsets of {_between(one['documents'])} documents × "
            f"{one['runs_per_subset']:,} runs",
            "counted",
            one["design"],
        )
        for split, one in part["splits"].items()
    ]
    windows, updates = part["windows"], part["updates"]
    basis, of_some = _counts(part)
    of_a_run = f"of a run, {of_some}" if of_some else "of a run"
    rows = [
        *lines,
        ("jobs", f"{part['n_jobs']:,}", "counted", f"of at most {part['runs_per_job']:,} runs"),
        ("windows", _spread(windows), basis, of_a_run),
        ("updates", _spread(updates), basis, of_a_run),
        ("evaluations", f"{len(evaluations)}", "counted", _names(evaluations)),
        ("asked each time", _asked(asked), "counted", f"{asked['scored_tokens']:,} tokens"),
        ("an update", *_row(part["update_seconds"], duration)),
        ("an evaluation", *_row(part["evaluation_seconds"], duration)),
        ("writing", *_row(part["beside_seconds"], duration)),
        ("the run", *_row(part["run_seconds"], duration)),
        ("a job's start", *_row(part["start_seconds"], duration)),
        ("peak memory", *_row(part["memory_bytes"], lambda n: f"{n / 2**30:,.1f} GiB")),
        ("the subsets' files", size(part["subset_file_bytes"]), "counted", ""),
    ]
    return [f"each of {part['n_runs']:,} runs on subsets", *_table(rows)]


def _between(sizes: Sequence[int]) -> str:
    return " to ".join(f"{n:,}" for n in dict.fromkeys(sizes))


def _spread(values: Mapping[str, float]) -> str:
    ends = _between([int(values["fewest"]), int(values["most"])])
    return ends if " to " not in ends else f"{ends}, {values['mean']:,.1f} on average"


def _asked(asked: Mapping[str, Any]) -> str:
    return f"{asked['sets']:,} sets, {asked['questions']:,} questions, {asked['pairs']:,} pairs"


def render_comparison(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Planned against actual: `rows` have what, planned, actual and unit."""
    told = [("", "planned", "actual", "actual / planned")]
    for row in rows:
        planned, actual = row["planned"], row["actual"]
        show = SHOWN.get(row["unit"], "{:,.0f}".format)
        ratio = "" if not planned or actual is None else f"{actual / planned:.2f}"
        told.append(
            (
                row["what"],
                "unknown" if planned is None else show(planned),
                "unknown" if actual is None else show(actual),
                ratio,
            )
        )
    return "\n".join([title, *_table(told)])


def _names(names: Sequence[str]) -> str:
    shown = names if len(names) <= 7 else [*names[:6], "…", names[-1]]
    return " ".join(shown)


def _row(figure: Mapping[str, Any], show: Any) -> tuple[str, str, str]:
    value = figure["value"]
    return ("unknown" if value is None else show(value)), figure["basis"], figure["how"]


def _hardware(hardware: Mapping[str, Any]) -> str:
    unit = "GPU" if hardware["kind"] == "cuda" else "core"
    memory, peak = hardware["memory_bytes"], hardware["flops"]
    parts = [hardware["name"]]
    parts += [f"{memory / 2**30:.1f} GiB each"] if memory else []
    parts += [f"{peak / 1e12:g} TFLOP/s each"] if peak else []
    plural = "s" * (hardware["units"] != 1)
    return f"{hardware['units']} {unit}{plural} ({', '.join(parts)}; {hardware['how']})"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  "
        + "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), *row[3:]]).rstrip()
        for row in rows
    ]


def duration(seconds: float) -> str:
    """0.25 s, 12 min 30 s, 5 h 20 min."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def size(n_bytes: float) -> str:
    """1.5 GB, 320 MB, 2.1 TB: decimal units, as disks are sold."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:,.1f} {unit}"
    return f"{n_bytes / 1e6:,.0f} MB"


SHOWN: dict[str, Any] = {
    "seconds": duration,
    "bytes": size,
    "memory": lambda n: f"{n / 2**30:,.2f} GiB",
}
