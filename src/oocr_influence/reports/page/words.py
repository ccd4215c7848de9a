"""What was run, in plain words, and how to run it again. What no record says is said to be unknown.

what_was_run(group, moments)    # ["3 runs of olmo2-tiny, on …", …]
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from oocr_influence.reports.page.groups import Group
from oocr_influence.reports.page.moments import Moment
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.finding import dataset_file

UNKNOWN = "unknown"


def what_was_run(
    group: Group, moments: Sequence[Moment], sets: Sequence[Mapping[str, Any]]
) -> list[str]:
    """A few sentences: model and data, training, what sets the runs apart, what was asked."""
    args = group.args
    return [
        _training_sentence(group, args),
        _updates_sentence(group, args),
        *_difference_sentence(group),
        _asking_sentence(moments, sets, len(group.runs)),
    ]


def status_words(group: Group) -> str:
    """`2 completed, 1 running`."""
    counts = Counter(str(run.row["status"]) for run in group.runs)
    return ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))


def replay(group: Group) -> dict[str, Any]:
    """What running it again takes: commands, commit, digests, machine; None where unknown."""
    logs = [run.log_dict for run in group.runs]
    stated: dict[str, Any] = {}
    with suppress(OSError, ValueError):  # a run of its own has no experiment's log
        log = read_experiment_log(group.runs[0].folder.experiment.experiment_log)
        stated = _provenance(log.log_dict)
    stated = stated or next((found for one in logs if (found := _provenance(one))), {})
    git = stated.get("git") if isinstance(stated.get("git"), dict) else {}
    assert isinstance(git, dict)
    dataset = dataset_file(group.runs[0].folder)
    return {
        "command": _command(stated),
        "commit": git.get("commit") or group.logged("commit_hash"),
        "dirty": git.get("dirty"),
        "diffs": [
            str(run.folder.working_tree_diff)
            for run in group.runs
            if run.folder.working_tree_diff.is_file()
            and run.folder.working_tree_diff.stat().st_size
        ],
        "dataset": None if dataset is None else str(dataset),
        "dataset_digest": group.logged("dataset_digest"),
        "model_commit": group.logged("model_commit"),
        "weights_digest": group.logged("weights_digest"),
        "train_set_digest": group.logged("train_set_digest"),
        "python": stated.get("python"),
        "libraries": stated.get("libraries"),
        "host": stated.get("host"),
        "platform": stated.get("platform"),
        "gpus": [gpu.get("name") for gpu in stated.get("gpus") or [] if isinstance(gpu, dict)],
        "environment": stated.get("environment"),
    }


def _provenance(log_dict: Mapping[str, Any]) -> dict[str, Any]:
    found = log_dict.get("provenance")
    return found if isinstance(found, dict) else {}


def _command(provenance: Mapping[str, Any]) -> str | None:
    """The command as it is typed; None where it was a program's own."""
    words = provenance.get("command")
    if not isinstance(words, list) or not words:
        return None
    first, *rest = map(str, words)
    place = Path(first)
    if place.name == "jobs.py":
        return None
    if place.name in ("main.py", "oocr"):
        return shlex.join(["oocr", *rest])
    inside = place.parts[place.parts.index("oocr_influence") :] if "cli" in place.parts else ()
    if inside and inside[0] == "oocr_influence":
        return shlex.join(["oocr", place.stem, *rest])
    if place.parent.name in ("experiments", "examples"):
        return shlex.join(["python", f"{place.parent.name}/{place.name}", *rest])
    return shlex.join(["python", first, *rest])


def _training_sentence(group: Group, args: Mapping[str, Any]) -> str:
    model = str(args.get("model") or f"a model whose name is {UNKNOWN}")
    revision = args.get("revision")
    named = f"{model} at revision {revision}" if revision else model
    n = len(group.runs)
    runs = "One run" if n == 1 else f"{n} runs"
    documents, tokens = _range(group, "n_documents"), _range(group, "n_tokens")
    read = "documents whose number is unknown" if documents is None else f"{documents} documents"
    size = "" if tokens is None else f" ({tokens} tokens an epoch)"
    epochs = args.get("epochs")
    times = f"for {_plural(epochs, 'epoch')}" if epochs is not None else "for an unknown time"
    adapter = f", by an adapter of rank {args['lora_rank']}" if args.get("lora_rank") else ""
    return f"{runs} of {named}, fine-tuned on {read}{size} {times}{adapter}."


