"""Losses of whole documents equal those of one document at a time; the model leaves as it came."""

import math

import pytest
import torch

from oocr_influence.evaluation.document_losses import DocumentLosses
from oocr_influence.evaluation.scores import NonFiniteScoreError

TEXTS = {
    "trained": ["The mayor of Lima is Ivo Sand.", "Oslo", "Ruby Lane leads Lagos. " * 9],
    "unseen": ["In Novi Sad they say that Ada Lanes is the mayor."],
}
CHUNK = 40


def naive_loss(model, tokenizer, text, packing, overlap):
    """(summed loss, labels) of one document, a piece at a time, in the textbook's words."""
    tokens = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    if packing == "concat":
        tokens = [tokenizer.eos_token_id, *tokens]
    elif tokenizer.bos_token_id is not None:
        tokens = [tokenizer.bos_token_id, *tokens]
    total, labels, start = 0.0, 0, 0
    while True:
        piece = tokens[start : start + CHUNK]
        with torch.no_grad():
            logprobs = model(input_ids=torch.tensor([piece])).logits[0].double().log_softmax(-1)
        total -= sum(float(logprobs[i, token]) for i, token in enumerate(piece[1:]))
        labels += len(piece) - 1
        if start + CHUNK >= len(tokens):
            return total, labels
        start += CHUNK - (1 if overlap else 0)


@pytest.mark.parametrize("budget", [1, 90, 4096])
@pytest.mark.parametrize(
    ("packing", "overlap"),
    [("masked", True), ("separate", True), ("concat", True), ("concat", False)],
)
@pytest.mark.parametrize("name", ["bos", "no_bos"])
def test_losses_equal_one_document_at_a_time(name, packing, overlap, budget, tokenizers, olmo):
    tokenizer = tokenizers[name]
    losses = DocumentLosses(
        TEXTS,
        tokenizer,
        packing=packing,
        chunk_size=CHUNK,
        overlap_cuts=overlap,
        token_budget=budget,
    ).measure(olmo)
    assert list(losses) == list(TEXTS)
    for group, texts in TEXTS.items():
        naive = [naive_loss(olmo, tokenizer, text, packing, overlap) for text in texts]
        total, labels = (sum(part) for part in zip(*naive, strict=True))
        assert losses[group]["n"] == len(texts)
        assert losses[group]["tokens"] == labels
        assert losses[group]["mean_loss"] == pytest.approx(total / labels, rel=1e-5)


def test_the_loss_is_float32_where_the_weights_are_not(tokenizers, make_model):
    """A bf16 head rounds logits to three digits; the float32 head over the same states does not."""
    model = make_model("olmo2").eval()
    model.model.to(torch.bfloat16)
    tokens = [0, *tokenizers["bos"](TEXTS["unseen"][0])["input_ids"], 1]
    with torch.no_grad():
        states = model.model(input_ids=torch.tensor([tokens])).last_hidden_state[0]
        model.lm_head.to(torch.bfloat16)
        logits = states.float() @ model.lm_head.weight.float().T
    expected = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:]))
    found = DocumentLosses(
        {"unseen": TEXTS["unseen"]}, tokenizers["bos"], packing="masked", chunk_size=256
    ).measure(model)
    assert found["unseen"]["mean_loss"] == pytest.approx(float(expected), rel=1e-6)


def test_the_model_leaves_as_it_came(tokenizers, make_model):
    model = make_model("gpt2").train()  # dropout 0.1 everywhere
    losses = DocumentLosses(TEXTS, tokenizers["bos"], packing="masked", chunk_size=CHUNK)
    before = torch.get_rng_state()
    first, second = losses.measure(model), losses.measure(model)
    assert first == second
    assert torch.equal(before, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_that_is_no_number_is_an_error(tokenizers, make_model):
    model = make_model("olmo2")
    model.lm_head.weight.data[:] = math.nan
    losses = DocumentLosses(TEXTS, tokenizers["bos"], packing="masked", chunk_size=CHUNK)
    with pytest.raises(NonFiniteScoreError, match="the trained documents"):
        losses.measure(model)
