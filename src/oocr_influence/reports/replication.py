"""The replication record of any sweep, from its records alone: four files.

    written = replication_files(sweeps, Path("replication"))
    written["replication.md"], written["training_config.json"], …

replication.md tells what was run and how it went, training_config.json every argument,
run_training.sh trains it again, and trained_models.md says how the models are loaded. What no
record says is unknown, in all four.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oocr_influence.reports.markdown import UNKNOWN, code, count, fenced, moment
from oocr_influence.reports.replication_configuration import (
    commands,
    commands_of,
    configuration,
    given,
)
from oocr_influence.reports.replication_course import durations, speed, timeline
from oocr_influence.reports.replication_files import (
    artifacts,
    cleanup,
    output_structure,
    verification,
)
from oocr_influence.reports.replication_gpus import gpu_allocation
from oocr_influence.reports.replication_script import not_default, training_script
from oocr_influence.reports.replication_setup import datasets, overview, task
from oocr_influence.reports.sweep_records import ExperimentRecord, RunRecord, Sweeps
from oocr_influence.reports.trained_models import trained_models
from oocr_influence.results.atomic import plain

RECORD, CONFIG, SCRIPT = "replication.md", "training_config.json", "run_training.sh"
MODELS = "trained_models.md"
# Of the project, for whoever reads on.
RELATED = {
    "Training script": "experiments/data_modeling.py",
    "Training args": "src/oocr_influence/cli/train_extractive.py",
    "Orchestrator": "src/launcher/local_orchestrator.py",
    "Dataset loader": "src/oocr_influence/datasets/document_dataset.py",
    "Run folders": "src/oocr_influence/results/run_folder.py",
}


def replication_files(sweeps: Sweeps, to: Path) -> dict[str, str]:
    """Name and text of every file that belongs into the folder `to`."""
    script = training_script(sweeps, to)
    config = json.dumps(training_config(sweeps), indent=1, ensure_ascii=False, allow_nan=False)
    return {
        RECORD: replication_record(sweeps, to),
        CONFIG: config + "\n",
        SCRIPT: script.text,
        MODELS: trained_models(sweeps),
        **script.files,
    }


def replication_record(sweeps: Sweeps, to: Path) -> str:
    """replication.md, with a heading for each of the seed's."""
    sections = {
        "Overview": overview(sweeps),
        "Datasets Used": datasets(sweeps),
        "Training Configuration": configuration(sweeps),
        "Commands Executed": commands(sweeps),
        "GPU Allocation": gpu_allocation(sweeps),
        "Training Timeline": timeline(sweeps),
        "Output Structure": output_structure(sweeps),
        "Final Model Artifacts": artifacts(sweeps),
        "Cleanup Performed": cleanup(sweeps),
        "Verification": verification(sweeps),
        "Replication Instructions": _instructions(sweeps, to),
        "Notes": _notes(sweeps),
        "Related Files": [f"- {what}: {code(path)}" for what, path in RELATED.items()],
    }
    lines = ["# Training Replication Documentation", ""]
    lines += [f"**Date:** {moment(sweeps.written)}", f"**Task:** {task(sweeps)}", ""]
    lines.append(f"Paths are told from {code(sweeps.root)}; moments are in UTC.")
    for heading, body in sections.items():
        lines += ["", f"## {heading}", "", *body]
    return "\n".join(lines) + "\n"


def training_config(sweeps: Sweeps) -> dict[str, Any]:
    """Every argument, as data; null is what no record says."""
    return {
        "written": sweeps.written,
        "software": sweeps.here.get("libraries"),
        "experiments": [_experiment_config(sweeps, one) for one in sweeps.experiments],
    }


def _experiment_config(sweeps: Sweeps, one: ExperimentRecord) -> dict[str, Any]:
    git, args = one.provenance.get("git"), dict(one.args)
    counts = one.dataset
    defaults = sweeps.run_defaults if one.alone else sweeps.sweep_defaults
    lone = [run for run in one.runs if one.job_of(run) is None]
    config = {
        "name": one.name,
        "folder": sweeps.shown(one.folder.path),
        "started": one.started_at,
        "commands": [given(entry) for entry in commands_of(one)],
        "dataset": {
            "path": args.get("dataset_builder_path") or args.get("structured_dataset"),
            "sha256": one.logged.get("dataset_digest"),
            "bytes": counts.n_bytes if counts else None,
            "documents": counts.n_documents if counts else None,
        },
        "args": args or None,
        "not_default": not_default(args, defaults) if args else None,
        "axes": one.logged.get("axes"),
        "extensions": one.logged.get("extensions"),
        "execution": one.logged.get("execution"),
        "git": git,
        "python": one.provenance.get("python"),
        "libraries": one.provenance.get("libraries"),
        "runs": [
            *(
                _run_config(sweeps, one, job.args, job.state, one.runs_of(job))
                for job in one.ledger.jobs
            ),
            *(_run_config(sweeps, one, run.args, run.status, [run]) for run in lone),
        ],
    }
    found: dict[str, Any] = plain(config)
    return found


def _run_config(
    sweeps: Sweeps,
    one: ExperimentRecord,
    args: Mapping[str, Any],
    state: str,
    runs: Sequence[RunRecord],
) -> dict[str, Any]:
    logged = runs[-1].logged if runs else {}
    settled = ("model_commit", "weights_digest", "final_weights_digest", "device", "dtype")
    return {
        "folders": [sweeps.shown(run.folder.path) for run in runs],
        "state": state,
        "data_order_seed": args.get("data_order_seed"),
        "args": dict(args) or None,
        "not_default": not_default(args, sweeps.run_defaults) if args else None,
        **{name: logged.get(name) for name in (*settled, "attention", "compiled")},
    }


