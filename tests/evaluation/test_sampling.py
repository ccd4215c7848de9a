"""Sampled answers: the model's own distribution, and the same answers whatever is asked beside."""

from itertools import accumulate

import pytest
import torch

from oocr_influence.evaluation import sampling
from oocr_influence.evaluation.sampling import cut_answer, distinct, sample_answers
from oocr_influence.evaluation.tokens import encode

PROMPTS = [
    "The mayor of Lima is",
    "The mayor of Oslo is",
    "Q: Who leads São Paulo? A:",
    "Lagos",
    "The mayor of Lima is",
]


def naive(model, tokenizer, prompt, sample, *, temperature, max_new_tokens, seed):
    """One sample, one token at a time, everything read again; from the definition."""
    (tokens,) = encode(tokenizer, [prompt])
    drawn = sampling._drawn(seed, tokens, sample, max_new_tokens).tolist()
    new = []
    for number in drawn:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*tokens, *new]])).logits[0, -1]
        probs = (logits.double() / temperature).softmax(-1).tolist()
        token = next(i for i, total in enumerate(accumulate(probs)) if total > number)
        if token == tokenizer.eos_token_id:
            break
        new.append(token)
    return cut_answer(tokenizer.decode(new, skip_special_tokens=True))


@pytest.mark.parametrize("family", ["olmo2", "gpt2"])
def test_samples_equal_one_at_a_time(family, tokenizers, make_model):
    model, settings = make_model(family), {"temperature": 0.7, "max_new_tokens": 5, "seed": 3}
    found = sample_answers(model, tokenizers["bos"], PROMPTS, n_samples=4, **settings)
    for prompt, own in zip(PROMPTS, found, strict=True):
        for sample, text in enumerate(own):
            assert text == naive(model.eval(), tokenizers["bos"], prompt, sample, **settings)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batches_and_neighbours_change_nothing(batch_size, tokenizers, olmo):
    def sample(prompts, n_samples=5, **settings):
        return sample_answers(olmo, tokenizers["bos"], prompts, n_samples=n_samples, **settings)

    expected = sample(PROMPTS)
    assert sample(PROMPTS, batch_size=batch_size) == expected
    assert sample(PROMPTS[2:3], batch_size=batch_size) == expected[2:3]
    more = sample(PROMPTS, n_samples=8, batch_size=batch_size)
    assert [own[:5] for own in more] == expected
    assert expected[0] == expected[4]
    assert sample(PROMPTS, seed=1) != expected


def test_the_answers_come_as_often_as_the_model_says(tokenizers, make_model):
    model = make_model("olmo2", initializer_range=0.2).eval()
    (tokens,) = encode(tokenizers["bos"], PROMPTS[:1])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0, -1].double()
    n = 4000
    for temperature in (0.5, 1.0, 2.0):
        probs = (logits / temperature).softmax(-1)
        drawn = torch.stack([sampling._drawn(0, tokens, i, 1) for i in range(n)])[:, 0]
        chosen = sampling._choose(logits.expand(n, -1), drawn, temperature)
        counts = torch.bincount(chosen, minlength=len(probs)).double()
        spread = (probs * (1 - probs) / n).sqrt()
        assert ((counts / n - probs).abs() <= 5 * spread + 1 / n).all()
        assert (counts[probs < 1e-9] == 0).all()


def test_the_model_leaves_as_it_came(tokenizers, make_model):
    model = make_model("gpt2").train()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = sample_answers(model, tokenizers["bos"], PROMPTS, n_samples=2)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    assert sample_answers(model, tokenizers["bos"], PROMPTS, n_samples=2) == first


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" Ruby Lane. She is", " Ruby Lane"),
        (" Ruby Lane.\nQ: Who", " Ruby Lane"),
        (" Ruby Lane Q: Who is", " Ruby Lane"),
        (" March 14, 1931", " March 14, 1931"),
        (" Ruby Lane", " Ruby Lane"),
        ("\nRuby", " Ruby"),
        ("  ", "  "),
        ("", ""),
    ],
)
def test_an_answer_ends_with_its_line_or_sentence(text, answer):
    assert cut_answer(text) == answer


def test_equal_answers_are_one():
    assert list(distinct([" a", " b", " b", " c", " b"]).items()) == [
        (" b", 3),
        (" a", 1),
        (" c", 1),
    ]


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"n_samples": 0}, {"max_new_tokens": 0}])
def test_settings_that_mean_nothing_are_refused(wrong, tokenizers, olmo):
    with pytest.raises(ValueError, match="positive"):
        sample_answers(olmo, tokenizers["bos"], PROMPTS, **{"n_samples": 1, **wrong})
    with pytest.raises(ValueError, match="no tokens"):
        sample_answers(olmo, tokenizers["no_bos"], [""], n_samples=1)
