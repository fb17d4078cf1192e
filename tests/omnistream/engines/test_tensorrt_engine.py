# SPDX-License-Identifier: Apache-2.0
"""The TensorRT engine on the stand-in of `fake_tensorrt.py`: the invariant, TensorRT's rules, snapshots, refusals."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from omnistream.engines.base import StepOutputs
from omnistream.engines.graphs import STATIC, GraphSet
from omnistream.engines.plans import PlanSet, read_plans
from omnistream.engines.select import make_engine
from omnistream.engines.tensorrt_engine import TensorRTEngine
from omnistream.errors import ConfigError, EngineError, StreamFull
from omnistream.heads.heads import HEADS
from omnistream.stream.policy import parse_policy
from omnistream_export.onnx_graphs import export_graphs
from omnistream_export.tensorrt_build import build_plans
from tests.omnistream.engines.fake_tensorrt import FakeTensorRT, HostDevice

SIZE = (48, 64)
POLICIES = ["window:5", "sink_window:1,4", "full:5", "window:3", "sink_window:2,1"]
"""The first fill the plan's five slots, the last leave some hidden."""


@pytest.fixture(scope="module")
def graphs(tiny_model, tmp_path_factory) -> GraphSet:
    folder = tmp_path_factory.mktemp("checkpoint") / "graphs" / "48x64"
    return export_graphs(tiny_model, folder, height=48, width=64, policy=parse_policy("window:5"))


@pytest.fixture(scope="module")
def plans(graphs) -> PlanSet:
    device = HostDevice()
    build_plans(graphs, trt=FakeTensorRT(device), device=device)
    return read_plans(graphs)


@pytest.fixture
def device() -> HostDevice:
    return HostDevice()


@pytest.fixture
def engine(tiny_model, plans, device) -> TensorRTEngine:
    return TensorRTEngine(tiny_model.config, [plans], trt=FakeTensorRT(device), device=device)


def clip(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, frames, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def run(engine, state, frames, want=()) -> list[StepOutputs]:
    return [engine.step(state, frames[:, i], None, want) for i in range(frames.shape[1])]


def stacked(outs: list[StepOutputs], name: str = "patches") -> torch.Tensor:
    return torch.stack([getattr(out, name) for out in outs], 1)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= 2e-5 * max(1, expected.abs().max()))


@pytest.mark.parametrize("policy", POLICIES)
def test_streaming_equals_batch_heads_included(engine, tiny_model, policy):
    frames = clip(5 if policy.startswith("full") else 12)
    outs = run(engine, engine.new_state(parse_policy(policy), 1, *SIZE), frames, HEADS)
    with torch.no_grad():
        features, heads = tiny_model(frames, policy)
    for name in ("patches", "cls", "camera"):
        assert close(stacked(outs, name), getattr(features, name))
    for field in dataclasses.fields(heads):
        found = torch.stack([getattr(out.heads, field.name) for out in outs], 1)
        assert close(found, getattr(heads, field.name)), field.name


def test_one_launch_as_it_is_then_a_graph_that_is_replayed(engine, device):
    state = engine.new_state(parse_policy("window:3"), 1, *SIZE)
    run(engine, state, clip(6), ("depth",))
    assert device.captures == 2  # backbone and depth head
    assert device.replays == 2 * 5
    waits = device.waits
    run(engine, state, clip(1), ("depth",))
    assert device.waits == waits + 2


def test_without_cuda_graphs_nothing_is_captured(tiny_model, plans, device):
    engine = TensorRTEngine(tiny_model.config, [plans], cuda_graph=False, trt=FakeTensorRT(device), device=device)
    outs = run(engine, engine.new_state(parse_policy("window:5"), 1, *SIZE), clip(7))
    assert device.captures == 0
    assert close(stacked(outs), tiny_model.backbone(clip(7), "window:5", camera_token=True).patches)


def test_outputs_are_the_callers_to_keep(engine):
    state = engine.new_state(parse_policy("window:5"), 1, *SIZE)
    first = engine.step(state, clip(1)[:, 0], None, HEADS)
    before = first.patches.clone(), first.heads.log_depth.clone()
    run(engine, state, clip(3, seed=1), HEADS)
    assert torch.equal(first.patches, before[0]) and torch.equal(first.heads.log_depth, before[1])


def test_caches_stay_where_they_are_and_only_the_slot_is_written(engine):
    state = engine.new_state(parse_policy("sink_window:1,4"), 1, *SIZE)
    run(engine, state, clip(5))
    before, address = state.kv.clone(), state.kv.data_ptr()
    engine.step(state, clip(6)[:, 5], None, ())
    slot = state.spec.policy.slot(5)
    rows = slice(slot * state.tokens, (slot + 1) * state.tokens)
    changed = (state.kv != before).flatten(0, 3).any(-1).any(0)
    assert state.kv.data_ptr() == address
    assert changed[rows].all() and changed.sum() == state.tokens


def test_a_hidden_slot_changes_nothing(engine):
    states = [engine.new_state(parse_policy("window:3"), 1, *SIZE) for _ in range(2)]
    states[1].kv[..., states[1].tokens :, :] = 1e4
    outs = [run(engine, state, clip(5)) for state in states]
    assert torch.equal(stacked(outs[0]), stacked(outs[1]))


