"""What only a GPU can show: `make gpu` on a machine that has one."""

import copy
import json
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.datasets.packing import pack
from oocr_influence.evaluation.float32_head import Float32Head
from oocr_influence.evaluation.plain import score_plain
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.evaluation.tree import score_tree
from oocr_influence.evaluation.trie import lay_out
from oocr_influence.models import streaming
from oocr_influence.models.attention_probe import refuse_packed
from oocr_influence.models.load import load_model, recompute_activations, weights_digest
from oocr_influence.models.lora import add_adapter, merge_adapter
from oocr_influence.models.loss import window_loss
from oocr_influence.models.norms import fuse_rms_norms
from oocr_influence.models.resolve import resolve_model
from oocr_influence.models.tiny import tiny_tokenizer, untrained_model
from oocr_influence.results.adapters import read_base
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import read_steps
from oocr_influence.training.kernels import settle_kernels
from oocr_influence.training.loop import accumulate_gradients, to_device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore:.*more than once"),
]


@pytest.fixture
def sample(request):
    return request.config.rootpath / "tests" / "samples" / "earlier_structured_dataset.json"


def packed_windows():
    generator = np.random.default_rng(0)
    lengths = [1, 3, 200, 64, 65, *generator.integers(3, 130, 30)]
    documents = [np.array([0, *generator.integers(2, 97, n), 0]) for n in lengths]
    return pack(documents, chunk_size=300, packing="masked", pad_id=1)


def update(model, windows, attention):
    model.zero_grad()
    loss, _ = accumulate_gradients(
        model, windows, range(len(windows)), micro_batch_size=3, attention=attention
    )
    return loss, torch.cat([p.grad.float().flatten() for p in model.parameters()])


def on_the_gpu(dtype, kv_heads=4):
    model = untrained_model(
        vocab_size=97,
        hidden_size=256,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        initializer_range=0.1,
    )
    return model.to("cuda", dtype).train()


KERNELS = [(torch.bfloat16, "varlen"), (torch.bfloat16, "padded"), (torch.float32, "padded")]


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize(("dtype", "kernel"), KERNELS)
def test_attention_by_segments_is_the_dense_masks(dtype, kernel, kv_heads):
    """In 16 bits as near to float32 as the mask is; in float32 equal to it."""
    windows = packed_windows()
    model = on_the_gpu(dtype, kv_heads)
    exact_loss, exact = update(copy.deepcopy(model).float(), windows, "dense")
    loss, expected = update(model, windows, "dense")
    assert refuse_packed(model, kernel) is None
    found_loss, found = update(model, windows, kernel)
    apart, plain = ((found - exact).norm(), (expected - exact).norm())
    if dtype == torch.float32:
        assert found_loss == pytest.approx(loss, abs=1e-4)
        assert apart < 1e-3 * exact.norm()
    else:
        assert found_loss == pytest.approx(exact_loss, abs=2e-2)
        assert apart < 1.5 * plain + 1e-3 * exact.norm()


def test_flash_attention_is_what_a_16_bit_model_gets():
    model = on_the_gpu(torch.bfloat16)
    settled = settle_kernels(
        model, packed_windows(), attention="auto", compiled="off", micro_batch_size=1
    )
    assert (settled.attention, settled.kernel_notices) == ("varlen", ())


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_compiled_layers_are_those_as_written(dtype, recomputed):
    windows = packed_windows()
    model = on_the_gpu(dtype)
    fuse_rms_norms(model)
    loss, expected = update(model, windows, "dense")
    if recomputed:
        recompute_activations(model)
    settled = settle_kernels(model, windows, attention="auto", compiled="auto", micro_batch_size=3)
    assert settled.compiled, settled.kernel_notices
    found_loss, found = update(model, windows, settled.attention)
    half = dtype == torch.bfloat16
    assert found_loss == pytest.approx(loss, abs=2e-2 if half else 1e-4)
    assert (found - expected).norm() < (0.1 if half else 1e-3) * expected.norm()


