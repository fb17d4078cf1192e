# SPDX-License-Identifier: Apache-2.0
"""DINOv3 in Meta's naming: the .pth is built here, NaN mask included, and must give what its tensors say."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from omnistream.model.backbone import Backbone
from omnistream.model.config import BackboneConfig
from omnistream.weights import import_checkpoint, load_backbone, load_model

DIM, DEPTH, PATCH = 128, 2, 16
HALF_PERIODS = 100.0 ** (torch.arange(16) / 16)  # of 64-wide heads


def meta_tensors(sharp: Callable[..., dict[str, Tensor]], gated: bool = False) -> dict[str, Tensor]:
    """A state dict as in Meta's hub files: 64-wide heads, 4 storage tokens, periods, and the mask of the k bias."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, DIM),
        "storage_tokens": (1, 4, DIM),
        "mask_token": (1, DIM),
        "patch_embed.proj.weight": (DIM, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (DIM,),
        "norm.weight": (DIM,),
        "norm.bias": (DIM,),
    }
    width = 344 if gated else 4 * DIM
    linears = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)}
    linears |= {"mlp.w1": (width, DIM), "mlp.w2": (width, DIM), "mlp.w3": (DIM, width)} if gated else {}
    linears |= {} if gated else {"mlp.fc1": (width, DIM), "mlp.fc2": (DIM, width)}
    for i in range(DEPTH):
        for name, shape in linears.items():
            shapes[f"blocks.{i}.{name}.weight"], shapes[f"blocks.{i}.{name}.bias"] = shape, shape[:1]
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{i}.{name}"] = (DIM,)
    tensors = sharp({name: torch.empty(shape) for name, shape in shapes.items()})
    for i in range(DEPTH):
        tensors[f"blocks.{i}.attn.qkv.bias_mask"] = torch.full((3 * DIM,), float("nan"))
    tensors["rope_embed.periods"] = HALF_PERIODS.clone()
    return tensors


