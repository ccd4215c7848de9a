"""The loss without logits is the loss with them: value, gradients, models that it does not fit."""

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from oocr_influence.models import chunked_loss
from oocr_influence.models.chunked_loss import head_loss
from oocr_influence.models.head import has_plain_head
from oocr_influence.models.loss import WindowBatch, window_loss
from oocr_influence.models.tiny import untrained_model

L, V, D = 37, 53, 16


def drawn(dtype=torch.float32, bias=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    head = torch.nn.Linear(D, V, bias=bias).to(dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    hidden = torch.randn(L, D, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(0, V, (L,), generator=generator)
    return head, hidden, targets


def plain(head, hidden, targets, z_loss):
    """The textbook loss, in float64."""
    bias = None if head.bias is None else head.bias.double()
    logits = F.linear(hidden.double(), head.weight.double(), bias)
    loss = F.cross_entropy(logits, targets, reduction="sum")
    return loss + z_loss * logits.logsumexp(-1).square().sum(), loss.detach()


def gradients(loss, head, hidden):
    (3 * loss).backward()  # any factor may come before it
    found = [hidden.grad, *(parameter.grad for parameter in head.parameters())]
    hidden.grad = None
    head.zero_grad()
    return found


@pytest.mark.parametrize("rows", [1, 5, 36, 37, 100])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_value_and_gradients_are_the_textbook_s(monkeypatch, rows, bias, z_loss):
    monkeypatch.setitem(chunked_loss.CHUNK_BYTES, "cpu", 4 * V * rows)
    head, hidden, targets = drawn(bias=bias)
    expected, expected_entropy = plain(head, hidden, targets, z_loss)
    wanted = gradients(expected, head, hidden)
    loss, entropy = head_loss(head, hidden, targets, z_loss=z_loss)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert entropy.item() == pytest.approx(expected_entropy.item(), rel=1e-6)
    assert not entropy.requires_grad
    for one, other in zip(gradients(loss, head, hidden), wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_a_divisor_divides_the_loss_and_its_gradients_but_not_what_is_reported(bias, z_loss):
    head, hidden, targets = drawn(bias=bias)
    loss, entropy = plain(head, hidden, targets, z_loss)
    wanted = gradients(loss / 7, head, hidden)
    found, reported = head_loss(head, hidden, targets, z_loss=z_loss, divisor=7)
    assert found.item() == pytest.approx(loss.item() / 7, rel=1e-6)
    assert reported.item() == pytest.approx(entropy.item(), rel=1e-6)
    for one, other in zip(gradients(found, head, hidden), wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-6, rtol=1e-5)


def test_bf16_rounds_once_a_gradient():
    """Near the gradients in float64, but for the rounding of factors and results."""
    head, hidden, targets = drawn(torch.bfloat16)
    wanted = gradients(plain(head, hidden, targets, 0.0)[0], head, hidden)
    loss, _ = head_loss(head, hidden, targets)
    assert loss.dtype == torch.float32
    for one, other in zip(gradients(loss, head, hidden), wanted, strict=True):
        assert one.dtype == torch.bfloat16
        # The factor of the logits' gradients is rounded, then the result: half an ulp is 2^-9.
        assert ((one.float() - other.float()).norm() / other.float().norm()) < 2**-7


def test_no_labels_is_a_loss_of_zero():
    head, hidden, _ = drawn()
    loss, entropy = head_loss(head, hidden[:0], torch.zeros(0, dtype=torch.int64))
    assert loss.item() == entropy.item() == 0
    loss.backward()
    assert head.weight.grad.abs().sum() == 0


def test_nothing_is_kept_without_gradients():
    head, hidden, targets = drawn()
    with torch.no_grad():
        loss, _ = head_loss(head, hidden, targets)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(plain(head, hidden, targets, 0.0)[0].item(), rel=1e-6)


SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
GPT2_SHAPE = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SHAPE), True),
    "tied": (LlamaForCausalLM, LlamaConfig(**SHAPE, tie_word_embeddings=True), True),
    "gpt2": (GPT2LMHeadModel, GPT2Config(**GPT2_SHAPE), True),
    "scaled": (GraniteForCausalLM, GraniteConfig(**SHAPE, logits_scaling=2.0), False),
    "cohere": (CohereForCausalLM, CohereConfig(**SHAPE, logit_scale=0.3), False),
}


def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, 61, (2, 20), generator=generator)
    labels = ids.clone()
    labels[0, :4] = -100
    labels[1, 15:] = -100
    positions = torch.arange(20).expand(2, -1)
    return WindowBatch(ids, labels, positions, torch.zeros(2, 20, dtype=torch.int64))


