# SPDX-License-Identifier: Apache-2.0
"""The one invariant, for every engine: a stream equals the batch, whatever lies in the memory that it does not own.

float32: max|a - b| <= 2e-5 * max(1, max|b|) on tokens and every head output before its exponential.
bfloat16: relative L2 of the patches <= 2e-2.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
import torch

from omnistream.engines.base import TAPS, Engine, StepOutputs
from omnistream.errors import ConfigError, OmniStreamError, StreamFull
from omnistream.heads.heads import HEADS
from omnistream.model.omnistream import OmniStream
from omnistream.stream.policy import parse_policy
from omnistream.stream.state import StreamState

from .conftest import HEIGHT, MAKERS, WIDTH

POLICIES = ["full:12", "window:1", "window:5", "sink_window:1,4", "sink_window:2,1"]
PAIRS = [pair for pair in itertools.product(sorted(MAKERS), repeat=2) if pair[0] != pair[1]]


def new_state(engine: Engine, policy: str = "sink_window:1,4", start_index: int = 0) -> StreamState:
    return engine.new_state(parse_policy(policy), 1, HEIGHT, WIDTH, start_index)


EVERYTHING = (*HEADS, TAPS)


def run(
    engine: Engine, state: StreamState, frames: torch.Tensor, want: Sequence[str] = EVERYTHING
) -> list[StepOutputs]:
    return [engine.step(state, frames[:, i], None, want) for i in range(frames.shape[1])]


def assert_equal(
    found: list[StepOutputs], model: OmniStream, clip: torch.Tensor, policy: str, dtype: torch.dtype, **kw
):
    """`found`: outputs of the last frames of `clip`, against the batch."""
    with torch.no_grad():
        features, heads = model(clip, policy, **kw)
    last = slice(clip.shape[1] - len(found), None)
    if dtype is torch.bfloat16:
        patches = torch.stack([out.patches for out in found], 1)
        expected = features.patches[:, last]
        assert (patches - expected).norm() <= 2e-2 * expected.norm()
        return
    pairs = [(n, [getattr(o, n) for o in found], getattr(features, n)) for n in ("patches", "cls", "camera")]
    for tap, hidden in enumerate(features.hidden):
        pairs.append((f"tap {tap}", [o.taps[tap] for o in found], hidden[:, :, -found[0].patches.shape[1] :]))
    for field in dataclasses.fields(heads):
        if getattr(found[0].heads, field.name) is not None:
            pairs.append((field.name, [getattr(o.heads, field.name) for o in found], getattr(heads, field.name)))
    for name, parts, expected in pairs:
        error = (torch.stack(parts, 1) - expected[:, last]).abs().max() / expected.abs().max().clamp(min=1)
        assert error <= 2e-5, f"{name}: {error:.1e}"


@pytest.mark.parametrize("policy", POLICIES)
def test_streaming_equals_batch_heads_included(engine, tiny_model, clip, policy):
    frames = clip(12)
    assert_equal(run(engine, new_state(engine, policy), frames), tiny_model, frames, policy, engine.spec.dtype)


def test_users_see_the_same_depth(engine, tiny_model, clip):
    """Within 1 %, also in bfloat16: the median over all pixels, where log depth varies by more than 1."""
    frames = clip(10)
    found = torch.stack([out.heads.depth for out in run(engine, new_state(engine), frames, ("depth",))], 1)
    with torch.no_grad():
        expected = tiny_model(frames, "sink_window:1,4")[1]
    assert expected.log_depth.std() > 1
    assert (found / expected.depth - 1).abs().median() <= 1e-2


@pytest.mark.parametrize("start", [0, 10_000, 1_000_000])
def test_a_stream_may_start_at_any_index(engine, tiny_model, clip, start):
    """Angles in float32 would be off by 1e-3 at the millionth frame."""
    frames = clip(9)
    found = run(engine, new_state(engine, start_index=start), frames)
    times = start + torch.arange(9, dtype=torch.float64)
    assert_equal(found, tiny_model, frames, "sink_window:1,4", engine.spec.dtype, times=times)


def test_times_may_be_uneven(engine, tiny_model, clip):
    frames, times = clip(9), torch.tensor([0, 1, 1.5, 4, 9, 9.25, 12, 30, 31], dtype=torch.float64)
    state = new_state(engine)
    found = [engine.step(state, frames[:, i], times[i : i + 1], EVERYTHING) for i in range(9)]
    assert_equal(found, tiny_model, frames, "sink_window:1,4", engine.spec.dtype, times=times)


def test_the_order_of_slots_is_free(engine, tiny_model, clip):
    frames = clip(12)
    state = new_state(engine, "window:5")
    run(engine, state, frames[:, :10])
    by_slot = state.kv[..., : 5 * state.tokens, :].unflatten(4, (5, state.tokens))
    by_slot.copy_(by_slot.clone()[..., [0, 4, 3, 1, 2], :, :])  # slot 0 is the oldest, which frame 10 overwrites
    found = run(engine, state, frames[:, 10:11])
    assert_equal(found, tiny_model, frames[:, :11], "window:5", engine.spec.dtype)


def test_what_lies_in_unwritten_slots_does_not_matter(engine, tiny_model, clip):
    frames = clip(10)
    state = new_state(engine)
    # A mask multiplies by zero what it hides, so behind one it has to be finite, as memory of ours always is.
    poison = 1e4 if engine.spec.name in ("static graph", "tensorrt") else float("nan")
    state._buffer.fill_(poison)
    outs = run(engine, state, frames[:, :3])
    unused = state._buffer.flatten()[state.kv.numel() :]  # of a state that grows
    unused.fill_(poison)
    state.kv[..., state.filled * state.tokens :, :] = poison
    outs += run(engine, state, frames[:, 3:])
    assert_equal(outs, tiny_model, frames, "sink_window:1,4", engine.spec.dtype)


@pytest.mark.parametrize("before", [2, 9])
def test_reset_forgets_everything(engine, tiny_model, clip, before):
    state = new_state(engine)
    run(engine, state, clip(before, seed=5))
    address = state.kv.data_ptr()
    state.reset()
    frames = clip(8)
    assert_equal(run(engine, state, frames), tiny_model, frames, "sink_window:1,4", engine.spec.dtype)
    assert state.kv.data_ptr() == address


def test_two_cameras_share_an_engine_without_cross_talk(engine, clip):
    clips = [clip(8, seed) for seed in range(2)]
    states = [new_state(engine, "window:3"), new_state(engine, "sink_window:1,1")]
    mixed = [[engine.step(states[c], clips[c][:, i], None, ("pose",)) for c in range(2)] for i in range(8)]
    for c, policy in enumerate(("window:3", "sink_window:1,1")):
        alone = run(engine, new_state(engine, policy), clips[c], ("pose",))
        for i in range(8):
            assert torch.equal(mixed[i][c].patches, alone[i].patches)
            assert torch.equal(mixed[i][c].heads.camera, alone[i].heads.camera)


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize("at", [3, 8])
def test_a_state_saved_by_one_engine_continues_in_another(engines, tiny_model, clip, first, second, at):
    """In the third frame, while the cache fills, and in the eighth, when it has wrapped."""
    frames = clip(12)
    state = new_state(engines[first])
    run(engines[first], state, frames[:, :at])
    other = new_state(engines[second])
    run(engines[second], other, clip(7, seed=9))  # it has a past of its own
    other.load_state_dict(state.state_dict())
    half = torch.bfloat16 in (engines[first].spec.dtype, engines[second].spec.dtype)
    found = run(engines[second], other, frames[:, at:])
    assert_equal(found, tiny_model, frames, "sink_window:1,4", torch.bfloat16 if half else torch.float32)


def test_the_cache_is_written_in_place(engine, clip, capfd):
    """Its address stays, and no byte outside of the frame's slot changes; ONNX Runtime would say if it copied."""
    frames = clip(9)
    state = new_state(engine, "sink_window:1,3")
    addresses = set()
    for i in range(9):
        before = state.kv.clone()
        full = state.filled == 4
        engine.step(state, frames[:, i], None, ())
        addresses.add(state.kv.data_ptr())
        if full:
            slot = state.spec.policy.slot(i)
            others = [s for s in range(4) if s != slot]
            old, new = (kv[..., : 4 * state.tokens, :].unflatten(4, (4, -1)) for kv in (before, state.kv))
            assert torch.equal(new[..., others, :, :], old[..., others, :, :])
            assert not torch.equal(new[..., slot, :, :], old[..., slot, :, :])
    assert len(addresses) == 1
    printed = capfd.readouterr()
    assert "in-place" not in printed.err + printed.out


