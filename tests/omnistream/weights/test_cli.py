# SPDX-License-Identifier: Apache-2.0
"""`omnistream-weights` as a user calls it: what it prints, what it writes, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from omnistream.cli.weights import main
from omnistream.errors import CheckpointError
from omnistream.weights import default_model, load_model, model_hash


def test_init_inspect_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["init", "--preset", "tiny", "--seed", "3", str(first)]) == 0
    assert "features, depth, rays, pose" in capsys.readouterr().out
    assert main(["init", "--preset", "tiny", "--seed", "3", str(second)]) == 0
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert json.loads((first / "config.json").read_text())["made_by"] == (
        "omnistream-weights init --preset tiny --seed 3"
    )
    capsys.readouterr()
    assert main(["inspect", str(first), "--tensors"]) == 0
    printed = capsys.readouterr().out
    assert "ViT dim 192, depth 12, heads 3" in printed
    assert model_hash(load_model(first)) in printed
    assert "backbone.blocks.11.attn.qkv.weight" in printed
    assert main(["import", str(first), str(tmp_path / "half"), "--dtype", "float16"]) == 0
    assert "302 F16" in capsys.readouterr().out


def test_refusals_have_status_1_and_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nothing")]) == 1
    assert "nothing does not exist" in capsys.readouterr().err
    (tmp_path / "bad.safetensors").write_bytes(b"0123")
    assert main(["import", str(tmp_path / "bad.safetensors"), str(tmp_path / "out")]) == 1
    assert "4 bytes; too short" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    taken = tmp_path / "taken"
    assert main(["init", str(taken)]) == 0
    assert main(["init", str(taken)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["init", str(taken), "--overwrite", "--seed", "1"]) == 0


def test_wrong_usage_has_status_2() -> None:
    for args in ([], ["melt"], ["import", "only-one"], ["init", "--preset", "giant", "out"]):
        with pytest.raises(SystemExit) as stopped:
            main(args)
        assert stopped.value.code == 2


def test_dinov3_licence_is_named(
    sharp: Callable[..., dict[str, Tensor]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.DINOv3ViTConfig(
        hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=128, num_register_tokens=4
    )
    transformers.DINOv3ViTModel(config).save_pretrained(tmp_path / "dinov3")
    assert main(["import", str(tmp_path / "dinov3"), str(tmp_path / "ours")]) == 0
    assert "DINOv3 License" in capsys.readouterr().out


def test_the_word_default_names_the_shipped_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.random.get_rng_state()
    model, note = default_model()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert note == "shipped default weights, scale metric"
    assert model.heads is not None and not model.training
    assert model_hash(load_model("default")) == model_hash(model)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model("./default")
