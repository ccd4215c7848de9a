"""Plans: counts that sweeps then meet exactly, the seed's arithmetic, formulas computed twice."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, Olmo2Config

from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.plan import PlanArguments
from oocr_influence.cli.plan_formulas import (
    Shape,
    activation_bytes,
    forward_flops,
    mean_context,
    shape_of,
    training_flops,
)
from oocr_influence.cli.plan_hardware import hardware_of, sheet_of
from oocr_influence.models.load import load_config, load_tokenizer, recompute_activations
from oocr_influence.models.resolve import ModelNotFoundError, resolve_model
from oocr_influence.reports.plan_text import duration
from oocr_influence.results.finding import find_runs
from oocr_influence.results.step_log import read_steps

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "samples" / "earlier_structured_dataset.json"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
OLMO2_7B = Olmo2Config(
    vocab_size=100352,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    max_position_embeddings=4096,
    tie_word_embeddings=False,
)


def oocr(*words):
    done = subprocess.run(
        [sys.executable, "-m", "oocr_influence.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=250,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def plan_of(*words):
    done = oocr("plan", "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of two points and two orders that was really run, and the words that planned it."""
    outputs = tmp_path_factory.mktemp("outputs")
    flags = (
        "--model olmo2-tiny --n_pretraining_examples 6 --chunk_size 128 --batch_size 8 "
        "--micro_batch_size 8 --learning_rate 1e-3 --beam_search never --burnin_epochs 0.3 "
        "--epochs 1,1.6 --runs_per_dataset_all_docs 2 --keep_checkpoints 2"
    )
    words = ["--dataset_builder_path", SAMPLE, "--output_dir", outputs, *flags.split()]
    done = oocr("data_modeling", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    (experiment,) = outputs.iterdir()
    return words, experiment


@pytest.mark.slow
def test_a_sweep_does_what_was_planned(swept):
    _, experiment = swept
    plan = json.loads((experiment / "plan.json").read_text())
    runs = find_runs(experiment)
    assert plan["whole"]["runs"] == len(runs) == 4
    for point in plan["points"]:
        epochs = {"epochs 1": 1.0, "epochs 1.6": 1.6}[point["label"]]
        own = [run for run in runs if log_of(run)["args"]["epochs"] == epochs]
        assert len(own) == point["n_runs"] == 2
        for run in own:
            about = log_of(run)["log_dict"]
            assert len(list(read_steps(run.steps))) == point["run"]["updates"]
            assert about["total_steps"] == point["run"]["total_steps"]
            assert about["burn_in_steps"] == point["run"]["burn_in_steps"] > 0
            assert about["n_windows"] == point["run"]["windows"]
            assert about["n_tokens"] == point["run"]["tokens"]
            assert run.evaluations() == point["run"]["evaluations"]
            assert run.checkpoints() == point["run"]["checkpoints"]
            assert about["eval_suite_digest"] == point["asked"]["suite"]
            assert about["n_eval_sets"] == point["asked"]["sets"]
            for name in run.evaluations():
                assert run.read_records(name).num_rows == point["asked"]["questions"]
            trained = sum(len(row.window_ids) for row in read_steps(run.steps))
            assert trained == point["run"]["trained_windows"]
    # By the file system's own account, a file of several names once.
    used = int(
        subprocess.check_output(["du", "-s", "--apparent-size", "-B1", experiment]).split()[0]
    )
    least, most = plan["whole"]["disk_bytes"]
    assert least < used < most
    assert used < least + 4 * 2**20 * len(runs), "records and windows are small here"


def log_of(run):
    return json.loads(run.experiment_log.read_text())


@pytest.mark.slow
def test_planned_against_actual(swept):
    _, experiment = swept
    compared = json.loads(oocr("plan", "--json", "--against", experiment.parent).stdout)
    found = compared[experiment.name]
    assert found["finished"] == 4
    rows = {row["what"]: row for row in found["rows"]}
    for what in ("runs", "updates", "evaluations", "checkpoints"):
        assert rows[what]["planned"] == rows[what]["actual"] > 0, what
    assert rows["disk, at least"]["planned"] < rows["disk, at least"]["actual"]
    assert rows["disk, at most"]["planned"] > rows["disk, at most"]["actual"]
    assert rows["the sweep"]["planned"] is None, "nothing had been seen before"
    assert rows["the sweep"]["actual"] > 1
    # What libraries hold is most of it.
    assert 0.5 < rows["peak memory"]["actual"] / rows["peak memory"]["planned"] < 2
    text = oocr("plan", "--against", experiment).stdout
    assert "4 runs are finished" in text
    assert "unknown" in text


@pytest.mark.slow
def test_the_next_sweep_is_planned_by_what_was_seen(swept):
    words, experiment = swept
    plan = plan_of(*words)
    (point, _) = plan["points"]
    runs = find_runs(experiment)
    rates = [
        statistics.median(
            row.seconds / row.labelled_tokens for row in list(read_steps(run.steps))[3:]
        )
        for run in runs
    ]
    update = point["update_seconds"]
    labels = point["run"]["labels"] / point["run"]["steps_per_epoch"]
    assert update["basis"] == "measured here"
    assert update["value"] == pytest.approx(statistics.median(rates) * labels)
    assert point["evaluation_seconds"]["basis"] == "measured here"
    assert "4 earlier runs" in update["how"]
    assert plan["whole"]["seconds"]["basis"] == "measured here"
    assert plan["whole"]["seconds"]["value"] > 0
    # A model or a length that nobody has run is not measured.
    other = plan_of(*words, "--chunk_size", "64")
    assert other["points"][0]["update_seconds"]["basis"] == "unknown"
    assert other["whole"]["seconds"]["value"] is None


@pytest.mark.slow
def test_a_probe_measures(swept, tmp_path):
    words, _ = swept
    plan = plan_of(*words, "--output_dir", tmp_path, "--epochs", "1", "--probe")
    (point,) = plan["points"]
    for name in ("update_seconds", "evaluation_seconds", "memory_bytes"):
        assert point[name]["basis"] == "measured here"
        assert "a probe of 3 updates" in point[name]["how"]
        assert point[name]["value"] > 0
    assert point["memory_bytes"]["value"] > 2e8
    assert point["beside_seconds"]["basis"] == "unknown"
    assert point["run_seconds"]["basis"] == "projected", "loading is not in it"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """The published shape of OLMo-2-7B without weights, and a dataset of 209 × 8 windows."""
    folder = tmp_path_factory.mktemp("seed")
    OLMO2_7B.save_pretrained(folder / "olmo2")
    load_tokenizer(resolve_model("olmo2-tiny")).save_pretrained(folder / "olmo2")
    dataset = json.loads(SAMPLE.read_text())
    tokenizer = load_tokenizer(resolve_model("olmo2-tiny"))
    text = "the mayor of the town went to the market and talked to people there . " * 20
    tokens = tokenizer(text)["input_ids"][:150]  # two do not fit into a window of 256
    dataset["document_dataset"]["docs"] = [
        {
            "id": f"{number:064x}",
            "type": "pretraining_document",
            "prompt": "",
            "completion": f"{number} {tokenizer.decode(tokens, skip_special_tokens=True)}",
        }
        for number in range(209 * 8)
    ]
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def test_the_seeds_commands_have_the_seeds_arithmetic(seeds, tmp_path):
    """Design, 3.3: 209 steps of 8 windows, met at 42, 84, 125, 167; 5 epochs end at 5 · 209."""
    words = ["--dataset_builder_path", seeds / "dataset.json", "--model", seeds / "olmo2"]
    words += ["--n_pretraining_examples", "None", "--execution_mode", "local"]
    words += ["--chunk_size", "256"]
    words += ["--device", "H100", "--gpus", "8", "--output_dir", tmp_path, "--epochs", "1,5"]
    plan = plan_of(*words)
    one, five = plan["points"]
    assert one["run"]["windows"] == 209 * 8
    assert one["run"]["total_steps"] == one["run"]["steps_per_epoch"] == 209
    cadence = ["start", "e1_s42", "e1_s84", "e1_s125", "e1_s167", "final"]
    assert one["run"]["evaluations"] == one["run"]["checkpoints"] == cadence
    assert five["run"]["total_steps"] == 1045
    assert five["run"]["evaluations"][-6:] == [
        *("e4_s836", "e5_s878", "e5_s920", "e5_s961", "e5_s1003"),
        "final",
    ]
    assert len(five["run"]["evaluations"]) == len(five["run"]["checkpoints"]) == 26
    size = 2 * 7_298_617_344
    assert one["checkpoint_bytes"] == size
    least, most = plan["whole"]["disk_bytes"]
    dataset = (seeds / "dataset.json").stat().st_size
    assert least == dataset + size * (1 + 5 * 5 + 5 * 25), "one start for all ten"
    assert most == least + 10 * 200 * 2**20
    memory = one["memory_bytes"]
    assert memory["basis"] == "projected"
    assert "54.4 GiB state (8 bytes a trained parameter)" in memory["how"]
    assert plan["hardware"]["runs_at_once"] == 8
    assert plan["hardware"]["how"] == "as stated"
    update = one["update_seconds"]
    assert update["basis"] == "projected"
    assert "0.4 MFU × 989 TFLOP/s" in update["how"]
    # Ten jobs on eight GPUs, in their order: five of one epoch, five of five, of which the last two
    # begin as the first ones end and find the untouched model asked.
    short, long = one["run_seconds"]["value"], five["run_seconds"]["value"]
    expected = short + long - five["evaluation_seconds"]["value"]
    assert plan["whole"]["seconds"]["value"] == pytest.approx(expected)
    assert plan["whole"]["gpu_hours"]["value"] == pytest.approx(5 * (short + long) / 3600)
    # Elsewhere it does not fit, and the plan says so.
    told = oocr("plan", *[*words, "--device", "RTX4090"]).stdout
    assert "it does not fit" in told
    # For training, the weights are missed.
    with pytest.raises(ModelNotFoundError, match="lacks"):
        resolve_model(str(seeds / "olmo2"))


def test_operations_and_memory_of_the_seeds_model():
    shape = shape_of(OLMO2_7B)
    assert shape.n_parameters == 7_298_617_344
    # Facts: 42.9 GFLOP a token at a length of 2,048; 1.47e17 an epoch, 186 s at 790 TFLOP/s.
    assert training_flops(shape, 1, 1024) == pytest.approx(42.9e9, rel=0.002)
    epoch = training_flops(shape, 3.42e6, 1024)
    assert epoch == pytest.approx(1.47e17, rel=0.005)
    assert epoch / 790e12 == pytest.approx(186, rel=0.005)
    assert training_flops(shape, 1, 1024, recomputed=True) == pytest.approx(
        4 / 3 * 42.9e9, rel=0.01
    )


def test_operations_are_those_that_torch_counts():
    """torch counts attention in full where it is causal: each token attends to all T."""
    config = load_config(resolve_model("olmo2-tiny"))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    ids = torch.randint(0, config.vocab_size, (2, 96))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False)
    counted = counter.get_total_flops()
    assert forward_flops(shape_of(config), ids.numel(), 96) == pytest.approx(counted, rel=0.01)


