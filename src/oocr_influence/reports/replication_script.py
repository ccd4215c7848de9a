"""`run_training.sh`: the commands that train again what was trained, datasets checked first.

A flag is stated where the recorded value is not this version's default, and where the person stated
it: so the line means the same in the version that ran it and in the one that wrote the script.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oocr_influence.reports.markdown import count, value
from oocr_influence.reports.replication_configuration import commands_of, given
from oocr_influence.reports.sweep_records import ExperimentRecord, Sweeps
from oocr_influence.results.naming import escaped

# Told by variables of the script, by a file of its own, or by a sweep to its runs.
_ELSEWHERE = {
    "dataset_builder_path",
    "structured_dataset",
    "output_dir",
    "experiment_name",
    "sweep_id",
    "model_commit",
    "grid",
}
_HUB_COMMIT = re.compile(r"[0-9a-f]{40}")
_ONE_WORD = re.compile(r"[\w./:=,@%+-]+")

_HEAD = """\
#!/usr/bin/env bash
# Trains again what replication.md tells of ({what}). From the project's root:
#
#     bash {me}
#
# OUTPUT_DIR   where the new experiments are written (default: outputs)
# PYTHON       the interpreter (default: .venv/bin/python, or else python3)
# EXECUTION    how the runs are run, instead of the way recorded, such as "--execution_mode local"
# DATASET_1 …  where a dataset lies now; one of another digest is refused
set -euo pipefail

here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
output_dir=${{OUTPUT_DIR:-outputs}}
python=${{PYTHON:-}}
if [ -z "$python" ]; then
  python=python3
  if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
fi
if [ ! -f experiments/data_modeling.py ]; then
  echo "error: experiments/data_modeling.py is not here: run this from the project's root" >&2
  exit 2
fi

digest() {{
  if command -v sha256sum > /dev/null; then sha256sum < "$1"; else shasum -a 256 < "$1"; fi
}}

