"""Runs that train an adapter: from the untouched model to what every command makes of it."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from oocr_influence.cli import export, sample
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.evaluate import EvaluateArguments
from oocr_influence.cli.evaluate import main as evaluate
from oocr_influence.cli.one_run import Control, RunStopped, run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.preparation import prepare
from oocr_influence.cli.resuming import find_unfinished
from oocr_influence.cli.verify import VerifyArguments, expected_of, load_checkpoint
from oocr_influence.cli.verify import main as verify
from oocr_influence.models import lora
from oocr_influence.models.load import load_model, weights_digest
from oocr_influence.models.resolve import resolve_model
from oocr_influence.results.finding import find_runs
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import read_steps
from oocr_influence.results.verification import verify_run

MISSING = [name for name in ("peft", "accelerate") if find_spec(name) is None]
needs_peft = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING} (make lora)"),
]
pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")
LORA = {"lora_rank": 4, "learning_rate": 1e-2, "steps_per_eval": 3, "steps_per_save": 3}
SHORT = {"max_steps": 2, "epochs_per_eval": None, "epochs_per_save": None}
SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
SMALL = {
    "model": "olmo2-tiny",
    "n_pretraining_examples": 6,
    "chunk_size": 128,
    "micro_batch_size": 8,
    "beam_search": "never",
}
ADAPTER = "adapter_model.safetensors"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("OOCR_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)


def command(module, name, *words):
    return module.main(parse(getattr(module, name), [str(word) for word in words]))


def log_of(run):
    return json.loads(run.experiment_log.read_text())


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(t, other[n]) for n, t in one.items())


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=torch.arange(2, 40)[None], use_cache=False).logits


def adapted(run, name="final", precision="fp32"):
    return load_model(resolve_model(str(run.checkpoint(name))), precision=precision)


def close(one, other):
    """Up to float32's rounding, which grows with the largest number."""
    return float((one - other).abs().max()) < 1e-5 * float(other.abs().max())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    given = {"structured_dataset": SAMPLE, "output_dir": folder / "runs", "eval_cache": False}
    args = TrainingArgs(**given, **SMALL, **LORA, epochs=2)
    return RunFolder(Path(run_once(args)["run"]))


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made.path, tmp_path / made.name)
    return RunFolder(tmp_path / made.name)


