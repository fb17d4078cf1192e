# SPDX-License-Identifier: Apache-2.0
"""The torch engine against the model it runs, and its choice of device and dtype."""

from __future__ import annotations

import copy
import gc

import pytest
import torch

from omnistream.engines import select
from omnistream.engines.select import choose_device, choose_dtype, make_engine
from omnistream.engines.torch_engine import TorchEngine
from omnistream.errors import ConfigError, EngineError
from omnistream.heads.heads import HEADS
from omnistream.stream.policy import parse_policy

from .conftest import HostGraphs


def test_the_callers_model_is_left_alone(tiny_model):
    engine = make_engine(tiny_model, "torch", "cpu", "bfloat16")
    assert tiny_model.backbone.patch_embed.proj.weight.dtype is torch.float32
    engine.close()
    assert tiny_model.backbone.patch_embed.proj.weight.dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_in_bfloat16_is_left_alone_too(tiny_model, dtype):
    model = copy.deepcopy(tiny_model)
    model.backbone.to(torch.bfloat16)
    TorchEngine(model, torch.device("cpu"), dtype)
    assert {weight.dtype for weight in model.backbone.parameters()} == {torch.bfloat16}


def test_bfloat16_rounds_products_and_not_their_sum(tiny_model):
    """Against a model that is bfloat16 throughout: the camera token, hence the pose, is closer."""
    clip = torch.randn(1, 8, 3, 48, 48, generator=torch.Generator().manual_seed(4))
    throughout = copy.deepcopy(tiny_model.backbone).to(torch.bfloat16)
    engine = make_engine(tiny_model, "torch", "cpu", "bfloat16")
    state = engine.new_state(parse_policy("full:8"), 1, 48, 48)
    found = torch.stack([engine.step(state, clip[:, i], None, ()).camera for i in range(8)], 1)
    with torch.no_grad():
        exact = tiny_model.backbone(clip, camera_token=True).camera
        rounded = throughout(clip.bfloat16(), camera_token=True).camera.float()
    assert (found - exact).norm() <= 0.75 * (rounded - exact).norm()
    assert (found - exact).norm() <= 1e-2 * exact.norm()


def test_steps_of_a_full_cache_are_one_graph(tiny_model):
    """Slots wrap around, the stream is reset, a second one takes turns: one capture for each, and the same results."""
    device = HostGraphs()
    engine = TorchEngine(tiny_model, torch.device("cpu"), torch.float32, graph_device=device)
    plain = make_engine(tiny_model, "torch", "cpu", "float32")
    clip = torch.randn(1, 30, 3, 32, 48, generator=torch.Generator().manual_seed(6))
    states = [[e.new_state(parse_policy("sink_window:1,3"), 1, 32, 48) for _ in range(2)] for e in (engine, plain)]
    for i in range(15):
        if i == 9:
            states[0][0].reset()
            states[1][0].reset()
        for camera in range(2):
            found, expected = (
                e.step(of[camera], clip[:, i + 15 * camera], None, HEADS)
                for e, of in zip((engine, plain), states, strict=True)
            )
            for name in ("patches", "cls", "camera"):
                assert (getattr(found, name) - getattr(expected, name)).abs().max() <= 2e-5
            assert (found.heads.log_depth - expected.heads.log_depth).abs().max() <= 2e-5
    # Full after 4 frames; the first such step runs as it is. The first stream is short of 4 again after its reset.
    assert device.captures == 2
    assert device.replays == (15 - 4 - 1) + (15 - 4 - 1 - 4)
    kept = found.patches.clone()
    engine.step(states[0][1], clip[:, 0], None, ())
    assert torch.equal(found.patches, kept)  # outputs are the caller's
    states.clear()
    gc.collect()
    assert len(engine._graphed) == 0


def test_a_policy_that_never_evicts_is_never_captured(tiny_model):
    device = HostGraphs()
    engine = TorchEngine(tiny_model, torch.device("cpu"), torch.float32, graph_device=device)
    state = engine.new_state(parse_policy("full:6"), 1, 32, 48)
    for _ in range(6):
        engine.step(state, torch.zeros(1, 3, 32, 48), None, ())
    assert device.captures == 0 and device.waits == 0


def test_two_cameras_in_one_step_equal_two_steps(tiny_model):
    engine = make_engine(tiny_model, "torch", "cpu", "float32")
    clips = torch.randn(2, 7, 3, 32, 48, generator=torch.Generator().manual_seed(7))
    policy = parse_policy("sink_window:1,2")
    both, *alone = (engine.new_state(policy, batch, 32, 48) for batch in (2, 1, 1))
    for i in range(7):
        found = engine.step(both, clips[:, i], None, HEADS)
        for camera, state in enumerate(alone):
            expected = engine.step(state, clips[camera : camera + 1, i], None, HEADS)
            assert (found.patches[camera] - expected.patches[0]).abs().max() <= 2e-5
            assert (found.heads.camera[camera] - expected.heads.camera[0]).abs().max() <= 2e-5


def test_a_failed_step_leaves_the_stream_as_it_was(tiny_model, monkeypatch):
    engine = make_engine(tiny_model, "torch", "cpu", "float32")
    clip = torch.randn(1, 10, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    state = engine.new_state(parse_policy("window:3"), 1, 32, 32)
    outs = [engine.step(state, clip[:, i], None, ()).patches[:, None] for i in range(6)]
    block = tiny_model.backbone.blocks[2]

    def broken(*args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(block, "forward", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.step(state, clip[:, 8], None, ())  # two layers have written this frame's keys by now
    monkeypatch.undo()
    assert state.frames_seen == 6
    outs += [engine.step(state, clip[:, i], None, ()).patches[:, None] for i in range(6, 9)]
    monkeypatch.setattr(tiny_model.heads, "forward", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.step(state, clip[:, 8], None, ("pose",))  # the backbone is through
    monkeypatch.undo()
    assert state.frames_seen == 9
    outs.append(engine.step(state, clip[:, 9], None, ()).patches[:, None])
    expected = tiny_model.backbone(clip, "window:3", camera_token=True).patches
    assert (torch.cat(outs, 1) - expected).abs().max() <= 2e-5 * max(1, expected.abs().max())


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"amx_bf16"}, torch.bfloat16), ({"avx512_bf16"}, torch.bfloat16), ({"avx2"}, torch.float32)],
)
def test_auto_dtype_follows_the_cpu(monkeypatch, flags, expected):
    monkeypatch.setattr(select, "cpu_flags", lambda: frozenset(flags))
    assert choose_dtype("auto", torch.device("cpu")) is expected


def test_auto_dtype_follows_a_cap_on_the_instruction_set(monkeypatch):
    monkeypatch.setattr(select, "cpu_flags", lambda: frozenset({"amx_bf16", "avx512_bf16"}))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert choose_dtype("auto", torch.device("cpu")) is torch.bfloat16


def test_refusals_name_what_was_asked(tiny_model):
    with pytest.raises(EngineError, match="engine 'warp' is unknown"):
        make_engine(tiny_model, "warp")
    with pytest.raises(EngineError, match="dtype 'int3' is unknown"):
        make_engine(tiny_model, "torch", "cpu", "int3")
    with pytest.raises(EngineError, match="device 'toaster'"):
        choose_device("toaster")
    with pytest.raises(EngineError, match="float16 is slower"):
        make_engine(tiny_model, "torch", "cpu", "float16")
    with pytest.raises(ConfigError, match="multiples of 16"):
        make_engine(tiny_model).new_state(parse_policy("window:2"), 1, 30, 32)
