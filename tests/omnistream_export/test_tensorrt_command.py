# SPDX-License-Identifier: Apache-2.0
"""omnistream-export tensorrt, and what `make verify-tensorrt` measures, with the stand-in in TensorRT's place."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from omnistream.engines import cuda_device, tensorrt_api
from omnistream.weights import random_model, save_model
from omnistream_export import cli, verify_tensorrt
from tests.omnistream.engines.fake_tensorrt import FakeTensorRT, HostDevice


@pytest.fixture
def exported(graphs, model, tmp_path, monkeypatch) -> Path:
    """Graphs beside their checkpoint, on a machine with TensorRT."""
    device = HostDevice()
    monkeypatch.setattr(tensorrt_api, "load_tensorrt", lambda: FakeTensorRT(device))
    monkeypatch.setattr(cuda_device, "CudaDevice", lambda name: device)
    monkeypatch.setattr(verify_tensorrt, "MEASURED_FRAMES", 3)
    weights = save_model(model, tmp_path / "weights")
    return Path(shutil.copytree(graphs.directory, weights / "graphs" / "32x48"))


def test_builds_compares_and_measures(exported, capsys):
    assert cli.main(["tensorrt", str(exported)]) == 0
    printed = capsys.readouterr().out
    assert "static, pose, depth, rays, depth_rays" in printed and "Stand-in GPU" in printed
    assert "tensorrt: passed, 6 frames against torch float32" in printed
    assert "tensorrt, no CUDA graph" in printed and "torch, float32" in printed and "backbone p50" in printed
    assert (exported / "tensorrt" / "plans.json").is_file()


def test_build_only_needs_no_checkpoint(exported, capsys, tmp_path):
    alone = shutil.copytree(exported, tmp_path / "elsewhere")
    assert cli.main(["tensorrt", str(alone), "--build-only", "--timing-cache", str(tmp_path / "timings")]) == 0
    assert "passed" not in capsys.readouterr().out
    assert (tmp_path / "timings").read_bytes() == b"10.16.1.11+++++"


def test_weights_of_another_model_are_refused_before_anything_is_built(exported, model, tmp_path, capsys):
    other = save_model(random_model(model.config, seed=2), tmp_path / "other")
    assert cli.main(["tensorrt", str(exported), "--weights", str(other)]) == 1
    assert "holds graphs of model" in capsys.readouterr().err
    assert not (exported / "tensorrt").exists()


def test_without_tensorrt_one_sentence_and_no_build(graphs, tmp_path, capsys):
    copy = shutil.copytree(graphs.directory, tmp_path / "copy")
    assert cli.main(["tensorrt", str(copy), "--build-only"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("omnistream-export: engine tensorrt needs NVIDIA's package tensorrt")
    assert "pip install 'omnistream[tensorrt]'" in error and len(error.splitlines()) == 1
    assert not (Path(copy) / "tensorrt").exists()


def test_verify_tensorrt_says_why_it_cannot(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["verify_tensorrt"])
    assert verify_tensorrt.main() == 2
    assert "not verified: engine tensorrt needs" in capsys.readouterr().err
