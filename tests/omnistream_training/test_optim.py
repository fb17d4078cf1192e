# SPDX-License-Identifier: Apache-2.0
"""Learning rates, Muon and averaged weights on cases whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from omnistream_training.muon import Muon, orthogonalise
from omnistream_training.optim import OptimConfig, Optimizers, WeightAverage, rate_at


def test_warm_up_is_linear_and_cosine_ends_at_its_floor() -> None:
    config = OptimConfig(warmup=10, final=0.1)
    assert [rate_at(s, 110, config) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert rate_at(60, 110, config) == pytest.approx(0.55)
    assert rate_at(110, 110, config) == pytest.approx(0.1)


def test_a_trapezoid_is_flat_and_then_falls() -> None:
    config = OptimConfig(schedule="trapezoid", warmup=10, decay=0.25, final=0.0)
    assert [rate_at(s, 100, config) for s in (10, 50, 74)] == [1, 1, 1]
    assert rate_at(75 + 12, 100, config) == pytest.approx(1 - 12 / 25)
    assert rate_at(100, 100, config) == 0


@pytest.mark.parametrize("shape", [(16, 16), (64, 16), (16, 64)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, *shape, generator=draw) @ torch.diag(torch.logspace(0, -1.5, shape[1]))
    values = torch.linalg.svdvals(orthogonalise(x))
    assert values.min() > 0.3 and values.max() < 1.4
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    overlap = (orthogonalise(x) * (u @ vt)).sum((1, 2)) / min(shape)
    assert (overlap > 0.7).all()  # it points where U V^T points


def test_muon_treats_query_key_and_value_as_three_maps() -> None:
    draw = torch.Generator().manual_seed(1)
    together = nn.Parameter(torch.zeros(48, 16))
    parts = [nn.Parameter(torch.zeros(16, 16)) for _ in range(3)]
    together.grad = torch.randn(48, 16, generator=draw)
    for part, grad in zip(parts, together.grad.split(16), strict=True):
        part.grad = grad.clone()
    Muon([together], lr=0.1).step()
    Muon(parts, lr=0.1).step()
    assert torch.allclose(together, torch.cat(list(parts)), atol=1e-6)


def test_muon_finds_the_minimum_of_a_bowl() -> None:
    target = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    weight = nn.Parameter(torch.zeros(8, 8))
    muon = Muon([weight], lr=0.1)
    for step in range(200):
        muon.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        weight.grad = (weight.detach() - target).clone()
        muon.step()
    assert (weight - target).abs().max() < 0.05


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4)])
        self.head = nn.Linear(4, 2)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))


def test_decay_is_for_matrices_and_muon_for_those_of_the_blocks() -> None:
    net = Net()
    optimizers = Optimizers(net, OptimConfig(muon_lr=1e-2))
    decayed, plain = optimizers.adamw.param_groups
    assert [p is net.head.weight for p in decayed["params"]] == [True]
    assert {id(p) for p in plain["params"]} == {id(p) for p in (net.blocks[0].bias, net.head.bias, net.cls_token)}  # type: ignore[union-attr]
    assert optimizers.muon is not None and optimizers.muon.param_groups[0]["params"] == [net.blocks[0].weight]


def test_gradients_are_clipped_to_the_norm() -> None:
    net = Net()
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizers = Optimizers(net, OptimConfig(clip=0.5))
    count = sum(p.numel() for p in net.parameters())
    assert optimizers.clip() == pytest.approx(count**0.5)
    assert torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]).norm() == pytest.approx(0.5)


def test_averaged_weights_of_a_ramp() -> None:
    weight = nn.Parameter(torch.zeros(1))
    average = WeightAverage([weight], momentum=0.5)
    expected = 0.0
    for step in range(40):
        weight.data.fill_(float(step))
        average.update(step)
        momentum = min(0.5, (step + 1) / (step + 10))
        expected = momentum * expected + (1 - momentum) * step
    assert average.average[0].item() == pytest.approx(expected)
    assert average.average[0].item() == pytest.approx(38, abs=0.1)  # lags a ramp by m / (1 - m) = 1 step
