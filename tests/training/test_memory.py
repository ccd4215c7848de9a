"""The estimate of memory is what the optimizers really keep, and gives the published numbers."""

import pytest
import torch

from oocr_influence.models.tiny import untrained_model
from oocr_influence.training.memory import layout_of
from oocr_influence.training.optimizer import OptimizerSettings, make_optimizer

BF16, FP32 = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("precision", "kind", "dtype", "gib"),
    [
        ("bf16", "adamw", BF16, 54.4),
        ("auto", "adamw", BF16, 54.4),
        ("bf16_stochastic", "adamw", BF16, 68.0),
        ("fp32_master", "adamw", BF16, 81.6),
        ("fp32", "adamw", FP32, 108.8),
        ("bf16", "adamw8bit", BF16, 41.0),
        ("bf16_stochastic", "adamw4bit", BF16, 34.4),
    ],
)
def test_olmo2_7b(precision, kind, dtype, gib):
    layout = layout_of(OptimizerSettings(precision=precision, kind=kind), dtype)
    assert round(layout.device_bytes(7_300_000_000) / 2**30, 1) == gib


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", FP32), ("bf16", BF16), ("bf16_stochastic", BF16), ("fp32_master", BF16)],
)
def test_the_estimate_is_what_is_kept(precision, dtype):
    settings = OptimizerSettings(precision=precision)
    model = untrained_model(0, num_hidden_layers=1).to(dtype)
    optimizer = make_optimizer(model, settings)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    n = sum(p.numel() for p in model.parameters())
    layout = layout_of(settings, dtype)

    def size(tensors):
        return sum(t.numel() * t.element_size() for t in tensors if t.ndim)

    kept = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]
    assert size(model.parameters()) == n * layout.weight
    assert size(p.grad for p in model.parameters()) == n * layout.gradient
    assert size(kept) == n * layout.optimizer
    assert size([*model.parameters(), *(p.grad for p in model.parameters()), *kept]) == (
        layout.device_bytes(n)
    )