def test_the_printed_budget_is_what_is_allocated(engine, tiny_model, clip):
    spec = engine.spec.state_spec(parse_policy("window:12"), 1, HEIGHT, WIDTH)
    state = new_state(engine, "window:12")
    for i in range(14):
        engine.step(state, clip(14)[:, i], None, ())
        assert state.nbytes == state.kv.untyped_storage().nbytes() == spec.nbytes(tiny_model.config.backbone)
        assert state.nbytes == engine.cache_nbytes(parse_policy("window:12"), 1, HEIGHT, WIDTH)


def test_only_wanted_heads_are_run(engine, tiny_model, clip):
    frames = clip(4)
    state = new_state(engine)
    names = {"depth": {"log_depth", "depth_confidence"}, "rays": {"rays", "ray_confidence"}, "pose": {"camera"}}
    for i, want in enumerate([(), ("pose",), ("depth",), ("rays", "pose")]):
        heads = engine.step(state, frames[:, i], None, want).heads
        found = {field.name for field in dataclasses.fields(heads) if getattr(heads, field.name) is not None}
        assert found == set().union(*(names[head] for head in want))


def test_taps_are_given_when_they_are_wanted(engine, tiny_model, clip):
    frames = clip(7)  # the cache is full before the last
    state = new_state(engine)
    run(engine, state, frames[:, :6], ("depth",))
    (out,) = run(engine, state, frames[:, 6:], ("depth",))
    assert out.taps == ()
    state.reset()
    run(engine, state, frames[:, :6], ())
    (out,) = run(engine, state, frames[:, 6:], (TAPS,))
    assert len(out.taps) == len(tiny_model.config.heads.taps)
    assert_equal([out], tiny_model, frames, "sink_window:1,4", engine.spec.dtype)


