# SPDX-License-Identifier: Apache-2.0
"""Known intrinsics put depth and rays right, for checkpoints that were trained to be told them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from omnistream import StreamSession
from omnistream.errors import ConfigError, InputError
from omnistream.geometry.pinhole import fov_from_intrinsics, intrinsics_from_fov, pixel_rays
from omnistream.heads.camera import lens_error
from omnistream.model.config import ModelConfig, config_from_dict, config_to_dict
from omnistream.model.omnistream import OmniStream
from omnistream.stream.lens import lens_factor, through_lens
from omnistream.weights import model_hash

SIZE = (48, 64)
TRUE_K = np.array([[70.0, 0, 31.0], [0, 60.0, 24.0], [0, 0, 1]])


def with_lens(model: OmniStream, lens: str) -> OmniStream:
    """The same parameters; what the checkpoint says about the lens differs."""
    other = OmniStream(dataclasses.replace(model.config, lens=lens)).eval()
    other.load_state_dict(model.state_dict())
    return other


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def test_fields_of_view_and_intrinsics_are_each_others_inverse() -> None:
    assert intrinsics_from_fov(fov_from_intrinsics(TRUE_K, SIZE), SIZE)[[0, 1], [0, 1]] == pytest.approx([70.0, 60.0])


def test_the_same_picture_twice_as_far_through_a_lens_twice_as_long() -> None:
    """A plane at 2 m that the network sees at 4 m, because it takes the lens for twice as long, comes out at 2 m."""
    known, guessed = (fov_from_intrinsics(np.diag([f, f, 1.0]), SIZE) for f in (50.0, 100.0))
    assert lens_factor(guessed, known) == pytest.approx(2.0)
    error = lens_error(torch.tensor(guessed), torch.tensor(known))
    assert error.item() == pytest.approx(math.log(2))
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    seen, right = (pixel_rays(np.array([[f, 0, 31.5], [0, f, 23.5], [0, 0, 1]]), SIZE) @ turn.T for f in (100.0, 50.0))
    origin = np.full_like(seen, 0.5)
    found = through_lens(np.concatenate([origin, seen], -1).astype(np.float32), turn, guessed, known)
    assert np.allclose(found[..., 3:], right, atol=1e-6) and (found[..., :3] == 0.5).all()


def test_depth_and_rays_agree_with_the_known_lens(tiny_model: OmniStream) -> None:
    model = with_lens(tiny_model, "known")
    told, alone = (StreamSession(model, engine="torch", dtype="float32", image_size=SIZE) for _ in range(2))
    for seed in range(3):
        a, b = told.step(image(seed), K=TRUE_K), alone.step(image(seed))
        assert a.depth is not None and b.depth is not None and a.rays is not None and b.rays is not None
        assert np.allclose(a.K, TRUE_K) and b.K is not None and a.T_world_camera == pytest.approx(b.T_world_camera)
        factor = math.sqrt(b.K[0, 0] * b.K[1, 1] / (TRUE_K[0, 0] * TRUE_K[1, 1]))
        assert abs(math.log(factor)) > 0.05
        assert a.depth * factor == pytest.approx(b.depth, rel=1e-4)
        assert np.array_equal(a.rays[..., :3], b.rays[..., :3]) and not np.allclose(a.rays[..., 3:], b.rays[..., 3:])


def test_depth_alone_is_corrected_too(tiny_model: OmniStream) -> None:
    session = StreamSession(with_lens(tiny_model, "known"), engine="torch", dtype="float32", image_size=SIZE)
    whole = [session.step(image(seed), K=TRUE_K).depth for seed in range(2)]
    session.reset()
    for seed in range(2):
        result = session.step(image(seed), K=TRUE_K, want=("depth",))
        assert result.T_world_camera is None and result.depth == pytest.approx(whole[seed], rel=1e-6)


def test_other_checkpoints_take_no_notice(tiny_model: OmniStream) -> None:
    told, alone = (StreamSession(tiny_model, engine="torch", image_size=SIZE) for _ in range(2))
    for seed in range(2):
        a, b = told.step(image(seed), K=TRUE_K), alone.step(image(seed))
        assert np.array_equal(a.depth, b.depth) and np.array_equal(a.rays, b.rays) and np.array_equal(a.K, b.K)


@pytest.mark.parametrize("K", [np.eye(2), np.full((3, 3), np.nan), np.diag([-5.0, 5.0, 1.0])])
def test_intrinsics_that_are_none_are_refused_and_the_stream_is_as_before(
    tiny_model: OmniStream, K: np.ndarray
) -> None:
    session = StreamSession(with_lens(tiny_model, "known"), engine="torch", image_size=SIZE)
    session.step(image(0), K=TRUE_K)
    with pytest.raises(InputError, match="K is .*positive focal lengths"):
        session.step(image(1), K=K)
    assert session.frames_seen == 1


def test_the_checkpoint_says_so(tiny_model: OmniStream) -> None:
    known = with_lens(tiny_model, "known")
    data = config_to_dict(known.config)
    assert config_from_dict(data) == known.config
    del data["lens"]  # written before there was a choice
    assert config_from_dict(data).lens == "guessed"
    assert model_hash(known) != model_hash(tiny_model)  # they make different depth of one picture and its K
    assert model_hash(known.backbone) == model_hash(tiny_model.backbone)
    with pytest.raises(ConfigError, match="lens is 'blurred'"):
        ModelConfig(backbone=known.config.backbone, lens="blurred")  # type: ignore[arg-type]
