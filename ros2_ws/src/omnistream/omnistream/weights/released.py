# SPDX-License-Identifier: Apache-2.0
"""The OmniStream checkpoint as its authors release it: config.json and safetensors with double-prefixed names.

Their wrapper keeps the transformer in an attribute `patch_embed`, which itself has a `patch_embed`; the depth is
`video_aggregator_layer`. Names after the prefix are ours, but for the final norm. Several config fields
(layer_norm_eps, num_hidden_layers, intermediate_size, ...) have no effect on their model and are not read.
"""

from __future__ import annotations

from pathlib import Path

from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.weights.foreign_config import Fields, backbone_config, backbone_only, with_preprocessor
from omnistream.weights.keymap import KeyMap
from omnistream.weights.shapes import backbone_shapes

PREFIX = "patch_embed."


def read_config(directory: Path) -> ModelConfig:
    """Configuration in `directory`; defaults are those of the authors' configuration class."""
    path = directory / "config.json"
    fields = Fields(path)
    fields.choice("num_channels", (3,), 3)
    backbone = backbone_config(
        path,
        dim=fields.integer("hidden_size"),
        depth=fields.integer("video_aggregator_layer"),
        heads=fields.integer("num_attention_heads"),
        patch_size=fields.integer("patch_size", 16),
        mlp_ratio=fields.number("mlp_ratio", 4.0),
        ffn=fields.choice("ffn_layer", ("mlp", "swiglu"), "mlp"),
        rope_layout="released",
    )
    return with_preprocessor(backbone_only(path, backbone, image_size=fields.side("image_size", 512)), directory)


def mapping(config: BackboneConfig) -> KeyMap:
    """Every tensor is a copy; only the names differ."""
    result = KeyMap()
    for target, shape in backbone_shapes(config).items():
        result.copy(target, shape, released_name(target))
    return result


def released_name(name: str) -> str:
    """The authors' name of a backbone parameter of ours."""
    return PREFIX + (name.replace("norm.", "post_layernorm.") if name.startswith("norm.") else name)
