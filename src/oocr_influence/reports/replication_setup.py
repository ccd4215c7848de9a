"""What was trained on what, as the first half of a replication record: overview, datasets,
configuration, commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oocr_influence.reports.markdown import UNKNOWN, code, count, fenced, moment, size, table, value
from oocr_influence.reports.sweep_records import ExperimentRecord, Sweeps
from oocr_influence.results.dataset_counts import DatasetCounts

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


def overview(sweeps: Sweeps) -> list[str]:
    """What this is about, in words."""
    experiments = sweeps.experiments
    n_planned = sum(one.n_planned for one in experiments)
    n_done = sum(one.n_done for one in experiments)
    lines = [
        f"This document describes the training of {count(n_planned, 'model')} in "
        f"{count(len(experiments), 'experiment')}, of which {n_done} came to their end. It was "
        "written by `oocr document` from the records that the runs left; what they do not say is "
        f"given as {UNKNOWN}.",
        "",
    ]
    for number, one in enumerate(experiments, 1):
        epochs = _several(one.values("epochs"), "epoch")
        done = f"{one.n_done} of {count(one.n_planned, 'run')} completed"
        lines.append(f"{number}. {code(one.name)}: {_dataset_name(one)}, {epochs}, {done}")
    models = list(dict.fromkeys(m for one in experiments for m in one.values("model")))
    named = ", ".join(code(model) for model in models) or UNKNOWN
    return [*lines, "", f"The models began as {named}. {_how(experiments)}"]


def task(sweeps: Sweeps) -> str:
    """The document's second line."""
    n = sum(one.n_planned for one in sweeps.experiments)
    files = {_dataset_name(one) for one in sweeps.experiments}
    epochs = [epoch for one in sweeps.experiments for epoch in one.values("epochs")]
    told = _several(list(dict.fromkeys(epochs)), "epoch")
    return f"fine-tune {count(n, 'model')} on {count(len(files), 'dataset')}, {told}"


def datasets(sweeps: Sweeps) -> list[str]:
    """Each file once, counted."""
    lines: list[str] = []
    seen: dict[str, int] = {}
    for one in sweeps.experiments:
        digest = one.dataset.digest if one.dataset else str(one.folder.path)
        if digest in seen:
            continue
        seen[digest] = len(seen) + 1
        using = [
            other.name
            for other in sweeps.experiments
            if (other.dataset.digest if other.dataset else str(other.folder.path)) == digest
        ]
        lines += [f"### {seen[digest]}. {_dataset_name(one)}", "", *_dataset(sweeps, one)]
        lines += [f"- **Used by:** {', '.join(map(code, using))}", ""]
    return lines[:-1]


