"""A run of ours as the earlier system's readers expect one.

    lay_out(run, path, experiment_output_dir)     # everything but the checkpoints

Most of it is the same already and is copied: `train_set/`, `eval_datasets/`, `saved_objects/`,
`tokenizer.json/` and `experiment.log`; `eval_results/`, which the earlier system lacked, too. What
differs is `experiment_log.json`: there every question stands inline, whatever the size of the file,
with `accuracy` as true or false, and each set lists its questions' `ranks`. Both are plain JSON
here, where the earlier system wrote references to pickles. An owner, a status and a training state
it did not have, so they are left out.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oocr_influence.results.atomic import plain, write_json
from oocr_influence.results.finding import dataset_file
from oocr_influence.results.naming import unstamped
from oocr_influence.results.run_folder import ALL_DOCS_RUNS, ExperimentFolder, RunFolder

# The columns of a question in the earlier system's log.
_RECORD = ("loss", "accuracy", "logprob", "softmargin", "prob", "prompt", "completion", "id")
_OF_OURS = ("status", "error", "inline_records")


def place_of(run: RunFolder) -> Path:
    """Where the run lies below a folder of outputs: in its experiment's `all_docs_runs/`.

    A run that was made on its own gets an experiment of its stamp, letters and name.
    """
    experiment = run.experiment.path
    if experiment != run.path:
        return Path(experiment.name) / run.path.parent.name / run.name
    stamp = run.name.removesuffix(unstamped(run.name))
    logged = json.loads(run.experiment_log.read_text(encoding="utf-8"))
    name = (logged.get("args") or {}).get("experiment_name", "experiment")
    return Path(f"{stamp}{name}") / ALL_DOCS_RUNS / run.name


def lay_out(run: RunFolder, path: Path, *, outputs: Path) -> None:
    """Write `run` into the new folder `path`, all but its checkpoints.

    `outputs` is the folder of outputs that the log names as its place. Raises OSError or ValueError
    for a run that cannot be read.
    """
    path.mkdir(parents=True)
    for part in (run.train_set, run.eval_datasets, run.eval_results, run.tokenizer):
        if part.is_dir():
            shutil.copytree(part, path / part.name)
    shutil.copytree(run.saved_objects, path / run.saved_objects.name)
    shutil.copy(run.text_log, path / run.text_log.name)
    log = json.loads(run.experiment_log.read_text(encoding="utf-8"))
    log["history"] = [_entry(run, entry) for entry in log["history"]]
    write_json(path / run.experiment_log.name, _as_earlier(log, outputs / place_of(run)))


def lay_out_experiment(run: RunFolder, path: Path, *, outputs: Path) -> None:
    """Write what a run's experiment holds beside its runs: the dataset and the logs."""
    dataset = dataset_file(run)
    if dataset is not None:
        shutil.copy(dataset, ExperimentFolder(path).structured_dataset)
    if run.experiment.text_log.exists():
        shutil.copy(run.experiment.text_log, ExperimentFolder(path).text_log)
    log = json.loads(run.experiment.experiment_log.read_text(encoding="utf-8"))
    if run.experiment.path == run.path:
        log = {"experiment_name": path.name, "args": log["args"], "history": [], "log_dict": {}}
    write_json(ExperimentFolder(path).experiment_log, _as_earlier(log, outputs / path.name))


def _as_earlier(log: Mapping[str, Any], place: Path) -> Any:
    log_dict = {name: value for name, value in log["log_dict"].items() if name not in _OF_OURS}
    log_dict = {"train_dataset_path": None, "test_dataset_paths": {}, **log_dict}
    return plain({**log, "experiment_output_dir": str(place), "log_dict": log_dict})


def _entry(run: RunFolder, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of the history with its questions and their ranks inline."""
    names = {run.read_evaluation(name).step_num: name for name in run.evaluations()}
    if entry["step_num"] not in names:
        return entry
    table = run.read_records(names[entry["step_num"]], ["set", "rank", *_RECORD])
    questions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in table.to_pylist():
        questions[row["set"]].append(row)
    sets = {
        name: {**means, **_questions(questions[name])}
        for name, means in entry["eval_results"].items()
    }
    return {**entry, "eval_results": sets}


def _questions(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """`records`, and `ranks` where the set asks for them."""
    records = [
        {**{name: row[name] for name in _RECORD}, "accuracy": bool(row["accuracy"])} for row in rows
    ]
    ranks = [row["rank"] for row in rows]
    return {"records": records} | ({} if None in ranks else {"ranks": ranks})


__all__ = ["lay_out", "lay_out_experiment", "place_of"]
