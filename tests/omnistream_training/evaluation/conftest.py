# SPDX-License-Identifier: Apache-2.0
"""Small recordings with exact depth and poses, and a model with heads that is small enough to run in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omnistream.geometry import rigid
from omnistream.geometry.rotations import matrix_from_quaternion
from omnistream.io.recording_writer import RecordingWriter
from omnistream.model.config import BackboneConfig, HeadConfig, ModelConfig
from omnistream.model.omnistream import OmniStream
from omnistream.weights import random_model, save_model

SIZE = (48, 64)


@pytest.fixture(scope="session")
def K() -> np.ndarray:
    return np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]])


@pytest.fixture(scope="session")
def path_of() -> Callable[[int, int], np.ndarray]:
    """path_of(count, seed) -> a curved camera path [count, 4, 4], about 5 cm a frame."""

    def make(count: int, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        turn, climb = rng.uniform(0.05, 0.1), rng.uniform(-0.01, 0.01)
        angle = turn * np.arange(count)
        radius = 0.05 / turn
        places = np.stack([radius * np.sin(angle), climb * np.arange(count), radius * (1 - np.cos(angle))], axis=1)
        half = angle / 2
        quaternions = np.stack([0 * half, np.sin(half), 0 * half, np.cos(half)], axis=1)
        return rigid.transform(matrix_from_quaternion(quaternions), places)

    return make


@pytest.fixture(scope="session")
def depth_of() -> Callable[[int, int], np.ndarray]:
    """depth_of(frame, seed) -> [48, 64] m in whole millimetres, with a hole."""

    def make(frame: int, seed: int = 0) -> np.ndarray:
        v, u = np.mgrid[: SIZE[0], : SIZE[1]] / SIZE[1]
        depth = 1.5 + seed * 0.2 + u + 0.5 * np.sin(3 * v + 0.2 * frame)
        depth = np.round(depth * 1000).astype(np.float32) / np.float32(1000)
        depth[:4, :4] = np.nan
        return depth

    return make


@pytest.fixture(scope="session")
def write_recording(K, path_of, depth_of) -> Callable[..., Path]:
    """write_recording(folder, frames=8, seed=0) -> a recording folder with exact depth and poses."""

    def write(folder: Path, frames: int = 8, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        with RecordingWriter(folder, rate=30.0, size=SIZE, K=K, jpeg_quality=None) as writer:
            for index, pose in enumerate(path_of(frames, seed)):
                image = rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)
                writer.add(image, depth=depth_of(index, seed), T_world_camera=pose)
        return folder

    return write


@pytest.fixture
def data(tmp_path: Path, write_recording) -> Path:
    """A data set folder of three recordings: a, b, c."""
    for seed, name in enumerate("abc"):
        write_recording(tmp_path / "data" / name, seed=seed)
    return tmp_path / "data"


@pytest.fixture(scope="session")
def model() -> OmniStream:
    """32 x 4 x 2 with heads on a budget of 64 x 64 pixels, scale relative, random weights."""
    config = ModelConfig(
        backbone=BackboneConfig(dim=32, depth=4, heads=2, layer_scale_init=1.0),  # memory shows at once
        heads=HeadConfig(taps=(0, 1, 2, 3), projections=(8, 8, 8, 8), features=8),
        camera_token=True,
        image_size=64,
        scale="relative",
    )
    return random_model(config, seed=3)


@pytest.fixture(scope="session")
def weights(model: OmniStream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That model as a checkpoint."""
    return save_model(model, tmp_path_factory.mktemp("weights") / "model", made_by="test")
