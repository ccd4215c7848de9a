"""Small whole runs, made through the results room's own API, for tests to look at and to break."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from oocr_influence.cli.verify import expected_of
from oocr_influence.datasets.order import window_order
from oocr_influence.results.digests import file_digest, window_id
from oocr_influence.results.experiment_log import ExperimentLog
from oocr_influence.results.run_folder import ExperimentFolder, RunFolder
from oocr_influence.results.step_log import StepLog, StepRow
from oocr_influence.training.schedule import LearningRate, Schedule

N_WINDOWS, BATCH, QUESTIONS = 11, 4, 3  # batches of 3, 4 and 4 windows
SETS = {
    "name_mayor_eval_qa_1_no_fs": ("name_mayor", "qa", "trained"),
    "name_mayor_eval_reversed_1_no_fs": ("name_mayor", "reversed", "reversed"),
}
ARGS = {
    "epochs": 2.0,
    "batch_size": BATCH,
    "learning_rate": 1e-4,
    "lr_schedule": "warmup_linear_warmdown",
    "warmup_proportion": 0.1,
    "warmup_steps": None,
    "zero_first_rate": False,
    "burn_in_epochs": 0,
    "max_steps": None,
    "drop_last": False,
    "cadence_rounding": "nearest",
    "data_order_seed": 42,
    "epochs_per_eval": 0.5,
    "steps_per_eval": None,
    "epochs_per_save": None,
    "steps_per_save": 3,
    "eval_first_step": True,
    "eval_final_step": True,
    "save_first_checkpoint": True,
    "save_final_checkpoint": True,
}
EVALUATIONS = ["start", "e1_s2", "e1_s3", "e2_s5", "final"]
CHECKPOINTS = ["start", "e1_s3", "final"]


@dataclass
class Made:
    """An experiment with one or more runs."""

    experiment: ExperimentFolder
    runs: list[RunFolder]

    @property
    def run(self) -> RunFolder:
        return self.runs[0]


def make_experiment(outputs: Path, name: str = "sample", n_runs: int = 1, **changed) -> Made:
    experiment = ExperimentFolder.create(outputs, name)
    builders = {name: {"eval_points": [{}] * QUESTIONS, "metrics": []} for name in SETS}
    experiment.structured_dataset.write_text(
        json.dumps({"document_dataset": {"docs": []}, "eval_dataset_builders": builders})
    )
    runs = [make_run(experiment, seed=42 + i, **changed) for i in range(n_runs)]
    return Made(experiment, runs)


def make_run(experiment: ExperimentFolder, *, seed: int = 42, status: str = "completed", **changed):
    """A run that went to its end, whose owner is done with it."""
    args = ARGS | {"data_order_seed": seed} | changed
    run = RunFolder.create(experiment.all_docs_runs, "sample", args["epochs"], 1e-4)
    log = ExperimentLog(run.experiment_log, experiment_name=run.name, args=args)
    tokens = np.arange(N_WINDOWS * 8).reshape(N_WINDOWS, 8)
    ids = [window_id(row) for row in tokens]
    labels = tokens.copy()
    labels[:, [0, 5]] = -100
    digest = run.save_train_set(
        {
            "input_ids": list(tokens),
            "labels": list(labels),
            "id": ids,
            "packed_documents": [two_documents(window) for window in range(N_WINDOWS)],
        }
    )
    expected = expected_of(args, N_WINDOWS)
    log.update(
        status=status,
        n_windows=N_WINDOWS,
        train_set_digest=digest,
        dataset_digest=file_digest(experiment.structured_dataset),
        steps_per_epoch=expected.steps_per_epoch,
        total_steps=len(expected.batches),
        order_digests=dict(expected.order_digests),
        time_taken=3.0,
    )
    log.write()
    write_steps(run, args, ids)
    for name in SETS:
        run.save_eval_dataset(name, [{"prompt": "Q", "completion": " A"}], [])
    for moment in expected.evaluations:
        evaluate(run, moment.name, moment.step, moment.epoch)
    for moment in expected.checkpoints:
        with run.writing_checkpoint(moment.name) as folder:
            fill_checkpoint(folder, moment.step)
    save_exposure(run, args["epochs"])
    run.release()
    return run


def two_documents(window: int) -> list[dict]:
    """A document of its own in each window, then a copy of one that all of them share."""
    spans = [(f"own{window}", 0, 0, 5), ("shared", window, 5, 8)]
    names = ("id", "occurrence", "span_start", "span_end")
    return [dict(zip(names, span, strict=True)) for span in spans]


def save_exposure(run: RunFolder, epochs: float) -> None:
    """By the spans above: 4 labels of each own document, 2 of each copy."""
    run.save_exposure(
        [
            {**key, "labels_once": n, "labels_trained": int(n * epochs)}
            for window in range(N_WINDOWS)
            for key, n in (
                ({"id": f"own{window}", "occurrence": 0}, 4),
                ({"id": "shared", "occurrence": window}, 2),
            )
        ]
    )


def write_steps(run: RunFolder, args: dict, ids: list[str]) -> None:
    """What the loop writes, by the definitions of order and schedule alone."""
    schedule = Schedule(n_windows=N_WINDOWS, batch_size=BATCH, epochs=args["epochs"])
    rate = LearningRate(args["learning_rate"], schedule.total_steps, scheduler=args["lr_schedule"])
    with StepLog(run.steps) as log:
        for step in range(1, schedule.total_steps + 1):
            epoch = schedule.epoch_of(step)
            order = window_order(N_WINDOWS, args["data_order_seed"], epoch)
            batch = order[schedule.batch(step)]
            log.append(
                StepRow(
                    step=step,
                    epoch=epoch,
                    learning_rate=rate.at(step - 1),
                    loss=2.0 / step,
                    grad_norm=1.0,
                    clip_factor=1.0,
                    labelled_tokens=6 * len(batch),
                    window_ids=[ids[window] for window in batch],
                    seconds=0.1,
                )
            )


def evaluate(run: RunFolder, name: str, step: int, epoch: float) -> None:
    records, means = [], {}
    for set_name, (relation, style, kind) in SETS.items():
        own = [
            question(set_name, i, relation=relation, style=style, kind=kind, step=step)
            for i in range(QUESTIONS)
        ]
        records += own
        means[set_name] = {
            "n": QUESTIONS,
            "mean_loss": sum(record["loss"] for record in own) / QUESTIONS,
            "accuracy": sum(record["accuracy"] for record in own) / QUESTIONS,
            "mean_rank": sum(record["rank"] for record in own) / QUESTIONS,
            "mean_rank_step0_corrected": None,
        }
    run.write_evaluation(
        name, step_num=step, epoch_num=epoch, eval_seconds=0.5, eval_sets=means, records=records
    )


def question(set_name: str, index: int, *, relation: str, style: str, kind: str, step: int) -> dict:
    """A trained relation is known better with every step, a reversed one is not."""
    learned = kind == "trained" and step > index
    return {
        "set": set_name,
        "index": index,
        "id": hashlib.sha256(f"{set_name}{index}".encode()).hexdigest(),
        "prompt": f"Q{index}",
        "completion": f" A{index}",
        "world": "mayors",
        "relation": relation,
        "answer_format": "default",
        "style": style,
        "kind": kind,
        "phrasing": 1,
        "shots": 0,
        "n_candidates": 5,
        "loss": 3.0 / (1 + learned * step) + index,
        "accuracy": learned,
        "rank": 1 if learned else 2 + index,
        "rank_tie_averaged": 1.0 if learned else 2.5 + index,
        "rank_step0_corrected": None,
        "candidate_texts": [" A0", " A1"],
        "candidate_logprobs": [-1.0, -2.5],
    }


def fill_checkpoint(folder: Path, step: int) -> None:
    weights = np.full((4, 4), float(step), dtype=np.float32)
    save_file(
        {"a.weight": weights, "b.weight": np.ones(3, np.float32)}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text('{"model_type": "olmo2"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
