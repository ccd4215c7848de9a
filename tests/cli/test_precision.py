"""Precision, optimizer and determinism of a run: what is loaded, kept, logged, and refused."""

import json
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from test_resuming import SAMPLE, StopAfter, arguments, check_same

from oocr_influence.cli import device_memory, preparation, sweep_plan
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.data_modeling import DataModelingArgs, plan
from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import prepare
from oocr_influence.cli.verify import dataset_of, expected_of
from oocr_influence.results.finding import find_runs
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import read_steps
from oocr_influence.results.verification import verify_run
from oocr_influence.training import determinism
from oocr_influence.training.moments import MOMENTS_FILE

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")
torch.set_num_threads(1)
SHORT = {
    "n_loss_documents": 0,
    "burn_in_epochs": 0,
    "epochs": 1,
    "epochs_per_eval": None,
    "eval_first_step": False,
    "eval_final_step": False,
    "save_first_checkpoint": False,
    "epochs_per_save": None,
    "steps_per_save": 2,
}
FIELDS = ("weight_updates_vanished", "update_realised", "second_moments_stuck")


def train(folder, control=None, **changes):
    run_once(arguments(folder, **{**SHORT, **changes}), control)
    (run,) = find_runs(folder)
    return RunFolder(run.path)


def log_dict(run):
    return json.loads(run.experiment_log.read_text())["log_dict"]