class TestARun:
    """One run, looked at from all sides."""

    pytestmark = needs_peft

    def test_it_learns_and_its_checkpoints_are_adapters(self, run):
        log = log_of(run)
        assert log["log_dict"]["lora"]["rank"] == 4
        assert log["log_dict"]["lora"]["alpha"] == 8
        losses = [entry["document_losses"]["trained"]["mean_loss"] for entry in log["history"]]
        assert losses[-1] < losses[0] - 0.3
        for name in run.checkpoints():
            folder = run.checkpoint(name)
            names = {path.name for path in folder.iterdir()}
            assert {ADAPTER, "adapter_config.json", "base_model.json"} < names
            assert "tokenizer.json" in names
            assert not names & {"config.json", "model.safetensors"}
            base = json.loads((folder / "base_model.json").read_text())
            assert base["weights_digest"] == log["log_dict"]["weights_digest"]
        start, final = (load_file(run.checkpoint(n) / ADAPTER) for n in ("start", "final"))
        for name, tensor in start.items():
            assert bool(tensor.any()) == (".lora_A." in name)
            assert not torch.equal(final[name], tensor)
        n_parameters = sum(tensor.numel() for tensor in final.values())
        assert log["log_dict"]["lora"]["n_parameters"] == n_parameters

    def test_verify_and_evaluate_find_its_own_numbers(self, run, capsys):
        assert verify(VerifyArguments(paths=[run.path], load=True)) == 0
        words = [str(run.path), "--checkpoints", "all", "--no-beam_search"]
        assert evaluate(parse(EvaluateArguments, words)) == 0
        assert {name for name, _ in run.added_evaluations()} == set(run.checkpoints())
        for name, suite in run.added_evaluations():
            own, added = run.read_evaluation(name), run.read_evaluation(name, suite)
            assert added.eval_sets == own.eval_sets, name
            assert run.read_records(name, suite=suite).equals(run.read_records(name))

    def test_what_is_exported_is_the_sum(self, run, tmp_path):
        expected = logits(adapted(run))
        plain = tmp_path / "plain"
        assert command(export, "ExportArguments", run.path, "--output_dir", plain) == 0
        model = AutoModelForCausalLM.from_pretrained(plain, dtype="auto")
        assert model.dtype == torch.float32
        assert close(logits(model), expected)
        half = tmp_path / "half"
        command(export, "ExportArguments", run.path, "--output_dir", half, "--dtype", "bf16")
        exact = load_file(plain / "model.safetensors")
        rounded = {name: tensor.to(torch.bfloat16) for name, tensor in exact.items()}
        assert same(load_file(half / "model.safetensors"), rounded)
        assert prepare(arguments(run, tmp_path, model=str(plain))).resolved.folder == plain
        with pytest.raises(UsageError, match="is an adapter: `oocr export"):
            prepare(arguments(run, tmp_path, model=str(run.checkpoint("final"))))

    def test_the_earlier_systems_readers_get_whole_weights(self, run, tmp_path):
        legacy = tmp_path / "legacy"
        assert command(export, "ExportArguments", run.path, "--legacy", "--output_dir", legacy) == 0
        (found,) = find_runs(legacy)
        assert found.checkpoints() == run.checkpoints()
        for name in found.checkpoints():
            model = AutoModelForCausalLM.from_pretrained(found.checkpoint(name))
            assert close(logits(model), logits(adapted(run, name)))
        assert verify(VerifyArguments(paths=[legacy], load=True)) == 0

    def test_it_answers_freely(self, run, tmp_path):
        (dataset,) = [log_of(run)["args"]["structured_dataset"]]
        words = ["--sets", "name_mayor_eval_qa_1_no_fs", "--n_samples", "2"]
        words += ["--model", run.checkpoint("final"), "--output", tmp_path / "sampled.json"]
        assert command(sample, "SampleArguments", dataset, *words) == 0
        assert (tmp_path / "sampled.json").is_file()

    def test_what_is_broken_is_found(self, run):
        def faults():
            report = verify_run(run, expected_of, load=load_checkpoint)
            return " ".join(f.what for f in report.findings if f.severity == "error")

        assert faults() == ""
        start = run.checkpoint("start") / ADAPTER
        kept = start.read_bytes()
        start.unlink()
        shutil.copy(run.checkpoint("e1_s3") / ADAPTER, start)
        assert "checkpoint_start has weights of digest" in faults()
        start.write_bytes(kept[:-10])
        assert "cut short" in faults()
        start.write_bytes(kept)
        shutil.copy(start, run.checkpoint("final") / ADAPTER)
        assert "nothing was learned" in faults()
        (run.checkpoint("final") / "base_model.json").unlink()
        assert "base_model.json is missing" in faults()


def arguments(run, folder, **changes):
    return TrainingArgs(
        **{**log_of(run)["args"], "output_dir": folder, "lora_rank": None, **changes}
    )


