# SPDX-License-Identifier: Apache-2.0
"""The depth loss on depths whose loss is known."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from omnistream_training.losses.depth import depth_loss, gradient_loss

SURE_OF_NOTHING = -30.0
"""Raw confidence of c = 1, where the loss is the plain error."""


def plane(h: int = 16, w: int = 24) -> torch.Tensor:
    """A tilted plane, [1, 1, h, w]."""
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return (2 + 0.05 * u + 0.02 * v)[None, None].double()


def terms(predicted: torch.Tensor, depth: torch.Tensor, **options: object) -> dict[str, torch.Tensor]:
    raw = torch.full_like(predicted, SURE_OF_NOTHING)
    return depth_loss(predicted.log(), raw, depth, depth.isfinite(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("space", ["log", "linear"])
def test_a_perfect_prediction_costs_nothing(space: Literal["log", "linear"]) -> None:
    assert sum(terms(plane(), plane(), space=space).values()) == pytest.approx(0, abs=1e-12)


def test_a_factor_costs_its_logarithm_and_no_gradient_in_log_space() -> None:
    loss = terms(1.3 * plane(), plane())
    assert loss["depth"] == pytest.approx(math.log(1.3))
    assert loss["depth_gradient"] == pytest.approx(0, abs=1e-12)


def test_an_offset_costs_itself_and_no_gradient_in_linear_space() -> None:
    loss = terms(plane() + 0.25, plane(), space="linear")
    assert loss["depth"] == pytest.approx(0.25)
    assert loss["depth_gradient"] == pytest.approx(0, abs=1e-12)


def test_log_errors_do_not_depend_on_the_scale_of_the_scene() -> None:
    noisy = plane() * torch.exp(0.1 * torch.randn(plane().shape, generator=torch.Generator().manual_seed(0)))
    near, far = terms(noisy, plane()), terms(50 * noisy, 50 * plane())
    for name in near:
        assert near[name] == pytest.approx(float(far[name]))


def test_gradient_term_of_a_known_tilt() -> None:
    # an error of 0.1 per pixel along u: at stride s the horizontal difference is 0.1 s, the vertical one 0
    error = 0.1 * torch.arange(32.0)[None].expand(32, -1)
    expected = sum(0.1 * s for s in (1, 2, 4, 8)) / 4
    assert gradient_loss(error, torch.ones_like(error, dtype=torch.bool)) == pytest.approx(expected)


def test_gradient_term_does_not_look_over_a_masked_pixel() -> None:
    error = torch.zeros(8, 8)
    error[:, 4] = 100
    valid = torch.ones(8, 8, dtype=torch.bool)
    valid[:, 4] = False
    assert gradient_loss(error, valid) == 0


def test_a_common_factor_costs_its_own_weight_and_leaves_the_shape_alone() -> None:
    loss = terms(1.3 * plane(), plane(), common=0.1)
    assert loss["depth"] == pytest.approx(0, abs=1e-12)
    assert loss["depth_common"] == pytest.approx(0.1 * math.log(1.3))


def test_common_errors_are_those_of_each_clip() -> None:
    depth = plane().repeat(2, 3, 1, 1)  # two clips of three frames
    predicted = depth.clone()
    predicted[0] *= 2
    predicted[1] /= 2
    loss = terms(predicted, depth, common=1.0)
    assert loss["depth"] == pytest.approx(0, abs=1e-12) and loss["depth_common"] == pytest.approx(math.log(2))
    predicted = depth.clone()
    predicted[0, 0] *= 4  # one frame of three: its clip's mean moves, the clip's frames differ
    loss = terms(predicted, depth, common=0.0)
    assert loss["depth"] == pytest.approx((2 / 3 + 1 / 3 + 1 / 3) * math.log(4) / 6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2)])
def test_tiny_pictures_do_not_break_it(shape: tuple[int, int]) -> None:
    error = torch.ones(shape, requires_grad=True)
    gradient_loss(error, torch.ones(shape, dtype=torch.bool)).backward()
    assert error.grad is not None and error.grad.isfinite().all()


@pytest.mark.parametrize("space", ["log", "linear"])
def test_nothing_valid_gives_zero_with_zero_gradient(space: Literal["log", "linear"]) -> None:
    log_depth = torch.randn(1, 2, 8, 8, requires_grad=True)
    raw = torch.randn(1, 2, 8, 8, requires_grad=True)
    depth = torch.full((1, 2, 8, 8), math.nan)
    total = sum(depth_loss(log_depth, raw, depth, depth.isfinite(), space=space, common=0.5).values())
    assert isinstance(total, torch.Tensor)
    total.backward()
    assert total == 0
    assert log_depth.grad is not None and not log_depth.grad.any()
    assert raw.grad is not None and not raw.grad.any()


@pytest.mark.parametrize("common", [None, 0.3])
@pytest.mark.parametrize("space", ["log", "linear"])
def test_gradcheck(space: Literal["log", "linear"], common: float | None) -> None:
    draw = torch.Generator().manual_seed(1)
    log_depth = torch.randn(1, 1, 5, 6, dtype=torch.float64, generator=draw, requires_grad=True)
    raw = torch.randn(1, 1, 5, 6, dtype=torch.float64, generator=draw, requires_grad=True)
    depth = torch.rand(1, 1, 5, 6, dtype=torch.float64, generator=draw) + 1
    valid = torch.rand(1, 1, 5, 6, generator=draw) > 0.3

    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(depth_loss(a, b, depth, valid, space=space, common=common).values())).sum()

    assert torch.autograd.gradcheck(loss, (log_depth, raw))
