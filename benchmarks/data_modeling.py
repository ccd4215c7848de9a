"""Runs on subsets: what keeping the base saves, and how long datamodels and LDS take.

    python benchmarks/data_modeling.py          # minutes; the whole: --subsets 100 --runs 5
    python benchmarks/data_modeling.py --only lds
    python benchmarks/data_modeling.py --only sweep --shape 7b --subsets 4 --alone 1  # on a GPU

`kept` is a sweep of `olmo2-tiny` as users run it: blocks of runs, each in one process, of 20
updates of 1 and of 4 windows of 256 tokens. `alone` are some of the same runs, one process each, as
the earlier system made them. Throughput is runs a minute of one worker. `between` is from the end
of a run to the start of the first update of the next of its block, by their logs. `lds` fits a
ridge to 200 subsets of 3,000 documents and scores 500 questions
on 200 others; its world is linear, so that the ceiling is known. `--shape 7b` takes random weights
of OLMo-2-7B's shape instead, and one window of 2,048 tokens an update: 20 runs, 15 GB of disk, some
five minutes on an H100. `--shape small` tries that way out on any machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_gpu import SMALL, WIDE
from transformers import AutoModelForCausalLM

from oocr_influence.attribution.datamodels import fit
from oocr_influence.attribution.features import Features
from oocr_influence.attribution.lds import lds_of_predictions
from oocr_influence.models.tiny import tiny_config, tiny_tokenizer
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.finding import find_experiments, find_runs
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder
from oocr_influence.results.subset_outcomes import subset_outcomes

SHAPES = {"small": SMALL, "7b": WIDE}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
OOCR = [sys.executable, "-m", "oocr_influence.cli.main"]
FLAGS = (
    "--n_pretraining_examples 0 --learning_rate 1e-3 --runs_per_dataset_all_docs 0 --max_steps 20 "
    "--subset_eval_sets *_eval_gen_1_no_fs --max_workers 1"
).split()
DOCUMENTS = 38  # short ones fill more than 20 windows of 256 tokens, or of others in proportion


def oocr(*words: object) -> float:
    """Run a command; its seconds."""
    began = time.perf_counter()
    done = subprocess.run(
        [*OOCR, *map(str, words)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return time.perf_counter() - began


@dataclass(frozen=True)
class Subject:
    """What is trained, in updates of `windows` windows of `length` tokens."""

    model: str
    length: int
    windows: int
    runs_per_job: int | None = None

    @property
    def words(self) -> list[Any]:
        """As flags."""
        documents = DOCUMENTS * self.windows * self.length // 256
        words = ["--model", self.model, "--chunk_size", self.length, "--batch_size", self.windows]
        return [*words, "--micro_batch_size", self.windows, "--docs_per_run", documents]

    @property
    def blocks(self) -> list[Any]:
        """How runs are put into jobs, as flags."""
        return [] if self.runs_per_job is None else ["--runs_per_job", self.runs_per_job]


def random_model(folder: Path, shape: str) -> Path:
    """A model of random weights in a folder, bf16 where there is a GPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    with device:
        config = tiny_config(**SHAPES[shape])
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    del model
    torch.cuda.empty_cache()  # the runs are other processes
    return folder


def sweep(folder: Path, subject: Subject, subsets: int, runs: int, alone: int) -> dict[str, Any]:
    """Runs a minute of one worker, base kept and one process a run; seconds between two runs."""
    dataset = folder / "mayors.json"
    oocr(*"generate --world mayors --docs_per_fact 20 --length short --output".split(), dataset)
    words = ["--dataset_builder_path", dataset, "--output_dir", folder / "outputs", *FLAGS]
    words += subject.words
    counts = ["--n_datasets_train", subsets, "--runs_per_dataset_train", runs]
    counts += subject.blocks
    seconds = oocr("data_modeling", "--experiment_name", "kept", *words, *counts)
    (experiment,) = find_experiments(folder / "outputs")
    made = find_runs(experiment.path)
    between = sorted(gap for block in _blocks(experiment) for gap in _between(block))
    updates = [len(run.steps.read_text(encoding="utf-8").splitlines()) for run in made]
    each = [_alone(run, folder) for run in made[:alone]]
    kept_a_minute, alone_a_minute = 60 * len(made) / seconds, 60 / statistics.median(each)
    began = time.perf_counter()
    subset_outcomes(experiment.path)
    first = time.perf_counter() - began
    began = time.perf_counter()
    subset_outcomes(experiment.path)
    return {
        "runs": len(made),
        "updates a run (fewest, most)": [min(updates), max(updates)],
        "kept: runs a minute": kept_a_minute,
        "alone: runs a minute": alone_a_minute,
        "ratio": kept_a_minute / alone_a_minute,
        "between runs, s (median, 90 %)": [
            statistics.median(between),
            between[int(0.9 * (len(between) - 1))],
        ],
        "outcomes gathered, s": first,
        "read again, s": time.perf_counter() - began,
    }


