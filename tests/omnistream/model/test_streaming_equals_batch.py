# SPDX-License-Identifier: Apache-2.0
"""The one invariant. For any way of cutting a clip into calls and any cache policy, streaming equals batch, and no
output depends on a later frame: max |a - b| <= 2e-5 * max(1, max |b|) in float32, on every token and layer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnistream.errors import ConfigError, OmniStreamError, StreamFull
from omnistream.model.backbone import BackboneOutput

TOLERANCE = 2e-5
SLOW_FIRST_CALL = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def tensors(out: BackboneOutput) -> dict[str, torch.Tensor]:
    named = {"patches": out.patches, "cls": out.cls, **{f"hidden[{i}]": h for i, h in enumerate(out.hidden)}}
    return named if out.camera is None else {**named, "camera": out.camera}


def assert_same(streamed: list[BackboneOutput], batch: BackboneOutput) -> None:
    parts = [tensors(out) for out in streamed]
    for name, expected in tensors(batch).items():
        found = torch.cat([part[name] for part in parts], dim=1)
        assert found.shape == expected.shape, name
        error = (found - expected).abs().max() / expected.abs().max().clamp(min=1)
        assert error <= TOLERANCE, f"{name}: {error:.2e}"


@st.composite
def cuts(draw: st.DrawFn) -> list[int]:
    """Chunk lengths of a clip of 1..40 frames."""
    frames = draw(st.integers(1, 40))
    style = draw(st.sampled_from(["one by one", "at once", "chunks"]))
    if style != "chunks":
        return [1] * frames if style == "one by one" else [frames]
    lengths: list[int] = []
    while sum(lengths) < frames:
        lengths.append(draw(st.integers(1, min(9, frames - sum(lengths)))))
    return lengths


policies = st.one_of(
    st.just("full:40"),
    st.integers(1, 20).map("window:{}".format),
    st.tuples(st.integers(1, 3), st.integers(1, 18)).map(lambda sw: f"sink_window:{sw[0]},{sw[1]}"),
)


@SLOW_FIRST_CALL
@given(
    lengths=cuts(),
    policy=policies,
    layout=st.sampled_from(["rotary", "released"]),
    camera=st.booleans(),
    size=st.sampled_from([(16, 16), (32, 32), (32, 48), (64, 16)]),
    batch=st.integers(1, 2),
    clock=st.sampled_from(["index", "float", "stamps"]),
    seed=st.integers(0, 2**16),
)
def test_streaming_equals_batch(make_backbone, lengths, policy, layout, camera, size, batch, clock, seed):
    backbone = make_backbone(layout)
    frames = sum(lengths)
    generator = torch.Generator().manual_seed(seed)
    clip = torch.randn(batch, frames, 3, *size, generator=generator)
    gaps = torch.rand(frames, generator=generator, dtype=torch.float64)
    times = {
        "index": None,
        "float": gaps.cumsum(0) * 3,
        "stamps": ((1 + 4 * (gaps > 0.8)) / 30 + 1e-3 * gaps).cumsum(0) * 30,  # 30 Hz with jitter and lost frames
    }[clock]
    aspect = 0.7 if camera else None
    expected = backbone(clip, policy, times, camera, aspect)
    stream = backbone.stream(policy, camera, aspect)
    streamed, start = [], 0
    for length in lengths:
        part = slice(start, start + length)
        single = length == 1 and seed % 2 == 0  # a single frame may come without its T dimension
        x = clip[:, start] if single else clip[:, part]
        streamed.append(stream.step(x, None if times is None else times[part]))
        start += length
    assert_same(streamed, expected)
    assert stream.frames_seen == frames


@SLOW_FIRST_CALL
@given(policy=policies, frames=st.integers(2, 20), data=st.data(), layout=st.sampled_from(["rotary", "released"]))
def test_no_output_depends_on_a_later_frame(make_backbone, policy, frames, data, layout):
    backbone = make_backbone(layout)
    k = data.draw(st.integers(0, frames - 1))
    clip = torch.randn(1, frames, 3, 32, 32, generator=torch.Generator().manual_seed(frames))
    changed = clip.clone()
    changed[:, k] += 1
    a, b = (backbone(x, policy, camera_token=True) for x in (clip, changed))
    for name, value in tensors(a).items():
        other = tensors(b)[name]
        assert torch.equal(value[:, :k], other[:, :k]), f"{name} before frame {k} changed"
        assert not torch.equal(value[:, k], other[:, k]), f"{name} of frame {k} did not change"


@pytest.mark.parametrize("policy", ["window:16", "sink_window:1,15", "sink_window:2,5", "window:1", "full:64"])
def test_long_streams_past_the_window(make_backbone, policy):
    backbone = make_backbone()
    clip = torch.randn(1, 64, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    stream = backbone.stream(policy, camera_token=True)
    assert_same([stream.step(clip[:, i]) for i in range(64)], backbone(clip, policy, camera_token=True))


@pytest.mark.parametrize("start", [0, 10_000, 1_000_000])
def test_a_stream_may_start_at_any_index(make_backbone, start):
    """Float32 angles would be off by 1e-3 at frame 1e6."""
    backbone = make_backbone()
    clip = torch.randn(1, 12, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    stream = backbone.stream("window:5", start_index=start)
    streamed = [stream.step(clip[:, i]) for i in range(12)]
    assert_same(streamed, backbone(clip, "window:5", times=start + torch.arange(12)))


def test_times_matter_and_only_differences_do_between_patches(make_backbone):
    backbone = make_backbone()
    clip = torch.randn(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    even, uneven = backbone(clip, times=[0, 1, 2, 3]).patches, backbone(clip, times=[0, 1, 2, 30]).patches
    assert torch.equal(even[:, :3], uneven[:, :3])
    assert (even[:, 3] - uneven[:, 3]).abs().max() > 1e-3


def test_reset_forgets_everything(make_backbone):
    backbone = make_backbone()
    clip = torch.randn(2, 6, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    stream = backbone.stream("window:3", camera_token=True)
    stream.step(clip)
    buffer = stream.nbytes
    stream.reset()
    again = [stream.step(clip[:, :4]), stream.step(clip[:, 4:])]
    assert_same(again, backbone(clip, "window:3", camera_token=True))
    assert stream.nbytes == buffer


def test_a_snapshot_continues_elsewhere(make_backbone):
    backbone = make_backbone()
    clip = torch.randn(1, 12, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    first = backbone.stream("sink_window:1,4")
    head = [first.step(clip[:, :7])]
    second = backbone.stream("sink_window:1,4")
    second.load_state_dict(first.state_dict())
    first.step(clip[:, 7:])  # the snapshot is a copy: what the first stream does now does not reach the second
    assert_same([*head, second.step(clip[:, 7:])], backbone(clip, "sink_window:1,4"))


def test_two_streams_do_not_mix(make_backbone):
    backbone = make_backbone()
    clips = torch.randn(2, 1, 9, 3, 32, 32, generator=torch.Generator().manual_seed(6))
    streams = [backbone.stream("window:4"), backbone.stream("window:4")]
    outs: list[list[BackboneOutput]] = [[], []]
    for i in range(9):
        for s in range(2):
            outs[s].append(streams[s].step(clips[s][:, i]))
    for s in range(2):
        assert_same(outs[s], backbone(clips[s], "window:4"))


def test_unwritten_and_evicted_slots_are_never_read(make_backbone):
    backbone = make_backbone()
    clip = torch.randn(1, 10, 3, 32, 32, generator=torch.Generator().manual_seed(8))
    stream = backbone.stream("sink_window:1,5")
    outs = [stream.step(clip[:, :3])]
    state = stream._state
    state.kv[..., state.filled * state.tokens :, :] = float("nan")
    outs += [stream.step(clip[:, i]) for i in range(3, 10)]
    assert_same(outs, backbone(clip, "sink_window:1,5"))


def test_memory_is_fixed(make_backbone):
    backbone = make_backbone()
    stream = backbone.stream("window:4")
    sizes = set()
    for _ in range(12):
        stream.step(torch.zeros(1, 3, 32, 32))
        sizes.add((stream.nbytes, stream._state.kv.data_ptr()))
    assert len(sizes) == 1
    assert (
        stream.nbytes == 3 * 2 * 1 * 2 * 4 * (5 + 4) * 32 * 4
    )  # layers, k+v, batch, heads, slots, tokens, width, bytes


def test_full_raises_at_the_next_frame_and_keeps_its_state(make_backbone):
    backbone = make_backbone()
    clip = torch.randn(1, 5, 3, 16, 16, generator=torch.Generator().manual_seed(9))
    stream = backbone.stream("full:4")
    outs = [stream.step(clip[:, :2])]
    with pytest.raises(StreamFull, match="full:4 holds 4"):
        stream.step(clip[:, 2:])  # the third of these does not fit: none of them is taken
    outs.append(stream.step(clip[:, 2:4]))
    assert_same(outs, backbone(clip[:, :4]))
    with pytest.raises(StreamFull):
        backbone(clip, "full:4")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 30, 32), "multiples of 16"),
        ((1, 4, 32, 32), r"expected a non-empty float \[B, T, 3, H, W\]"),
        ((0, 3, 32, 32), "non-empty"),
    ],
)
def test_bad_frames_are_refused(make_backbone, shape, message):
    with pytest.raises(ConfigError, match=message):
        make_backbone().stream("window:2").step(torch.zeros(shape))


def test_another_size_in_mid_stream_is_refused(make_backbone):
    stream = make_backbone().stream("window:2")
    stream.step(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ConfigError, match=r"this stream takes \(1, 3, 32, 32\)"):
        stream.step(torch.zeros(1, 3, 48, 32))


def test_an_unbounded_stream_is_refused_at_once(make_backbone):
    with pytest.raises(ConfigError, match="full:64"):
        make_backbone().stream("full")


@pytest.mark.parametrize("times", [[0.0], [0, float("nan")], [[0, 1], [0, 1], [0, 1]]])
def test_bad_times_are_refused(make_backbone, times):
    with pytest.raises(ConfigError, match="times are"):
        make_backbone()(torch.zeros(2, 2, 3, 16, 16), times=times)


def test_aspect_ratio_needs_the_camera_token(make_backbone):
    clip = torch.zeros(1, 1, 3, 16, 16)
    with pytest.raises(ConfigError, match="camera_token=True"):
        make_backbone()(clip, aspect_ratio=1.0)
    with pytest.raises(ConfigError, match="positive"):
        make_backbone()(clip, camera_token=True, aspect_ratio=-1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_frame_that_is_not_finite_is_refused_and_leaves_no_trace(make_backbone, value):
    """One NaN in the cache would reach every later frame, through every window."""
    backbone = make_backbone()
    clip = torch.randn(1, 8, 3, 32, 32, generator=torch.Generator().manual_seed(11))
    broken = clip[:, 3:5].clone()
    broken[0, 1, 0, 5, 5] = value
    stream = backbone.stream("window:3")
    outs = [stream.step(clip[:, :3])]
    with pytest.raises(ConfigError, match="NaN or infinite"):
        stream.step(broken)  # the first of the two is good, but a call is taken whole or not at all
    outs.append(stream.step(clip[:, 3:]))
    assert_same(outs, backbone(clip, "window:3"))


def test_a_step_that_overflows_leaves_no_trace(make_backbone, monkeypatch):
    backbone = make_backbone()
    clip = torch.randn(1, 8, 3, 32, 32, generator=torch.Generator().manual_seed(12))
    stream = backbone.stream("window:3")
    outs = [stream.step(clip[:, :4])]
    with monkeypatch.context() as patch, pytest.raises(OmniStreamError, match="NaN or infinity"):
        patch.setattr(backbone.norm, "eps", float("nan"))
        stream.step(clip[:, 0])
    outs.append(stream.step(clip[:, 4:]))
    assert_same(outs, backbone(clip, "window:3"))


def test_without_times_a_frame_comes_one_after_the_last(make_backbone):
    backbone = make_backbone()
    clip = torch.randn(1, 5, 3, 32, 32, generator=torch.Generator().manual_seed(13))
    stream = backbone.stream("window:4", start_index=7)
    outs = [stream.step(clip[:, 0]), stream.step(clip[:, 1], 100.0), stream.step(clip[:, 2:4])]
    other = backbone.stream("window:4")
    other.load_state_dict(stream.state_dict())  # the snapshot knows the time as well
    outs.append(other.step(clip[:, 4]))
    assert_same(outs, backbone(clip, "window:4", times=[7, 100, 101, 102, 103]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv": torch.zeros(1)}, "holds keys of shape"),
        ({"kv": None}, "kv is a NoneType"),
        ({"height": 64_000}, "policy, batch, height|holds keys of shape"),
        ({"height": -16}, "positive integers"),
        ({"policy": "window:5"}, "policy, batch, height"),
        ({"camera_token": True}, "policy, batch, height"),
        ({"version": 99}, "version 99"),
        ({"frames_seen": -3}, "they contradict"),
        ({"last_times": [float("nan")]}, "finite"),
        ({"surprise": 1}, "expected the fields"),
    ],
)
def test_a_snapshot_that_does_not_fit_changes_nothing(make_backbone, change, message):
    backbone = make_backbone()
    clip = torch.randn(1, 6, 3, 32, 32, generator=torch.Generator().manual_seed(14))
    stream = backbone.stream("window:4")
    outs = [stream.step(clip[:, :3])]
    with pytest.raises(ConfigError, match=message):
        stream.load_state_dict({**stream.state_dict(), **change})
    poisoned = stream.state_dict()
    poisoned["kv"][0, 0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ConfigError, match="not finite"):
        stream.load_state_dict(poisoned)
    outs.append(stream.step(clip[:, 3:]))
    assert_same(outs, backbone(clip, "window:4"))


def test_after_a_reset_frames_may_have_another_size(make_backbone):
    backbone = make_backbone()
    stream = backbone.stream("window:2")
    stream.step(torch.zeros(1, 3, 32, 32))
    stream.reset()
    clip = torch.randn(2, 3, 3, 48, 16, generator=torch.Generator().manual_seed(15))
    assert_same([stream.step(clip)], backbone(clip, "window:2"))


def test_things_that_are_no_tensors_are_named(make_backbone):
    with pytest.raises(ConfigError, match="x is a list"):
        make_backbone().stream("window:2").step([[1.0]])
    with pytest.raises(ConfigError, match="cache policy is None"):
        make_backbone().stream(None)
    with pytest.raises(ConfigError, match="keep_hidden"):
        make_backbone()(torch.zeros(1, 1, 3, 16, 16), keep_hidden=[99])


def test_bfloat16_streams_within_two_percent(make_backbone):
    import copy

    half = copy.deepcopy(make_backbone()).bfloat16()
    clip = torch.randn(1, 20, 3, 32, 48, generator=torch.Generator().manual_seed(10))
    stream = half.stream("sink_window:1,7")
    streamed = torch.cat([stream.step(clip[:, i]).patches for i in range(20)], 1).float()
    batch = half(clip, "sink_window:1,7").patches.float()
    assert (streamed - batch).norm() / batch.norm() <= 2e-2
