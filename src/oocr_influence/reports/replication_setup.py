"""What was trained on what, as a part of a replication record: overview and datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oocr_influence.reports.markdown import UNKNOWN, code, count, size, value
from oocr_influence.reports.sweep_records import ExperimentRecord, Sweeps
from oocr_influence.results.dataset_counts import DatasetCounts


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
        f"- **Facts:** {counts.n_facts:,} of {counts.n_entities:,} entities; documents by "
        f"relation: {relations or 'none'}",
        f"- **Fact types:** {', '.join(counts.fields) or 'none'}",
    ]


def _numbers(found: Sequence[int]) -> str:
    different = sorted(set(found))
    return " or ".join(f"{n:,}" for n in different) if different else UNKNOWN


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
