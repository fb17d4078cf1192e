# SPDX-License-Identifier: Apache-2.0
"""The session: images of any size in, results as documented out; what it refuses, and that its memory is fixed."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch

from omnistream import StreamSession
from omnistream.errors import ConfigError, EngineError, InputError, StreamFull
from omnistream.geometry.rotations import matrix_from_quaternion
from omnistream.heads.camera import in_first_camera, rays_in_first_camera
from omnistream.model.omnistream import OmniStream
from omnistream.stream.preprocess import network_size, preprocess


def session(model: OmniStream, **kwargs) -> StreamSession:
    return StreamSession(model, **{"dtype": "float32", "device": "cpu", **kwargs})


def images(count: int, height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


def test_result_shapes_and_ranges(tiny_model):
    stream = session(tiny_model)
    for i, image in enumerate(images(3)):
        result = stream.step(image, stamp=10 + i / 30)
    h, w = result.network_size
    assert (h, w) == stream.network_size(60, 80) == (48, 80)
    assert result.index == 2 and result.time == 2.0 and result.stamp == pytest.approx(10 + 2 / 30)
    assert result.depth.shape == result.depth_confidence.shape == (h, w)
    assert result.depth.dtype == np.float32 and (result.depth > 0).all() and (result.depth_confidence >= 1).all()
    assert result.rays.shape == (h // 2, w // 2, 6) and result.ray_confidence.shape == (h // 2, w // 2)
    np.testing.assert_allclose(result.T_world_camera[:3, :3] @ result.T_world_camera[:3, :3].T, np.eye(3), atol=1e-6)
    assert result.K.shape == (3, 3) and result.K[0, 0] > 0
    assert result.features.shape == (h // 16, w // 16, 64) and result.cls.shape == (64,)
    assert result.scale == "metric"
    assert set(result.timings) == {"preprocess", "backbone", "heads"}
    points = result.points()
    assert points.shape == (h, w, 3)
    middle = result.rays[h // 4, w // 4]
    assert np.linalg.norm(points[h // 2, w // 2] - middle[:3]) < 10 * result.depth.max() * np.linalg.norm(middle[3:])


def test_session_equals_batch_on_the_same_pixels(tiny_model):
    clip = images(9)
    stream = session(tiny_model, policy="sink_window:1,3")
    results = [stream.step(image) for image in clip]
    x = torch.stack([preprocess(image, (48, 80), tiny_model.config)[0] for image in clip])[None]
    with torch.no_grad():
        features, heads = tiny_model(x, "sink_window:1,3")
    translation, quaternion, _ = in_first_camera(heads.camera)
    rays = rays_in_first_camera(heads.rays, heads.camera)
    for i, result in enumerate(results):
        np.testing.assert_allclose(result.depth, heads.depth[0, i], rtol=1e-4)
        np.testing.assert_allclose(result.features.reshape(-1, 64), features.patches[0, i], atol=2e-4)
        np.testing.assert_allclose(result.T_world_camera[:3, 3], translation[0, i], atol=1e-4)
        np.testing.assert_allclose(result.T_world_camera[:3, :3], matrix_from_quaternion(quaternion[0, i]), atol=1e-4)
        np.testing.assert_allclose(result.rays, rays[0, i], atol=2e-4)
    assert np.array_equal(results[0].T_world_camera, np.eye(4))


def test_only_wanted_heads(tiny_model):
    stream = session(tiny_model)
    result = stream.step(images(1)[0], want=["features", "pose"])
    assert result.depth is None and result.rays is None and result.T_world_camera is not None
    with pytest.raises(ConfigError, match="points need depth and rays"):
        result.points()
    with pytest.raises(ConfigError, match=r"wanted \['smell'\]"):
        stream.step(images(1)[0], want=["smell"])


def test_poses_are_the_same_if_nobody_wanted_the_first(tiny_model):
    clip = images(4)
    always, late = session(tiny_model), session(tiny_model)
    expected = [always.step(image) for image in clip]
    assert late.step(clip[0], want=["features"]).T_world_camera is None
    assert late.step(clip[1], want=["depth"]).T_world_camera is None
    result = late.step(clip[2], want=["pose", "rays"])
    np.testing.assert_array_equal(result.T_world_camera, expected[2].T_world_camera)
    np.testing.assert_array_equal(result.rays, expected[2].rays)


def test_a_backbone_alone_gives_features(tiny_model):
    config = dataclasses.replace(tiny_model.config, heads=None, camera_token=False, scale="none")
    result = session(OmniStream(config)).step(images(1)[0])
    assert result.features is not None and result.depth is None and result.T_world_camera is None


def test_stamps_advance_time(tiny_model):
    stream = session(tiny_model, time_base="stamps", nominal_rate=10.0)
    stamps = [1e9, 1e9 + 0.1, 1e9 + 0.5]
    times = [stream.step(image, stamp).time for image, stamp in zip(images(3), stamps, strict=True)]
    np.testing.assert_allclose(times, [0, 1, 5], atol=1e-5)
    stream.reset()
    assert stream.step(images(1)[0], 1e9 + 7).time == 0
    with pytest.raises(InputError, match="needs one for every image"):
        stream.step(images(1)[0])


def test_lost_frames_are_felt_under_stamps_only(tiny_model):
    clip = images(3)

    def last(time_base: str, gap: float) -> np.ndarray:
        stream = session(tiny_model, time_base=time_base)
        return [stream.step(image, at) for image, at in zip(clip, [0, 1 / 30, 1 / 30 + gap], strict=True)][-1].features

    assert np.array_equal(last("index", 1 / 30), last("index", 0.5))
    assert np.abs(last("stamps", 1 / 30) - last("stamps", 0.5)).max() > 1e-3


def test_reset_starts_a_new_world_and_admits_another_size(tiny_model):
    stream = session(tiny_model)
    first = stream.step(images(1)[0])
    stream.step(images(1, seed=1)[0])
    with pytest.raises(InputError, match="reset it first"):
        stream.step(images(1, 80, 60)[0])
    stream.reset()
    assert stream.frames_seen == 0
    np.testing.assert_array_equal(stream.step(images(1)[0]).depth, first.depth)
    stream.reset()
    assert stream.step(images(1, 80, 60)[0]).depth.shape == (80, 48)


def test_what_was_allocated_for_another_size_is_allocated_anew(tiny_model):
    stream = session(tiny_model)
    stream.allocate(60, 80)
    expected = session(tiny_model).step(images(1, 80, 60)[0]).depth
    np.testing.assert_array_equal(stream.step(images(1, 80, 60)[0]).depth, expected)


def test_small_images_stay_small_where_told(tiny_model):
    image = images(1, 32, 48)[0]
    assert session(tiny_model, image_size=64).step(image).network_size == (48, 80)
    small = session(tiny_model, image_size=64, enlarge=False)
    assert small.step(image).network_size == (32, 48)
    assert small.network_size(128, 128) == (64, 64)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((60, 80), np.uint8),
        np.zeros((60, 80, 4), np.uint8),
        np.zeros((60, 80, 3), np.float32),
        np.zeros((0, 80, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_bad_images_are_named_and_change_nothing(tiny_model, image):
    stream = session(tiny_model)
    stream.step(images(1)[0])
    with pytest.raises(InputError, match="image is"):
        stream.step(image)
    assert stream.frames_seen == 1


def test_full_stream_says_so(tiny_model):
    stream = session(tiny_model, policy="full:2")
    for image in images(2):
        stream.step(image)
    with pytest.raises(StreamFull):
        stream.step(images(1)[0])
    assert stream.frames_seen == stream.filled == stream.slots == 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"policy": "full"}, "no bound"),
        ({"time_base": "sundial"}, "time_base is 'sundial'"),
        ({"nominal_rate": 0}, "nominal_rate is 0"),
        ({"image_size": 8}, "image_size is 8"),
        ({"image_size": (50, 64)}, "multiples of 16"),
        ({"num_threads": 0}, "num_threads is 0"),
    ],
)
def test_bad_settings_are_refused_at_once(tiny_model, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        session(tiny_model, **kwargs)


@pytest.mark.parametrize(
    ("source", "budget", "expected"),
    [
        ((480, 640), 224, (192, 256)),
        ((720, 1280), 224, (176, 304)),
        ((640, 480), 224, (256, 192)),
        ((224, 224), 224, (224, 224)),
        ((10, 1000), 224, (16, 2240)),
        ((480, 640), (224, 224), (224, 224)),
    ],
)
def test_network_size_keeps_the_aspect_ratio(source, budget, expected):
    assert network_size(*source, budget) == expected


def test_memory_is_known_before_the_first_frame(tiny_model):
    stream = session(tiny_model, policy="window:4")
    expected = stream.cache_nbytes(60, 80)
    assert f"{expected / 2**20:.1f} MiB" in stream.memory_report(60, 80)
    for image in images(6):
        stream.step(image)
        assert stream.nbytes == expected


def test_the_old_cache_is_given_back_before_one_of_another_size_is_made(tiny_model, monkeypatch):
    """Both at once might not fit where each does."""
    held = []
    stream = session(tiny_model)
    monkeypatch.setattr("omnistream.stream.session.check_fits", lambda *_: held.append(stream.nbytes))
    stream.allocate(60, 80)
    stream.step(images(1)[0])
    stream.reset()
    stream.step(images(1, 90, 60)[0])
    assert held == [0, 0]


def test_a_size_that_does_not_fit_leaves_a_stream_that_runs_as_it_was(tiny_model, monkeypatch):
    stream = session(tiny_model)
    clip = images(2)
    stream.step(clip[0])

    def refuse(*_):
        raise EngineError("not enough memory")

    monkeypatch.setattr("omnistream.stream.session.check_fits", refuse)
    with pytest.raises(EngineError):
        stream.allocate(90, 60)
    assert stream.step(clip[1]).index == 1


def test_a_head_that_fails_leaves_the_stream_as_it_was(tiny_model, monkeypatch):
    clip = images(4)
    stream, clean = session(tiny_model), session(tiny_model)
    stream.step(clip[0])
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="no direction"):
        patch.setattr(
            tiny_model.heads.camera.quaternion, "forward", lambda x: torch.full((*x.shape[:-1], 4), torch.nan)
        )
        stream.step(clip[1])
    assert stream.frames_seen == 1
    clean.step(clip[0])
    for image in clip[2:]:
        np.testing.assert_array_equal(stream.step(image).depth, clean.step(image).depth)


def test_stamps_must_advance(tiny_model):
    stream = session(tiny_model, time_base="stamps")
    stream.step(images(1)[0], 5.0)
    with pytest.raises(InputError, match="not after the last"):
        stream.step(images(1)[0], 4.0)
    assert stream.frames_seen == 1


def test_a_session_shares_an_engine_of_its_own_weights_only(tiny_model, make_model):
    import copy

    first = session(tiny_model)
    assert session(tiny_model, engine=first.engine).engine is first.engine
    other = copy.deepcopy(tiny_model)
    with torch.no_grad():
        other.heads.camera.fov.bias += 1
    with pytest.raises(ConfigError, match="the same weights"):
        session(other, engine=first.engine)
    with pytest.raises(ConfigError, match="expected the same weights"):
        session(make_model("relative"), engine=first.engine)


def test_the_model_hash_is_read_once_and_follows_changes(tiny_model):
    import copy

    from omnistream.weights import model_hash

    model = copy.deepcopy(tiny_model)
    before = model_hash(model)
    assert model_hash(model) == before == model_hash(tiny_model)
    with torch.no_grad():
        model.heads.camera.fov.bias += 1
    assert model_hash(model) != before


def test_a_model_in_training_is_left_in_training(tiny_model):
    import copy

    model = copy.deepcopy(tiny_model).train()
    session(model).step(images(1)[0])
    assert model.training


def test_a_cache_that_does_not_fit_is_refused_with_the_numbers(tiny_model):
    stream = session(tiny_model, policy="window:99999999")
    with pytest.raises(EngineError, match=r"not enough memory on cpu: .* takes \d+ MiB, free are \d+ MiB"):
        stream.step(images(1)[0])


def test_what_is_no_model_is_named(tiny_model):
    with pytest.raises(ConfigError, match=r"model is 'weights/'; expected an OmniStream"):
        StreamSession("weights/")
    with pytest.raises(ConfigError, match="expected a list of names"):
        session(tiny_model).step(images(1)[0], want="depth")


@pytest.mark.slow
def test_five_thousand_frames_take_no_more_memory_or_time(tiny_model):
    """Resident memory grows < 1 % after warm-up; the median step of the last 500 is <= 1.05 of that of 500..1000.

    The early frames are a second stream's, stepped in turn with the late ones: a machine's speed drifts over minutes.
    """
    import psutil

    old, young = (session(tiny_model, policy="window:16", num_threads=1) for _ in range(2))
    clip = images(32, 120, 160)
    process = psutil.Process()
    before = 0

    def step(stream: StreamSession, i: int) -> float:
        begin = time.process_time()  # the CPU's time: other processes do not count
        stream.step(clip[i % 32], stamp=i / 30)
        return time.process_time() - begin

    for i in range(4000):
        step(old, i)
        if i == 500:
            before = process.memory_info().rss
    late, early = np.array([(step(old, 4000 + i), step(young, i)) for i in range(1000)]).T
    growth = process.memory_info().rss / before - 1
    ratio = np.median(late[500:]) / np.median(early[500:])
    print(f"resident memory {growth:+.2%}, step time ratio {ratio:.3f}")
    assert old.frames_seen == 5000
    assert growth < 0.01
    assert ratio <= 1.05
