"""`--micro_batch_size auto` becomes one number for all runs of a sweep."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from test_resuming import SAMPLE, arguments

from oocr_influence.cli import data_modeling, micro_batch
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.data_modeling import DataModelingArgs
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.preparation import prepare
from oocr_influence.results.run_folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")
torch.set_num_threads(1)
SWEEP = (
    f"--dataset_builder_path {SAMPLE} --model olmo2-tiny --n_pretraining_examples 6 --batch_size 6 "
    "--chunk_size 64 --micro_batch_size auto --runs_per_dataset_all_docs 2"
).split()


def answer(monkeypatch, limit, peaks, recomputed=None):
    """Let the trial's process say this; `recomputed`: where it is asked with checkpointing."""

    def process(request):
        with_checkpointing = json.loads(request)["args"]["gradient_checkpointing"]
        found = recomputed if with_checkpointing and recomputed is not None else peaks
        trials = [{"size": n, "peak_bytes": peak, "seconds": 0.1} for n, peak in found.items()]
        said = {"trials": trials, "limit_bytes": limit, "device": "a card"}
        return subprocess.CompletedProcess([], 0, f"noise\n{json.dumps(said)}\n")

    monkeypatch.setattr(micro_batch, "_ask_another_process", process)


def test_a_run_tries_out_for_itself_and_records_it(tmp_path):
    changes = {"max_steps": 1, "epochs_per_save": None, "epochs_per_eval": None}
    run = run_once(arguments(tmp_path, micro_batch_size="auto", **changes))
    log = json.loads(RunFolder(Path(run["run"])).experiment_log.read_text())
    trial = log["log_dict"]["micro_batch_trial"]
    assert [one["size"] for one in trial["trials"]] == [1, 2, 4, 7]
    assert all(0 < one["peak_bytes"] < trial["limit_bytes"] for one in trial["trials"])
    assert trial["device"] == "this machine's CPU"
    assert log["args"]["micro_batch_size"] == 7


def test_the_runs_of_a_sweep_have_one_number(tmp_path, monkeypatch, capsys):
    answer(monkeypatch, 130e6, {1: 110e6, 2: 120e6, 4: 140e6})
    args = parse(DataModelingArgs, [*SWEEP, "--output_dir", str(tmp_path)])
    runs, preparation = data_modeling.plan(args)
    assert [run.micro_batch_size for run in runs] == [2, 2]
    experiment = data_modeling.start(args, runs, preparation)
    log = json.loads(experiment.folder.experiment_log.read_text())
    assert log["args"]["micro_batch_size"] == 2
    assert len(log["log_dict"]["micro_batch_trial"]["trials"]) == 3
    assert [job.spec.args["micro_batch_size"] for job in experiment.jobs] == [2, 2]
    said = "micro-batches tried on a card, of which 130 MB may be used (windows: most memory): 1: "
    assert said + "110 MB, 2: 120 MB, 4: 140 MB" in capsys.readouterr().out


def test_a_dry_run_tries_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(micro_batch, "_ask_another_process", None)
    args = parse(DataModelingArgs, [*SWEEP, "--output_dir", str(tmp_path), "--dry_run"])
    data_modeling.plan(args)


def test_no_room_for_one_window(tmp_path, monkeypatch):
    answer(monkeypatch, 100e6, {1: 110e6})
    preparation = prepare(arguments(tmp_path, micro_batch_size="auto"))
    said = "one window of 128 tokens takes 110 MB, activations recomputed, and 100 MB are free"
    with pytest.raises(UsageError, match=said):
        micro_batch.settle(preparation)


def test_activations_are_recomputed_only_where_no_window_fits_else(tmp_path, monkeypatch):
    answer(monkeypatch, 100e6, {1: 110e6}, recomputed={1: 70e6, 2: 90e6, 4: 130e6})
    preparation = micro_batch.settle(prepare(arguments(tmp_path, micro_batch_size="auto")))
    assert preparation.args.gradient_checkpointing
    assert preparation.args.micro_batch_size == 2
    assert "not one window fitted else" in micro_batch.describe_trial(preparation.micro_batch_trial)
    answer(monkeypatch, 120e6, {1: 110e6}, recomputed={1: 70e6, 2: 90e6})
    preparation = micro_batch.settle(prepare(arguments(tmp_path, micro_batch_size="auto")))
    assert not preparation.args.gradient_checkpointing
    assert preparation.args.micro_batch_size == 1


def test_a_trial_that_fails_says_so(tmp_path, monkeypatch):
    done = subprocess.CompletedProcess([], 1, "")
    monkeypatch.setattr(micro_batch, "_ask_another_process", lambda request: done)
    with pytest.raises(UsageError, match="the trial failed, see above; name a number instead"):
        micro_batch.settle(prepare(arguments(tmp_path, micro_batch_size="auto")))


@pytest.mark.parametrize("value", ["0", "-1", "most", "1.5"])
def test_what_is_no_size(value):
    with pytest.raises(UsageError, match="--micro_batch_size"):
        parse(DataModelingArgs, ["--dataset_builder_path", "x", "--micro_batch_size", value])


def test_no_process_is_left_without_a_micro_batch(tmp_path, monkeypatch):
    """Of a batch of seven, two processes have four windows at most; a trial is of one process."""
    shared = arguments(tmp_path, micro_batch_size="auto", processes=2)
    found = micro_batch.try_out(shared, runs_at_once=1)
    assert [one["size"] for one in found["trials"]] == [1, 2, 4]
    answer(monkeypatch, 1e6, {1: 2e6})
    with pytest.raises(UsageError, match="or name a number, since 2 processes share"):
        micro_batch.settle(prepare(shared))