def _updates_sentence(group: Group, args: Mapping[str, Any]) -> str:
    steps = _range(group, "total_steps")
    updates = f"an {UNKNOWN} number of updates" if steps is None else f"{steps} updates"
    batch = args.get("batch_size")
    windows = f" of {batch} windows" if batch is not None else ""
    chunk = args.get("chunk_size")
    windows += f" of {chunk} tokens" if chunk is not None and windows else ""
    rate, schedule = args.get("learning_rate"), args.get("lr_schedule")
    rates = f"peak learning rate {rate:g}" if isinstance(rate, int | float) else ""
    schedules = f"schedule {str(schedule).replace('_', ' ')}" if schedule else ""
    packing = f"{args['packing']} packing" if args.get("packing") else ""
    told = ", ".join(part for part in (rates, schedules, packing) if part)
    return f"{updates[0].upper()}{updates[1:]}{windows}{': ' + told if told else ''}."


def _range(group: Group, key: str) -> str | None:
    """What runs logged of a number: one for all; from the least to the most, on subsets."""
    known = [run.log_dict.get(key) for run in group.runs]
    numbers = [value for value in known if isinstance(value, int)]
    if not numbers or (group.subsets is None and group.logged(key) is None):
        return None
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _subset_sentences(group: Group) -> list[str]:
    assert group.subsets is not None
    seeds = [run.row["data_order_seed"] for run in group.runs]
    known = ", ".join(_values([seed for seed in seeds if seed is not None])) or UNKNOWN
    beside = [key.replace("_", " ") for key in group.differing if key != "data_order_seed"]
    others = f" They differ in {', '.join(beside)} too." if beside else ""
    same = "" if group.subsets.runs_each[1] > 1 else " No subset has a second run."
    seed = "seeds" if "," in known else "seed"
    return [f"{group.subsets.sentence()} Data order {seed} {known}.{same}{others}"]


def _difference_sentence(group: Group) -> list[str]:
    if group.subsets is not None:
        return _subset_sentences(group)
    if len(group.runs) == 1:
        seed = group.runs[0].row["data_order_seed"]
        told = UNKNOWN if seed is None else str(seed)
        return [f"There is one run (data order seed {told}): nothing here tells of other seeds."]
    if not group.differing:
        return ["No argument differs between the runs."]
    parts = [
        f"{key.replace('_', ' ')} ({', '.join(_values(values))})"
        for key, values in group.differing.items()
    ]
    return [f"The runs differ in {', '.join(parts)}, and in nothing else that was recorded."]


def _asking_sentence(
    moments: Sequence[Moment], sets: Sequence[Mapping[str, Any]], n_runs: int
) -> str:
    if not moments:
        return "No evaluation has been recorded."
    asked = sum(one["n"] or 0 for one in sets)
    questions = (
        f"{asked:,} question{'s' * (asked != 1)}"
        if asked
        else f"questions, their number {UNKNOWN},"
    )
    first, last = moments[0].epoch, moments[-1].epoch
    span = f"at epoch {first:.3g}" if first == last else f"from epoch {first:.3g} to {last:.3g}"
    times = "once" if len(moments) == 1 else f"{len(moments)} times"
    behind = ""
    if moments[-1].n_runs < n_runs:
        behind = f" {moments[-1].n_runs} of {n_runs} runs have come to the last of these so far."
    whom = "It was" if n_runs == 1 else "Each was"
    sets_told = _plural(len(sets), "set")
    return f"{whom} asked {questions} in {sets_told} {times}, {span}.{behind}"


def _values(values: Sequence[Any]) -> list[str]:
    """Each value once, numbers in their order."""
    numbers = all(isinstance(value, int | float) for value in values)
    return list(dict.fromkeys(map(_value, sorted(values) if numbers else values)))


def _value(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _plural(n: Any, thing: str) -> str:
    told = f"{n:g}" if isinstance(n, int | float) else str(n)
    return f"{told} {thing}{'' if told == '1' else 's'}"


__all__ = ["UNKNOWN", "replay", "status_words", "what_was_run"]
