"""LoRA: the untouched model at first, a naive implementation's gradients, one sum at the end."""

import copy
import json
import math
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from oocr_influence.datasets.packing import pack
from oocr_influence.models.head import has_plain_head
from oocr_influence.models.load import (
    load_model,
    load_tokenizer,
    recompute_activations,
    save_checkpoint,
    weights_digest,
)
from oocr_influence.models.lora import (
    LoraSettings,
    adapter_size,
    add_adapter,
    load_adapter,
    merge_adapter,
    n_trained,
    save_adapter,
)
from oocr_influence.models.loss import attention_mask
from oocr_influence.models.resolve import ModelNotFoundError, resolve_model
from oocr_influence.models.tiny import tiny_config, tiny_tokenizer, untrained_model
from oocr_influence.results.adapters import BaseModel
from oocr_influence.training.loop import accumulate_gradients, to_device, train
from oocr_influence.training.optimizer import OptimizerSettings, make_optimizer
from oocr_influence.training.schedule import LearningRate, Schedule

MISSING = [name for name in ("peft", "accelerate") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING} (make lora)"),
]
torch.set_num_threads(1)
SETTINGS = LoraSettings(rank=4, alpha=8)
SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


def olmo():
    return untrained_model(0, **SHAPE)


def gpt2():
    """Conv1D layers, whose weights are transposed, and a head that is the embedding."""
    torch.manual_seed(3)
    shape = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**shape, **none))


def base_of(model, /, **changes):
    known = {
        "model": "olmo2-tiny",
        "revision": None,
        "commit": None,
        "dtype": str(model.dtype),
        "weights_digest": weights_digest(model),
    }
    return BaseModel(**{**known, **changes})


def adapted(model, settings=SETTINGS, *, moved=False):
    """The model with an adapter; `moved` gives it a B that is not zero."""
    add_adapter(model, settings, base_of(model))
    if moved:
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return model


@pytest.fixture(scope="module")
def windows():
    generator = np.random.default_rng(0)
    documents = [np.array([0, *generator.integers(2, 97, 12), 0]) for _ in range(23)]
    return pack(documents, chunk_size=32, packing="masked", pad_id=1)


@torch.no_grad()
def logits(model):
    ids = torch.arange(3, 27)[None]
    return model.eval()(input_ids=ids, use_cache=False).logits


def gradients(model, windows):
    model.train()
    model.zero_grad()
    loss, _ = accumulate_gradients(model, windows, range(6), micro_batch_size=2)
    return loss, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def trained(model, windows, settings=None):
    schedule = Schedule(len(windows), batch_size=3, epochs=2)
    train(
        model,
        windows,
        schedule,
        LearningRate(1e-2, schedule.total_steps),
        settings or OptimizerSettings(weight_decay=0.1),
        data_order_seed=5,
        micro_batch_size=3,
        after_step=lambda step, _: None,
        log_step=lambda step: None,
    )
    return model


class NaiveLora(torch.nn.Module):
    """x W + (alpha / r) x Aᵀ Bᵀ, as the paper writes it."""

    def __init__(self, linear, A, B, scale):
        super().__init__()
        self.linear, self.scale = linear, scale
        self.A, self.B = torch.nn.Parameter(A.clone()), torch.nn.Parameter(B.clone())

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T @ self.B.T)


def naive_copy(model, with_adapter, scale):
    """`model` with the adapter of the other one, in layers of our own."""
    model = copy.deepcopy(model)
    tensors = dict(with_adapter.named_parameters())
    for name, module in list(model.named_modules()):
        key = f"{name}.lora_A.default.weight"
        if key in tensors:
            A, B = tensors[key].detach(), tensors[key.replace("lora_A", "lora_B")].detach()
            model.set_submodule(name, NaiveLora(module, A, B, scale))
    return model


def naive_loss(model, windows):
    """The token-mean loss from all logits."""
    batch = to_device(windows, range(6), torch.device("cpu"))
    found = model(
        input_ids=batch.input_ids_BT,
        position_ids=batch.position_ids_BT,
        attention_mask=attention_mask(batch.segments_BT),
        use_cache=False,
    ).logits
    targets = batch.labels_BT[:, 1:].flatten()
    return torch.nn.functional.cross_entropy(found[:, :-1].flatten(0, 1), targets)


