# SPDX-License-Identifier: Apache-2.0
"""The released format against a plain reference, written here from the description of what that code computes.

The reference is slow on purpose: one loop per frame and head, explicit angles, no cache, no shared code with the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from omnistream.model.config import preset
from omnistream.weights import import_checkpoint, load_backbone, open_checkpoint
from omnistream.weights.shapes import backbone_shapes

CONFIG = {
    "model_type": "vfm",
    "architectures": ["OmnistreamMultiFrameTransformer"],
    "hidden_size": 64,
    "num_attention_heads": 2,
    "video_aggregator_layer": 3,
    "patch_size": 16,
    "mlp_ratio": 4.0,
    "ffn_layer": "mlp",
    "image_size": 512,
    "num_hidden_layers": 12,
    "layer_norm_eps": 1e-6,
    "intermediate_size": 3072,
}


def released_tensors(sharp: Callable[..., dict[str, Tensor]], config: dict[str, Any]) -> dict[str, Tensor]:
    """Random tensors under the released names."""
    dim, patch = config["hidden_size"], config["patch_size"]
    width = int(dim * config["mlp_ratio"])
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, dim),
        "camera_token": (1, 2, 1, dim),
        "register_token": (1, 2, 4, dim),
        "mask_token": (1, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "post_layernorm.weight": (dim,),
        "post_layernorm.bias": (dim,),
        "ar_embedder.weight": (dim, 1),
        "ar_embedder.bias": (dim,),
    }
    linears = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim)}
    if config["ffn_layer"] == "mlp":
        linears |= {"mlp.fc1": (width, dim), "mlp.fc2": (dim, width)}
    else:
        width = math.ceil(int(width * 2 / 3) / 8) * 8
        linears |= {"mlp.w1": (width, dim), "mlp.w2": (width, dim), "mlp.w3": (dim, width)}
    for i in range(config["video_aggregator_layer"]):
        for name, shape in linears.items():
            shapes[f"blocks.{i}.{name}.weight"], shapes[f"blocks.{i}.{name}.bias"] = shape, shape[:1]
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{i}.{name}"] = (dim,)
    return sharp({f"patch_embed.{name}": torch.empty(shape) for name, shape in shapes.items()})


def reference(
    tensors: dict[str, Tensor], config: dict[str, Any], clip: Tensor, ratio: float | None = None, camera: bool = False
) -> list[Tensor]:
    """Normed tokens [tokens, D] of every frame of a clip [T, 3, H, W], in float64."""
    w = {name.removeprefix("patch_embed."): t.double() for name, t in tensors.items()}
    dim, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim, patch = dim // heads, config["patch_size"]
    frames, _, height, width = clip.shape
    rows, columns = height // patch, width // patch
    x = []
    for n in range(frames):
        variant = 0 if n == 0 else 1
        patches = F.conv2d(clip[n].double(), w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=patch)
        prefix = [w["cls_token"][0]]
        if camera:
            token = w["camera_token"][0, variant]
            if ratio is not None:
                token = token + math.log(ratio) * w["ar_embedder.weight"][:, 0] + w["ar_embedder.bias"]
            prefix.append(token)
        prefix.append(w["register_token"][0, variant])
        x.append(torch.cat([*prefix, patches.flatten(1).T]))
    skipped = sum(len(p) for p in prefix)
    angles = [reference_angles(n, rows, columns, head_dim) for n in range(frames)]
    for i in range(config["video_aggregator_layer"]):
        block = {name.removeprefix(f"blocks.{i}."): t for name, t in w.items() if name.startswith(f"blocks.{i}.")}
        keys: list[list[Tensor]] = [[] for _ in range(heads)]
        values: list[list[Tensor]] = [[] for _ in range(heads)]
        for n in range(frames):  # a frame sees itself and what was appended before it
            normed = F.layer_norm(x[n], (dim,), block["norm1.weight"], block["norm1.bias"], 1e-5)
            q, k, v = F.linear(normed, block["attn.qkv.weight"], block["attn.qkv.bias"]).split(dim, dim=1)
            out = []
            for h in range(heads):
                one = slice(h * head_dim, (h + 1) * head_dim)
                keys[h].append(turn(k[:, one], angles[n], skipped))
                values[h].append(v[:, one])
                logits = turn(q[:, one], angles[n], skipped) @ torch.cat(keys[h]).T / math.sqrt(head_dim)
                out.append(logits.softmax(dim=1) @ torch.cat(values[h]))
            mixed = F.linear(torch.cat(out, dim=1), block["attn.proj.weight"], block["attn.proj.bias"])
            x[n] = x[n] + block["ls1.gamma"] * mixed
            normed = F.layer_norm(x[n], (dim,), block["norm2.weight"], block["norm2.bias"], 1e-5)
            x[n] = x[n] + block["ls2.gamma"] * feed_forward(normed, block)
    return [F.layer_norm(t, (dim,), w["post_layernorm.weight"], w["post_layernorm.bias"], 1e-5) for t in x]


def reference_angles(frame: int, rows: int, columns: int, head_dim: int) -> Tensor:
    """[rows * columns, head_dim]: quarters y, y, x, x, not DINOv3's y, x, y, x; channels 3, 7, 11, ... are time."""
    quarter = head_dim // 4
    periods = [100 ** (4 * j / head_dim) for j in range(quarter)]
    angles = torch.zeros(rows, columns, head_dim, dtype=torch.float64)
    for r in range(rows):
        for c in range(columns):
            y, x = 2 * (r + 0.5) / rows - 1, 2 * (c + 0.5) / columns - 1
            for channel in range(head_dim):
                coordinate = y if channel < 2 * quarter else x
                period = periods[channel % quarter]
                if channel % 4 == 3:
                    coordinate, period = frame / 16, periods[(channel // 4) % (head_dim // 8)]
                angles[r, c, channel] = 2 * math.pi * coordinate / period
    return angles.reshape(rows * columns, head_dim)


def turn(x: Tensor, angles: Tensor, skipped: int) -> Tensor:
    """Channel i with its partner half a head away; the first `skipped` tokens stay."""
    half = x.shape[1] // 2
    rest = x[skipped:]
    partner = torch.cat([-rest[:, half:], rest[:, :half]], dim=1)
    return torch.cat([x[:skipped], rest * angles.cos() + partner * angles.sin()])


def feed_forward(x: Tensor, block: dict[str, Tensor]) -> Tensor:
    def linear(name: str, value: Tensor) -> Tensor:
        return F.linear(value, block[f"mlp.{name}.weight"], block[f"mlp.{name}.bias"])

    if "mlp.fc1.weight" in block:
        hidden = linear("fc1", x)
        return linear("fc2", hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)
    gate = linear("w1", x)
    return linear("w3", gate * torch.sigmoid(gate) * linear("w2", x))


def worst(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).abs().max() / max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize(
    ("changes", "frames", "height", "width", "camera", "ratio"),
    [
        ({}, 1, 48, 32, False, None),
        ({}, 16, 32, 48, False, None),
        ({}, 5, 32, 64, True, 0.5),
        ({"num_attention_heads": 1}, 6, 64, 32, True, None),
        ({"ffn_layer": "swiglu", "mlp_ratio": 3.0}, 4, 32, 32, False, None),
        ({"patch_size": 8, "video_aggregator_layer": 1}, 3, 24, 16, True, 1.5),
    ],
)
def test_equals_the_reference(
    sharp: Callable[..., dict[str, Tensor]],
    write_directory: Callable[..., Path],
    changes: dict[str, Any],
    frames: int,
    height: int,
    width: int,
    camera: bool,
    ratio: float | None,
) -> None:
    config = {**CONFIG, **changes}
    tensors = released_tensors(sharp, config)
    backbone = load_backbone(write_directory(config, tensors))
    clip = torch.randn(frames, 3, height, width, generator=torch.Generator().manual_seed(1))
    expected = torch.stack(reference(tensors, config, clip, ratio, camera))
    with torch.no_grad():
        out = backbone(clip[None], camera_token=camera, aspect_ratio=ratio)
        prefix = 5 + int(camera)
        assert worst(out.patches[0], expected[:, prefix:]) <= 2e-5
        assert worst(out.cls[0], expected[:, 0]) <= 2e-5
        if camera:
            assert out.camera is not None
            assert worst(out.camera[0], expected[:, 1]) <= 2e-5
        stream = backbone.stream(policy=f"full:{frames}", camera_token=camera, aspect_ratio=ratio)
        for n in range(frames):
            assert worst(stream.step(clip[None, n]).patches[0, 0], expected[n, prefix:]) <= 2e-5


def test_the_layout_matters(sharp: Callable[..., dict[str, Tensor]], write_directory: Callable[..., Path]) -> None:
    # Otherwise the comparison above could not fail.
    directory = write_directory(CONFIG, released_tensors(sharp, CONFIG))
    clip = torch.randn(1, 2, 3, 48, 48)
    with torch.no_grad():
        released = load_backbone(directory)(clip).patches
        assert (load_backbone(directory, rope_layout="rotary")(clip).patches - released).abs().max() > 0.05
        assert (load_backbone(directory, temporal_rope=False)(clip).patches - released).abs().max() > 0.05


def test_sharded_and_imported_are_the_same(
    sharp: Callable[..., dict[str, Tensor]], write_directory: Callable[..., Path], tmp_path: Path
) -> None:
    tensors = released_tensors(sharp, CONFIG)
    directory = write_directory(CONFIG, tensors, shards=3)
    imported = import_checkpoint(directory, tmp_path / "ours")
    assert imported.config.backbone.rope_layout == "released"
    assert imported.config.outputs == ("features",) and imported.config.image_size == 512
    assert len(imported.info["parent"]["files"]) == 3
    clip = torch.randn(1, 2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_backbone(directory)(clip).patches, load_backbone(tmp_path / "ours")(clip).patches)


def test_half_precision_is_read(sharp: Callable[..., dict[str, Tensor]], write_directory: Callable[..., Path]) -> None:
    tensors = {name: t.bfloat16() for name, t in released_tensors(sharp, CONFIG).items()}
    backbone = load_backbone(write_directory(CONFIG, tensors))
    assert torch.equal(backbone.norm.weight, tensors["patch_embed.post_layernorm.weight"].float())


def test_large_has_the_released_number_of_tensors() -> None:
    # Counted in the authors' ViT-L: 346 tensors, 303,162,368 parameters.
    shapes = backbone_shapes(preset("large").backbone)
    assert len(shapes) == 346
    assert sum(math.prod(shape) for shape in shapes.values()) == 303_162_368


def test_processor_of_the_checkpoint(
    sharp: Callable[..., dict[str, Tensor]], write_directory: Callable[..., Path]
) -> None:
    directory = write_directory(CONFIG, released_tensors(sharp, CONFIG))
    processor = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "size": {"shortest_edge": 448}}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    config = open_checkpoint(directory).config
    assert (config.mean, config.std, config.image_size) == ((0.5,) * 3, (0.25,) * 3, 448)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": ...}, "lacks the field 'hidden_size'"),
        ({"num_attention_heads": ...}, "lacks the field 'num_attention_heads'"),
        ({"video_aggregator_layer": ...}, "lacks the field 'video_aggregator_layer'"),
        ({"hidden_size": 64.5}, "hidden_size is 64.5; expected a positive integer"),
        ({"hidden_size": True}, "hidden_size is True; expected a positive integer"),
        ({"num_attention_heads": 3}, "backbone.dim 64 is not divisible by backbone.heads 3"),
        ({"mlp_ratio": -1}, "mlp_ratio is -1; expected a positive number"),
        ({"ffn_layer": "moe"}, "ffn_layer is 'moe'; expected 'mlp' or 'swiglu'"),
        ({"ffn_layer": "swiglu"}, "missing (18): patch_embed.blocks.0.mlp.w1.weight (176, 64)"),
        ({"video_aggregator_layer": 2}, "unknown (14): patch_embed.blocks.2."),
        ({"hidden_size": 128}, "patch_embed.cls_token found (1, 1, 64), expected (1, 1, 128)"),
        ({"patch_size": 14}, "patch_embed.patch_embed.proj.weight found (64, 3, 16, 16), expected (64, 3, 14, 14)"),
    ],
)
def test_refused(
    sharp: Callable[..., dict[str, Tensor]],
    write_directory: Callable[..., Path],
    edit_config: Callable[..., None],
    refused: Callable[..., str],
    fields: dict[str, Any],
    message: str,
) -> None:
    directory = write_directory(CONFIG, released_tensors(sharp, CONFIG))
    edit_config(directory, **fields)
    refused(directory, message)