def test_nothing_of_a_broken_frame_survives_a_reset(engine):
    state = engine.new_state(parse_policy("window:3"), 1, *SIZE)
    run(engine, state, torch.full((1, 3, 3, *SIZE), torch.nan))
    state.reset()
    fresh = engine.new_state(parse_policy("window:3"), 1, *SIZE)
    assert torch.equal(stacked(run(engine, state, clip(5))), stacked(run(engine, fresh, clip(5))))


@pytest.mark.parametrize("start", [0, 10_000, 1_000_000])
def test_time_is_absolute_and_exact(engine, tiny_model, start):
    frames = clip(7)
    outs = run(engine, engine.new_state(parse_policy("window:4"), 1, *SIZE, start_index=start), frames)
    times = torch.arange(7, dtype=torch.float64) + start
    assert close(stacked(outs), tiny_model.backbone(frames, "window:4", times, camera_token=True).patches)


@pytest.mark.parametrize("policy", ["window:5", "sink_window:1,2"])
def test_a_stream_changes_engines_in_both_directions(engine, tiny_model, policy):
    torch_engine = make_engine(tiny_model, "torch", "cpu", "float32")
    frames = clip(12)
    expected = tiny_model.backbone(frames, policy, camera_token=True).patches
    outs, snapshot = [], None
    for part, runner in enumerate((engine, torch_engine, engine)):
        state = runner.new_state(parse_policy(policy), 1, *SIZE)
        if snapshot is not None:
            state.load_state_dict(snapshot)
        outs += run(runner, state, frames[:, part * 4 : part * 4 + 4])
        snapshot = state.state_dict()
    assert close(stacked(outs), expected)


def test_two_cameras_share_an_engine_without_cross_talk(engine):
    clips = [clip(8, seed) for seed in range(2)]
    states = [engine.new_state(parse_policy("window:3"), 1, *SIZE) for _ in range(2)]
    mixed = [[engine.step(states[c], clips[c][:, i], None, HEADS).heads.rays for c in range(2)] for i in range(8)]
    for c in range(2):
        alone = run(engine, engine.new_state(parse_policy("window:3"), 1, *SIZE), clips[c], HEADS)
        assert all(torch.equal(alone[i].heads.rays, mixed[i][c]) for i in range(8))


def test_plans_of_heads_are_loaded_when_one_is_wanted(tiny_model, plans, device, monkeypatch):
    read: list[str] = []
    original = PlanSet.read
    monkeypatch.setattr(PlanSet, "read", lambda self, role: (read.append(role), original(self, role))[1])
    engine = TensorRTEngine(tiny_model.config, [plans], trt=FakeTensorRT(device), device=device)
    assert read == []
    state = engine.new_state(parse_policy("window:5"), 1, *SIZE)
    engine.step(state, clip(1)[:, 0], None, ())
    assert read == [STATIC]
    out = engine.step(state, clip(1)[:, 0], None, ("pose",))
    assert read == [STATIC, "pose"] and out.heads.camera is not None and out.heads.log_depth is None
    engine.new_state(parse_policy("window:5"), 1, *SIZE)
    assert read == [STATIC, "pose"]  # a second camera shares what is loaded


def test_a_step_that_fails_leaves_the_stream_as_it_was(engine, tiny_model, device):
    state = engine.new_state(parse_policy("window:3"), 1, *SIZE)
    outs = run(engine, state, clip(9)[:, :1])
    stream, device.stream = device.stream, 0
    with pytest.raises(EngineError, match="did not execute the static plan.*stream 0x0"):
        engine.step(state, clip(9)[:, 1], None, ())
    device.stream = stream
    assert state.frames_seen == 1
    outs += run(engine, state, clip(9)[:, 1:])
    assert close(stacked(outs), tiny_model.backbone(clip(9), "window:3", camera_token=True).patches)


def test_refusals_of_steps_and_states(engine, tiny_model, plans, device):
    with pytest.raises(
        EngineError, match=r"policy window:6 needs 6 slots; .* have 5 \(window:5\).*omnistream-export onnx"
    ):
        engine.new_state(parse_policy("window:6"), 1, *SIZE)
    with pytest.raises(
        EngineError, match="no TensorRT plans for frames of 32x32.*found 48x64.*omnistream-export tensorrt"
    ):
        engine.new_state(parse_policy("window:2"), 1, 32, 32)
    state = engine.new_state(parse_policy("full:2"), 1, *SIZE)
    with pytest.raises(ConfigError, match="frame is"):
        engine.step(state, torch.zeros(1, 3, 32, 32), None, ())
    with pytest.raises(ConfigError, match="unknown head"):
        engine.step(state, clip(1)[:, 0], None, ("smell",))
    run(engine, state, clip(2))
    with pytest.raises(StreamFull):
        engine.step(state, clip(1)[:, 0], None, ())
    other = TensorRTEngine(tiny_model.config, [plans], trt=FakeTensorRT(device), device=device)
    with pytest.raises(EngineError, match="of another engine"):
        other.step(state, clip(1)[:, 0], None, ())
    engine.close()
    with pytest.raises(EngineError, match="of another engine|closed"):
        engine.step(state, clip(1)[:, 0], None, ())
    with pytest.raises(EngineError, match="closed"):
        engine.new_state(parse_policy("window:2"), 1, *SIZE)


def test_what_is_missing_is_said_in_one_sentence(tiny_model, plans):
    with pytest.raises(EngineError, match="needs NVIDIA's package tensorrt .*pip install"):
        TensorRTEngine(tiny_model.config, [plans])