def test_what_cannot_be_run_leaves_the_stream_as_it_was(engine, tiny_model, clip):
    frames = clip(4)
    state = new_state(engine, "full:4")
    outs = run(engine, state, frames[:, :2])
    for bad in (frames[:, 2, :, :32], frames[:, 2, :2], torch.cat([frames[:, 2], frames[:, 2]])):
        with pytest.raises(ConfigError):
            engine.step(state, bad, None, HEADS)
    with pytest.raises(ConfigError, match="unknown head"):
        engine.step(state, frames[:, 2], None, ("smell",))
    with pytest.raises(ConfigError, match="times are"):
        engine.step(state, frames[:, 2], torch.tensor([float("nan")]), HEADS)
    outs += run(engine, state, frames[:, 2:])
    with pytest.raises(StreamFull):
        engine.step(state, frames[:, 0], None, HEADS)
    assert_equal(outs, tiny_model, frames, "full:4", engine.spec.dtype)


def test_a_frame_that_overflows_leaves_no_trace(engine, tiny_model, clip):
    frames = clip(7)
    state = new_state(engine)
    outs = run(engine, state, frames[:, :5])
    with pytest.raises(OmniStreamError, match="NaN or infinity"):
        engine.step(state, torch.full_like(frames[:, 5], 3e38), None, ())
    outs += run(engine, state, frames[:, 5:])
    assert_equal(outs, tiny_model, frames, "sink_window:1,4", engine.spec.dtype)


def test_a_snapshot_of_another_stream_is_refused_and_changes_nothing(engine, tiny_model, clip):
    frames = clip(9)
    state = new_state(engine)
    outs = run(engine, state, frames[:, :6])
    other = new_state(engine, "window:3")
    run(engine, other, clip(2))
    with pytest.raises(ConfigError, match="window:3"):
        state.load_state_dict(other.state_dict())
    assert_equal(outs + run(engine, state, frames[:, 6:]), tiny_model, frames, "sink_window:1,4", engine.spec.dtype)
