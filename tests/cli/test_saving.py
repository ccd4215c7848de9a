"""What a run saves: under its evaluations, whole or not at all, and only what is to be kept."""

import json
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from test_resuming import StopAfter, arguments, check_same

from oocr_influence.cli import run_asking, run_saving
from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.preparation import prepare
from oocr_influence.cli.resuming import find_unfinished
from oocr_influence.cli.run_context import Control, RunStopped, RunTakenOverError
from oocr_influence.cli.verify import dataset_of, expected_of
from oocr_influence.models.load import load_model
from oocr_influence.models.resolve import resolve_model
from oocr_influence.results.checkpoints import faults_of
from oocr_influence.results.finding import find_runs
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.verification import verify_run
from oocr_influence.training.loop import accumulate_gradients
from oocr_influence.training.moments import MOMENTS_FILE

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")
torch.set_num_threads(1)
SPARE = {"epochs_per_eval": None, "n_loss_documents": 0, "burn_in_epochs": 0}
# Two epochs of six steps: start, e1_s2, e1_s4, e1_s6, e2_s8, e2_s10, final.
EVERY_TWO = {"epochs_per_save": None, "steps_per_save": 2}


def train(folder, **changes):
    return RunFolder(run_once(arguments(folder, **SPARE, **changes)) and find_runs(folder)[0].path)


def test_only_the_last_ones_stay(tmp_path):
    run = train(tmp_path, **EVERY_TWO, keep_checkpoints="2")
    assert run.checkpoints() == ["start", "e2_s10", "final"]
    assert verify_run(run, expected_of, dataset_of(run)).ok
    (run.path / "checkpoint_e2_s10").rename(tmp_path / "elsewhere")
    assert not verify_run(run, expected_of, dataset_of(run)).ok


@pytest.mark.slow
def test_an_interrupted_run_keeps_the_last_ones_too(tmp_path):
    whole = train(tmp_path / "whole", **EVERY_TWO, keep_checkpoints="1")
    args = arguments(tmp_path, **SPARE, **EVERY_TWO, keep_checkpoints="1")
    with pytest.raises(RunStopped) as stopped:
        run_once(args, StopAfter(5))
    folder = RunFolder(stopped.value.folder)
    assert folder.checkpoints() == ["start", "e1_s4"]
    run_once(args, unfinished=folder)
    check_same(folder, whole)


def test_named_ones_are_the_only_ones_that_are_written(tmp_path):
    args = {**EVERY_TWO, "keep_checkpoints": "e1_s2,final"}
    run = train(tmp_path, **args)
    assert run.checkpoints() == ["e1_s2", "final"]
    assert verify_run(run, expected_of, dataset_of(run)).ok
    with pytest.raises(UsageError, match=r"saves no e1_s3, end; choose among start, e1_s2, e1_s4"):
        prepare(arguments(tmp_path, **SPARE, **args | {"keep_checkpoints": "e1_s3,end,final"}))


def test_disk_that_is_asked_for(tmp_path):
    def asked(**changes):
        preparation = prepare(arguments(tmp_path, **EVERY_TWO, **changes))
        size = preparation.checkpoint_bytes()
        return (
            round((preparation.run_bytes() - prepare(none).run_bytes()) / size),
            round(preparation.passing_bytes() / size),
        )

    none = arguments(
        tmp_path,
        epochs_per_save=None,
        save_first_checkpoint=False,
        save_final_checkpoint=False,
    )
    n = 7
    assert asked() == (n, 6)
    assert asked(save_state=False) == (n, 0)
    assert asked(keep_checkpoints="2") == (3, 7)
    assert asked(keep_checkpoints="start,final") == (2, 6)
    assert asked(save_optimizer=True) == (n + 2 * (n - 1), 6)


def test_moments_are_those_of_the_parameters_that_they_name(tmp_path):
    """After one update exp_avg is (1 - beta1) times the clipped gradient of the first batch."""
    changes = {"epochs_per_save": None, "steps_per_save": 1, "max_steps": 2}
    run = train(tmp_path, save_optimizer=True, weight_decay=0.1, **changes)
    checkpoint = run.checkpoint("e1_s1")
    assert not (run.checkpoint("start") / MOMENTS_FILE).exists()
    assert faults_of(checkpoint) == []
    preparation = prepare(arguments(tmp_path, **SPARE, **changes))
    model = load_model(resolve_model("olmo2-tiny"), precision="fp32")
    (first, *_) = [json.loads(line) for line in run.steps.read_text().splitlines()]
    accumulate_gradients(model, preparation.windows, first["windows"], micro_batch_size=7)
    moments = load_file(checkpoint / MOMENTS_FILE)
    assert len(moments) == 2 * len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        gradient = parameter.grad * first["clip_factor"]
        scale = gradient.abs().max()
        assert scale > 0
        torch.testing.assert_close(
            moments[f"exp_avg.{name}"], 0.1 * gradient, rtol=1e-3, atol=1e-5 * float(scale)
        )
        assert torch.all(moments[f"exp_avg_sq.{name}"] >= 0)
    with safe_open(checkpoint / MOMENTS_FILE, "pt") as opened:
        told = opened.metadata()
    assert told["step"] == "1"
    assert json.loads(told["adamw"]) == {
        "lr": first["learning_rate"],
        "betas": [0.9, 0.999],
        "eps": 1e-8,
    }
    decay = json.loads(told["weight_decay"])
    assert decay["model.layers.0.mlp.up_proj.weight"] == 0.1
    assert decay["lm_head.weight"] == decay["model.norm.weight"] == 0