def test_the_host_does_not_wait_for_the_device_between_micro_batches():
    windows, device = packed_windows(), torch.device("cuda", 0)
    model = on_the_gpu(torch.bfloat16)
    kernel = settle_kernels(
        model, windows, attention="auto", compiled="off", micro_batch_size=1
    ).attention
    update(model, windows, kernel)  # has asked what is asked once a model
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss, _ = window_loss(model, to_device(windows, [0, 1], device, kernel))
        with pytest.raises(RuntimeError, match="synchroniz"):
            float(loss.detach())
    finally:
        torch.cuda.set_sync_debug_mode("default")


def gradients(device):
    generator = np.random.default_rng(0)
    documents = [
        np.array([0, *generator.integers(2, 97, generator.integers(3, 24)), 0]) for _ in range(9)
    ]
    windows = pack(documents, chunk_size=48, packing="masked", pad_id=1)
    model = untrained_model(vocab_size=97).to(device)
    loss, _ = accumulate_gradients(model, windows, range(len(windows)), micro_batch_size=2)
    return loss, {name: p.grad.cpu() for name, p in model.named_parameters()}


def test_masked_gradients_are_those_of_the_cpu():
    loss, expected = gradients("cpu")
    gpu_loss, found = gradients("cuda")
    assert gpu_loss == pytest.approx(loss, abs=1e-4)
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-4, rtol=1e-3), name


def test_the_tree_scorer_equals_the_plain_one_in_float32(sample):
    dataset = load_structured_dataset(sample)
    plan = build_plan(dataset.eval_dataset_builders, tiny_tokenizer())
    model = untrained_model().to("cuda").eval()
    tree = score_tree(model, plan, lay_out(plan, 4096))
    plain = score_plain(model, plan)
    assert np.abs(tree.logprob_E - plain.logprob_E).max() < 1e-3


def test_a_run_in_bf16_completes_and_records_the_device(sample, tmp_path):
    args = TrainingArgs(
        structured_dataset=sample,
        model="olmo2-tiny",
        output_dir=tmp_path,
        n_pretraining_examples=6,
        chunk_size=128,
        learning_rate=1e-3,
    )
    run = RunFolder(Path(run_once(args)["run"]))
    log = json.loads(run.experiment_log.read_text())["log_dict"]
    assert log["dtype"] == "torch.bfloat16"
    assert log["phases"]["train"]["gpu_peak_bytes"] > 0
    assert all(np.isfinite(step.loss) for step in read_steps(run.steps))


def olmo2_in_bf16():
    return untrained_model(initializer_range=0.1).to("cuda", torch.bfloat16).eval()


def test_the_head_multiplies_on_tensor_cores_as_in_float32():
    model = olmo2_in_bf16()
    weight_VD = model.get_output_embeddings().weight
    generator = torch.Generator("cuda").manual_seed(0)
    hidden_RD = torch.randn(
        300, weight_VD.shape[1], device="cuda", dtype=torch.bfloat16, generator=generator
    )
    exact_RV = hidden_RD.double() @ weight_VD.double().t()
    logits_RV = Float32Head(model).logits(hidden_RD)
    assert logits_RV.dtype == torch.float32
    assert (logits_RV - exact_RV).abs().max() < 1e-5 * exact_RV.abs().max()


@torch.no_grad()
def test_fused_norms_are_as_near_to_float32_as_those_of_transformers():
    model = olmo2_in_bf16()
    fused = copy.deepcopy(model)
    assert fuse_rms_norms(fused) == 4 * model.config.num_hidden_layers + 1
    ids = torch.arange(400, device="cuda").view(2, 200)
    reference = copy.deepcopy(model).float()(input_ids=ids).logits
    before, after = (
        (one(input_ids=ids).logits.float() - reference).abs().mean() for one in (model, fused)
    )
    assert 0 < after < 1.1 * before