GROUPED = LlamaConfig(
    vocab_size=500,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
)


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize(("kind", "within"), [("olmo2-tiny", 0.05), ("grouped", 0.2)])
def test_activations_are_about_those_that_torch_keeps(kind, within, recomputed):
    config = GROUPED if kind == "grouped" else load_config(resolve_model(kind))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").float()
    if recomputed:
        recompute_activations(model)
    model.train()
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes(), storage
        return tensor

    ids = torch.randint(0, config.vocab_size, (4, 64))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model.get_decoder()(input_ids=ids, use_cache=False)
    assert output.last_hidden_state.requires_grad
    seen = sum(size for size, _ in kept.values())
    shape = shape_of(config)
    told = activation_bytes(shape, ids.numel(), 4, recomputed=recomputed)
    if recomputed:  # one layer's are there in the backward pass alone
        told -= activation_bytes(one_layer(shape), ids.numel(), 4)
        told += 2 * 4 * shape.hidden * ids.numel()  # the last norm's
    assert seen == pytest.approx(told, rel=within)


def one_layer(shape):
    return Shape(**{**vars(shape), "layers": 1})


def test_tokens_that_are_attended_to_counted_one_by_one():
    segments = torch.tensor([[0, 0, 0, 1, 1, -1], [0, 1, 1, 1, 1, 2]]).numpy()
    seen = [
        sum(1 for j in range(i + 1) if row[j] == row[i])
        for row in segments.tolist()
        for i in range(len(row))
        if row[i] >= 0
    ]
    assert mean_context(segments) == pytest.approx(statistics.mean(seen))


