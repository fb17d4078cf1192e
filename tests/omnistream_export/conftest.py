# SPDX-License-Identifier: Apache-2.0
"""A small model with heads, and its export."""

from __future__ import annotations

import pytest

from omnistream.engines.graphs import GraphSet
from omnistream.model.config import BackboneConfig, HeadConfig, ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.stream.policy import parse_policy
from omnistream.weights import random_model
from omnistream_export.onnx_graphs import export_graphs

CONFIG = ModelConfig(
    backbone=BackboneConfig(dim=32, depth=4, heads=2, layer_scale_init=0.5),
    heads=HeadConfig(taps=(0, 1, 2, 3), projections=(8, 8, 16, 16), features=16),
    camera_token=True,
    image_size=32,
)


@pytest.fixture(scope="session")
def model() -> OmniStream:
    return random_model(CONFIG, seed=1)


@pytest.fixture(scope="session")
def graphs(model: OmniStream, tmp_path_factory: pytest.TempPathFactory) -> GraphSet:
    """Float32, 32 x 48, three slots. Do not change its files."""
    directory = tmp_path_factory.mktemp("export") / "fp32"
    return export_graphs(model, directory, height=32, width=48, policy=parse_policy("window:3"))
