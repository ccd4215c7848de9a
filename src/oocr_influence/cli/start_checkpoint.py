"""The untouched model's checkpoint, which all runs of a sweep have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oocr_influence.results.checkpoints import faults_of, has_tokenizer
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.finding import find_runs
from oocr_influence.results.run_folder import RunFolder

# What the log says of a model; where all of it is the same, so are the files of its checkpoint.
_OF_THE_MODEL = ("weights_digest", "model_config", "model_commit", "dtype", "lora")


def same_start(run: RunFolder, log_dict: Mapping[str, Any]) -> Path | None:
    """A whole `checkpoint_start` of the same model among the runs that lie beside this one."""
    for other in find_runs(run.path.parent):
        start = other.checkpoint("start")
        if other.path == run.path or not start.is_dir():
            continue
        try:
            logged = read_experiment_log(other.experiment_log).log_dict
        except (OSError, ValueError):
            continue
        same = all(logged.get(name) == log_dict.get(name) for name in _OF_THE_MODEL)
        if same and not faults_of(start) and has_tokenizer(start):
            return start
    return None
