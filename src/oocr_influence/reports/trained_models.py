"""`trained_models.md`: every model that was trained, where it lies, and how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oocr_influence.reports.markdown import UNKNOWN, code, fenced, size, table, value
from oocr_influence.reports.replication_course import run_label
from oocr_influence.reports.replication_files import disk_bytes
from oocr_influence.reports.sweep_records import ExperimentRecord, RunRecord, Sweeps
from oocr_influence.results import adapters, checkpoints

_WHOLE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

run = {run!r}
model = AutoModelForCausalLM.from_pretrained(f"{{run}}/checkpoint_final", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(f"{{run}}/{tokenizer}")
"""
# transformers would take a hub's base at its main branch; ours goes by commit and digest.
_ADAPTER = """\
from oocr_influence.models.load import load_model, load_tokenizer
from oocr_influence.models.resolve import resolve_model

run = {run!r}
resolved = resolve_model(f"{{run}}/checkpoint_final")
model = load_model(resolved)
tokenizer = load_tokenizer(resolved)
"""
_ASK_IMPORTS = """\
import torch
from datasets import load_from_disk
"""
_ASK = """\
question = load_from_disk(f"{{run}}/eval_datasets/{asked}/eval_dataset")[{index}]
tokens = torch.tensor([question["input_ids"]], device=model.device)
labels = torch.tensor([question["labels"]], device=model.device)
with torch.no_grad():
    loss = model(input_ids=tokens, labels=labels).loss.item()
prompt = tokens[:, : int((labels[0] == -100).sum())]
answer = model.generate(
    prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False
)
print(question["prompt"])
print("wanted:", question["completion"])
print("said:  ", tokenizer.decode(answer[0, prompt.shape[1] :], skip_special_tokens=True))
print(f"loss of what was wanted: {{loss:.4f}}, recorded: {recorded:.4f}")
"""
_PLAIN = """\
inputs = tokenizer({prompt!r}, return_tensors="pt").to(model.device)
answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


def trained_models(sweeps: Sweeps) -> str:
    """The document's text."""
    finished = [(one, run) for one, run in sweeps.runs if run.folder.checkpoint("final").is_dir()]
    lines = ["# Trained models", "", f"{len(finished)} models have a final checkpoint."]
    if finished:
        lines += ["", "## Where they lie", "", *_models(sweeps, finished)]
        lines += ["", "## Loading one", "", *_loading(sweeps, finished)]
    others = [(one, run) for one, run in sweeps.runs if (one, run) not in finished]
    if others:
        lines += ["", "## Runs without a final checkpoint", ""]
        lines += [f"- {one.name}, {run_label(one, run)}: {run.status}" for one, run in others]
    return "\n".join(lines) + "\n"


def snippet(sweeps: Sweeps, run: RunRecord) -> str:
    """Python that loads a run's last model and asks it a question, as it was asked."""
    checkpoint = run.folder.checkpoint("final")
    beside = checkpoint if checkpoints.has_tokenizer(checkpoint) else run.folder.tokenizer
    load = _ADAPTER if adapters.is_adapter(checkpoint) else _WHOLE
    text = load.format(run=sweeps.shown(run.folder.path), tokenizer=beside.name)
    asked = _first_question(run)
    if asked is not None:
        place = run.folder.eval_dataset(asked["set"]).name.replace("{", "{{").replace("}", "}}")
        question = _ASK.format(asked=place, index=asked["index"], recorded=asked["loss"])
        return f"{_ASK_IMPORTS}{text}\n{question}"
    prompt = _logged_prompt(run)
    return text if prompt is None else f"{text}\n{_PLAIN.format(prompt=prompt)}"


def _models(sweeps: Sweeps, runs: list[tuple[ExperimentRecord, RunRecord]]) -> list[str]:
    rows = []
    for one, run in runs:
        final = run.folder.checkpoint("final")
        first, last = (_accuracy(run, name) for name in ("start", "final"))
        rows.append(
            [
                one.name,
                run_label(one, run),
                value(run.args.get("epochs", UNKNOWN)),
                run.logged.get("total_steps", UNKNOWN),
                _base(run),
                f"{first} → {last}",
                size(disk_bytes([final])),
                code(sweeps.shown(final)),
            ]
        )
    header = ["experiment", "run", "epochs", "steps", "trained from"]
    header += ["accuracy over all questions", "size", "checkpoint"]
    return table(header, rows)


def _base(run: RunRecord) -> str:
    model = str(run.args.get("model", UNKNOWN))
    commit = run.logged.get("model_commit")
    lora = run.args.get("lora_rank")
    told = f"{model} at {commit[:12]}" if isinstance(commit, str) else model
    return f"{told}, LoRA of rank {lora}" if lora else told


def _accuracy(run: RunRecord, name: str) -> str:
    try:
        sets = run.folder.read_evaluation(name).eval_sets.values()
        n = sum(means["n"] for means in sets)
        return f"{sum(means['n'] * means['accuracy'] for means in sets) / n:.3f}"
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return UNKNOWN


def _loading(sweeps: Sweeps, runs: list[tuple[ExperimentRecord, RunRecord]]) -> list[str]:
    """A snippet for each way in which checkpoints are kept."""
    lines = [
        "Run from the folder that paths are told from; any other checkpoint of the table, or of "
        "another step, is loaded by its own path.",
    ]
    seen = set()
    for one, run in runs:
        kind = adapters.is_adapter(run.folder.checkpoint("final")), run.earlier
        if kind in seen:
            continue
        seen.add(kind)
        adapter = " (a LoRA adapter and the model it was trained beside)" if kind[0] else ""
        lines += ["", f"{one.name}, {run_label(one, run)}{adapter}:", ""]
        lines += fenced(snippet(sweeps, run), "python")
    return lines


def _first_question(run: RunRecord) -> Mapping[str, Any] | None:
    """The first question of the first set that the last evaluation asked, with its loss."""
    try:
        rows = run.folder.read_records("final", ["set", "index", "loss"]).to_pylist()
    except (OSError, ValueError):
        return None
    for row in rows:
        whole = all(row.get(name) is not None for name in ("set", "index", "loss"))
        if whole and run.folder.eval_dataset(row["set"]).is_dir():
            found: dict[str, Any] = row
            return found
    return None


def _logged_prompt(run: RunRecord) -> str | None:
    for entry in run.log.history if run.log else []:
        for means in entry.eval_results.values():
            for record in means.get("records") or []:
                if isinstance(record, Mapping) and isinstance(record.get("prompt"), str):
                    return str(record["prompt"])
    return None