def configuration(sweeps: Sweeps) -> list[str]:
    """Every argument that was recorded, those that are not this version's default marked."""
    experiments = sweeps.experiments
    known = {name for one in experiments for args in one.planned for name in args}
    further = sorted(known - {*MODEL, *CHECKPOINTING, *_NOT_LISTED})
    lines = [
        "**Bold** values are not the default of the version that wrote this document "
        f"({_version(sweeps.here)}); all values are those that the runs wrote down. Where runs of an "
        "experiment differ, all their values are given.",
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
        given = commands_of(one)
        if not given:
            lines += [f"The command is {UNKNOWN}: it was not written down.", ""]
            continue
        for entry in given:
            folder = entry.get("working_directory")
            where = f" in {code(folder)}" if folder else f", working directory {UNKNOWN}"
            host = f" on {entry['host']}" if entry.get("host") else ""
            lines += [f"{moment(entry.get('at'))}{host}{where}:", ""]
            line = entry.get("command_line") or entry.get("command") or []
            lines += [*fenced(command_text(line, folder), "bash"), ""]
    return lines[:-1]


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


def _dataset_name(one: ExperimentRecord) -> str:
    stated = one.args.get("dataset_builder_path") or one.args.get("structured_dataset")
    name = Path(stated).stem if isinstance(stated, str) else None
    if name in (None, "structured_dataset_all") and one.dataset and one.dataset.world.get("id"):
        return str(one.dataset.world["id"])
    return name or UNKNOWN


def _dataset(sweeps: Sweeps, one: ExperimentRecord) -> list[str]:
    stated = one.args.get("dataset_builder_path") or one.args.get("structured_dataset")
    recorded = one.logged.get("dataset_digest")
    lines = [f"- **Path:** {code(stated) if stated else UNKNOWN}"]
    counts = one.dataset
    if counts is None:
        lines += [f"- **sha256:** {code(recorded) if recorded else UNKNOWN}"]
        return [*lines, f"- **Contents:** {UNKNOWN}: {one.dataset_fault}"]
    lines.append(f"- **Counted in:** {code(sweeps.shown(counts.path))}")
    changed = "" if recorded in (None, counts.digest) else f" (recorded was {code(recorded)})"
    lines.append(f"- **sha256:** {code(counts.digest)}{changed}")
    return [*lines, *_counted(one, counts)]


def _counted(one: ExperimentRecord, counts: DatasetCounts) -> list[str]:
    repeated = counts.n_repeated_ids
    twice = f"; {count(repeated, 'document')} with the id of an earlier one" if repeated else ""
    relations = ", ".join(f"{code(name)} {n:,}" for name, n in counts.relations.items())
    trained = [run.logged["n_documents"] for run in one.runs if "n_documents" in run.logged]
    tokens = [run.logged["n_tokens"] for run in one.runs if "n_tokens" in run.logged]
    windows = [run.logged["n_windows"] for run in one.runs if "n_windows" in run.logged]
    return [
        f"- **Size:** {size(counts.n_bytes)}; without its pretraining documents "
        f"{size(counts.bytes_without_pretraining)}",
        f"- **Documents in the file:** {counts.n_documents:,}: {counts.n_synthetic:,} synthetic "
        f"({size(counts.synthetic_text_bytes)} of text) and {counts.n_pretraining:,} pretraining "
        f"({size(counts.pretraining_text_bytes)} of text){twice}",
        f"- **Training documents:** {_numbers(trained)} of them in each run, "
        f"{_numbers(tokens)} tokens, {_numbers(windows)} windows",
        f"- **Evaluation datasets:** {counts.n_sets:,} different eval datasets, "
        f"{counts.n_questions:,} questions",
        f"- **Focus:** {counts.world.get('description') or UNKNOWN}",
        f"- **Facts:** {counts.n_facts:,} of {counts.n_entities:,} entities; documents by relation: "
        f"{relations or 'none'}",
        f"- **Fact types:** {', '.join(counts.fields) or 'none'}",
    ]


def _numbers(found: Sequence[int]) -> str:
    different = sorted(set(found))
    return " or ".join(f"{n:,}" for n in different) if different else UNKNOWN


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
    return ["", "What the runs settled by themselves:", ""] + table(
        ["experiment", "what", "it became"], rows
    )


def _several(values: Sequence[Any], thing: str) -> str:
    if not values:
        return f"{thing}s {UNKNOWN}"
    told = " or ".join(value(one) for one in values)
    return f"{told} {thing}{'' if told == '1' else 's'}"


def _how(experiments: Sequence[ExperimentRecord]) -> str:
    engines = {
        str(one.ledger.driver.get("engine", UNKNOWN)) for one in experiments if one.ledger.driver
    }
    if not engines:
        return f"How they were run is {UNKNOWN}, or each by itself."
    return f"They were run by the launcher's engine {', '.join(sorted(map(code, engines)))}."


def _version(here: Mapping[str, Any]) -> str:
    number = (here.get("libraries") or {}).get("oocr-influence") or UNKNOWN
    commit = (here.get("git") or {}).get("commit")
    return f"oocr-influence {number}" + (f", commit {code(commit[:12])}" if commit else "")