def test_weights_are_written_while_the_model_is_asked(tmp_path, monkeypatch):
    """The evaluation ends before the writer does, and the next update waits for it."""
    events = []
    asked = threading.Event()

    def noted(name, own, wait=None):
        def call(*given, **named):
            if wait is not None:
                assert wait.wait(timeout=100), "nobody asked while the checkpoint was written"
            result = own(*given, **named)
            events.append(name)
            (asked.set if name == "asked" else asked.clear)()
            return result

        return call

    slow = noted("written", run_saving.stream_checkpoint, wait=asked)
    monkeypatch.setattr(run_saving, "stream_checkpoint", slow)
    changes = {"max_steps": 4, "steps_per_save": 2, "steps_per_eval": 2}
    args = arguments(tmp_path, **{**SPARE, **changes, "epochs_per_save": None})
    evaluate = run_asking.RunAsking._ask

    def ask(self, step, name):
        if step == 0:
            return evaluate(self, step, name)
        return noted("asked", evaluate)(self, step, name)

    monkeypatch.setattr(run_asking.RunAsking, "_ask", ask)
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", noted("update", step))
    run = RunFolder(find_runs(tmp_path)[0].path if run_once(args) else None)
    assert events == [
        *["update"] * 2,
        *["asked", "written"],
        *["update"] * 2,
        *["asked", "written"],
    ]
    phases = json.loads(run.experiment_log.read_text())["log_dict"]["phases"]
    assert phases["save"]["count"] == 3
    assert phases["save_stall"]["count"] == 2


def test_a_writer_that_fails_ends_the_run_before_the_next_update(tmp_path, monkeypatch):
    def fails(*given):
        time.sleep(0.2)
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(run_saving, "stream_checkpoint", fails)
    with pytest.raises(RuntimeError, match="on fire"):
        train(tmp_path, **EVERY_TWO)
    (run,) = find_runs(tmp_path)
    assert run.checkpoints() == ["start"]
    assert run.unfinished() == []
    assert len(run.steps.read_text().splitlines()) == 2


def test_an_attempt_that_was_replaced_publishes_nothing(tmp_path, monkeypatch):
    replaced = []
    own = run_saving.stream_checkpoint
    monkeypatch.setattr(
        run_saving, "stream_checkpoint", lambda *given: replaced.append(own(*given))
    )
    with pytest.raises(RunTakenOverError):
        run_once(
            arguments(tmp_path, **SPARE, **EVERY_TWO, save_state=False),
            Control(may_save=lambda: not replaced),
        )
    (run,) = find_runs(tmp_path)
    assert replaced
    assert run.checkpoints() == ["start"]
    assert run.unfinished() == []


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0.5, 1.5], ids=["checkpoint", "state"])
def test_a_full_disk_stops_the_run_and_nothing_is_lost(tmp_path, limit):
    """A limit on the size of a file stands for the disk: below a checkpoint's, below a state's."""
    whole = train(tmp_path / "whole", epochs_per_save=0.5)
    size = (whole.checkpoint("final") / "model.safetensors").stat().st_size
    # The state, where it fits, is three times as large as the checkpoint, so it is left out.
    changes = {"save_state": limit > 1, "save_first_checkpoint": limit > 1}
    args = arguments(tmp_path / "full", **SPARE, **changes, epochs_per_save=0.5)
    code = textwrap.dedent("""
        import resource, signal, sys, warnings
        import torch
        from oocr_influence.cli.one_run import run_once
        from oocr_influence.cli.options import TrainingArgs
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
        run_once(TrainingArgs.model_validate_json(sys.argv[2]))
    """)
    command = [sys.executable, "-c", code, str(int(limit * size)), args.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    folder = find_unfinished(args)
    assert last.startswith("oocr_influence.cli.run_saving.DiskFullError: no room to save in")
    assert str(folder.path) in last
    assert "free some space, then go on with" in last
    assert folder.unfinished() == []
    assert all(faults_of(folder.checkpoint(name)) == [] for name in folder.checkpoints())
    assert json.loads(folder.experiment_log.read_text())["log_dict"]["status"] == "failed"
    run_once(args, unfinished=folder)
    if limit > 1:
        check_same(folder, whole)
    assert verify_run(folder, expected_of, dataset_of(folder)).ok
