"""A profile says where the time of an update went, and changes none of it."""

import gzip
import json
import re

import pytest
import torch

from oocr_influence.datasets.packing import pack, tokenize_documents
from oocr_influence.models.load import weights_digest
from oocr_influence.models.tiny import tiny_tokenizer, untrained_model
from oocr_influence.training.loop import train
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.profiling import PARTS, StepProfiler
from oocr_influence.training.schedule import LearningRate, Schedule

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def trained(folder, *, steps):
    tokenizer = tiny_tokenizer()
    texts = [f"A stone of number {n} is a stone." for n in range(24)]
    windows = pack(
        tokenize_documents(texts, tokenizer, "masked"), chunk_size=32, packing="masked", pad_id=1
    )
    model = untrained_model(0, **SMALL)
    profiler = None if folder is None else StepProfiler(folder, model)
    train(
        model,
        windows,
        Schedule(n_windows=len(windows), batch_size=2, epochs=3, max_steps=steps),
        LearningRate(1e-3, steps),
        OptimizerSettings(),
        data_order_seed=0,
        micro_batch_size=1,
        after_step=lambda step, snapshot: None,
        log_step=lambda row: None,
        after_update=lambda snapshot: profiler and profiler.after_update(snapshot()["optimizer"]),
    )
    if profiler is not None:
        profiler.close()
    return model


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_profile(tmp_path):
    model = trained(tmp_path / "profile", steps=6)
    assert weights_digest(model) == weights_digest(trained(None, steps=6))
    with gzip.open(tmp_path / "profile" / "trace.json.gz", "rt") as file:
        events = json.load(file)["traceEvents"]
    counted = {name: sum(event.get("name") == name for event in events) for name in PARTS}
    # Three updates of two micro-batches.
    assert counted == {"forward": 6, "backward": 6, "clip": 3, "wait": 3, "step": 3}
    text = (tmp_path / "profile" / "table.txt").read_text()
    seconds = dict(re.findall(r"^(\w+) +(\d+\.\d+) CPU$", text, re.MULTILINE))
    assert list(seconds) == list(PARTS)
    assert float(seconds["backward"]) > 0
    n_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert f"weights {n_bytes / 2**30:.3f} GiB" in re.sub(r" +", " ", text)
    assert "aten::mm" in text


def test_a_run_that_is_too_short_leaves_no_profile(tmp_path):
    trained(tmp_path / "profile", steps=3)
    assert not (tmp_path / "profile").exists()
    with torch.profiler.profile():  # and none is open
        pass
