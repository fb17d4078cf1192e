# SPDX-License-Identifier: Apache-2.0
"""Small models whose attention is sharp: with fresh weights every frame looks alike, and no test could fail."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch

from omnistream.model.backbone import Backbone
from omnistream.model.config import BackboneConfig, HeadConfig, ModelConfig
from omnistream.model.omnistream import OmniStream


def _sharpen(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "qkv.weight" in name:
                parameter.copy_(noise * 1.5 / parameter.shape[1] ** 0.5)
            elif "gamma" in name:
                parameter.copy_(0.6 + 0.1 * noise)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif parameter.ndim > 1 and "token" not in name:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.2 * noise)


@functools.cache
def _backbone(layout: str, temporal_rope: bool, ffn: str) -> Backbone:
    config = BackboneConfig(dim=64, depth=3, heads=2, rope_layout=layout, temporal_rope=temporal_rope, ffn=ffn)  # type: ignore[arg-type]
    backbone = Backbone(config).eval()
    _sharpen(backbone, seed=7)
    return backbone


@functools.cache
def _model(scale: str) -> OmniStream:
    config = ModelConfig(
        backbone=BackboneConfig(dim=64, depth=4, heads=2),
        heads=HeadConfig(taps=(0, 1, 2, 3), projections=(8, 16, 24, 32), features=16),
        camera_token=True,
        image_size=64,
        scale=scale,  # type: ignore[arg-type]
    )
    model = OmniStream(config).eval()
    _sharpen(model, seed=11)
    return model


@pytest.fixture(scope="session")
def make_backbone() -> Callable[..., Backbone]:
    """make_backbone(layout="rotary", temporal_rope=True, ffn="mlp") -> a sharp 64x3x2 backbone."""

    def make(layout: str = "rotary", temporal_rope: bool = True, ffn: str = "mlp") -> Backbone:
        return _backbone(layout, temporal_rope, ffn)

    return make


@pytest.fixture(scope="session")
def tiny_model() -> OmniStream:
    """A 64x4x2 model with heads on a budget of 64 x 64 pixels, sharp, scale metric. Do not change it."""
    return _model("metric")


@pytest.fixture(scope="session")
def make_model() -> Callable[[str], OmniStream]:
    """make_model(scale) -> like tiny_model, for another scale."""
    return _model