def test_a_bf16_run_says_what_rounding_took_and_verifies(tmp_path):
    run = train(tmp_path, precision="bf16", learning_rate=1e-5)
    rows = list(read_steps(run.steps))
    measured = [row for row in rows if row.weight_updates_vanished is not None]
    assert [row.step for row in measured] == [2, 4, 6]
    assert all(row.second_moments_stuck > 0.9 for row in measured)
    assert all(row.weight_updates_vanished > 0.3 for row in measured)
    means = log_dict(run)["update_losses"]
    assert means["n_updates"] == 3
    for name in FIELDS:
        assert means[name] == pytest.approx(sum(getattr(row, name) for row in measured) / 3)
    assert "bf16_stochastic" in run.text_log.read_text()
    assert verify_run(run, expected_of, dataset_of(run)).ok
    # A log of old has none of the fields.
    lines = [json.loads(line) for line in run.steps.read_text().splitlines()]
    old = [{k: v for k, v in line.items() if k not in FIELDS} for line in lines]
    run.steps.write_text("".join(json.dumps(line) + "\n" for line in old))
    assert [row.weight_updates_vanished for row in read_steps(run.steps)] == [None] * len(rows)
    assert verify_run(run, expected_of, dataset_of(run)).ok


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16_stochastic", "fp32_master"])
def test_more_than_bf16_in_a_run_that_is_stopped_and_goes_on(tmp_path, precision):
    changes = {"precision": precision, "save_optimizer": True, "weight_decay": 0.1}
    whole = train(tmp_path / "whole", **changes)
    log = log_dict(whole)
    assert log["dtype"] == "torch.bfloat16"
    assert log["update_losses"]["second_moments_stuck"] < 0.01
    assert log["update_losses"]["update_realised"] == pytest.approx(1, abs=0.1)
    weights = load_file(whole.checkpoint("final") / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    with safe_open(whole.checkpoint("final") / MOMENTS_FILE, "pt") as moments:
        kinds = {name.split(".")[0]: moments.get_tensor(name).dtype for name in moments.keys()}  # noqa: SIM118
    assert kinds == {"exp_avg": torch.bfloat16, "exp_avg_sq": torch.float32}
    args = arguments(tmp_path / "stopped", **{**SHORT, **changes})
    with pytest.raises(Exception, match="asked to stop"):
        run_once(args, StopAfter(3))
    (stopped,) = find_runs(tmp_path / "stopped")
    run_once(args, unfinished=RunFolder(stopped.path))
    check_same(RunFolder(stopped.path), whole)
    assert log_dict(RunFolder(stopped.path))["update_losses"] == log["update_losses"]


def test_deterministic_kernels_change_no_bit_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv(determinism.VARIABLE, "")
    monkeypatch.delenv(determinism.VARIABLE)
    plain = train(tmp_path / "plain")
    seen = []

    class Looking(StopAfter):
        def _count(self, values):
            seen.append(torch.are_deterministic_algorithms_enabled())

    run = train(tmp_path / "deterministic", Looking(100), deterministic=True)
    assert any(seen), "the steps were made without"
    assert not torch.are_deterministic_algorithms_enabled()
    logged = json.loads(run.experiment_log.read_text())
    assert logged["args"]["deterministic"] is True
    assert log_dict(run)["provenance"]["environment"][determinism.VARIABLE] == ":4096:8"
    check_same(run, plain)


def test_a_workspace_that_is_not_deterministic_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(determinism.VARIABLE, ":0:0")
    with pytest.raises(UsageError, match=r"--deterministic: CUBLAS_WORKSPACE_CONFIG=:0:0"):
        prepare(arguments(tmp_path, deterministic=True))


@pytest.fixture
def card(monkeypatch):
    """An 80 GB card, and a model of OLMo-2-7B's size."""
    monkeypatch.setattr(device_memory, "gpu_memory", lambda: int(79.6 * 2**30))
    monkeypatch.setattr(device_memory, "parameter_count", lambda config: 7_298_617_344)
    monkeypatch.setattr(device_memory, "pick_device", lambda: torch.device("cuda", 0))


def test_what_does_not_fit_is_refused_with_numbers_before_anything_starts(
    tmp_path, card, monkeypatch
):
    monkeypatch.setattr(preparation, "packed_windows", lambda *given, **named: pytest.fail("late"))
    with pytest.raises(UsageError) as refused:
        prepare(arguments(tmp_path, precision="fp32_master"))
    said = str(refused.value)
    for part in ("81.6 GiB", "79.6 GiB", "7,298,617,344", "--precision bf16_stochastic (68.0 GiB)"):
        assert part in said
    assert "--lora_rank" in said
    with pytest.raises(UsageError, match=r"take 108\.8 GiB"):
        prepare(arguments(tmp_path, precision="fp32"))
    assert list(tmp_path.iterdir()) == []


def test_several_gpus_share_what_one_has_no_room_for(tmp_path, card, monkeypatch):
    """Half of 16 bytes in training; beside half of 12 all weights while the model is asked."""
    shared = arguments(tmp_path, precision="fp32", processes=2)
    assert "68.0 GiB of 79.6 GiB on each of 2 GPUs for" in prepare(shared).describe_memory()
    monkeypatch.setattr(device_memory, "gpu_memory", lambda: 60 * 2**30)
    with pytest.raises(UsageError, match=r"take 68\.0 GiB on each of 2 GPUs") as refused:
        prepare(shared)
    assert "more GPUs a run" in str(refused.value)
    assert "bf16_stochastic" not in str(refused.value), "that is for one process"
    assert (
        "47.6 GiB" in prepare(arguments(tmp_path, precision="fp32", processes=4)).describe_memory()
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "54.4 GiB of 79.6 GiB"),
        ({"precision": "bf16_stochastic"}, "68.0 GiB of 79.6 GiB"),
    ],
)
def test_a_dry_run_says_what_memory_it_will_take(
    tmp_path, card, capsys, monkeypatch, changes, said
):
    monkeypatch.setattr(sweep_plan, "check_disk", lambda *given: None)
    flags = [f"--{name}={value}" for name, value in changes.items()]
    plan(
        parse(
            DataModelingArgs,
            [
                f"--dataset_builder_path={SAMPLE}",
                f"--output_dir={tmp_path}",
                *"--model olmo2-tiny --n_pretraining_examples 6 --chunk_size 128 --dry_run".split(),
                *flags,
            ],
        )
    )
    assert said in capsys.readouterr().out


def test_a_machine_without_a_gpu_says_nothing_of_its_memory(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert prepare(arguments(tmp_path)).describe_memory() is None


def test_a_missing_torchao_is_named_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(UsageError, match=r"--optimizer adamw8bit: .*pip install torchao"):
        prepare(arguments(tmp_path, optimizer="adamw8bit"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "adamw4bit", "precision": "fp32_master"}, "keeps no float32 master"),
        ({"optimizer": "adamw8bit", "save_optimizer": True}, "--save_optimizer keeps no moments"),
        ({"lora_rank": 4, "precision": "bf16_stochastic"}, "an adapter is float32"),
        ({"precision": "fp16"}, "bf16_stochastic"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        TrainingArgs(structured_dataset=SAMPLE, **changes)