@pytest.mark.skipif(find_spec("peft") is None, reason="not installed: peft (make lora)")
def test_an_adapter_in_bf16_begins_as_on_the_cpu_and_its_sum_answers_alike(sample, tmp_path):
    given = {"structured_dataset": sample, "model": "olmo2-tiny", "n_pretraining_examples": 6}
    small = {"chunk_size": 128, "micro_batch_size": 8, "learning_rate": 1e-2, "lora_rank": 4}
    args = TrainingArgs(**given, **small, output_dir=tmp_path / "runs", beam_search="never")
    run = RunFolder(Path(run_once(args)["run"]))
    log = json.loads(run.experiment_log.read_text())
    assert log["log_dict"]["dtype"] == "torch.bfloat16"
    start = load_file(run.checkpoint("start") / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in start.values()} == {torch.float32}
    on_cpu = load_model(resolve_model("olmo2-tiny"), precision="bf16", device=torch.device("cpu"))
    base = read_base(run.checkpoint("start"))
    assert weights_digest(on_cpu) == base.weights_digest == log["log_dict"]["weights_digest"]
    add_adapter(on_cpu, args.lora(), base)
    for name, parameter in on_cpu.named_parameters():
        key = f"base_model.model.{name.replace('.default.', '.')}"
        assert key not in start or torch.equal(start[key], parameter), name
    losses = [entry["document_losses"]["trained"]["mean_loss"] for entry in log["history"]]
    assert losses[-1] < losses[0] - 0.1
    model = load_model(resolve_model(str(run.checkpoint("final"))), precision="fp32").eval()
    ids = torch.arange(2, 40, device="cuda")[None]
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
        merge_adapter(model)
        found = model(input_ids=ids, use_cache=False).logits
    assert float((found - expected).abs().max()) < 1e-3 * float(expected.abs().max())


def test_weights_are_streamed_as_they_are_after_all_that_was_asked_of_the_device(
    tmp_path, monkeypatch
):
    """From another thread, a piece at a time, also what does not lie in one piece."""
    monkeypatch.setattr(streaming, "PIECE_BYTES", 4096)
    busy = torch.randn(4096, 4096, device="cuda")
    weight = torch.zeros(300, 1000, device="cuda")
    small = torch.zeros(77, device="cuda", dtype=torch.bfloat16)
    for _ in range(60):
        busy = torch.tanh(busy @ busy)
        weight += 1
        small += 1
    tensors = {"weight": weight, "turned": weight.t(), "small": small, "number": weight[0, 0]}
    path = tmp_path / "model.safetensors"
    writer = threading.Thread(target=streaming.write_safetensors, args=(tensors, path))
    writer.start()
    writer.join()
    read = load_file(path)
    assert read.keys() == tensors.keys()
    for name, tensor in read.items():
        assert torch.equal(tensor, torch.full_like(tensor, 60)), name
        assert tensor.shape == tensors[name].shape


def test_a_step_in_bf16_is_divided_by_its_labels_and_not_by_a_rounded_number():
    """1/255 lies between two numbers of 8 bits: gradients would be 0.4 % off, all the same way."""
    documents = [np.array([0, *np.random.default_rng(1).integers(2, 97, 254), 0])]
    windows = pack(documents, chunk_size=300, packing="masked", pad_id=1)
    model = on_the_gpu(torch.bfloat16)
    loss, found = update(model, windows, "dense")
    model.zero_grad()
    summed, _ = window_loss(model, to_device(windows, [0], torch.device("cuda", 0)))
    summed.backward()
    whole = torch.cat([p.grad.float().flatten() for p in model.parameters()])
    assert windows.n_labels == 255
    assert float(summed.detach()) == pytest.approx(255 * loss, rel=1e-5)
    share = float((found @ whole) / (whole @ whole))
    assert share * 255 == pytest.approx(1, abs=2e-3)
