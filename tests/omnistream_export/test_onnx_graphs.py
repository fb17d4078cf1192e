# SPDX-License-Identifier: Apache-2.0
"""Exported graphs: what is in the files, and that an independent executor computes what the model does."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from omnistream.engines.graph_io import cache_inputs, key_mask, step_inputs
from omnistream.engines.graphs import HEAD_OUTPUTS, SIDECAR, Role, read_graphs
from omnistream.engines.torch_engine import TorchEngine
from omnistream.errors import ConfigError
from omnistream.heads.heads import HEADS
from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.stream.policy import parse_policy
from omnistream.stream.state import StreamState
from omnistream.weights import random_model
from omnistream_export.checks import check_graph
from omnistream_export.onnx_graphs import export_graphs
from omnistream_export.verify import verify

from .conftest import CONFIG


@pytest.mark.parametrize("role", ["static", "growing"])
def test_onnx_reference_evaluator_agrees_over_wrap_around(graphs, model, role: Role):
    """Numpy code of the ONNX project, written from the specification: nothing of ours, of torch or of a runtime."""
    evaluator = ReferenceEvaluator(str(graphs.path(role)))
    heads = [ReferenceEvaluator(str(graphs.path(name))) for name in ("depth_rays", "pose")]
    engine = TorchEngine(model, torch.device("cpu"), torch.float32)
    policy = parse_policy("window:3")
    reference = engine.new_state(policy, 1, 32, 48)
    spec = engine.spec.state_spec(policy, 1, 32, 48)
    state = StreamState(CONFIG.backbone, spec)
    clip = torch.randn(1, 5, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    for i in range(5):
        expected = engine.step(reference, clip[:, i], None, HEADS)
        values = step_inputs(CONFIG, state, clip[:, i], None, policy.slot(i))
        valid = policy.filled(i + 1) * state.tokens
        kv = state.kv if role == "static" else state.kv[..., :valid, :].contiguous()
        values |= cache_inputs(kv) | ({"key_mask": key_mask(state)} if role == "static" else {})
        names = evaluator.output_names
        out = dict(zip(names, evaluator.run(None, {n: v.numpy() for n, v in values.items()}), strict=True))
        for name, kept in cache_inputs(state.kv).items():
            kept[:, :, : kv.shape[4]] = torch.from_numpy(out[f"new_{name}"])
        state.advance()
        np.testing.assert_allclose(out["patches"], expected.patches, atol=2e-5)
        np.testing.assert_allclose(out["camera_token"], expected.camera, atol=2e-5)
        for head in heads:
            found = head.run(None, {n: out[n] for n in head.input_names})
            for output, value in zip(head.output_names, found, strict=True):
                np.testing.assert_allclose(value, getattr(expected.heads, output), atol=2e-5)


def test_both_backbones_share_their_weights_and_differ_in_the_mask(graphs):
    static, growing = (onnx.load(graphs.path(role), load_external_data=False) for role in ("static", "growing"))
    operators = [[node.op_type for node in proto.graph.node] for proto in (static, growing)]
    assert operators[0] == operators[1]
    assert operators[0].count("Attention") == 4 and operators[0].count("TensorScatter") == 8
    assert {t.name for t in graphs.graphs["static"].inputs} - {t.name for t in graphs.graphs["growing"].inputs} == {
        "key_mask"
    }
    assert graphs.graphs["static"].weights == graphs.graphs["growing"].weights


def test_files_name_no_machine_and_no_person(graphs):
    private = {str(Path.cwd()), f"{Path.home()}/", f"/{getpass.getuser()}/", socket.gethostname(), "stack_trace"}
    for path in graphs.directory.iterdir():
        text = path.read_bytes()
        assert not [word for word in private if len(word) > 4 and word.encode() in text], path.name


def test_files_listed_are_files_there(graphs):
    assert {path.name for path in graphs.directory.iterdir()} == {*graphs.sha256, SIDECAR}
    graphs.check_files()


def test_a_backbone_without_heads_and_camera_token(tmp_path):
    """As DINOv3 checkpoints are; swiglu and the released rotary layout on the way."""
    config = ModelConfig(backbone=BackboneConfig(dim=32, depth=2, heads=2, ffn="swiglu", rope_layout="released"))
    model = random_model(config, seed=0)
    exported = export_graphs(model, tmp_path / "out", height=32, width=32, policy=parse_policy("sink_window:1,2"))
    assert set(exported.graphs) == {"static", "growing"}
    assert [t.name for t in exported.graphs["growing"].outputs][:2] == ["patches", "cls"]
    assert all(comparison.passed for comparison in verify(model, exported))


@pytest.mark.slow
def test_float16_and_two_cameras_in_one_step(model, tmp_path):
    exported = export_graphs(
        model, tmp_path / "out", height=32, width=48, policy=parse_policy("window:3"), dtype="fp16", batch=2
    )
    static = onnx.load(exported.path("static"), load_external_data=False)
    floats = {t.data_type for t in static.graph.initializer} - {onnx.TensorProto.INT64}
    assert floats == {onnx.TensorProto.FLOAT16}
    for comparison in verify(model, exported):
        assert comparison.frames == 6 and comparison.passed, comparison


def test_what_verify_says(model, graphs):
    comparisons = verify(model, graphs)
    assert [comparison.engine for comparison in comparisons] == ["onnxruntime", "static graph"]
    for comparison in comparisons:
        assert comparison.passed and comparison.frames == 6
        assert {"patches", "cls", "camera", "log_depth", "rays", "raw pose"} <= set(comparison.largest)
        assert "passed, 6 frames" in str(comparison)


def test_verify_notices_other_weights(graphs):
    other = random_model(CONFIG, seed=2)
    assert not any(comparison.passed for comparison in verify(other, graphs))


def test_targets_are_not_overwritten_by_accident(model, graphs, tmp_path):
    settings = {"height": 32, "width": 48, "policy": parse_policy("window:3")}
    with pytest.raises(ConfigError, match="exists already"):
        export_graphs(model, graphs.directory, **settings)
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(ConfigError, match="not an export of ours and is not overwritten"):
        export_graphs(model, tmp_path, overwrite=True, **settings)
    assert (tmp_path / "precious.txt").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"height": 30}, "multiples of 16"), ({"batch": 0}, "batch is 0"), ({"dtype": "fp8"}, "dtype is 'fp8'")],
)
def test_impossible_settings_are_refused_before_any_work(model, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        export_graphs(
            model, tmp_path / "out", **{"height": 32, "width": 48, "policy": parse_policy("window:3"), **settings}
        )
    assert not (tmp_path / "out").exists()


def test_every_graph_passes_the_checks_again_from_disk(graphs):
    sizes = {"cache_tokens": 3 * CONFIG.backbone.tokens_per_frame(32, 48, True)}
    for role in read_graphs(graphs.directory).graphs:
        check_graph(graphs.path(role), sizes)
    assert set(graphs.graphs) == {"static", "growing", *HEAD_OUTPUTS}
