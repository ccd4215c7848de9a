"""TensorBoard and W&B themselves: what they wrote is read back from their files."""

import json
import os
import struct
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.resuming import find_unfinished
from oocr_influence.cli.trackers import NOTHING_TOLD, TrackedRun
from oocr_influence.cli.wandb_tracker import WandbTracker
from oocr_influence.results.experiment_log import read_experiment_log
from oocr_influence.results.run_folder import RunFolder

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
RUN = {
    "structured_dataset": str(SAMPLE),
    "model": "olmo2-tiny",
    "n_pretraining_examples": 6,
    "chunk_size": 128,
    "batch_size": 7,
    "micro_batch_size": 7,
    "learning_rate": 1e-3,
    "beam_search": "never",
    "epochs_per_eval": 0.5,
    "epochs_per_save": 0.5,
    "sweep_id": "the sweep",
}
# One attempt at a run, in a process of its own; it may be killed by its own hand after an update.
ATTEMPT = textwrap.dedent("""
    import json, os, signal, sys, time
    from oocr_influence.cli import tracker_thread
    from oocr_influence.cli.one_run import run_once
    from oocr_influence.cli.options import TrainingArgs
    from oocr_influence.cli.resuming import find_unfinished
    from oocr_influence.cli.run_context import Control

    args, killed_after = TrainingArgs(**json.loads(sys.argv[1])), int(sys.argv[2])
    tracker_thread.PATIENCE = float(sys.argv[3])

    def report(values):
        global killed_after
        killed_after -= "tok/s" in values["message"]
        if killed_after == 0:
            time.sleep(float(sys.argv[4]))  # for the tracker to be told
            os.kill(os.getpid(), signal.SIGKILL)

    if __name__ == "__main__":
        control = Control(report=report)
        print(json.dumps(run_once(args, control, unfinished=find_unfinished(args))))
""")


def attempt(folder, logging_type, *, killed_after=0, lived=2.0, patience=30.0, **environment):
    args = json.dumps({**RUN, "output_dir": str(folder), "logging_type": logging_type})
    words = [sys.executable, "-c", ATTEMPT, args, str(killed_after or -1)]
    words += [str(patience), str(lived)]
    known = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment = {**known, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=200)
    if killed_after:
        assert done.returncode == -9, done.stderr
    else:
        assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    return RunFolder(path)


def killed_and_gone_on_with(folder, logging_type, *, lived=2.0, **environment):
    """Killed after its fifth update, two after the last state, from which it goes on."""
    attempt(folder, logging_type, killed_after=5, lived=lived, **environment)
    run = attempt(folder, logging_type, **environment)
    log = read_experiment_log(run.experiment_log).log_dict
    assert [one["step"] for one in log["resumed"]] == [3]
    assert log["status"] == "completed"
    told = {"told_to_step": 6, "fault": None}
    assert log["trackers"] == {name: told for name in logging_type.split(",") if name != "disk"}
    return run


def rows_of(run):
    return [json.loads(line) for line in run.steps.read_text().splitlines()]


def test_tensorboard_has_one_curve_of_a_run_in_two_attempts(tmp_path):
    pytest.importorskip("tensorboard", reason="pip install 'oocr-influence[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = killed_and_gone_on_with(tmp_path, "tensorboard")
    events = EventAccumulator(str(run.trackers / "tensorboard"))
    events.Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    losses = [(event.step, event.value) for event in scalars["train/loss"]]
    rows = rows_of(run)
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in losses] == pytest.approx([row["loss"] for row in rows])
    for tag in ("train/learning_rate", "train/grad_norm", "train/tokens_per_second"):
        assert [event.step for event in scalars[tag]] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in scalars["eval/trained/mean_rank"]] == [0, 3, 6]
    texts = [tag for tag in events.Tags()["tensors"] if tag.startswith("config")]
    (config,) = events.Tensors(texts[0])
    assert b'"learning_rate": 0.001' in config.tensor_proto.string_val[0]


