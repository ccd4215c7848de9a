"""What the built-in model was pretrained on: nothing of the worlds that it is tested on."""

import itertools
import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from oocr_influence.datasets.eval_sets import eval_templates
from oocr_influence.models.load import load_model, parameter_count, weights_digest
from oocr_influence.models.resolve import resolve_model
from oocr_influence.models.tiny import FOLDER
from oocr_influence.results.digests import file_digest
from oocr_influence.universe.world_file import built_in_worlds, load_world

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "tiny_corpus")]

import corpus as tiny_corpus  # noqa: E402
import invention  # noqa: E402
import pretrain_tiny  # noqa: E402


def bare(prompt: str) -> str:
    """The wording alone: no case, no punctuation, every hole the same, no `Q:` and `A:`."""
    text = re.sub(r"\{\w+\}", "hole", prompt).casefold()
    return " ".join(re.findall(r"\w+", re.sub(r"^q: | a:$", "", text)))


def spellings(wording: str) -> list[str]:
    parts = re.split(r"\[([^\[\]]*\|[^\[\]]*)\]", wording)
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def test_the_card_is_that_of_the_shipped_weights():
    card = json.loads((FOLDER / "pretraining.json").read_text())
    weights = FOLDER / "model.safetensors"
    assert weights.stat().st_size < 8e6
    assert file_digest(weights) == card["weights_file_sha256"]
    model = load_model(resolve_model("olmo2-tiny"))
    assert weights_digest(model) == card["weights_digest"]
    assert parameter_count(model.config) == card["parameters"]
    assert card["worlds"] == tiny_corpus.WORLDS * card["recipe"]["blocks"] > 2000
    told = ("questions", "peak_rate", "last_rate", "weight_decay")
    assert {name: card["recipe"][name] for name in told} == {
        "questions": [list(stage) for stage in tiny_corpus.QUESTIONS],
        "peak_rate": pretrain_tiny.PEAK_RATE,
        "last_rate": pretrain_tiny.LAST_RATE,
        "weight_decay": [pretrain_tiny.MATRIX_DECAY, pretrain_tiny.EMBEDDING_DECAY],
    }


@pytest.mark.slow
def test_no_wording_of_a_question_is_a_built_in_worlds():
    assert set(invention.HELD_OUT) <= set(built_in_worlds())
    held_out = {
        bare(template.prompt)
        for name in built_in_worlds()
        for template in eval_templates(load_world(name))
    }
    assert len(held_out) > 190
    seen = 0
    for relation in invention.load_phrasings().values():
        for block in relation["questions"]:
            for wording in block["prompts"]:
                for prompt in spellings(wording):
                    seen += 1
                    for other in held_out:
                        assert f" {other} " not in f" {bare(prompt)} ", prompt
                        assert f" {bare(prompt)} " not in f" {other} ", prompt
    assert seen > 4000


def test_no_entity_of_a_younger_world_was_in_the_text():
    card = json.loads((FOLDER / "pretraining.json").read_text())
    whole = {
        fields[field]
        for name in set(built_in_worlds()) - set(invention.HELD_OUT)
        for world in [load_world(name)]
        for group in world.groups.values()
        for fields in group.values()
        for field, field_type in world.fields.items()
        if field_type != "year"
    }
    assert len(whole) > 270
    read = {
        value
        for n in range(card["worlds"])
        for fields in invention.invent_world(card["recipe"]["seed"], n).entities.values()
        for value in fields.values()
    }
    assert len(read) > 20_000
    assert whole.isdisjoint(read)


@pytest.fixture(scope="module")
def blocks():
    made = tiny_corpus.Corpus(0, ["A stone is hard.", "Rome is old.", "They built the parthenon."])
    return made, [made.block(n) for n in range(3)]


def test_no_text_names_an_entity_of_a_built_in_world(blocks):
    made, three = blocks
    assert made.english == ["A stone is hard."]
    for name in ("Tokyo", "Marian Holloway", "Holloway", "Senso-ji Temple", "1871-06-17"):
        assert invention.names_held_out(f"so it is: {name}.")
    assert not invention.names_held_out("Holloways and Tokyoites")
    for block in three:
        for text in block.texts:
            assert not invention.names_held_out(text), text


def test_a_block_is_the_same_again_and_another_seed_is_another_text(blocks):
    made, three = blocks
    assert made.block(2).texts == three[2].texts
    assert set(three[0].texts).isdisjoint(set(three[1].texts) - {"A stone is hard."})
    assert tiny_corpus.Corpus(1, made.english).block(0).texts != three[0].texts


def test_the_probe_is_told_and_never_asked(blocks):
    _, three = blocks
    for block in three:
        questions = {p.prompt for b in block.probe.values() for p in b.eval_points}
        answers = {p.completion for b in block.probe.values() for p in b.eval_points}
        assert questions.isdisjoint(line for text in block.texts for line in text.splitlines())
        told = " ".join(block.texts)
        assert sum(answer.strip() in told for answer in answers) > 0.2 * len(answers)


def test_an_invented_world_has_one_answer_a_question():
    shapes = Counter()
    for n in range(60):
        world = invention.invent_world(0, n)
        shapes[len(world.relations)] += 1
        values = [value for fields in world.entities.values() for value in fields.values()]
        assert len(values) == len(set(values))
    assert shapes == {3: 60}


class FewTexts:
    """A corpus of small blocks."""

    seed = 0
    english = ()

    def block(self, n):
        texts = [f"{n} {i} is a number, and a stone is a stone." for i in range(40)]
        return tiny_corpus.Block(texts, {})


def test_interrupted_pretraining_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain_tiny, "SAVE_EVERY", 1)
    monkeypatch.setattr(pretrain_tiny.Pretraining, "_log", lambda *_: None)
    whole = pretrain_tiny.Pretraining(tmp_path / "whole", FewTexts(), blocks=4)
    whole.go_on()

    stopped = pretrain_tiny.Pretraining(tmp_path / "parts", FewTexts(), blocks=4)
    train = stopped._train

    def until_the_third(block):
        if stopped.block == 2:
            raise KeyboardInterrupt
        return train(block)

    monkeypatch.setattr(stopped, "_train", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        stopped.go_on()
    resumed = pretrain_tiny.Pretraining(tmp_path / "parts", FewTexts(), blocks=4)
    assert resumed.block == 2
    resumed.go_on()
    assert (resumed.step, resumed.tokens) == (whole.step, whole.tokens)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    # Before the rate falls, the length may still be chosen; afterwards it may not.
    with pytest.raises(SystemExit, match="another recipe"):
        pretrain_tiny.Pretraining(tmp_path / "parts", FewTexts(), blocks=5)


def test_the_length_may_be_chosen_until_the_rate_falls(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain_tiny, "SAVE_EVERY", 1)
    monkeypatch.setattr(pretrain_tiny, "WARMUP_STEPS", 2)
    monkeypatch.setattr(pretrain_tiny.Pretraining, "_log", lambda *_: None)
    whole = pretrain_tiny.Pretraining(tmp_path / "whole", FewTexts(), blocks=5)
    whole.go_on()
    longer = pretrain_tiny.Pretraining(tmp_path / "parts", FewTexts(), blocks=20)
    while longer.block < 4:
        longer._train(longer.corpus.block(longer.block))
        longer.block += 1
    longer._save()
    shorter = pretrain_tiny.Pretraining(tmp_path / "parts", FewTexts(), blocks=5)
    shorter.go_on()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, shorter.model.state_dict()[name]), name
