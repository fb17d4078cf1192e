# SPDX-License-Identifier: Apache-2.0
"""DINOv3 in Meta's own naming (a flat state dict, .pth or safetensors): `storage_tokens`, fused qkv, `bias_mask`.

`attn.qkv.bias_mask` is NaN at construction and switches the k bias off. It is not read: the k third is set to zero,
which is what it means. `rope_embed.periods` is a buffer; it is compared with the formula and dropped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from omnistream.errors import CheckpointError
from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.weights.dinov3 import config_from_shapes, map_tokens
from omnistream.weights.keymap import KeyMap, Slot
from omnistream.weights.shapes import HEAD_WIDTH, backbone_shapes, shape_of
from omnistream.weights.tensor_source import TensorSource

PERIODS = "rope_embed.periods"
PERIODS_TOLERANCE = 5e-3
"""Relative. Some files keep the periods in bfloat16, which is 0.2 % off at most; another base is off by far more."""

TOKENS = ("cls_token", "mask_token", "register_token", "camera_token", "ar_embedder.weight", "ar_embedder.bias")


def infer_config(source: TensorSource) -> ModelConfig:
    """Configuration of a file, from its shapes. The periods tell the head width; without them it is taken to be 64."""
    head_width = 4 * shape_of(source, PERIODS, 1)[0] if PERIODS in source.tensors else HEAD_WIDTH
    return config_from_shapes(
        source,
        cls="cls_token",
        patches="patch_embed.proj.weight",
        registers="storage_tokens",
        layers="blocks.",
        gate="mlp.w1",
        gated_up="mlp.w1",
        up="mlp.fc1",
        head_width=head_width,
    )


def mapping(config: BackboneConfig) -> KeyMap:
    """Names are ours but for the registers; the k third of every qkv bias becomes zero."""
    dim = config.dim
    result = KeyMap()
    map_tokens(result, config, "cls_token", "mask_token", "storage_tokens")
    for name, shape in backbone_shapes(config).items():
        if name in TOKENS:
            continue
        if name.endswith("attn.qkv.bias"):
            result.slots[name] = Slot((shape,))
            result.make(name, shape, (name,), lambda bias: _without_key_bias(bias, dim))
            result.drop(f"{name}_mask", shape)
        else:
            result.copy(name, shape, name)
    result.drop(PERIODS, (config.head_dim // 4,))
    return result


def check_periods(source: TensorSource, config: BackboneConfig) -> None:
    """Refuse a file whose rotary periods are not base^(4j / head width): our model would compute something else."""
    if PERIODS not in source.tensors:
        return
    found = source.read(PERIODS).double()
    expected = config.rope_base ** (torch.arange(len(found), dtype=torch.float64) * 4 / config.head_dim)
    if not torch.allclose(found, expected, rtol=PERIODS_TOLERANCE, atol=0):
        shown = [", ".join(f"{v:.4g}" for v in values[:4].tolist()) for values in (found, expected)]
        raise CheckpointError(f"{source.where}: {PERIODS} are {shown[0]}, ...; expected {shown[1]}, ...")


def _without_key_bias(bias: Tensor, dim: int) -> Tensor:
    bias[dim : 2 * dim] = 0
    return bias