# The first of some files that has a digest.
dataset() {{
  local wanted=$1 file found
  shift
  for file in "$@"; do
    if [ -f "$file" ]; then
      found=$(digest "$file")
      if [ "${{found%% *}}" = "$wanted" ]; then
        printf '%s\\n' "$file"
        return
      fi
    fi
  done
  echo "error: no file with sha256 $wanted among: $*" >&2
  return 2
}}
"""


@dataclass
class Script:
    """The script and the files beside it that it reads."""

    text: str
    files: dict[str, str] = field(default_factory=dict)


def training_script(sweeps: Sweeps, to: Path) -> Script:
    """Write it for the folder `to`."""
    script = Script("")
    n_runs = sum(one.n_planned for one in sweeps.experiments)
    what = f"{count(len(sweeps.experiments), 'experiment')}, {count(n_runs, 'run')}"
    me = shlex.quote(sweeps.shown(to / "run_training.sh"))
    lines = [_HEAD.format(what=what, me=me), *_code_check(sweeps)]
    known = [one for one in sweeps.experiments if _can_be_run(one)]
    digests = list(dict.fromkeys(_digest(one) for one in known))
    for number, digest in enumerate(digests, 1):
        own = [one for one in known if _digest(one) == digest]
        lines += _dataset_lines(sweeps, to, number, str(digest), own)
    lines += ["", "status=0"]
    for one in sweeps.experiments:
        lines += ["", f"# {one.name}: {count(one.n_planned, 'run')}".replace("\n", " ")]
        if one in known:
            number = 1 + digests.index(_digest(one))
            lines += _commands(sweeps, one, f'"$dataset_{number}"', script)
        else:
            told = f"{one.name} cannot be run again: its arguments or its dataset's digest are not"
            lines += [f"echo {shlex.quote(f'error: {told} recorded')} >&2", "status=1"]
    lines += ["", "exit $status"]
    script.text = "\n".join(lines) + "\n"
    return script


def not_default(
    args: Mapping[str, Any], defaults: Mapping[str, Any], stated: Sequence[str] = ()
) -> dict[str, Any]:
    """The arguments that are not the default, or were stated, in the order of the defaults."""
    return {
        name: args[name]
        for name in [*defaults, *sorted(args.keys() - defaults.keys())]
        if name in args and (name in stated or args[name] != defaults.get(name))
    }


def stated_names(words: Sequence[str]) -> list[str]:
    """The flags of a command line, by the names of their arguments."""
    names = [word[2:].partition("=")[0].replace("-", "_") for word in words if word[:2] == "--"]
    return [name.removeprefix("no_") for name in names] + names


def flags(values: Mapping[str, Any]) -> list[str]:
    """Arguments as words of a command line, each flag with its value, quoted for a shell."""
    found = []
    for name, one in values.items():
        if isinstance(one, bool):
            found.append(f"--{name}" if one else f"--no_{name}")
        else:
            found.append(f"--{name} {shlex.quote(value(one))}")
    return found


def _can_be_run(one: ExperimentRecord) -> bool:
    return bool(one.args) and not one.earlier and _digest(one) is not None


def _digest(one: ExperimentRecord) -> str | None:
    recorded = one.logged.get("dataset_digest")
    return recorded if isinstance(recorded, str) else None


def _code_check(sweeps: Sweeps) -> list[str]:
    states = [one.provenance.get("git") or {} for one in sweeps.experiments]
    commits = list(dict.fromkeys(str(git["commit"]) for git in states if git.get("commit")))
    if len(commits) != 1:
        return []
    lines = [
        f"trained_by={shlex.quote(commits[0])}",
        'if now=$(git rev-parse HEAD 2> /dev/null) && [ "$now" != "$trained_by" ]; then',
        '  echo "warning: the code is at commit $now, and was at $trained_by" >&2',
        "fi",
    ]
    if any(git.get("dirty") for git in states):
        told = "warning: the code had uncommitted changes, kept in saved_objects/working_tree.diff"
        lines.append(f"echo {shlex.quote(told + ' of each run')} >&2")
    return lines


def _dataset_lines(
    sweeps: Sweeps, to: Path, number: int, digest: str, own: Sequence[ExperimentRecord]
) -> list[str]:
    places: list[str] = []
    for one in own:
        stated = one.args.get("dataset_builder_path") or one.args.get("structured_dataset")
        copy = one.folder.structured_dataset
        places += [shlex.quote(stated)] if isinstance(stated, str) else []
        places += [shlex.quote(sweeps.shown(copy))]
        places += [f'"$here"/{shlex.quote(os.path.relpath(copy.resolve(), to.resolve()))}']
    joined = " \\\n  ".join(dict.fromkeys(places))
    return [
        "",
        f'dataset_{number}=$(dataset {digest} "${{DATASET_{number}:-}}" \\\n  {joined})',
    ]


def _commands(sweeps: Sweeps, one: ExperimentRecord, dataset: str, script: Script) -> list[str]:
    stated = [name for entry in commands_of(one)[:1] for name in stated_names(given(entry))]
    defaults = sweeps.run_defaults if one.alone else sweeps.sweep_defaults
    values = not_default(one.args, defaults, stated)
    unknown = sorted(name for name in values if name not in defaults)
    lines = [f"# Not a flag of the version that wrote this: {name}" for name in unknown]
    values = {
        name: kept for name, kept in values.items() if name not in {*_ELSEWHERE, *unknown}
    } | _pinned(one)
    head = "-m oocr_influence.cli.main train_extractive --structured_dataset"
    if not one.alone:
        head = "experiments/data_modeling.py --dataset_builder_path"
    words = [
        f'"$python" {head} {dataset}',
        f"--experiment_name {shlex.quote(one.name)}",
        '--output_dir "$output_dir"',
        *flags(values),
    ]
    if one.args.get("grid"):
        words.append(_grid_file(one, one.args["grid"], "", script))
    if not one.alone:
        words.append(_execution(one))
    run = " \\\n  ".join(words)
    extensions = one.logged.get("extensions") or []
    if not extensions:
        return [*lines, f"{run} || status=$?"]
    lines += [f"said=$({run} | tee /dev/stderr) || status=$?"]
    lines.append("experiment=$(sed -n 's/^experiment: //p' <<< \"$said\")")
    for number, entry in enumerate(extensions, 1):
        lines.append(_extension(one, entry.get("args") or {}, number, script))
    return lines


def _extension(one: ExperimentRecord, args: Mapping[str, Any], number: int, script: Script) -> str:
    words = ['"$python" experiments/data_modeling.py --resume "$experiment" --extend']
    words += flags({name: kept for name, kept in args.items() if name not in _ELSEWHERE})
    if args.get("grid"):
        words.append(_grid_file(one, args["grid"], f"_{number}", script))
    words.append(_execution(one))
    return " \\\n  ".join(words) + " || status=$?"


def _pinned(one: ExperimentRecord) -> dict[str, Any]:
    """A hub's model by the commit that was trained, where all runs trained one."""
    commits = {args.get("model_commit") for args in one.planned}
    commits |= {run.logged.get("model_commit") for run in one.runs if run.logged}
    commits.discard(None)
    commit = next(iter(commits)) if len(commits) == 1 else None
    grid = one.args.get("grid") or []
    moved = any({"model", "revision"} & point.keys() for point in grid)
    if isinstance(commit, str) and _HUB_COMMIT.fullmatch(commit) and not moved:
        return {"revision": commit}
    return {}


def _grid_file(one: ExperimentRecord, grid: Any, suffix: str, script: Script) -> str:
    """The flag that reads the points of a grid out of a file beside the script."""
    name = f"grid_{escaped(one.name)}{suffix}.json"
    script.files[name] = json.dumps({"grid": grid}, indent=1, ensure_ascii=False) + "\n"
    return f'--config "$here"/{shlex.quote(name)}'


def _execution(one: ExperimentRecord) -> str:
    """The flags of how it was run, which a variable replaces."""
    recorded = one.logged.get("execution")
    values = dict(recorded) if isinstance(recorded, Mapping) else {}
    processes = max((int(args.get("processes") or 1) for args in one.planned), default=1)
    if processes > 1:
        values.setdefault("gpus_per_job", processes)
    words = " ".join(flags(values)) or "--execution_mode local"
    if all(_ONE_WORD.fullmatch(word) for word in words.split(" ")):
        return f"${{EXECUTION-{words}}}"
    return words