@pytest.mark.parametrize("gated", [False, True], ids=["mlp", "gated"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pth(sharp: Callable[..., dict[str, Tensor]], tmp_path: Path, gated: bool, zipped: bool) -> None:
    tensors = meta_tensors(sharp, gated)
    path = tmp_path / "dinov3_vits16.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    backbone = load_backbone(path)
    ffn: Any = "swiglu" if gated else "mlp"
    assert (backbone.config.dim, backbone.config.depth, backbone.config.heads) == (DIM, DEPTH, 2)
    assert (backbone.config.ffn, backbone.config.mlp_width) == (ffn, 344 if gated else 512)
    assert (backbone.config.registers, backbone.config.rope_layout) == (4, "rotary")

    expected = Backbone(BackboneConfig(dim=DIM, depth=DEPTH, heads=2, ffn=ffn)).eval()
    state = expected.state_dict()
    own = {name: t.clone() for name, t in tensors.items() if name in state}
    for i in range(DEPTH):
        own[f"blocks.{i}.attn.qkv.bias"][DIM : 2 * DIM] = 0
    own["register_token"] = tensors["storage_tokens"][:, None].repeat(1, 2, 1, 1)
    missing = expected.load_state_dict(own, strict=False)
    assert set(missing.missing_keys) == {"camera_token", "ar_embedder.weight", "ar_embedder.bias"}
    clip = torch.randn(1, 3, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(backbone(clip).patches, expected(clip).patches)


def test_safetensors_and_import_give_the_same(sharp: Callable[..., dict[str, Tensor]], tmp_path: Path) -> None:
    tensors = meta_tensors(sharp)
    torch.save(tensors, tmp_path / "meta.pth")
    save_file(tensors, tmp_path / "meta.safetensors")
    import_checkpoint(tmp_path / "meta.pth", tmp_path / "ours")
    reference = load_backbone(tmp_path / "meta.pth").state_dict()
    for path in (tmp_path / "meta.safetensors", tmp_path / "ours"):
        assert all(torch.equal(t, reference[n]) for n, t in load_model(path).backbone.state_dict().items())


def test_models_run_from_safetensors_only(
    sharp: Callable[..., dict[str, Tensor]], tmp_path: Path, refused: Callable[..., str]
) -> None:
    torch.save(meta_tensors(sharp), tmp_path / "meta.pth")
    refused(tmp_path / "meta.pth", "is a pickle-based file", "omnistream-weights import")


def test_periods_tell_the_head_width_and_are_compared(
    sharp: Callable[..., dict[str, Tensor]], tmp_path: Path, refused: Callable[..., str]
) -> None:
    path = tmp_path / "meta.safetensors"
    tensors = meta_tensors(sharp)
    tensors["rope_embed.periods"] = (100.0 ** (torch.arange(8) / 8)).bfloat16()
    save_file(tensors, path)
    assert load_backbone(path).config.heads == DIM // 32
    del tensors["rope_embed.periods"]
    save_file(tensors, path)
    assert load_backbone(path).config.heads == DIM // 64
    tensors["rope_embed.periods"] = 1000.0 ** (torch.arange(16) / 16)
    save_file(tensors, path)
    refused(path, "rope_embed.periods are 1, 1.54, 2.371, 3.652, ...; expected 1, 1.334, 1.778, 2.371, ...")


def test_other_sizes_and_names_are_refused(
    sharp: Callable[..., dict[str, Tensor]], tmp_path: Path, refused: Callable[..., str]
) -> None:
    path = tmp_path / "meta.safetensors"
    good = meta_tensors(sharp)
    for change, message in [
        (lambda t: t.pop("cls_token"), "holds no known backbone"),
        (lambda t: t.pop("patch_embed.proj.weight"), "has no patch_embed.proj.weight; its sizes cannot be inferred"),
        (lambda t: t.pop("storage_tokens"), "does not fit"),
        (lambda t: t.pop("blocks.0.norm1.bias"), "missing (1): blocks.0.norm1.bias (128,)"),
        (lambda t: t.update(local_cls_norm=torch.zeros(DIM)), "unknown (1): local_cls_norm (128,)"),
        (lambda t: t.update(cls_token=torch.zeros(DIM)), "cls_token has shape (128,); expected 3 dimensions"),
        (lambda t: t.update(mask_token=torch.full((1, DIM), float("nan"))), "mask_token (128 of 128 values)"),
    ]:
        tensors = dict(good)
        change(tensors)
        if "storage_tokens" not in tensors:
            tensors["storage_token"] = torch.zeros(1, 4, DIM)
        save_file(tensors, path)
        refused(path, "meta.safetensors", message)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def test_pickles_run_no_code(tmp_path: Path, refused: Callable[..., str]) -> None:
    marker, path = tmp_path / "owned", tmp_path / "evil.pth"
    torch.save({"cls_token": torch.zeros(1, 1, 64), "extra": Malicious(marker)}, path)
    refused(path, "evil.pth is refused by the weights-only loader", "it asks for posix.mkdir", load=load_backbone)
    path.write_bytes(pickle.dumps(Malicious(marker), protocol=2))
    refused(path, "evil.pth is refused by the weights-only loader", "it asks for posix.mkdir", load=load_backbone)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps(Malicious(marker), protocol=2))
        archive.writestr("evil/version", "3")
    path.write_bytes(buffer.getvalue())
    refused(path, "evil.pth is refused by the weights-only loader", "it asks for posix.mkdir", load=load_backbone)
    assert not marker.exists()


def test_what_is_no_flat_state_dict_is_refused(
    sharp: Callable[..., dict[str, Tensor]], tmp_path: Path, refused: Callable[..., str]
) -> None:
    path = tmp_path / "meta.pth"
    torch.save({"teacher": meta_tensors(sharp), "iteration": 3}, path)
    refused(path, "'teacher' (dict), 'iteration' (int) at its top level; expected a flat dict", load=load_backbone)
    torch.save([torch.zeros(3)], path)
    refused(path, "holds a list; expected a flat dict of tensors", load=load_backbone)
    torch.save({"cls_token": torch.zeros(1, 1, 64, dtype=torch.int64)}, path)
    refused(path, "has no patch_embed.proj.weight", load=load_backbone)
    torch.save(meta_tensors(sharp), path)
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2):
        path.write_bytes(whole[:size])
        refused(path, "is refused by the weights-only loader", load=load_backbone)
