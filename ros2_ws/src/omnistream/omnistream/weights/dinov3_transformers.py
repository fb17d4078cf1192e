# SPDX-License-Identifier: Apache-2.0
"""DINOv3 in the naming of Hugging Face transformers (DINOv3ViTModel): q, k, v apart, no k bias, `embeddings.*`.

Transformers 4 names the blocks `layer.i`, transformers 5 `model.layer.i`; both are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.weights.dinov3 import config_from_shapes, map_tokens
from omnistream.weights.foreign_config import Fields, backbone_config, backbone_only, with_preprocessor
from omnistream.weights.keymap import KeyMap, Slot
from omnistream.weights.shapes import mlp_ratio_for
from omnistream.weights.tensor_source import TensorSource


def read_config(directory: Path) -> ModelConfig:
    """Configuration in a directory of `save_pretrained`."""
    path = directory / "config.json"
    fields = Fields(path)
    dim = fields.integer("hidden_size")
    gated = fields.boolean("use_gated_mlp", False)
    ffn: Literal["mlp", "swiglu"] = "swiglu" if gated else "mlp"
    fields.choice("hidden_act", ("silu", "swish") if gated else ("gelu",), "silu" if gated else "gelu")
    fields.choice("num_channels", (3,), 3)
    backbone = backbone_config(
        path,
        dim=dim,
        depth=fields.integer("num_hidden_layers"),
        heads=fields.integer("num_attention_heads"),
        patch_size=fields.side("patch_size", 16),
        registers=fields.count("num_register_tokens", 0),
        mlp_ratio=mlp_ratio_for(dim, fields.integer("intermediate_size"), ffn, str(path)),
        ffn=ffn,
        rope_base=fields.number("rope_theta", 100.0),
        norm_eps=fields.number("layer_norm_eps", 1e-5),
    )
    return with_preprocessor(backbone_only(path, backbone, image_size=fields.side("image_size", 224)), directory)


def infer_config(source: TensorSource) -> ModelConfig:
    """Configuration of a bare file, from its shapes; heads are taken to be 64 wide."""
    return config_from_shapes(
        source,
        cls="embeddings.cls_token",
        patches="embeddings.patch_embeddings.weight",
        registers="embeddings.register_tokens",
        layers="layer.",
        gate="mlp.gate_proj",
        gated_up="mlp.up_proj",
        up="mlp.up_proj",
    )


def canonical(source: TensorSource) -> TensorSource:
    """`source` with the blocks named `layer.i`, whichever version wrote it."""
    return source.renamed({n: n.removeprefix("model.") if n.startswith("model.layer.") else n for n in source.tensors})


def mapping(config: BackboneConfig, absent_biases: frozenset[str] = frozenset()) -> KeyMap:
    """Rules for `config`; `absent_biases` names those of q, v, o, mlp that the file's config switches off (zeros)."""
    dim, width = config.dim, config.mlp_width
    result = KeyMap()
    map_tokens(result, config, "embeddings.cls_token", "embeddings.mask_token", "embeddings.register_tokens")
    kernel = (dim, 3, config.patch_size, config.patch_size)
    result.copy("patch_embed.proj.weight", kernel, "embeddings.patch_embeddings.weight")
    result.copy("patch_embed.proj.bias", (dim,), "embeddings.patch_embeddings.bias")
    for i in range(config.depth):
        ours, theirs = f"blocks.{i}.", f"layer.{i}."
        for norm in ("norm1", "norm2"):
            result.copy(f"{ours}{norm}.weight", (dim,), f"{theirs}{norm}.weight")
            result.copy(f"{ours}{norm}.bias", (dim,), f"{theirs}{norm}.bias")
        _map_attention(result, ours, theirs, dim, absent_biases)
        for ls, layer_scale in (("ls1", "layer_scale1"), ("ls2", "layer_scale2")):
            result.copy(f"{ours}{ls}.gamma", (dim,), f"{theirs}{layer_scale}.lambda1")
        if config.ffn == "mlp":
            linears = {"fc1": ("up_proj", width, dim), "fc2": ("down_proj", dim, width)}
        else:
            linears = {"w1": ("gate_proj", width, dim), "w2": ("up_proj", width, dim), "w3": ("down_proj", dim, width)}
        for ours_name, (name, rows, columns) in linears.items():
            result.copy(f"{ours}mlp.{ours_name}.weight", (rows, columns), f"{theirs}mlp.{name}.weight")
            needed = "mlp" not in absent_biases
            result.copy(f"{ours}mlp.{ours_name}.bias", (rows,), f"{theirs}mlp.{name}.bias", required=needed)
    result.copy("norm.weight", (dim,), "norm.weight")
    result.copy("norm.bias", (dim,), "norm.bias")
    return result


def absent_biases(directory: Path) -> frozenset[str]:
    """Which biases the config of a directory switches off (the 7B model has none on q and v)."""
    fields = Fields(directory / "config.json")
    names = {"q": "query_bias", "v": "value_bias", "o": "proj_bias", "mlp": "mlp_bias"}
    return frozenset(short for short, name in names.items() if not fields.boolean(name, True))


def _map_attention(result: KeyMap, ours: str, theirs: str, dim: int, absent_biases: frozenset[str]) -> None:
    weights = tuple(f"{theirs}attention.{p}_proj.weight" for p in "qkv")
    biases = tuple(f"{theirs}attention.{p}_proj.bias" for p in "qkv")
    for weight in weights:
        result.slots[weight] = Slot(((dim, dim),))
    for p, bias in zip("qkv", biases, strict=True):
        # DINOv3 has no k bias (it cannot change a softmax over keys); `key_bias: true` files may have one.
        result.slots[bias] = Slot(((dim,),), required=p != "k" and p not in absent_biases)
    result.make(f"{ours}attn.qkv.weight", (3 * dim, dim), weights, lambda *parts: torch.cat(parts))
    result.make(
        f"{ours}attn.qkv.bias",
        (3 * dim,),
        biases,
        lambda *parts: torch.cat([torch.zeros(dim) if part is None else part for part in parts]),
    )
    result.copy(f"{ours}attn.proj.weight", (dim, dim), f"{theirs}attention.o_proj.weight")
    needed = "o" not in absent_biases
    result.copy(f"{ours}attn.proj.bias", (dim,), f"{theirs}attention.o_proj.bias", required=needed)