def test_uninitialised_mask_token_is_refused(
    sharp: Callable[..., dict[str, Tensor]], write_directory: Callable[..., Path], refused: Callable[..., str]
) -> None:
    # The authors' class leaves it uninitialised; there, a NaN in it spreads to every output.
    tensors = released_tensors(sharp, CONFIG)
    tensors["patch_embed.mask_token"][0, 5] = float("nan")
    refused(write_directory(CONFIG, tensors), "not finite", "patch_embed.mask_token (1 of 64 values)")


def test_damaged_shards(
    sharp: Callable[..., dict[str, Tensor]], write_directory: Callable[..., Path], refused: Callable[..., str]
) -> None:
    directory = write_directory(CONFIG, released_tensors(sharp, CONFIG), shards=2)
    index = directory / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    name, shard = next(iter(good["weight_map"].items()))
    other = next(s for s in good["weight_map"].values() if s != shard)
    for weight_map, message in [
        (None, "has no 'weight_map'"),
        ({**good["weight_map"], name: "../elsewhere.safetensors"}, "expected a .safetensors file beside the index"),
        ({**good["weight_map"], name: "weights.bin"}, "expected a .safetensors file beside the index"),
        ({**good["weight_map"], name: "gone.safetensors"}, "'gone.safetensors', which is missing"),
        ({**good["weight_map"], name: other}, f"places {name!r} in {other}, which does not hold it"),
        ({k: v for k, v in good["weight_map"].items() if k != name}, f"holds {name!r}, which"),
    ]:
        index.write_text(json.dumps({"weight_map": weight_map}))
        refused(directory, "model.safetensors.index.json", message)
    index.write_text(json.dumps(good))
    path = directory / other
    path.write_bytes(path.read_bytes()[:-4])
    refused(directory, other, "truncated")
    index.unlink()
    refused(directory, "has no model.safetensors and no model.safetensors.index.json; found model-00001-of-00002")


def test_weights_alone_need_their_config(
    sharp: Callable[..., dict[str, Tensor]], write_directory: Callable[..., Path], refused: Callable[..., str]
) -> None:
    directory = write_directory(CONFIG, released_tensors(sharp, CONFIG))
    assert load_backbone(directory / "model.safetensors").config.depth == 3
    (directory / "config.json").unlink()
    refused(directory / "model.safetensors", "needs its config.json beside it")
    refused(directory, "has no config.json; found model.safetensors")