class TestASweep:
    """Several runs of one model."""

    pytestmark = needs_peft

    def test_the_first_step_is_the_untouched_model_out_of_the_cache(self, train_once):
        plain = train_once(**SHORT)
        run = train_once(**SHORT, lora_rank=4)
        log = log_of(run)["log_dict"]
        assert log["evaluation_from_cache"]["run"] == str(plain.path)
        assert log["weights_digest"] == log_of(plain)["log_dict"]["weights_digest"]
        asked = train_once(**SHORT, lora_rank=4, eval_cache=False)
        own, expected = asked.read_evaluation("start"), plain.read_evaluation("start")
        assert own.eval_sets == expected.eval_sets
        assert own.document_losses == expected.document_losses
        first = [next(iter(read_steps(one.steps))).loss for one in (plain, asked)]
        assert first[0] == first[1]

    def test_the_first_checkpoint_is_shared_by_equal_adapters_alone(self, train_once):
        def inode(**changes):
            run = train_once(**SHORT, lora_rank=4, **changes)
            return (run.checkpoint("start") / ADAPTER).stat().st_ino

        train_once(**SHORT)
        one = inode()
        assert inode(data_order_seed=43) == one
        assert inode(lora_alpha=16) != one
        assert inode(lora_seed=1) != one
        plain = train_once(**SHORT)
        assert (plain.checkpoint("start") / "model.safetensors").is_file()

    def test_the_same_seed_makes_the_same_bits(self, train_once):
        runs = [train_once(**SHORT, lora_rank=4, lora_dropout=0.3) for _ in range(2)]
        files = [run.checkpoint("final") / ADAPTER for run in runs]
        assert files[0].read_bytes() == files[1].read_bytes()
        without = train_once(**SHORT, lora_rank=4)
        assert not same(load_file(without.checkpoint("final") / ADAPTER), load_file(files[0]))
        recomputed = train_once(**SHORT, lora_rank=4, lora_dropout=0.3, gradient_checkpointing=True)
        assert same(load_file(recomputed.checkpoint("final") / ADAPTER), load_file(files[0]))

    def test_a_run_that_is_stopped_goes_on_with_the_same_bits(self, train_once, tmp_path):
        whole = train_once(**LORA, epochs=2, lora_dropout=0.2)
        args = arguments(whole, tmp_path / "stopped", lora_rank=4)
        updates = []

        def count(values):
            updates.extend(["tok/s"] if "tok/s" in values["message"] else [])

        control = Control(report=count, stop_requested=lambda: len(updates) >= 5)
        with pytest.raises(RunStopped) as stopped:
            run_once(args, control)
        state = stopped.value.folder / "training_state.pt"
        n_parameters = log_of(whole)["log_dict"]["lora"]["n_parameters"]
        assert state.stat().st_size < 3 * 4 * n_parameters + 200_000, "no base in it"
        torch.manual_seed(99)
        run = RunFolder(stopped.value.folder)
        run_once(args, unfinished=find_unfinished(args))
        assert run.checkpoints() == whole.checkpoints()
        for name in run.checkpoints():
            one, other = (load_file(r.checkpoint(name) / ADAPTER) for r in (run, whole))
            assert same(one, other), name
            assert run.read_evaluation(name).eval_sets == whole.read_evaluation(name).eval_sets
        assert verify(VerifyArguments(paths=[run.path], load=True)) == 0

    def test_the_disk_is_asked_for_what_adapters_take(self, train_once):
        run = train_once(**SHORT, lora_rank=4, lora_targets=["q_proj", "up_proj"])
        args = TrainingArgs(**log_of(run)["args"])
        size = (run.checkpoint("final") / ADAPTER).stat().st_size
        assert size - 10_000 < prepare(args).checkpoint_bytes() < size

    def test_in_bf16_the_adapter_stays_float32(self, train_once):
        run = train_once(**SHORT, lora_rank=4, precision="bf16")
        tensors = load_file(run.checkpoint("final") / ADAPTER)
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        assert verify(VerifyArguments(paths=[run.path], load=True)) == 0
        words = [str(run.path), "--no-beam_search"]
        assert evaluate(parse(EvaluateArguments, words)) == 0
        ((name, suite),) = run.added_evaluations()
        assert run.read_evaluation(name, suite).eval_sets == run.read_evaluation(name).eval_sets

    @pytest.mark.parametrize("wrong", ["lm_head", "nothing"])
    def test_layers_that_are_not_there_are_told_before_weights_are_loaded(self, sample_args, wrong):
        with pytest.raises(UsageError, match=f"--lora_targets {wrong}: no linear layer of the dec"):
            prepare(sample_args(lora_rank=4, lora_targets=[wrong]))


@pytest.fixture
def sample_args(tmp_path):
    def args(**changes):
        given = {"structured_dataset": SAMPLE, "output_dir": tmp_path / "runs"}
        return TrainingArgs(**given, **SMALL, **changes)

    return args


def test_without_the_package_both_commands_are_named(sample_args, tmp_path, monkeypatch):
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    told = r"--lora_rank 4: .*not installed \(peft, accelerate\).*make lora.*pip install"
    with pytest.raises(UsageError, match=told):
        prepare(sample_args(lora_rank=4))
    assert not (tmp_path / "runs").exists()
    assert prepare(sample_args()).args.lora() is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--lora_alpha 8", "--lora_alpha goes with --lora_rank"),
        ("--lora_targets q_proj --lora_dropout 0.1", "--lora_dropout goes with --lora_rank"),
        ("--lora_rank 4 --lora_targets all-linear q_proj", "all-linear alone"),
        ("--lora_rank 0", "--lora_rank '0'"),
    ],
)
def test_flags_that_make_no_sense_are_told(words, told):
    with pytest.raises(UsageError, match=told):
        parse(TrainingArgs, ["--structured_dataset", "x.json", *words.split()])


def test_alpha_is_twice_the_rank_unless_stated():
    line = ["--structured_dataset", "x.json", "--lora_rank", "16"]
    assert parse(TrainingArgs, line).lora() == lora.LoraSettings(rank=16, alpha=32)
    stated = [*line, "--lora_alpha", "7", "--lora_targets", "q_proj,v_proj"]
    assert parse(TrainingArgs, stated).lora().alpha == 7
    assert parse(TrainingArgs, stated).lora().targets == ("q_proj", "v_proj")


@pytest.mark.skipif(bool(MISSING), reason="weights_digest of what is loaded needs peft")
@pytest.mark.slow
def test_the_loaded_start_is_the_untouched_model(train_once):
    run = train_once(**SHORT, lora_rank=4)
    assert weights_digest(adapted(run, "start")) == log_of(run)["log_dict"]["weights_digest"]