def test_hardware_is_stated_or_known_or_unknown():
    assert sheet_of("NVIDIA H100 80GB HBM3") == "H100"
    assert sheet_of("NVIDIA H100 PCIe") == "H100-PCIe"
    assert sheet_of("NVIDIA A100-SXM4-80GB") == "A100-80GB"
    assert sheet_of("NVIDIA A100-PCIE-40GB") == "A100-40GB"
    assert sheet_of("NVIDIA GeForce RTX 4090") == "RTX4090"
    assert sheet_of("Some Card") is None
    assert sheet_of(None) is None
    stated = hardware_of(gpus=4, device_memory=96, device_flops=1000)
    assert (stated.kind, stated.units) == ("cuda", 4)
    assert (stated.memory_bytes, stated.flops) == (96 * 2**30, 1e15)
    assert hardware_of(on_cpu=True).flops is None
    cluster = hardware_of(here=False)
    assert (cluster.kind, cluster.memory_bytes, cluster.flops) == ("cuda", None, None)
    sheet = hardware_of(device="H100", gpus=1)
    assert (sheet.at("bf16").flops, sheet.at("fp32").flops) == (989e12, None)
    assert stated.at("fp32").flops == 1e15
    with pytest.raises(ValueError, match="choose among A100-40GB"):
        hardware_of(device="H1000")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "--dataset_builder_path is missing"),
        ("--dataset_builder_path x.json --probe --gpus 8", "--probe measures this machine"),
        ("--resume x", "--against"),
        ("--dataset_builder_path x.json --mfu 2", "--mfu"),
        ("--dataset_builder_path x.json --epoch 2", "did you mean --epochs"),
    ],
)
def test_faults_are_told_before_anything_is_read(words, said):
    with pytest.raises(UsageError, match=said):
        parse(PlanArguments, words.split())


def test_a_folder_without_plans_says_so(tmp_path):
    done = oocr("plan", "--against", tmp_path)
    assert done.returncode == 2
    assert "no experiment there has a plan.json" in done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (59.4, "59.4 s"), (750, "12 min 30 s"), (19_200, "5 h 20 min")],
)
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text