def records_in(path):
    """The records of a .wandb file: LevelDB's log format behind seven bytes of W&B's own.

    W&B 0.31 reads them in Go alone; what they hold is its own protocol buffers.
    """
    content, at, record = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", content, at)
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def read_wandb(run):
    """Histories and runs of all its files."""
    from wandb.proto import wandb_internal_pb2

    histories, runs = [], []
    for path in sorted((run.trackers / "wandb").glob("offline-run-*/*.wandb")):
        for content in records_in(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            kind = record.WhichOneof("record_type")
            if kind == "history":
                histories.append(
                    {
                        item.key or "/".join(item.nested_key): json.loads(item.value_json)
                        for item in record.history.item
                    }
                )
            elif kind == "run":
                runs.append(record.run)
    return histories, runs


@pytest.mark.parametrize("lived", [2.0, pytest.param(20.0, marks=pytest.mark.slow)])
def test_wandb_offline_has_one_run_of_two_attempts(tmp_path, lived):
    """After two seconds it has stored nothing, after twenty all."""
    pytest.importorskip("wandb", reason="pip install 'oocr-influence[wandb]'")
    run = killed_and_gone_on_with(
        tmp_path, "wandb", lived=lived, WANDB_MODE="offline", WANDB_PROJECT="a project"
    )
    histories, runs = read_wandb(run)
    rows = rows_of(run)
    steps = [row for row in histories if "train/loss" in row]
    assert Counter(row["step"] for row in steps) == dict.fromkeys(range(1, 7), 1)
    found = {row["step"]: row["train/loss"] for row in steps}
    assert found == {row["step"]: row["loss"] for row in rows}
    assert [row["step"] for row in histories if "eval/trained/mean_rank" in row] == [0, 3, 6]
    assert {one.run_id for one in runs} == {run.name[:25]}
    assert {one.run_group for one in runs} == {"the sweep"}
    assert {one.project for one in runs} == {"a project"}
    assert {one.display_name for one in runs} == {"experiment_epochs_1_lr_0.001_seed_42"}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["learning_rate"] == 1e-3
    assert config["total_steps"] == 6


def test_wandb_that_is_not_reached_costs_a_wait_and_no_run(tmp_path):
    pytest.importorskip("wandb", reason="pip install 'oocr-influence[wandb]'")
    began = time.monotonic()
    run = attempt(
        tmp_path,
        "wandb",
        patience=3.0,
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_API_KEY="0" * 40,
        WANDB_CONFIG_DIR=str(tmp_path.parent / "wandb_config"),
    )
    assert time.monotonic() - began < 90, "the process itself has to end, too"
    log = read_experiment_log(run.experiment_log).log_dict
    assert log["status"] == "completed"
    assert log["trackers"]["wandb"]["fault"] is not None
    assert len(rows_of(run)) == 6
    assert find_unfinished(TrainingArgs(**{**RUN, "output_dir": tmp_path})) is None


def test_wandb_is_told_from_where_its_server_has_a_run(monkeypatch, tmp_path):
    """A server that answers needs a network: this one is played."""
    logged = []

    class Run:
        offline, summary = False, {"told": 9}

        def define_metric(self, *_, **__):
            pass

        log = staticmethod(logged.append)

    played = SimpleNamespace(init=lambda **given: Run(), Settings=dict)
    monkeypatch.setitem(sys.modules, "wandb", played)
    tracker = WandbTracker("p")
    tracked = TrackedRun("id", "name", None, {}, tmp_path)
    assert tracker.start(tracked, (6, 1)) == (4, 1), "of 5 and 6 nothing had arrived"
    assert tracker.start(tracked, NOTHING_TOLD) == NOTHING_TOLD
    tracker.log(5, {"train/loss": 1.0})
    tracker.log(5, {"eval/seconds": 1.0})
    assert [row["told"] for row in logged] == [10, 11]
