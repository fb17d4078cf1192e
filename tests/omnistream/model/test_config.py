# SPDX-License-Identifier: Apache-2.0
"""Model configurations: presets, round trip through plain data, and errors that name the field."""

from __future__ import annotations

import json

import pytest

from omnistream.errors import ConfigError
from omnistream.model.config import PRESETS, BackboneConfig, config_from_dict, config_to_dict, preset
from omnistream.model.omnistream import OmniStream


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip_through_json(name):
    config = preset(name)
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_presets_have_the_papers_sizes():
    sizes = {name: (c.backbone.dim, c.backbone.depth, c.backbone.heads) for name, c in PRESETS.items()}
    assert sizes.pop("nano") == (192, 8, 3)  # smaller than any of the paper's
    assert sizes == {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


def test_the_large_backbone_has_the_released_parameter_count():
    import torch

    with torch.device("meta"):
        backbone = OmniStream(preset("large")).backbone
    assert len(backbone.state_dict()) == 346
    assert sum(p.numel() for p in backbone.parameters()) == 303_162_368


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": "big"}, "model.image_size is 'big'; expected int"),
        ({"colour": 1}, "unknown field.*colour"),
        ({"scale": "miles"}, "scale is 'miles'"),
        ({"camera_token": False}, "camera head reads the camera token"),
        ({"std": (0.1, 0.0, 0.1)}, "positive"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict({**config_to_dict(preset("tiny")), **change})


def test_bad_backbones_are_named():
    with pytest.raises(ConfigError, match="dim 64 is not divisible by backbone.heads 3"):
        BackboneConfig(dim=64, depth=1, heads=3)
    with pytest.raises(ConfigError, match="multiple of 8"):
        BackboneConfig(dim=36, depth=1, heads=3)
    with pytest.raises(ConfigError, match="lacks field.*heads"):
        config_from_dict({**config_to_dict(preset("tiny")), "backbone": {"dim": 64, "depth": 1}})
