"""What was asked for, as a part of a replication record: every argument, every command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oocr_influence.reports.markdown import UNKNOWN, code, fenced, moment, table, value
from oocr_influence.reports.sweep_records import ExperimentRecord, Sweeps

MODEL = (
    "model",
    "revision",
    "model_commit",
    "precision",
    "optimizer",
    "epochs",
    "max_steps",
    "learning_rate",
    "batch_size",
    "micro_batch_size",
    "weight_decay",
    "lr_schedule",
    "warmup_proportion",
    "warmup_steps",
    "burn_in_epochs",
)
CHECKPOINTING = (
    "eval_first_step",
    "epochs_per_eval",
    "steps_per_eval",
    "eval_final_step",
    "save_first_checkpoint",
    "epochs_per_save",
    "steps_per_save",
    "save_final_checkpoint",
    "keep_checkpoints",
    "save_optimizer",
    "beam_search",
    "ranks",
    "n_loss_documents",
    "metric_files",
)
# Names and places, told elsewhere.
_NOT_LISTED = {"experiment_name", "output_dir", "structured_dataset", "sweep_id"}


def configuration(sweeps: Sweeps) -> list[str]:
    """Every argument that was recorded, those that are not this version's default marked."""
    experiments = sweeps.experiments
    known = {name for one in experiments for args in one.planned for name in args}
    further = sorted(known - {*MODEL, *CHECKPOINTING, *_NOT_LISTED})
    lines = [
        "**Bold** values are not the default of the version that wrote this document "
        f"({_version(sweeps.here)}); all values are those that the runs wrote down. Where runs of "
        "an experiment differ, all their values are given.",
        "",
        "### Model & Hyperparameters",
        "",
        *_arguments(sweeps, MODEL),
        "",
        "### Evaluation & Checkpointing",
        "",
        *_arguments(sweeps, CHECKPOINTING),
        "",
        "### Execution Settings",
        "",
        *_arguments(sweeps, further),
        *_of_sweeps(sweeps),
        *_became(sweeps),
    ]
    missing = sorted(set(sweeps.run_defaults) - known - _NOT_LISTED)
    if missing and known:
        named = ", ".join(map(code, missing))
        lines += ["", f"Not in the records, hence {UNKNOWN}: {named}."]
    return lines


def commands(sweeps: Sweeps) -> list[str]:
    """The lines as they were given, oldest first, each with when and where."""
    lines: list[str] = []
    for one in sweeps.experiments:
        lines += [f"**{one.name}**", ""]
        entries = commands_of(one)
        if not entries:
            lines += [f"The command is {UNKNOWN}: it was not written down.", ""]
            continue
        for entry in entries:
            folder = entry.get("working_directory")
            where = f" in {code(folder)}" if folder else f", working directory {UNKNOWN}"
            host = f" on {entry['host']}" if entry.get("host") else ""
            lines += [f"{moment(entry.get('at'))}{host}{where}:", ""]
            lines += [*fenced(command_text(given(entry), folder), "bash"), ""]
    return lines[:-1]


def given(entry: Mapping[str, Any]) -> list[str]:
    """The words of a command, the interpreter among them where it was recorded."""
    return list(entry.get("command_line") or entry.get("command") or [])


def commands_of(one: ExperimentRecord) -> list[Mapping[str, Any]]:
    """Every command that began or drove an experiment; earlier versions kept the first alone."""
    kept = one.logged.get("commands")
    if isinstance(kept, list) and kept:
        return kept
    first = one.provenance
    if not first.get("command") and not first.get("command_line"):
        return []
    return [{"at": first.get("collected"), **first}]


def command_text(words: Sequence[str], folder: str | None = None) -> str:
    """A command as one types it, a flag a line; paths below its folder as seen from there."""
    shown = [_relative(word, folder) for word in words]
    lines, current = [], ""
    for word in map(shlex.quote, shown):
        if word.startswith("--") and current:
            lines.append(current)
            current = word
        else:
            current = f"{current} {word}".strip()
    return " \\\n  ".join([*lines, current])


def _relative(word: str, folder: str | None) -> str:
    path = Path(word)
    if folder and path.is_absolute() and path.is_relative_to(folder):
        return str(path.relative_to(folder))
    return word


def _arguments(sweeps: Sweeps, names: Sequence[str]) -> list[str]:
    rows = []
    for name in names:
        cells = [_values_cell(one, name, sweeps.run_defaults) for one in sweeps.experiments]
        if all(cell == UNKNOWN for cell in cells):
            continue
        rows.append([code(name), _together(sweeps.experiments, cells), _default(name, sweeps)])
    if not rows:
        return [f"{UNKNOWN.capitalize()}: no argument of this kind was written down."]
    return table(["argument", "value", "default"], rows)


def _default(name: str, sweeps: Sweeps) -> str:
    return value(sweeps.run_defaults[name]) if name in sweeps.run_defaults else "–"


def _values_cell(one: ExperimentRecord, name: str, defaults: Mapping[str, Any]) -> str:
    return _marked(one.values(name), name, defaults)


def _marked(values: Sequence[Any], name: str, defaults: Mapping[str, Any]) -> str:
    if not values:
        return UNKNOWN
    told = ", ".join(value(one) for one in values)
    plain = name not in defaults or all(_same(one, defaults[name]) for one in values)
    return told if plain else f"**{told}**"


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or value(one) == value(other)


def _together(experiments: Sequence[ExperimentRecord], cells: Sequence[str]) -> str:
    if len(set(cells)) == 1:
        return cells[0]
    return "; ".join(f"{one.name}: {cell}" for one, cell in zip(experiments, cells, strict=True))


def _of_sweeps(sweeps: Sweeps) -> list[str]:
    """Arguments of sweeps that no run has."""
    own = {name for one in sweeps.experiments if not one.alone for name in one.args}
    names = [
        name
        for name in sweeps.sweep_defaults
        if name in own and name not in sweeps.run_defaults and name != "dataset_builder_path"
    ]
    rows = []
    for name in names:
        cells = [
            _marked([one.args[name]] if name in one.args else [], name, sweeps.sweep_defaults)
            for one in sweeps.experiments
        ]
        default = value(sweeps.sweep_defaults[name])
        rows.append([code(name), _together(sweeps.experiments, cells), default])
    if not rows:
        return []
    return ["", "Of the sweeps:", "", *table(["argument", "value", "default"], rows)]


def _became(sweeps: Sweeps) -> list[str]:
    """What runs settled by themselves."""
    rows = []
    for one in sweeps.experiments:
        for name, words in (
            ("device", "device"),
            ("dtype", "type of the weights"),
            ("attention", "attention"),
            ("compiled", "layers compiled"),
            ("weights_digest", "sha256 of the untouched weights"),
            ("model_commit", "commit of the model"),
        ):
            found = list(dict.fromkeys(str(r.logged[name]) for r in one.runs if name in r.logged))
            rows.append([one.name, words, ", ".join(found) or UNKNOWN])
    header = ["experiment", "what", "it became"]
    return ["", "What the runs settled by themselves:", "", *table(header, rows)]


def _version(here: Mapping[str, Any]) -> str:
    number = (here.get("libraries") or {}).get("oocr-influence") or UNKNOWN
    commit = (here.get("git") or {}).get("commit")
    return f"oocr-influence {number}" + (f", commit {code(commit[:12])}" if commit else "")
