# SPDX-License-Identifier: Apache-2.0
"""Our own format: exact round trips, files that are whole or absent, and refusals that name what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import omnistream
from omnistream.errors import CheckpointError, ConfigError
from omnistream.model.backbone import Backbone
from omnistream.model.omnistream import OmniStream
from omnistream.weights import load_backbone, load_model, model_hash, open_checkpoint, save_model
from omnistream.weights.files import sha256_of


@pytest.fixture
def saved(tiny_model: OmniStream, tmp_path: Path) -> Path:
    return save_model(tiny_model, tmp_path / "saved")


def test_round_trip_is_bit_exact(tiny_model: OmniStream, saved: Path) -> None:
    loaded = omnistream.load_model(saved)
    assert loaded.config == tiny_model.config
    assert not loaded.training
    expected = tiny_model.state_dict()
    assert list(loaded.state_dict()) == list(expected)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name]), name


def test_whoever_may_read_the_configuration_may_read_the_weights(saved: Path) -> None:
    assert len({path.stat().st_mode for path in saved.iterdir()}) == 1


def test_a_loaded_model_runs_like_the_saved_one(tiny_model: OmniStream, saved: Path) -> None:
    clip = torch.randn(1, 2, 3, 32, 48)
    with torch.no_grad():
        expected, expected_heads = tiny_model(clip)
        found, heads = load_model(saved)(clip)
    assert torch.equal(found.patches, expected.patches)
    assert torch.equal(heads.log_depth, expected_heads.log_depth)


def test_the_backbone_of_a_model_with_heads(tiny_model: OmniStream, saved: Path) -> None:
    backbone = load_backbone(saved)
    assert not backbone.training
    assert all(torch.equal(t, tiny_model.backbone.state_dict()[n]) for n, t in backbone.state_dict().items())


def test_a_model_without_heads(make_backbone: Callable[..., Backbone], tiny_model: OmniStream, tmp_path: Path) -> None:
    config = replace(tiny_model.config, backbone=make_backbone(ffn="swiglu").config, heads=None, camera_token=False)
    model = OmniStream(config)
    directory = save_model(model, tmp_path / "backbone")
    loaded = load_model(directory)
    assert loaded.heads is None
    assert open_checkpoint(directory).config.outputs == ("features",)
    assert json.loads((directory / "config.json").read_text())["outputs"] == ["features"]


def test_rotary_settings_can_be_overridden(saved: Path) -> None:
    assert load_backbone(saved, temporal_rope=False).config.temporal_rope is False
    assert load_backbone(saved, rope_layout="released").config.rope_layout == "released"
    with pytest.raises(ConfigError, match="depth cannot be overridden; expected rope_layout"):
        load_backbone(saved, depth=2)
    with pytest.raises(ConfigError, match="rope_layout is 'other'"):
        load_backbone(saved, rope_layout="other")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_on_disk(tiny_model: OmniStream, tmp_path: Path, dtype: str, tolerance: float) -> None:
    directory = save_model(tiny_model, tmp_path / "half", dtype=dtype)
    loaded = load_model(directory)
    for name, tensor in loaded.state_dict().items():
        expected = tiny_model.state_dict()[name]
        assert tensor.dtype == torch.float32
        assert torch.allclose(tensor, expected, rtol=tolerance, atol=1e-6), name
    full = save_model(tiny_model, tmp_path / "full")
    sizes = [(d / "model.safetensors").stat().st_size for d in (directory, full)]
    assert sizes[0] < 0.6 * sizes[1]


def test_values_that_half_precision_cannot_hold_are_not_saved(tiny_model: OmniStream, tmp_path: Path) -> None:
    model = OmniStream(tiny_model.config)
    with torch.no_grad():
        model.backbone.cls_token[0, 0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"not finite as float16: tensors \(1\): backbone.cls_token"):
        save_model(model, tmp_path / "overflow", dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_hash_names_the_function_not_the_file(tiny_model: OmniStream, saved: Path, tmp_path: Path) -> None:
    reference = model_hash(tiny_model)
    assert len(reference) == 16 and int(reference, 16) >= 0
    assert model_hash(load_model(saved)) == reference
    # Rounding changes values, so it changes the hash; once rounded, the storage no longer matters.
    half = load_model(save_model(tiny_model, tmp_path / "half", dtype="float16"))
    assert model_hash(half) != reference
    assert model_hash(load_model(save_model(half, tmp_path / "again"))) == model_hash(half)


def test_hash_follows_values_and_computation_only(tiny_model: OmniStream, saved: Path) -> None:
    reference = model_hash(load_backbone(saved))
    assert model_hash(load_backbone(saved, temporal_rope=False)) != reference
    changed = load_backbone(saved)
    with torch.no_grad():
        changed.norm.bias[3] += 1e-6
    assert model_hash(changed) != reference
    renamed = load_model(saved)
    renamed.config = replace(renamed.config, image_size=96, scale="relative")
    assert model_hash(renamed) == model_hash(tiny_model)


def test_an_existing_checkpoint_is_replaced_only_on_request(tiny_model: OmniStream, saved: Path) -> None:
    with pytest.raises(CheckpointError, match="exists already"):
        save_model(tiny_model, saved)
    save_model(tiny_model, saved, overwrite=True, made_by="again")
    assert json.loads((saved / "config.json").read_text())["made_by"] == "again"
    assert [p.name for p in saved.parent.iterdir()] == ["saved"]


def test_other_directories_and_files_are_never_replaced(tiny_model: OmniStream, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(CheckpointError, match="not an omnistream checkpoint"):
        save_model(tiny_model, tmp_path / "photos", overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="not a directory"):
        save_model(tiny_model, tmp_path / "file", overwrite=True)


def test_a_full_disk_leaves_the_old_checkpoint(saved: Path) -> None:
    # The limit on file size makes the write of the weights itself fail half-way.
    script = (
        "import resource, signal, sys; from omnistream.weights import load_model, save_model\n"
        "model = load_model(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "save_model(model, sys.argv[1], overwrite=True)\n"
    )
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    done = subprocess.run([sys.executable, "-c", script, str(saved)], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "cannot be written" in done.stderr
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == ["saved"]


def test_loaded_weights_do_not_follow_the_file(tiny_model: OmniStream, saved: Path) -> None:
    loaded = load_model(saved)
    weights = saved / "model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert torch.equal(loaded.backbone.cls_token, tiny_model.backbone.cls_token)


# Refusals


def test_not_there(tmp_path: Path, refused: Callable[..., str]) -> None:
    refused(tmp_path / "nothing", "nothing does not exist; expected a checkpoint directory")
    refused(Path("~nobody-of-that-name/weights"), "~nobody-of-that-name/weights does not exist")
    refused(tmp_path, "has no config.json; found nothing")
    (tmp_path / "weights.onnx").touch()
    refused(tmp_path / "weights.onnx", "suffix '.onnx'")


def test_config_not_json(saved: Path, refused: Callable[..., str]) -> None:
    (saved / "config.json").write_text('{"format": "omnistream",')
    refused(saved, "config.json is not JSON")
    (saved / "config.json").write_text("[]")
    refused(saved, "holds a JSON list; expected an object")
    (saved / "config.json").write_bytes(b"\xff\xfe")
    refused(saved, "config.json is not JSON")
    (saved / "config.json").write_text('{"format": "omnistream", "format_version": NaN}')
    refused(saved, "NaN is not a JSON value")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "omnibus"}, "format is 'omnibus'; expected 'omnistream'"),
        ({"format_version": 2}, "format_version 2 is newer than this version of omnistream reads (1)"),
        ({"format_version": 2, "model": ...}, "newer"),
        ({"format_version": "1"}, "format_version is '1'; expected an integer"),
        ({"model": ..., "outputs": ...}, "lacks fields (2): model, outputs"),
        ({"colour": "red"}, "unknown fields (1): colour"),
        ({"model": "tiny"}, "model is 'tiny'; expected a value of type dict"),
        ({"outputs": ["features"]}, "outputs are ['features']; this model gives ['features', 'depth', 'rays', 'pose']"),
        ({"weights_sha256": "0" * 64}, "config.json says 0000000000000000"),
    ],
)
def test_config_fields(
    saved: Path, edit_config: Callable[..., None], refused: Callable[..., str], fields: dict, message: str
) -> None:
    edit_config(saved, **fields)
    refused(saved, "config.json", message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["backbone"].pop("depth"), "model.backbone lacks field(s) depth"),
        (lambda m: m["backbone"].update(depth="4"), "model.backbone.depth is '4'; expected int"),
        (lambda m: m["backbone"].update(heads=3), "not divisible"),
        (lambda m: m["backbone"].update(wings=2), "unknown field(s) wings"),
        (lambda m: m["backbone"].update(mlp_ratio=-4), "mlp_ratio is -4"),
        (lambda m: m["backbone"].update(depth=10**9), "depth 1000000000"),
        (lambda m: m["backbone"].update(dim=2**40), "a model of these sizes cannot be built"),
        (lambda m: m.update(scale="feet"), "scale is 'feet'"),
    ],
)
def test_model_fields(saved: Path, refused: Callable[..., str], change: Callable, message: str) -> None:
    data = json.loads((saved / "config.json").read_text())
    change(data["model"])
    (saved / "config.json").write_text(json.dumps(data))
    refused(saved, message)


def test_another_architecture(saved: Path, refused: Callable[..., str]) -> None:
    data = json.loads((saved / "config.json").read_text())
    data["model"]["backbone"]["depth"] = 5
    (saved / "config.json").write_text(json.dumps(data))
    message = refused(saved, "does not fit", "depth 5", "missing (14): backbone.blocks.4.norm1.weight (64,)")
    assert "and 6 more" in message  # eight names are listed


def test_missing_unknown_misshapen_and_integer_tensors_in_one_message(
    saved: Path, edit_tensors: Callable[..., None], refused: Callable[..., str]
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["backbone.cls_token"]
        tensors["backbone.sls_token"] = torch.zeros(1, 1, 64)
        tensors["backbone.norm.bias"] = torch.zeros(63)
        tensors["backbone.norm.weight"] = torch.ones(64, dtype=torch.int32)

    edit_tensors(saved, change)
    refused(
        saved,
        "missing (1): backbone.cls_token (1, 1, 64)",
        "unknown (1): backbone.sls_token (1, 1, 64)",
        "wrong shape (1): backbone.norm.bias found (63,), expected (64,)",
        "wrong dtype (1): backbone.norm.weight found I32, expected F64, F32, F16, BF16",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(
    saved: Path,
    edit_tensors: Callable[..., None],
    edit_config: Callable[..., None],
    refused: Callable[..., str],
    value: float,
) -> None:
    edit_tensors(saved, lambda tensors: tensors["backbone.blocks.1.mlp.fc1.weight"][0, :2].fill_(value))
    edit_config(saved, weights_sha256=sha256_of(saved / "model.safetensors"))
    refused(saved, "not finite", "backbone.blocks.1.mlp.fc1.weight (2 of 16384 values)")


def test_damaged_weights(saved: Path, refused: Callable[..., str]) -> None:
    weights = saved / "model.safetensors"
    good = weights.read_bytes()
    for size, message in [(0, "0 bytes; too short"), (5, "5 bytes; too short"), (1000, "truncated: its header needs")]:
        weights.write_bytes(good[:size])
        refused(saved, "model.safetensors", message)
    weights.write_bytes(good[:-1])
    refused(saved, f"truncated: its header describes {len(good)} bytes, the file has {len(good) - 1}")
    weights.write_bytes(good + b"\0")
    refused(saved, "followed by foreign bytes")
    weights.write_bytes(b"PK\x03\x04" * 1000)
    refused(saved, "is not a safetensors file")
    weights.write_bytes((16).to_bytes(8, "little") + b"not json at all!")
    refused(saved, "its header is not JSON")
    entry = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}'
    weights.write_bytes(len(entry).to_bytes(8, "little") + entry + bytes(4))
    refused(saved, "'a' is F32 (2,) but has 4 bytes")
    entry = b'{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,4]}}'
    weights.write_bytes(len(entry).to_bytes(8, "little") + entry + bytes(4))
    refused(saved, "the header entry of 'a' is damaged")
    flipped = bytearray(good)
    flipped[-3] ^= 1
    weights.write_bytes(flipped)
    refused(saved, "sha256", "the weights are damaged")
    weights.unlink()
    refused(saved, "has no model.safetensors")
