# SPDX-License-Identifier: Apache-2.0
"""The torch engine against the model it runs, and its choice of device and dtype."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from omnistream.engines import select
from omnistream.engines.select import choose_device, choose_dtype, make_engine
from omnistream.errors import ConfigError, EngineError
from omnistream.heads.heads import HEADS
from omnistream.stream.policy import parse_policy

POLICIES = ["full:12", "window:5", "sink_window:1,4"]


@pytest.mark.parametrize("policy", POLICIES)
def test_streaming_equals_batch_heads_included(tiny_model, policy):
    engine = make_engine(tiny_model, "torch", "cpu", "float32")
    clip = torch.randn(1, 12, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    state = engine.new_state(parse_policy(policy), 1, 48, 64)
    outs = [engine.step(state, clip[:, i], None, HEADS) for i in range(12)]
    with torch.no_grad():
        features, heads = tiny_model(clip, policy)
    pairs = [
        (torch.stack([getattr(o, n) for o in outs], 1), getattr(features, n)) for n in ("patches", "cls", "camera")
    ]
    for field in dataclasses.fields(heads):
        pairs.append((torch.stack([getattr(o.heads, field.name) for o in outs], 1), getattr(heads, field.name)))
    for found, expected in pairs:
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 2e-5 * max(1, expected.abs().max())


def test_bfloat16_is_within_two_percent(tiny_model):
    clip = torch.randn(1, 12, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    patches = []
    for dtype in ("float32", "bfloat16"):
        engine = make_engine(tiny_model, "torch", "cpu", dtype)
        state = engine.new_state(parse_policy("window:5"), 1, 48, 64)
        patches.append(torch.stack([engine.step(state, clip[:, i], None, ()).patches for i in range(12)]))
    assert state.kv.dtype is torch.bfloat16
    assert (patches[0] - patches[1]).norm() / patches[0].norm() <= 2e-2


def test_the_callers_model_is_left_alone(tiny_model):
    engine = make_engine(tiny_model, "torch", "cpu", "bfloat16")
    assert tiny_model.backbone.patch_embed.proj.weight.dtype is torch.float32
    engine.close()
    assert tiny_model.backbone.patch_embed.proj.weight.dtype is torch.float32


def test_two_cameras_share_an_engine_without_cross_talk(tiny_model):
    engine = make_engine(tiny_model, "torch", "cpu", "float32")
    clips = torch.randn(2, 1, 8, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    states = [engine.new_state(parse_policy("window:3"), 1, 32, 32) for _ in range(2)]
    mixed = [[engine.step(states[c], clips[c][:, i], None, ()).patches for c in range(2)] for i in range(8)]
    for c in range(2):
        alone = engine.new_state(parse_policy("window:3"), 1, 32, 32)
        for i in range(8):
            assert torch.equal(engine.step(alone, clips[c][:, i], None, ()).patches, mixed[i][c])


def test_a_failed_step_leaves_the_stream_as_it_was(tiny_model, monkeypatch):
    engine = make_engine(tiny_model, "torch", "cpu", "float32")
    clip = torch.randn(1, 9, 3, 32, 32, generator=torch.Generator().manual_seed(3))
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
    expected = tiny_model.backbone(clip, "window:3", camera_token=True).patches
    assert (torch.cat(outs, 1) - expected).abs().max() <= 2e-5 * max(1, expected.abs().max())


def test_the_printed_budget_is_what_is_allocated(tiny_model):
    for dtype in ("float32", "bfloat16"):
        engine = make_engine(tiny_model, "torch", "cpu", dtype)
        spec = engine.spec.state_spec(parse_policy("sink_window:1,6"), 2, 48, 64)
        state = engine.new_state(spec.policy, 2, 48, 64)
        assert state.nbytes == state.kv.untyped_storage().nbytes() == spec.nbytes(tiny_model.config.backbone)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"amx_bf16"}, torch.bfloat16), ({"avx512_bf16"}, torch.bfloat16), ({"avx2"}, torch.float32)],
)
def test_auto_dtype_follows_the_cpu(monkeypatch, flags, expected):
    monkeypatch.setattr(select, "cpu_flags", lambda: frozenset(flags))
    assert choose_dtype("auto", torch.device("cpu")) is expected


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
