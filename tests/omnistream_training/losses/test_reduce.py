# SPDX-License-Identifier: Apache-2.0
"""Reductions: what is masked neither counts nor pulls."""

from __future__ import annotations

import math

import pytest
import torch

from omnistream_training.losses.reduce import confident, fill, masked_mean


def test_masked_mean_ignores_what_is_masked_even_nan() -> None:
    values = torch.tensor([1.0, 3.0, math.nan, math.inf])
    assert masked_mean(values, torch.tensor([True, True, False, False])) == 2


def test_an_empty_mask_gives_zero_and_no_gradient() -> None:
    prediction = torch.randn(4, requires_grad=True)
    labels = torch.full((4,), math.nan)
    mask = labels.isfinite()
    loss = masked_mean((prediction - fill(labels, mask, 1.0)).abs(), mask)
    loss.backward()
    assert loss == 0
    assert prediction.grad is not None and not prediction.grad.any()


def test_a_nan_label_does_not_reach_the_gradient_of_its_neighbours() -> None:
    prediction = torch.ones(3, requires_grad=True)
    labels = torch.tensor([2.0, math.nan, 0.0])
    mask = labels.isfinite()
    masked_mean((prediction - fill(labels, mask, 1.0)).square(), mask).backward()
    assert prediction.grad is not None and prediction.grad.tolist() == [-1, 0, 1]


@pytest.mark.parametrize("error", [0.01, 0.05, 0.1])
def test_the_best_confidence_at_an_error_is_alpha_over_it(error: float) -> None:
    raw = torch.linspace(-4, 6, 20001, dtype=torch.float64)
    best = raw[confident(torch.tensor(error, dtype=torch.float64), raw, alpha=0.2).argmin()]
    assert 1 + math.exp(best) == pytest.approx(0.2 / error, rel=1e-3)


def test_confidence_is_bounded_so_that_a_perfect_pixel_has_a_finite_reward() -> None:
    raw = torch.tensor([50.0], requires_grad=True)
    loss = confident(torch.zeros(1), raw, alpha=0.2)
    loss.sum().backward()
    assert -1.3 < loss.item() < -1.1  # 0.2 * log(1 + e^6)
    assert raw.grad is not None and raw.grad.item() == 0


def test_gradcheck() -> None:
    values = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    raw = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(3, 4) > 0.4
    assert torch.autograd.gradcheck(lambda e, r: masked_mean(confident(e.square(), r, 0.2), mask), (values, raw))
