"""Stochastic rounding is unbiased, exact where it can be, and never makes an infinity."""

import math
from fractions import Fraction

import pytest
import torch

from oocr_influence.training.bf16_rounding import (
    LARGEST,
    draw_noise,
    join_halves,
    round_stochastically,
    split_halves,
)

torch.set_num_threads(1)
EVERY_NOISE = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
TINY = 2.0**-149  # the smallest float32 above zero
VALUES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1 + 2**-7,
    1 + 2**-9,
    -(1 + 2**-9),
    math.pi,
    -math.e,
    1e-3,
    -0.02 + 6e-5,
    2.0**-126,
    -(2.0**-127),
    3 * TINY,
    -5 * TINY,
    1e-40,
    LARGEST,
    -LARGEST,
    float(torch.finfo(torch.float32).max),
    -float(torch.finfo(torch.float32).max),
]


def neighbours(value):
    """The two bf16 numbers around a float32 number, by stepping through bf16's own bits."""
    nearest = torch.tensor(value, dtype=torch.float32).to(torch.bfloat16)
    bits = int(nearest.view(torch.int16))
    around = [
        torch.tensor(bits + step, dtype=torch.int16).view(torch.bfloat16).item()
        for step in (-1, 0, 1)
        if -(2**15) <= bits + step < 2**15
    ]
    around += [0.0, 2.0**-133, -(2.0**-133)]  # the step across zero changes the sign bit
    finite = [n for n in around if math.isfinite(n)]
    return max(n for n in finite if n <= value), min(n for n in finite if n >= value)


@pytest.mark.parametrize("value", VALUES)
def test_over_all_noise_the_mean_is_the_value_itself(value):
    values = torch.full((2**16,), value, dtype=torch.float32)
    rounded = round_stochastically(values, EVERY_NOISE)
    assert rounded.dtype == torch.bfloat16
    exact = float(values[0])
    found, counts = rounded.double().unique(return_counts=True)
    if abs(exact) > LARGEST:
        assert found.tolist() == [math.copysign(LARGEST, exact)]
        return
    below, above = neighbours(exact)
    assert set(found.tolist()) <= {below, above}
    mean = sum(
        Fraction(n) * count for n, count in zip(found.tolist(), counts.tolist(), strict=True)
    )
    assert mean / 2**16 == Fraction(exact)
    if below == above:
        assert torch.equal(rounded, values.to(torch.bfloat16))
        assert (rounded.view(torch.int16) == values[0].to(torch.bfloat16).view(torch.int16)).all()


@pytest.mark.parametrize("bits", [0x7F800000, -0x00800000, 0x7FC00000, 0x7F800001, 0x7FFFFFFF, -1])
def test_infinities_and_nan_stay_what_they_are(bits):
    values = torch.full((2**16,), bits, dtype=torch.int32).view(torch.float32)
    rounded = round_stochastically(values, EVERY_NOISE).float()
    assert torch.equal(rounded.isnan(), values.isnan())
    assert torch.equal(rounded.isinf(), values.isinf())
    if values[0].isinf():
        assert torch.equal(rounded, values)


def test_drawn_noise_takes_every_value_equally_often_and_is_seeded():
    like = torch.empty(2**22)
    noise = draw_noise(like, torch.Generator().manual_seed(3))
    counts = torch.bincount(noise.to(torch.int64) + 2**15, minlength=2**16).double()
    assert len(counts) == 2**16
    # A chi-squared variable of 65,535 degrees of freedom, within five of its deviations.
    statistic = float(((counts - 64) ** 2 / 64).sum())
    assert abs(statistic - 65535) < 5 * math.sqrt(2 * 65535)
    assert torch.equal(noise, draw_noise(like, torch.Generator().manual_seed(3)))
    assert not torch.equal(noise, draw_noise(like, torch.Generator().manual_seed(4)))


def test_a_drawn_mean_is_unbiased_where_rounding_to_nearest_is_not():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2**20, generator=generator) * 0.02
    moved = weights.to(torch.bfloat16).float() + 1e-5  # below half of most weights' last bit
    rounded = round_stochastically(moved, draw_noise(moved, generator)).double()
    errors = rounded - moved.double()
    deviation = float(errors.std()) / 2**10
    assert abs(float(errors.mean())) < 5 * deviation
    nearest = moved.to(torch.bfloat16).double() - moved.double()
    assert abs(float(nearest.mean())) > 50 * deviation, "the test can fail"


def test_two_halves_are_the_whole():
    generator = torch.Generator().manual_seed(1)
    bits = torch.randint(-(2**31), 2**31, (2**20,), generator=generator).to(torch.int32)
    values = torch.cat([bits.view(torch.float32), torch.tensor(VALUES, dtype=torch.float32)])
    values = values[values.isfinite()]
    high, low = split_halves(values)
    assert (high.dtype, low.dtype) == (torch.bfloat16, torch.int16)
    assert high.isfinite().all()
    kept = values.abs() <= LARGEST
    assert torch.equal(join_halves(high, low)[kept], values[kept])
    assert torch.equal(join_halves(high, low)[~kept].abs(), torch.full(((~kept).sum(),), LARGEST))
    # The upper half is the nearest bf16 number; torch's own differs at ties alone.
    nearest = values[kept].to(torch.bfloat16)
    ties = low[kept] == -(2**15)
    assert torch.equal(high[kept][~ties], nearest[~ties])
    error = (high[kept].double() - values[kept].double()).abs()
    assert (error <= (nearest.double() - values[kept].double()).abs()).all()