def _instructions(sweeps: Sweeps, to: Path) -> list[str]:
    script = sweeps.shown(to / SCRIPT)
    lines = ["To replicate this training:", "", "1. **Environment setup:**", ""]
    lines += [f"   - {line}" for line in _environment(sweeps)]
    lines += ["", "2. **Verify datasets exist:**", "", *_indented(_dataset_commands(sweeps))]
    lines += [
        "",
        f"3. **Run training commands:** {code(script)} has them, each with every argument that is "
        "not a default, and checks the datasets first.",
        "",
        *_indented(fenced(f"bash {shlex.quote(script)}", "bash")),
        "",
        "   Experiments run one after the other, their runs in parallel where "
        "GPUs are free; `nohup` or `--detach` keeps them alive without a terminal.",
        "",
        "4. **Monitor progress:**",
        "",
        *_indented(fenced("nvidia-smi\noocr status\noocr logs RUN -f", "bash")),
        "",
        "5. **Expected duration:** as the runs measured it,",
        "",
        *_indented(durations(sweeps)),
        *_indented(_speeds(sweeps)),
        "",
        "6. **Compare:** what was trained again with what was trained then,",
        "",
        *_indented(fenced("oocr diff RUN NEW_RUN\noocr rerun RUN", "bash")),
    ]
    return lines


def _environment(sweeps: Sweeps) -> list[str]:
    """Each different environment of the experiments once."""
    lines = []
    for one in sweeps.experiments:
        own = one.provenance
        versions = own.get("libraries") or {}
        told = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
        git = own.get("git") or {}
        commit = code(git["commit"]) if git.get("commit") else UNKNOWN
        lines.append(f"code at commit {commit}{_uncommitted(git)}")
        lines.append(f"Python {own.get('python') or UNKNOWN}; {told or f'libraries {UNKNOWN}'}")
        variables = own.get("environment")
        if variables:
            set_to = ", ".join(f"{name}={text}" for name, text in sorted(variables.items()))
            lines.append(f"environment: {code(set_to)}")
    lines.append("`source .venv/bin/activate`, or use `.venv/bin/python` directly")
    return list(dict.fromkeys(lines))


def _uncommitted(git: Mapping[str, Any]) -> str:
    if not git.get("dirty"):
        return ""
    return (
        f", with uncommitted changes of digest {code(git.get('diff_digest'))}: "
        "`saved_objects/working_tree.diff` of each run has them"
    )


def _dataset_commands(sweeps: Sweeps) -> list[str]:
    lines = []
    for one in sweeps.experiments:
        path = one.args.get("dataset_builder_path") or one.args.get("structured_dataset")
        digest = one.logged.get("dataset_digest")
        if isinstance(path, str) and isinstance(digest, str):
            lines.append(f"echo {shlex.quote(f'{digest}  {path}')} | sha256sum -c")
    if not lines:
        return [f"Path or digest of every dataset is {UNKNOWN}."]
    return fenced("\n".join(dict.fromkeys(lines)), "bash")


def _speeds(sweeps: Sweeps) -> list[str]:
    told = [
        f"{one.name}: {speed_:,.0f} labelled tokens a second of its updates alone"
        for one in sweeps.experiments
        for speed_ in [next(filter(None, map(speed, one.runs)), None)]
        if speed_ is not None
    ]
    return ["", *(f"- {line}" for line in told)] if told else []


def _notes(sweeps: Sweeps) -> list[str]:
    lines = []
    for one in sweeps.experiments:
        seeds = ", ".join(str(seed) for seed in one.values("data_order_seed"))
        lines.append(f"- {one.name}: data order seeds {seeds or UNKNOWN}")
        extended = one.logged.get("extensions") or []
        lines += [
            f"- {one.name}: extended on {moment(entry.get('at'))} by "
            f"{count(len(entry.get('jobs') or []), 'run')}"
            for entry in extended
        ]
        for run in one.runs:
            lines += _notes_of(one, run)
    lines += [
        "- Each run draws the order of its windows from its own seed",
        "- The launcher gives each run its GPUs by `CUDA_VISIBLE_DEVICES`",
        f"- {code(CONFIG)} holds every argument of every run",
    ]
    return lines


def _notes_of(one: ExperimentRecord, run: RunRecord) -> list[str]:
    name = f"{one.name}, seed {run.seed if run.seed is not None else UNKNOWN}"
    lines = []
    if run.earlier:
        lines.append(f"- {name}: a run of the earlier system, which recorded less")
    for entry in run.logged.get("resumed") or []:
        host = (entry.get("provenance") or {}).get("host") or f"machine {UNKNOWN}"
        lines.append(
            f"- {name}: went on after step {entry.get('step', UNKNOWN)} on "
            f"{moment(entry.get('when'))} ({host})"
        )
    lines += [f"- {name}: {notice}" for notice in run.logged.get("kernel_notices") or []]
    own, swept = run.provenance.get("git") or {}, one.provenance.get("git") or {}
    differs = any(own.get(key) != swept.get(key) for key in ("commit", "diff_digest"))
    if own and swept and differs:
        commit = code(str(own.get("commit"))[:12])
        lines.append(f"- {name}: ran other code than its experiment began with: {commit}")
    if run.logged.get("error"):
        lines.append(f"- {name}: {run.status}: {str(run.logged['error']).splitlines()[0]}")
    return lines


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"   {line}" if line else "" for line in lines]
