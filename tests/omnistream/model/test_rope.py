# SPDX-License-Identifier: Apache-2.0
"""The rotary tables against their definition: a true rotation, relative, time on every fourth channel."""

from __future__ import annotations

import math

import pytest
import torch

from omnistream.model.config import BackboneConfig
from omnistream.model.rope import rope_tables, rotate


def config(heads: int = 1, **kwargs) -> BackboneConfig:
    return BackboneConfig(dim=64, depth=1, heads=heads, **kwargs)


def at(*times: float) -> torch.Tensor:
    return torch.tensor(times, dtype=torch.float64)


def test_prefix_tokens_are_not_rotated():
    rope = rope_tables(config(), (2, 3), 5, at(7.0))
    x = torch.randn(1, 1, 11, 64)
    assert torch.equal(rotate(x, rope)[:, :, :5], x[:, :, :5])


@pytest.mark.parametrize("heads", [1, 2])
def test_rotary_layout_keeps_norms_and_released_does_not(heads):
    x = torch.randn(1, heads, 12, 64 // heads)
    for layout, keeps in (("rotary", True), ("released", False)):
        turned = rotate(x, rope_tables(config(heads, rope_layout=layout), (3, 4), 0, at(2.5)))
        assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-5) is keeps


def test_logits_depend_on_time_differences_only():
    """Exact in float64 angles, even a million frames in."""
    q, k = torch.randn(2, 1, 1, 6, 64, dtype=torch.float64)

    def logits(time: float) -> torch.Tensor:
        tables = rope_tables(config(), (2, 3), 0, at(time, time + 3))
        cos, sin = (table.double().unflatten(2, (2, 6)) for table in tables)
        first, second = ((cos[:, :, i], sin[:, :, i]) for i in (0, 1))
        return rotate(q, type(tables)(*first)) @ rotate(k, type(tables)(*second)).mT

    for time in (16, 1e4, 1e6):
        assert (logits(0) - logits(time)).abs().max() < 1e-5


def test_known_angles():
    """Head of 64: channels 0, 16 and 3 carry y, x and time at period 1, channel 7 time at period 100^(1/16);
    pairs (i, i + 32) share an angle. Coordinates: y = 2 (r + 0.5)/h - 1, t = n/16."""
    rope = rope_tables(config(), (2, 4), 0, at(5.0))
    cos = rope.cos[0, 0].reshape(2, 4, 64)
    y, x, t = 2 * 0.5 / 2 - 1, 2 * 2.5 / 4 - 1, 5 / 16
    expected = {0: y, 16: x, 3: t, 7: t / 100 ** (1 / 16), 1: y / 100 ** (1 / 16), 31: t / 100 ** (7 / 16)}
    for channel, turns in expected.items():
        for pair in (channel, channel + 32):
            assert cos[0, 2, pair].item() == pytest.approx(math.cos(2 * math.pi * turns), abs=1e-6), pair


def test_released_layout_repeats_each_axis():
    rope = rope_tables(config(rope_layout="released"), (2, 4), 0, at(0.0))
    cos = rope.cos[0, 0].reshape(2, 4, 64)
    y, x = 2 * 0.5 / 2 - 1, 2 * 2.5 / 4 - 1
    for channel, turns in {0: y, 16: y, 32: x, 48: x}.items():
        assert cos[0, 2, channel].item() == pytest.approx(math.cos(2 * math.pi * turns), abs=1e-6)


def test_without_time_the_spatial_frequencies_return():
    still = rope_tables(config(temporal_rope=False), (2, 4), 0, at(0.0, 9.0)).cos.unflatten(2, (2, 8))
    assert torch.equal(still[:, :, 0], still[:, :, 1])
    y = 2 * 0.5 / 2 - 1
    assert still[0, 0, 0, 0, 3].item() == pytest.approx(math.cos(2 * math.pi * y / 100 ** (3 / 16)), abs=1e-6)


def test_float32_tables_are_exact_far_out():
    table = rope_tables(config(), (1, 1), 0, at(1e6 + 0.25)).cos[0, 0, 0, 7].item()
    assert table == pytest.approx(math.cos(2 * math.pi * (1e6 + 0.25) / 16 / 100 ** (1 / 16)), abs=1e-7)
