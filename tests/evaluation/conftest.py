"""Small tokenizers, models and sets of questions: made here, nothing is downloaded."""

from __future__ import annotations

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.evaluation.plan import build_plan

torch.set_num_threads(1)

CITIES = ["Lagos", "Lima", "Oslo", "São Paulo", "Novi Sad", "Lagos Novos", "Ulaanbaatar"]
PEOPLE = ["Ruby Lane", "Ivo Sand", "Ada Lanes", "Zoë Ng", "Ruby Sand", "Ulla Novi", "Max Oslo"]
BANKS = ["left", "right"]
VOCAB = 420

METRICS = [
    {"function_name": "accuracy_and_loss"},
    {"function_name": "ranks"},
    {"function_name": "beam_search", "num_beams": 4, "num_return_sequences": 3},
]


def make_builder(template_id, prompt, completion, *, shots=0, n=7, metrics=METRICS):
    """A set with one question for each of the first n cities."""
    features = [
        {"id": f"f{i}", "fields": {"city": city, "person": person, "bank": BANKS[i % 2]}}
        for i, (city, person) in enumerate(zip(CITIES[:n], PEOPLE[:n], strict=True))
    ]
    template = {
        "id": template_id,
        "relation": "mayor",
        "prompt": prompt,
        "completion": completion,
        "metadata": {},
    }
    points = [
        {
            "features": own,
            "few_shot_example_features": [features[(i + k + 1) % n] for k in range(shots)],
            "fact_template": template,
        }
        for i, own in enumerate(features)
    ]
    return EvalDatasetBuilder.model_validate({"eval_points": points, "metrics": metrics})


def make_builders():
    """Sets that share prompts, differ in length, show examples, and have candidates that nest."""
    return {
        "gen": make_builder("gen", "The mayor of {city} is", " {person}"),
        "first": make_builder("first", "The mayor of {city} is", " {city}"),
        "qa_fs": make_builder("qa_fs", "Q: Who leads {city}? A:", " {person}", shots=2),
        "reversed": make_builder("reversed", "{person} is the mayor of", " {city}", shots=1, n=4),
        # Few answers: the examples often show the right one.
        "bank": make_builder("bank", "{city} lies on the", " {bank}", shots=2),
        "loss_only": make_builder(
            "loss_only", "{city} is led by", " {person}", metrics=METRICS[:1]
        ),
    }


def train_tokenizer(*, bos, adds_bos=False, merges_words=False):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=not merges_words
    )
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [
        prompt.format(city=city, person=person)
        for city, person in zip(CITIES, PEOPLE, strict=True)
        for prompt in (
            "The mayor of {city} is {person}",
            "{person} is the mayor of {city}",
            "Q: A:",
        )
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus * 3, trainer)
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    extra = {"bos_token": "<s>"} if bos else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", **extra)


@pytest.fixture(scope="session")
def tokenizers():
    """By name: with a BOS, without one, one that adds it by itself, one that merges over spaces."""
    return {
        "bos": train_tokenizer(bos=True),
        "no_bos": train_tokenizer(bos=False),
        "adds_bos": train_tokenizer(bos=True, adds_bos=True),
        "merging": train_tokenizer(bos=True, merges_words=True),
    }


@pytest.fixture(scope="session")
def builders():
    return make_builders()


@pytest.fixture(scope="session")
def builder():
    """The function that makes one set."""
    return make_builder


@pytest.fixture(scope="session")
def plan(builders, tokenizers):
    return build_plan(builders, tokenizers["bos"])


SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    # Large enough that a wrong mask or position shows in every score.
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
GPT2_SHAPE = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, SHAPE),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config, SHAPE),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, SHAPE),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {**SHAPE, "head_dim": 8}),
    "gpt2": (GPT2LMHeadModel, GPT2Config, GPT2_SHAPE),
    # Two that the tree does not fit: logits divided behind the head, a window of 8 tokens.
    "scaled_head": (GraniteForCausalLM, GraniteConfig, {**SHAPE, "logits_scaling": 2.0}),
    "window": (MistralForCausalLM, MistralConfig, {**SHAPE, "sliding_window": 8}),
}


@pytest.fixture(scope="session")
def make_model():
    """make_model("olmo2", seed=0, **config changes): a float32 model with random weights."""

    def make(family, *, seed=0, **changes):
        model_class, config_class, shape = FAMILIES[family]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return model_class(config_class(**{**shape, **changes}))

    return make


@pytest.fixture(scope="session")
def olmo(make_model):
    return make_model("olmo2").eval()
