# SPDX-License-Identifier: Apache-2.0
"""The published constants, as read in the repositories that the protocols name, and what can be changed in them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from omnistream.errors import ConfigError
from omnistream_training.evaluation.network_input import horizontal_fov, prepare
from omnistream_training.evaluation.protocols import (
    BONN_DEPTH,
    KITTI_DEPTH,
    PROTOCOLS,
    PUBLISHED,
    SCANNET_POSE,
    SINTEL_DEPTH,
    SINTEL_POSE,
    TABLETOP,
    TUM_POSE,
    InputRule,
    Protocol,
    protocol,
)


def test_sequence_lists():
    assert len(SINTEL_DEPTH.sequences) == len(set(SINTEL_DEPTH.sequences)) == 14 and "temple_3" in SINTEL_POSE.sequences
    assert BONN_DEPTH.sequences == ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
    assert len(KITTI_DEPTH.sequences) == 13 and KITTI_DEPTH.sequences[-1] == "2011_10_03_drive_0047_sync"
    assert len(TUM_POSE.sequences) == 8 and "rgbd_dataset_freiburg3_walking_rpy" in TUM_POSE.sequences
    assert SCANNET_POSE.sequences[0] == "scene0707_00" and SCANNET_POSE.sequences[-1] == "scene0806_00"
    assert len(SCANNET_POSE.sequences) == 100


def test_frames_depths_and_clips():
    assert list(BONN_DEPTH.select(500)) == list(range(30, 140)) and len(BONN_DEPTH.select(100)) == 70
    assert list(TUM_POSE.select(1000)) == list(range(0, 270, 3)) == list(SCANNET_POSE.select(1000))
    assert len(KITTI_DEPTH.select(481)) == 110 and len(SINTEL_DEPTH.select(50)) == 50
    assert (SINTEL_DEPTH.depth.max_depth, SINTEL_DEPTH.depth.clip) == (70.0, 70.0)
    assert (BONN_DEPTH.depth.max_depth, BONN_DEPTH.depth.clip) == (70.0, None)
    assert (KITTI_DEPTH.depth.max_depth, KITTI_DEPTH.depth.clip) == (None, None)
    for one in PUBLISHED:
        assert one.input.long_side == 512 and one.input.crop == (one.pose is not None)
        assert one.depth is None or (one.depth.alignment, one.depth.weighting) == ("scale", "pixels")
        assert one.pose is None or one.pose.degenerate == "drop"
    assert TUM_POSE.pose.max_time_difference == 0.02
    assert protocol("tum-pose-long").stride == 1 and protocol("scannet-pose-long").count == 1000


def test_every_protocol_says_what_it_does_in_one_line():
    for name, one in PROTOCOLS.items():
        assert one.name == name and one.source and "\n" not in one.line and one.line.startswith(f"{name}: ")
    assert "prediction <= 70 m after alignment" in SINTEL_DEPTH.line and "mean over pixels" in SINTEL_DEPTH.line
    assert "metric, no alignment" in TABLETOP.line and "paths >= 1 m" in TABLETOP.line
    with pytest.raises(dataclasses.FrozenInstanceError):
        SINTEL_DEPTH.count = 3  # type: ignore[misc]


def test_strict_counts_every_sequence_the_same():
    strict = SINTEL_DEPTH.made_strict()
    assert strict.strict and strict.depth.weighting == "sequences" and "STRICT" in strict.line
    assert strict.depth.clip == 70.0 and SINTEL_POSE.made_strict().pose.degenerate == "worst"
    assert TABLETOP.made_strict().pose.min_path == 0


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="protocol 'nyu' is unknown; expected one of sintel-depth"):
        protocol("nyu")
    with pytest.raises(ConfigError, match="tum-pose compares no depth"):
        TUM_POSE.aligned("scale")
    with pytest.raises(ConfigError, match="stride 0"):
        Protocol(name="x", source="x", layout="folders", stride=0)
    with pytest.raises(ConfigError, match="alignment 'affine'"):
        SINTEL_DEPTH.aligned("affine")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        ((436, 1024), False, (208, 512)),  # Sintel: 512 x 218
        ((480, 640), False, (384, 512)),
        ((375, 1242), False, (144, 512)),  # KITTI: 512 x 155
        ((968, 1296), True, (368, 512)),  # ScanNet: 512 x 382
        ((300, 300), True, (384, 512)),  # a square becomes 4:3
        ((60, 40), False, (512, 336)),  # grown; 512 x 341
    ],
)
def test_input_sizes(size, crop, expected):
    image = np.zeros((*size, 3), np.uint8)
    assert prepare(image, None, InputRule(long_side=512, crop=crop))[0].shape == (*expected, 3)
    assert prepare(image, None, InputRule())[0] is image


@pytest.mark.parametrize("crop", [False, True])
def test_intrinsics_follow_the_picture(crop):
    image = np.zeros((200, 300, 3), np.uint8)
    image[118:122, 228:232] = 255  # a bright spot centred on (229.5, 119.5)
    K = np.array([[200.0, 0, 149.5], [0, 210.0, 99.5], [0, 0, 1]])
    out, K_out = prepare(image, K, InputRule(long_side=500, crop=crop))
    assert out.shape == (320, 496, 3)
    weight = out[..., 0].astype(float)
    v, u = np.mgrid[: out.shape[0], : out.shape[1]]
    seen = np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()
    ray = (np.array([229.5, 119.5]) - K[:2, 2]) / K[[0, 1], [0, 1]]
    np.testing.assert_allclose(seen, K_out[[0, 1], [0, 1]] * ray + K_out[:2, 2], atol=0.3)
    if not crop:
        assert horizontal_fov(K_out, 496) == pytest.approx(horizontal_fov(K, 300))
    else:
        assert horizontal_fov(K_out, 496) < horizontal_fov(K, 300)


def test_horizontal_fov():
    K = np.array([[100.0, 0, 99.5], [0, 100, 0], [0, 0, 1]])
    assert horizontal_fov(K, 200) == pytest.approx(90)
