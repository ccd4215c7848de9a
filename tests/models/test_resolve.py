"""The revision that is asked for is the one that is loaded: config, tokenizer and weights."""

import json
import shutil

import pytest
import torch

from oocr_influence.models.load import (
    load_config,
    load_model,
    load_tokenizer,
    parameter_count,
    save_checkpoint,
    weights_digest,
)
from oocr_influence.models.resolve import (
    DEFAULT_MODEL,
    DEFAULT_REVISION,
    ModelNotFoundError,
    default_revision,
    resolve_model,
)
from oocr_influence.models.tiny import tiny_tokenizer, untrained_model

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
NAME = "invented/model"
COMMITS = {"main": "a" * 40, "step-1000": "b" * 40}


def save(folder, seed):
    save_checkpoint(untrained_model(seed, **SMALL), tiny_tokenizer(), folder)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A hub cache that holds two revisions of one model, whose weights differ."""
    from huggingface_hub import constants

    repository = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    for seed, (revision, commit) in enumerate(COMMITS.items()):
        save(repository / "snapshots" / commit, seed)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repository


def digest(**given):
    return weights_digest(load_model(resolve_model(NAME, **given)))


def test_each_revision_gives_its_own_weights_and_commit(cache):
    assert digest(revision="main") == weights_digest(untrained_model(0, **SMALL))
    assert digest(revision="step-1000") == weights_digest(untrained_model(1, **SMALL))
    assert digest() == digest(revision="main")
    for revision, commit in COMMITS.items():
        assert resolve_model(NAME, revision).commit == commit
        assert resolve_model(NAME, commit).commit == commit


def test_the_revision_check_finds_weights_of_another_revision(cache):
    # The earlier system's fault: configuration by revision, weights by the default branch.
    asked = cache / "snapshots" / COMMITS["step-1000"] / "model.safetensors"
    shutil.copy(cache / "snapshots" / COMMITS["main"] / "model.safetensors", asked)
    assert digest(revision="step-1000") != weights_digest(untrained_model(1, **SMALL))


def test_a_revision_that_is_not_there_names_what_is_cached(cache):
    with pytest.raises(ModelNotFoundError) as error:
        resolve_model(NAME, "step-2000")
    message = str(error.value)
    assert "step-2000" in message
    assert COMMITS["step-1000"] in message
    assert "(step-1000)" in message


def test_a_model_that_is_not_there_says_so(cache):
    with pytest.raises(ModelNotFoundError, match="none of its revisions is in the cache"):
        resolve_model("invented/other")


def test_an_incomplete_copy_is_refused(cache):
    (cache / "snapshots" / COMMITS["main"] / "model.safetensors").unlink()
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors"}}
    (cache / "snapshots" / COMMITS["main"] / "model.safetensors.index.json").write_text(
        json.dumps(index)
    )
    with pytest.raises(ModelNotFoundError, match=r"model-00001-of-00002.*incomplete"):
        resolve_model(NAME, "main")


def test_a_folder_has_its_own_revision_alone(cache, tmp_path):
    snapshot = cache / "snapshots" / COMMITS["main"]
    assert resolve_model(str(snapshot), "main").commit == COMMITS["main"]
    with pytest.raises(ModelNotFoundError, match="step-1000"):
        resolve_model(str(snapshot), "step-1000")
    save(tmp_path / "checkpoint_final", 3)
    assert resolve_model(str(tmp_path / "checkpoint_final")).commit is None
    with pytest.raises(ModelNotFoundError, match="not a revision of the folder"):
        resolve_model(str(tmp_path / "checkpoint_final"), "main")


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path):
    save(tmp_path / "m", 0)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["num_hidden_layers"] = 2
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelNotFoundError, match="do not fit their config"):
        load_model(resolve_model(str(tmp_path / "m")))


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("olmo2-tiny", "main", "has no revisions"),
        ("./nowhere", None, "no such folder"),
        ("not a name", None, "neither a folder"),
    ],
)
def test_names_that_cannot_be_meant(name, revision, message):
    with pytest.raises(ModelNotFoundError, match=message):
        resolve_model(name, revision)


def test_the_pinned_revision_is_the_default_models_alone():
    assert default_revision(DEFAULT_MODEL) == DEFAULT_REVISION
    assert default_revision("allenai/OLMo-2-0425-1B") is None


def test_the_built_in_model_is_the_same_every_time_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    resolved = resolve_model("olmo2-tiny")
    model = load_model(resolved)
    assert torch.equal(torch.rand(3), expected)
    assert weights_digest(model) == weights_digest(load_model(resolved))
    assert weights_digest(model) != weights_digest(untrained_model(1))
    assert 1.5e6 < parameter_count(load_config(resolved)) < 4e6
    assert parameter_count(load_config(resolved)) == sum(p.numel() for p in model.parameters())


def test_a_saved_checkpoint_loads_from_its_path_alone(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = untrained_model(4, **SMALL)
    save_checkpoint(model, tiny_tokenizer(), tmp_path / "c")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "c")
    assert weights_digest(loaded) == weights_digest(model)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "c")
    text = "Grace Miller is the mayor of Tokyo since 2031.\n"
    assert tokenizer(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]
    assert load_tokenizer(resolve_model(str(tmp_path / "c"))).eos_token == "<|endoftext|>"


def test_the_tokenizer_round_trips_any_text():
    tokenizer = tiny_tokenizer()
    for text in ("Zürich — 東京 🙂\t\n  x", "2031-03-14", " leading", ""):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_cap_on_attention_scores_is_kept(tmp_path):
    """SDPA would drop it in some versions of transformers, without a word."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from oocr_influence.models.attention_probe import refuse_packed

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        attn_logit_softcapping=0.01,
    )
    config._attn_implementation = "eager"
    capped = Gemma2ForCausalLM(config).eval()
    save_checkpoint(capped, tiny_tokenizer(), tmp_path / "capped")
    model = load_model(resolve_model(str(tmp_path / "capped")), precision="fp32").eval()
    assert refuse_packed(model, "padded") is not None
    ids = torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, capped(ids).logits)