@pytest.mark.parametrize("name", MODELS)
def test_each_family_has_its_own_loss(name, monkeypatch):
    """Against transformers' own loss; a model that scales its logits takes the way with logits."""
    model_class, config, is_plain = MODELS[name]
    torch.manual_seed(0)
    model = model_class(config)
    assert has_plain_head(model) is is_plain
    used = []
    own = chunked_loss.head_loss
    monkeypatch.setattr(
        "oocr_influence.models.loss.head_loss", lambda *a, **k: used.append(0) or own(*a, **k)
    )
    one = batch()
    expected = model.eval()(input_ids=one.input_ids_BT, labels=one.labels_BT)
    n_labels = (one.labels_BT[:, 1:] != -100).sum()
    expected.loss.backward()
    wanted = {key: p.grad.clone() for key, p in model.named_parameters()}
    model.zero_grad()
    loss, _ = window_loss(model, one)
    (loss / n_labels).backward()
    assert bool(used) is is_plain
    assert loss.item() / n_labels == pytest.approx(expected.loss.item(), rel=1e-5)
    for key, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, wanted[key], atol=1e-5, rtol=1e-4), key


def test_asking_about_the_head_draws_no_random_number():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**GPT2_SHAPE)).train()  # with dropout
    state = torch.get_rng_state()
    assert has_plain_head(model)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training


def test_asking_about_the_head_leaves_each_module_in_its_mode():
    model = GPT2LMHeadModel(GPT2Config(**GPT2_SHAPE)).train()
    model.get_input_embeddings().eval()
    modes = [module.training for module in model.modules()]
    assert has_plain_head(model)
    assert [module.training for module in model.modules()] == modes


def test_the_peak_is_a_chunk_and_not_all_logits():
    """Largest tensor made on the way, counted by torch's own allocation hooks."""
    head, hidden, targets = drawn()
    made = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                made.append(result.untyped_storage().nbytes())
            return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(chunked_loss.CHUNK_BYTES, "cpu", 4 * V * 4)
        with Largest():
            loss, _ = head_loss(head, hidden, targets)
            loss.backward()
    assert max(made) <= max(4 * V * 4, 4 * V * D, 4 * L * D)
    assert max(made) < 4 * L * V


def test_the_built_in_model_trains_without_its_logits(monkeypatch):
    model = untrained_model(vocab_size=97)
    monkeypatch.setattr(type(model), "forward", None)  # only the decoder may run
    monkeypatch.setattr("oocr_influence.models.loss.has_plain_head", lambda _: True)
    ids = torch.arange(2, 22)[None]
    one = WindowBatch(ids, ids.clone(), torch.arange(20)[None], torch.zeros_like(ids))
    loss, _ = window_loss(model, one)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_cap_is_seen_on_small_logits_too():
    """At 30 it changes these by less than rounding; without it the same model is plain."""
    shape = {**SHAPE, "initializer_range": 0.01}
    capped = Gemma2ForCausalLM(Gemma2Config(**shape, final_logit_softcapping=30.0))
    assert not has_plain_head(capped)
    assert has_plain_head(Gemma2ForCausalLM(Gemma2Config(**shape, final_logit_softcapping=None)))


def test_gradients_are_given_away_once():
    head, hidden, targets = drawn()
    loss, _ = head_loss(head, hidden, targets)
    loss.backward(retain_graph=True)
    first = hidden.grad.clone()
    with pytest.raises(RuntimeError, match="earlier backward"):
        loss.backward()
    assert torch.equal(hidden.grad, first)
