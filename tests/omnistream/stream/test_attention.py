# SPDX-License-Identifier: Apache-2.0
"""Attention over the cache: bfloat16 on the CPU is as exact as torch's fused kernel, however sharp the logits are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from omnistream.stream import attention
from omnistream.stream.attention import CacheAttention


def tensors(sharpness: float, common: float, heads: int = 3, queries: int = 37, frames: int = 6, width: int = 64):
    """q, k, v in bfloat16. `common`: a direction that all keys and queries share, as trained networks have them."""
    generator = torch.Generator().manual_seed(0)
    shared = common * torch.randn(1, heads, 1, width, generator=generator)
    q = torch.randn(1, heads, queries, width, generator=generator) * sharpness + shared
    k = torch.randn(1, heads, queries * frames, width, generator=generator) + shared
    v = torch.randn(1, heads, queries * frames, width, generator=generator)
    return q.bfloat16(), k.bfloat16(), v.bfloat16()


def error(found: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> float:
    """Relative L2 against the exact result for the same inputs."""
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize(("sharpness", "common"), [(1, 0), (4, 0), (10, 0), (1, 2)])
def test_bfloat16_is_exact_to_its_own_rounding(sharpness, common):
    q, k, v = tensors(sharpness, common)
    found = CacheAttention()(q, k, v, slice(-37, None))
    assert found.dtype is torch.bfloat16 and found.shape == q.shape
    assert error(found, q, k, v) <= 8e-3  # bfloat16 rounds by 4e-3; logits rounded as they are would give 7e-2


def test_a_wrong_guess_of_the_largest_logit_costs_precision_only():
    q, k, v = tensors(1, 0)
    k[:, :, 50] = 200 * q[:, :, :1].mean(2)  # one key far above all others, outside of the queries' frame
    found = CacheAttention()(q, k, v, slice(-37, None))
    assert bool(found.isfinite().all())
    assert error(found, q, k, v) <= 3e-2


@pytest.mark.parametrize(("rows", "held"), [(10, 10), (37, 37), (2 * 37 + 5, 2 * 37), (1000, 3 * 37), (0, 1)])
def test_any_cut_into_heads_and_queries_gives_the_same(monkeypatch, rows, held):
    q, k, v = (torch.cat([x, x.flip(2)]) for x in tensors(4, 1))  # a batch of two
    whole = CacheAttention()(q, k, v, slice(0, 37))
    monkeypatch.setattr(attention, "WORKSPACE_BYTES", 2 * k.shape[2] * rows)
    cut = CacheAttention()
    assert (cut(q, k, v, slice(0, 37)).double() - whole.double()).norm() <= 4e-3 * whole.double().norm()
    assert cut._workspace.numel() == held * k.shape[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_dtypes_are_left_to_torch(dtype):
    q, k, v = (x.to(dtype) for x in tensors(4, 1))
    assert torch.equal(CacheAttention()(q, k, v, slice(0, 37)), F.scaled_dot_product_attention(q, k, v))