@pytest.mark.parametrize("make", [olmo, gpt2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_first_step_finds_the_untouched_model(make, dtype, windows):
    model = make().to(dtype)
    expected, loss = logits(model), gradients(model, windows)[0]
    adapted(model)
    assert torch.equal(logits(model), expected)
    assert gradients(model, windows)[0] == loss


@pytest.mark.parametrize("make", [olmo, gpt2])
def test_only_the_adapter_has_gradients_and_they_are_the_naive_ones(make, windows):
    base = make()
    model = adapted(make(), moved=True)
    assert has_plain_head(model), "no logits are held"
    loss, found = gradients(model, windows)
    assert {name.rpartition(".lora_")[2] for name in found} == {
        "A.default.weight",
        "B.default.weight",
    }
    naive = naive_copy(base, model, scale=SETTINGS.alpha / SETTINGS.rank)
    expected = naive_loss(naive.train(), windows)
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    named = dict(naive.named_parameters())
    assert len(found) == 2 * (14 if make is olmo else 8)
    for name, gradient in found.items():
        other = named[name.replace("lora_", "").replace(".default.weight", "")].grad
        assert torch.allclose(gradient, other, atol=1e-6, rtol=1e-4), name
        assert gradient.abs().max() > 0, name


def test_recomputed_activations_give_the_same_gradients(windows):
    """Nothing before the first adapter is trained, where reentrant checkpoints lose gradients."""
    model = adapted(olmo(), moved=True)
    loss, expected = gradients(model, windows)
    recompute_activations(model)
    again, found = gradients(model, windows)
    assert again == loss
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize("make", [olmo, gpt2])
def test_training_moves_the_adapter_alone_and_the_merged_model_is_the_adapted_one(make, windows):
    base = make()
    model = trained(adapted(make()), windows)
    for name, tensor in base.state_dict().items():
        kept = model.state_dict()
        found = kept[name] if name in kept else kept[".base_layer.".join(name.rsplit(".", 1))]
        assert torch.equal(found, tensor), name
    expected = logits(model)
    assert not torch.allclose(expected, logits(base), atol=1e-2)
    merge_adapter(model)
    assert model.state_dict().keys() == base.state_dict().keys()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.allclose(logits(model), expected, atol=1e-5, rtol=0)


def test_a_merged_bf16_model_is_rounded_once():
    model = adapted(olmo().to(torch.bfloat16), moved=True)
    layer = model.model.layers[0].mlp.up_proj
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    exact = layer.base_layer.weight.float() + 2.0 * (B @ A)
    merge_adapter(model)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, exact.to(torch.bfloat16))


def test_merging_an_adapter_of_zeros_changes_no_bit():
    model = olmo()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0] = -0.0
    expected = weights_digest(model)
    merge_adapter(adapted(model))
    assert weights_digest(model) == expected


def test_the_seed_alone_decides_how_it_begins():
    """Neither the global generator nor the base's precision, and the global one is left alone."""

    def first(dtype=torch.float32, **changes):
        torch.manual_seed(int(np.random.default_rng().integers(1000)))
        before = torch.get_rng_state()
        model = adapted(olmo().to(dtype), LoraSettings(rank=4, alpha=8, **changes))
        assert torch.equal(torch.get_rng_state(), before)
        tensors = {n: p.detach() for n, p in model.named_parameters() if ".lora_" in n}
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        return tensors

    def same(one, other):
        return all(torch.equal(tensor, other[name]) for name, tensor in one.items())

    one = first()
    assert same(one, first())
    assert same(one, first(torch.bfloat16))
    assert not same(one, first(seed=1))
    a = torch.cat([tensor.flatten() for name, tensor in one.items() if "up_proj.lora_A" in name])
    bound = 1 / math.sqrt(SHAPE["hidden_size"])
    assert bound * 0.9 < a.abs().max() <= bound  # uniform, as peft's own
    assert a.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("share", [0.0, 0.25])
@torch.no_grad()
def test_a_share_of_the_adapters_inputs_is_dropped_in_training_alone(share):
    model = adapted(olmo(), LoraSettings(rank=4, alpha=8, dropout=share))
    dropped = []

    def look(module, given):
        dropped.append(float((given[0] == 0).float().mean()))

    for name, module in model.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_pre_hook(look)
    for training in (True, False):
        dropped.clear()
        model.train(training)(input_ids=torch.arange(2, 92)[None], use_cache=False)
        assert len(dropped) == 14
        assert np.mean(dropped) == pytest.approx(share if training else 0.0, abs=0.02)


def test_targets_are_linear_layers_of_the_decoder():
    model = adapted(olmo(), LoraSettings(rank=2, alpha=4, targets=("q_proj", "up_proj")))
    names = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in trained_of(model)}
    assert names == {"q_proj", "up_proj"}


@pytest.mark.parametrize("wrong", ["lm_head", "embed_tokens", "nothing", "all-linear"])
def test_other_targets_are_refused(wrong):
    settings = LoraSettings(rank=2, alpha=4, targets=("q_proj", wrong))
    with pytest.raises(
        ValueError, match=rf"^{wrong}: no linear .*down_proj, gate_proj, .*, v_proj"
    ):
        adapted(olmo(), settings)
    with pytest.raises(ValueError, match=f"^{wrong}: no linear layer"):
        adapter_size(olmo().config, settings)


def trained_of(model):
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("targets", [("all-linear",), ("q_proj",)])
def test_its_size_is_known_before_there_are_weights(targets):
    settings = LoraSettings(rank=4, alpha=8, targets=targets)
    config = tiny_config(97, **{k: v for k, v in SHAPE.items() if k != "vocab_size"})
    assert adapter_size(config, settings) == n_trained(adapted(olmo(), settings))