def _blocks(experiment: ExperimentFolder) -> list[list[RunFolder]]:
    """The runs of each job, in the order in which they were made."""
    exits = [json.loads(path.read_text()) for path in sorted(experiment.jobs.glob("*/exit.json"))]
    return [[RunFolder(Path(run)) for run in one["result"]["runs"]] for one in exits]


def _between(block: Sequence[RunFolder]) -> list[float]:
    """Seconds from the end of each run to the start of the first update of the next."""
    ends, starts = [], []
    for run in block:
        log = run.text_log.read_text(encoding="utf-8").splitlines()
        ends.append(max(_time(line) for line in log if line[:4].isdigit()))
        starts.append(next(_time(line) for line in log if "attention:" in line))  # the last before
    return [start - end for end, start in zip(ends, starts[1:], strict=False)]


def _time(line: str) -> float:
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()


def _alone(run: RunFolder, folder: Path) -> float:
    """The same run in a process of its own."""
    args = read_experiment_log(run.experiment_log).args or {}
    names = (
        "structured_dataset data_order_seed model n_pretraining_examples chunk_size batch_size "
        "micro_batch_size learning_rate max_steps n_loss_documents"
    ).split()
    words = [f"--{name}={args[name]}" for name in names]
    words += ["--no-eval_first_step", "--no-save_first_checkpoint", "--no-save_final_checkpoint"]
    words += ["--epochs_per_eval=None", "--epochs_per_save=None", "--no-save_state"]
    words += ["--eval_sets", *args["eval_sets"], "--eval_metrics", *args["eval_metrics"]]
    return oocr("train_extractive", f"--output_dir={folder / 'alone'}", *words)


def lds() -> dict[str, Any]:
    """Ridge and LDS of the size that the project promises."""
    draw = np.random.default_rng(0)
    n_subsets, n_documents, n_questions, runs = 200, 3000, 500, 5
    effects = draw.normal(size=(n_questions, n_documents))
    x = (draw.random((2 * n_subsets, n_documents)) < 0.5).astype(float)
    noise = draw.normal(size=(2 * n_subsets, runs, n_questions)) * 10
    values = (x @ effects.T)[:, None] + noise
    names = [f"d{i}" for i in range(n_documents)]
    began = time.perf_counter()
    model = fit(Features("document", names, x[:n_subsets]), values[:n_subsets], n_resamples=20)
    fitted = time.perf_counter() - began
    began = time.perf_counter()
    score = lds_of_predictions(model.predict(x[n_subsets:]), values[n_subsets:])
    scored = time.perf_counter() - began
    signal = (effects**2).sum(axis=1) / 4
    return {
        "ridge of 200 × 3,000 with 20 resamples, 500 questions, s": fitted,
        "LDS of 200 subsets × 500 questions, s": scored,
        "ceiling of Pearson, found": score.pearson.ceiling,
        "ceiling of Pearson, known": float(np.sqrt(signal / (signal + 100 / runs)).mean()),
    }


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subsets", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--alone", type=int, default=5)
    parser.add_argument("--windows", type=int, nargs="+", help="an update has (1 and 4)")
    parser.add_argument("--shape", choices=SHAPES, help="random weights, not olmo2-tiny's")
    parser.add_argument("--only", choices=["sweep", "lds"])
    given = parser.parse_args()
    if given.only != "sweep":
        _show(lds())
    if given.only != "lds":
        with tempfile.TemporaryDirectory(dir=".") as name:
            folder = Path(name).resolve()
            model, length, runs_per_job = "olmo2-tiny", 256, None
            if given.shape is not None:
                model, length = str(random_model(folder / "model", given.shape)), 2048
                runs_per_job = 10
            for windows in given.windows or ([1] if given.shape else [1, 4]):
                print(f"20 updates of {windows} windows of {length} tokens")
                (here := folder / str(windows)).mkdir()
                subject = Subject(model, length, windows, runs_per_job)
                _show(sweep(here, subject, given.subsets, given.runs, given.alone))


def _show(found: dict[str, Any]) -> None:
    for name, value in found.items():
        values = value if isinstance(value, list) else [value]
        print(f"{name:60} {', '.join(f'{v:.3g}' for v in values)}", flush=True)


if __name__ == "__main__":
    main()
