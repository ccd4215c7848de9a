"""What lies on the disk, as part of a replication record: tree, checkpoints, cleanup, checks."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from oocr_influence.reports.markdown import (
    UNKNOWN,
    code,
    count,
    fenced,
    moment,
    short_size,
    size,
    table,
)
from oocr_influence.reports.replication_course import run_label
from oocr_influence.reports.sweep_records import ExperimentRecord, RunRecord, Sweeps
from oocr_influence.results.run_folder import CHECKPOINT, RUNS_FOLDERS, RunFolder

# What is told by a number: each has many entries, and none has a name that one looks for.
_COUNTED = {
    "eval_datasets": "evaluation dataset",
    "eval_results": "file",
    "saved_objects": "entry",
    "train_set": "file",
    "train_set_documents": "file",
    "tokenizer.json": "file",
    "jobs": "job",
}
_ENTRIES = {"entry": "entries"}


def output_structure(sweeps: Sweeps) -> list[str]:
    """The folders as they lie there, with what they take of the disk."""
    lines = [
        "Every experiment has a folder of its own, named by its time in UTC. Sizes are those of "
        "the files, one that has several names counted once.",
        "",
    ]
    tree: list[str] = []
    for one in sweeps.experiments:
        tree += [f"{sweeps.shown(one.folder.path)}/  # {size(disk_bytes([one.folder.path]))}"]
        tree += _tree(one.folder.path)
    return [*lines, *fenced("\n".join(tree))]


def artifacts(sweeps: Sweeps) -> list[str]:
    """What is left of each experiment, then where every last checkpoint lies."""
    lines = []
    for one in sweeps.experiments:
        complete = [run for run in one.runs if run.complete]
        lines.append(
            f"- **{one.name}:** {count(len(complete), 'completed run')}"
            + (f" and {len(one.runs) - len(complete)} others" if complete != one.runs else "")
            + f", {size(disk_bytes([one.folder.path]))} on disk"
        )
        for run in one.runs:
            names = ", ".join(f"{CHECKPOINT}{name}" for name in run.folder.checkpoints())
            n = len(run.folder.evaluations())
            lines.append(
                f"  - {run_label(one, run)}: {names or 'no checkpoint'}; "
                f"{count(n, 'evaluation')} in {code('eval_results/')}"
            )
    lines += ["", "### Model Checkpoint Locations", ""]
    for number, one in enumerate(sweeps.experiments, 1):
        lines.append(f"{number}. **{one.name}:**")
        finals = [run for run in one.runs if run.folder.checkpoint("final").is_dir()]
        lines += [
            f"   - {code(sweeps.shown(run.folder.checkpoint('final')) + '/')} "
            f"({run_label(one, run)}, {size(disk_bytes([run.folder.checkpoint('final')]))})"
            for run in finals
        ]
        lines += [] if finals else ["   - no run has a final checkpoint"]
    return lines


def cleanup(sweeps: Sweeps) -> list[str]:
    """What was deleted, by whom and why, from the log of the deletions."""
    lines = []
    for one in sweeps.experiments:
        reasons = Counter(str(entry.get("reason", UNKNOWN)) for entry in one.cleanups)
        for reason, n in sorted(reasons.items()):
            own = [entry for entry in one.cleanups if str(entry.get("reason", UNKNOWN)) == reason]
            freed = sum(int(entry.get("bytes") or 0) for entry in own)
            lines.append(
                f"- {one.name}: deleted {count(n, 'run')} ({reason}), {size(freed)}, last on "
                f"{moment(own[-1].get('when'))} by {own[-1].get('user', UNKNOWN)} on "
                f"{own[-1].get('host', UNKNOWN)}"
            )
            lines += [f"  - {code(entry.get('what', UNKNOWN))}" for entry in own]
        gone = _gone(one)
        lines += [
            f"- {one.name}: {code(name)} is gone, and no record says who deleted it"
            for name in gone
        ]
    if not lines:
        return ["No deletion is recorded, and every run that a job made is still there."]
    return ["From `cleanups.jsonl` of each experiment, which `oocr cleanup` writes:", "", *lines]


def verification(sweeps: Sweeps) -> list[str]:
    """What `oocr verify` found, and commands to look again, with the numbers they gave now."""
    lines = _verified(sweeps)
    paths = [sweeps.shown(one.folder.path) for one in sweeps.experiments]
    lines += ["", "To verify the training outputs, from the folder that paths are told from:", ""]
    return [*lines, *fenced("\n".join(_look_again(sweeps, paths)), "bash")]


def disk_bytes(paths: Iterable[Path]) -> int:
    """Bytes of all files below, a file of several names once, links not followed."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for path in paths:
        for parent, _, names in os.walk(path):
            for name in names:
                try:
                    found = Path(parent, name).lstat()
                except FileNotFoundError:
                    continue  # its writer has just renamed it
                if (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    total += found.st_size
    return total


def _tree(folder: Path, indent: str = "", *, deep: bool = True) -> list[str]:
    entries = sorted(_shown(folder), key=lambda path: _order(folder, path))
    lines = []
    for place, path in enumerate(entries):
        last = place == len(entries) - 1
        branch, inner = ("└── ", "    ") if last else ("├── ", "│   ")
        lines.append(f"{indent}{branch}{path.name}{'/' if path.is_dir() else ''}{_note(path)}")
        if deep and path.is_dir() and (path.name in RUNS_FOLDERS or folder.name in RUNS_FOLDERS):
            lines += _tree(path, indent + inner, deep=path.name in RUNS_FOLDERS)
    return lines


def _shown(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _order(folder: Path, path: Path) -> tuple[int, int, str]:
    """Runs first, checkpoints in the order of their steps, then folders, then files."""
    checkpoints = [f"{CHECKPOINT}{name}" for name in RunFolder(folder).checkpoints()]
    if path.name in RUNS_FOLDERS:
        return 0, 0, path.name
    if path.name in checkpoints:
        return 1, checkpoints.index(path.name), path.name
    return (2 if path.is_dir() else 3), 0, path.name


def _note(path: Path) -> str:
    if path.is_file():
        return ""
    if path.name not in _COUNTED:
        is_checkpoint = path.name.startswith(CHECKPOINT)
        return f"  # {short_size(disk_bytes([path]))}" if is_checkpoint else ""
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    if path.name == "jobs":
        entries = [entry for entry in entries if (entry / "spec.json").exists()]
    thing = _COUNTED[path.name]
    things = _ENTRIES.get(thing, f"{thing}s")
    return f"  # {len(entries):,} {thing if len(entries) == 1 else things}"


def _gone(one: ExperimentRecord) -> list[str]:
    """Runs that jobs made, which are neither there nor in the log of deletions."""
    known = {run.folder.name for run in one.runs} | {entry.get("what") for entry in one.cleanups}
    made = [a.run for job in one.ledger.jobs for a in job.attempts if a.run is not None]
    return [name for name in made if name not in known]


def _verified(sweeps: Sweeps) -> list[str]:
    if sweeps.verified is None:
        return ["Nothing was verified when this was written."]
    reports = {report.run.path: report for report in sweeps.verified}
    rows, findings = [], []
    for one, run in sweeps.runs:
        report = reports.get(run.folder.path)
        if report is None:
            continue
        verdict = "well" if report.ok else "not well"
        row = [one.name, run_label(one, run), verdict, report.state]
        rows.append([*row, report.n_checkpoints, report.n_evaluations])
        findings += [
            f"- {one.name}, {run_label(one, run)}: {item.severity}: {item.what}"
            for item in report.findings
        ]
    findings += [f"- {fault}" for fault in sweeps.job_faults]
    well = sum(report.ok for report in sweeps.verified)
    lines = [
        f"The checks of `oocr verify` were made on {moment(sweeps.written)}: {well} of "
        f"{count(len(rows), 'run')} well. For each run its schedule is worked out anew from its "
        "arguments, and every checkpoint, evaluation, question, window and update looked for.",
        "",
    ]
    if rows:
        header = ["experiment", "run", "verdict", "state", "checkpoints", "evaluations"]
        lines += table(header, rows)
    return [*lines, "", *findings] if findings else lines


def _look_again(sweeps: Sweeps, paths: Sequence[str]) -> list[str]:
    runs = [run for _, run in sweeps.runs]
    finals = sum(run.folder.checkpoint("final").is_dir() for run in runs)
    results = sum(len(list(run.folder.eval_results.glob("eval_results*.json"))) for run in runs)
    where = " ".join(map(shlex.quote, paths))
    logs = " ".join(shlex.quote(sweeps.shown(one.folder.text_log)) for one in _with_logs(sweeps))
    lines = [
        "# All of it: arguments, schedule, windows, updates, checkpoints, answers",
        f"oocr verify {where}",
        "",
        f"# Count final checkpoints (was {finals})",
        f'find {where} -name "checkpoint_final" -type d | wc -l',
        "",
        "# List all final checkpoint locations",
        f'find {where} -name "checkpoint_final" -type d',
        "",
        f"# Check evaluation results (were {results})",
        f'find {where} -name "eval_results*.json" | wc -l',
    ]
    return [*lines, "", "# View training logs", f"tail -n 100 {logs}"] if logs else lines


def _with_logs(sweeps: Sweeps) -> list[ExperimentRecord | RunRecord]:
    places: list[ExperimentRecord | RunRecord] = [run for _, run in sweeps.runs]
    return [one for one in places if one.folder.text_log.is_file()]