def test_the_optimizer_holds_the_adapter_alone():
    model = adapted(olmo())
    (group,) = make_optimizer(model, OptimizerSettings(weight_decay=0.1)).param_groups
    assert {id(p) for p in group["params"]} == {id(p) for _, p in trained_of(model)}
    assert group["weight_decay"] == 0.1


@pytest.fixture
def saved(tmp_path):
    """A base in a folder, an adapter of it in another, and what both together say."""
    base = untrained_model(0, hidden_size=48)
    save_checkpoint(base, tiny_tokenizer(), tmp_path / "base")
    model = load_model(resolve_model(str(tmp_path / "base")), precision="fp32")
    named = base_of(model, model=str(tmp_path / "base"))
    add_adapter(model, LoraSettings(rank=4, alpha=12), named)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in trained_of(model):
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    (tmp_path / "adapter").mkdir()
    save_checkpoint(model, tiny_tokenizer(), tmp_path / "adapter")
    return tmp_path, logits(model)


def test_what_is_saved_is_the_adapter_alone_and_loads_everywhere(saved):
    from peft import AutoPeftModelForCausalLM, PeftModel

    folder, expected = saved
    adapter = folder / "adapter"
    assert not (adapter / "config.json").exists()
    names = load_file(adapter / "adapter_model.safetensors")
    assert all(".lora_A.weight" in name or ".lora_B.weight" in name for name in names)
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    readers = {
        "ours": load_model(resolve_model(str(adapter)), precision="fp32"),
        "peft": PeftModel.from_pretrained(base, str(adapter)),
        "peft, base found": AutoPeftModelForCausalLM.from_pretrained(str(adapter)),
        "transformers": AutoModelForCausalLM.from_pretrained(str(adapter)),
    }
    for reader, model in readers.items():
        assert torch.allclose(logits(model), expected, atol=1e-6), reader
    assert load_tokenizer(resolve_model(str(adapter))).get_vocab() == tiny_tokenizer().get_vocab()


def test_writing_it_twice_writes_the_same_bytes(saved, tmp_path):
    """Names of layers are a set in peft, whose order changes from process to process."""
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 12, "LORA")


def test_in_another_precision_the_base_alone_is_rounded(saved):
    folder, _ = saved
    model = load_model(resolve_model(str(folder / "adapter")), precision="bf16")
    assert model.dtype == torch.bfloat16
    adapter = [p for name, p in model.named_parameters() if ".lora_" in name]
    assert {parameter.dtype for parameter in adapter} == {torch.float32}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    written = load_file(folder / "adapter" / "adapter_model.safetensors")
    found = model.model.layers[0].mlp.up_proj.lora_B["default"].weight
    (name,) = [n for n in written if "layers.0.mlp.up_proj.lora_B" in n]
    assert torch.equal(found, written[name])


def test_an_adapter_of_zeros_is_its_base(tmp_path):
    model = load_model(resolve_model("olmo2-tiny"), precision="fp32")
    digest = weights_digest(model)
    adapted(model)
    (tmp_path / "start").mkdir()
    save_checkpoint(model, tiny_tokenizer(), tmp_path / "start")
    again = load_model(resolve_model(str(tmp_path / "start")), precision="fp32")
    assert weights_digest(again) == digest


def test_a_base_that_is_another_by_now_is_refused(saved):
    folder, _ = saved
    save_checkpoint(untrained_model(1, hidden_size=48), tiny_tokenizer(), folder / "other")
    shutil.copy(folder / "other" / "model.safetensors", folder / "base")
    with pytest.raises(ModelNotFoundError, match="not those that it was trained beside"):
        load_model(resolve_model(str(folder / "adapter")))
    shutil.rmtree(folder / "base")
    with pytest.raises(ModelNotFoundError, match=r"base model of the adapter .*no such folder"):
        resolve_model(str(folder / "adapter"))


def test_an_adapter_that_is_not_whole_is_refused(saved):
    folder, _ = saved
    adapter = folder / "adapter"
    with pytest.raises(ModelNotFoundError, match="no revisions"):
        resolve_model(str(adapter), "main")
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(weights[:-4])
    (adapter / "base_model.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"cut short.*base_model\.json is missing"):
        resolve_model(str(adapter))


def test_tensors_that_do_not_fit_are_refused(saved, tmp_path):
    from safetensors.torch import save_file

    folder, _ = saved
    file = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, file)
    with pytest.raises(ValueError, match="does not fit its base model"):
        load_adapter(load_model(resolve_model(str(folder / "base"))), folder / "adapter")


def test_one_can_be_saved_without_its_packages_wrapper(tmp_path):
    """A base out of a GGUF file has no folder: the adapter is loaded beside a model at hand."""
    from peft import PeftModel

    model = adapted(olmo(), moved=True)
    save_adapter(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    assert torch.equal(logits(PeftModel.from_pretrained(olmo(), str(tmp_path))), logits(model))
