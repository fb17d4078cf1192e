# SPDX-License-Identifier: Apache-2.0
"""DINOv3 in transformers' naming: without time a single image comes out as from transformers' own DINOv3ViTModel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from omnistream.weights import import_checkpoint, load_backbone, load_model, open_checkpoint

transformers = pytest.importorskip("transformers")

Sharp = Callable[..., dict[str, Tensor]]


def dinov3(sharp: Sharp, **changes: Any) -> Any:
    """A small DINOv3ViTModel in eval mode with sharp attention."""
    sizes = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 512}
    config = transformers.DINOv3ViTConfig(**{**sizes, "num_register_tokens": 4, "image_size": 64, **changes})
    model = transformers.DINOv3ViTModel(config).eval()
    model.load_state_dict(sharp(model.state_dict()))
    return model


def assert_equal_outputs(path: Path, reference: Any, tolerance: float = 1e-5) -> None:
    backbone = load_backbone(path, temporal_rope=False)
    for height, width in [(64, 64), (48, 96), (80, 16)]:
        images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            expected = reference(pixel_values=images).last_hidden_state
            out = backbone(images[:, None])
        registers = backbone.config.registers
        for found, wanted in [(out.cls[:, 0], expected[:, 0]), (out.patches[:, 0], expected[:, 1 + registers :])]:
            error = (found - wanted).abs().max() / max(1.0, float(wanted.abs().max()))
            assert error <= tolerance, (height, width, float(error))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_attention_heads": 4, "num_register_tokens": 0},
        {"use_gated_mlp": True, "hidden_act": "silu", "intermediate_size": 344},
        {"key_bias": True, "rope_theta": 50.0, "layer_norm_eps": 1e-3, "patch_size": 8},
        {"query_bias": False, "value_bias": False, "proj_bias": False, "mlp_bias": False},
    ],
    ids=["mlp", "32-wide heads, no registers", "gated", "key bias, base, eps, patch", "no biases"],
)
def test_equals_transformers(sharp: Sharp, tmp_path: Path, changes: dict[str, Any]) -> None:
    reference = dinov3(sharp, **changes)
    reference.save_pretrained(tmp_path)
    assert_equal_outputs(tmp_path, reference)


def test_time_and_the_released_layout_are_another_model(sharp: Sharp, tmp_path: Path) -> None:
    # Otherwise the comparison above could not fail.
    dinov3(sharp).save_pretrained(tmp_path)
    image = torch.randn(1, 1, 3, 64, 64)
    with torch.no_grad():
        plain = load_backbone(tmp_path, temporal_rope=False)(image).patches
        assert (load_backbone(tmp_path)(image).patches - plain).abs().max() > 0.1
        released = load_backbone(tmp_path, temporal_rope=False, rope_layout="released")
        assert (released(image).patches - plain).abs().max() > 0.1


def test_both_namings_of_layers(sharp: Sharp, tmp_path: Path, refused: Callable[..., str]) -> None:
    reference = dinov3(sharp)
    reference.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    plain = {name.removeprefix("model."): t for name, t in tensors.items()}
    for naming in (plain, {f"model.{n}" if n.startswith("layer.") else n: t for n, t in plain.items()}):
        save_file(naming, path)
        assert_equal_outputs(tmp_path, reference)
    save_file({**plain, "model.layer.0.norm1.bias": torch.zeros(128)}, path)
    refused(tmp_path, "norm1.bias' in two namings")


def test_a_bare_file_tells_its_sizes(sharp: Sharp, tmp_path: Path) -> None:
    for number, changes in enumerate(
        [{}, {"use_gated_mlp": True, "hidden_act": "silu", "intermediate_size": 344, "num_register_tokens": 0}]
    ):
        reference = dinov3(sharp, **changes)
        reference.save_pretrained(tmp_path / "whole")
        bare = tmp_path / f"bare{number}.safetensors"
        (tmp_path / "whole" / "model.safetensors").rename(bare)
        assert_equal_outputs(bare, reference)


def test_sharded(sharp: Sharp, tmp_path: Path) -> None:
    reference = dinov3(sharp)
    reference.save_pretrained(tmp_path, max_shard_size="300KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_equal_outputs(tmp_path, reference)


def test_what_dinov3_does_not_have_starts_the_same_every_time(sharp: Sharp, tmp_path: Path) -> None:
    reference = dinov3(sharp)
    reference.save_pretrained(tmp_path)
    first, second = load_backbone(tmp_path), load_backbone(tmp_path)
    registers = reference.embeddings.register_tokens
    assert torch.equal(first.register_token[:, 0], registers) and torch.equal(first.register_token[:, 1], registers)
    assert torch.equal(first.camera_token, second.camera_token)
    assert 0.015 < float(first.camera_token.detach().std()) < 0.025
    assert float(first.ar_embedder.weight.detach().abs().max()) == 0
    bias = first.blocks[0].attn.qkv.bias
    assert float(bias[128:256].detach().abs().max()) == 0 and float(bias[:128].detach().abs().max()) > 0
    assert first.config.rope_layout == "rotary"


def test_import_keeps_outputs_and_says_where_from(sharp: Sharp, tmp_path: Path) -> None:
    reference = dinov3(sharp)
    reference.save_pretrained(tmp_path / "dinov3")
    processor = {"image_mean": [0.43, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143], "do_rescale": True,
                 "rescale_factor": 1 / 255, "size": {"height": 96, "width": 96}}  # fmt: skip
    (tmp_path / "dinov3" / "preprocessor_config.json").write_text(json.dumps(processor))
    imported = import_checkpoint(tmp_path / "dinov3", tmp_path / "ours")
    assert_equal_outputs(tmp_path / "ours", reference)
    assert imported.config.mean == (0.43, 0.411, 0.296) and imported.config.image_size == 96
    parent = imported.info["parent"]
    assert parent["kind"] == "dinov3-transformers" and parent["name"] == "dinov3"
    assert list(parent["files"]) == ["model.safetensors"]
    assert str(tmp_path) not in (tmp_path / "ours" / "config.json").read_text()
    model = load_model(tmp_path / "ours")
    assert model.heads is None and imported.config.outputs == ("features",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": ...}, "config.json lacks the field 'hidden_size'"),
        ({"num_hidden_layers": "3"}, "num_hidden_layers is '3'; expected a positive integer"),
        ({"num_attention_heads": 3}, "not divisible"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; expected 'gelu'"),
        ({"use_gated_mlp": True}, "hidden_act is 'gelu'; expected 'silu' or 'swish'"),
        ({"num_channels": 4}, "num_channels is 4; expected 3"),
        ({"intermediate_size": 256}, "layer.0.mlp.up_proj.weight found (512, 128), expected (256, 128)"),
        ({"num_register_tokens": 5}, "embeddings.register_tokens found (1, 4, 128), expected (1, 5, 128)"),
        ({"num_hidden_layers": 2}, "unknown (17): layer.2."),
        ({"value_bias": False, "num_hidden_layers": 4}, "missing (16): layer.3."),
        ({"model_type": "vit"}, "of no known kind (model_type 'vit')"),
    ],
)
def test_refused(
    sharp: Sharp,
    tmp_path: Path,
    edit_config: Callable[..., None],
    refused: Callable[..., str],
    fields: dict[str, Any],
    message: str,
) -> None:
    dinov3(sharp).save_pretrained(tmp_path)
    edit_config(tmp_path, **fields)
    refused(tmp_path, message)


def test_odd_gated_width_is_refused(
    sharp: Sharp, tmp_path: Path, edit_config: Callable[..., None], refused: Callable[..., str]
) -> None:
    dinov3(sharp, use_gated_mlp=True, hidden_act="silu").save_pretrained(tmp_path)
    edit_config(tmp_path, intermediate_size=300)
    refused(tmp_path, "a gated feed-forward width of 300 is not a multiple of 8")


def test_images_processed_otherwise_are_refused(sharp: Sharp, tmp_path: Path, refused: Callable[..., str]) -> None:
    dinov3(sharp).save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    for processor, message in [
        ({"do_rescale": False}, "expected do_rescale true"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is [0.5, 0.5]; expected three numbers"),
        ({"image_std": [0.2, 0.2, 0.0]}, "image_std is [0.2, 0.2, 0.0]; expected three positive numbers"),
        ({"size": {"height": 4, "width": 4}}, "size is {'height': 4, 'width': 4}; expected n"),
    ]:
        path.write_text(json.dumps(processor))
        refused(tmp_path, "preprocessor_config.json", message)
    path.write_text(json.dumps({"do_normalize": False, "do_resize": False, "size": 32}))
    config = open_checkpoint(tmp_path).config
    assert (config.mean, config.std, config.image_size) == ((0, 0, 0), (1, 1, 1), 64)
