# SPDX-License-Identifier: Apache-2.0
"""Parameters of the camera source node. All are read when the node starts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from omnistream_ros.parameters import Effect, ParameterSpec
from omnistream_ros.qos import qos_problem

_spec = partial(ParameterSpec, effect=Effect.START)


def _intrinsics_problem(values: Sequence[float]) -> str | None:
    if len(values) in (0, 4) and all(v > 0 for v in values):
        return None
    return f"intrinsics is {list(values)}; expected nothing, or fx, fy, cx, cy in pixels, all positive"


PARAMETERS = (
    _spec("input", "", "Recording: video, folder of images (wildcards select), recording folder or rosbag2."),
    _spec("bag_topic", "", "Image topic inside a rosbag2; needed when it has several."),
    _spec("topic", "camera/image_raw", "Where the images go; CameraInfo goes beside it."),
    _spec("frame_id", "", "Optical frame of the camera; empty: the recording's."),
    _spec(
        "intrinsics",
        [],
        "fx, fy, cx, cy for a recording without calibration.",
        unit="pixels",
        item_type=float,
        check=_intrinsics_problem,
    ),
    _spec(
        "rate",
        0.0,
        "Frames per second; 0 keeps the recording's own distances.",
        unit="Hz",
        minimum=0.0,
        maximum=1000.0,
    ),
    _spec("loop", False, "Start again at the end, for ever; recorded stamps go on across the seam."),
    _spec(
        "stamp",
        "now",
        "Stamp of the images: the moment of sending, or the one in the recording.",
        choices=("now", "recorded"),
    ),
    _spec("publish_clock", False, "Publish /clock from the recording's stamps; needs stamp:=recorded."),
    _spec(
        "transport",
        "raw",
        "raw: sensor_msgs/Image rgb8. compressed: JPEG on <topic>/compressed.",
        choices=("raw", "compressed"),
    ),
    _spec("jpeg_quality", 90, "Quality of compressed images.", minimum=1, maximum=100),
    _spec(
        "qos",
        "reliable",
        "QoS of the image topic. A reliable writer also serves best-effort readers.",
        check=qos_problem,
    ),
    _spec("ground_truth", False, "Publish the recording's depth and poses, if it has any."),
    _spec(
        "wait_for_subscribers",
        0,
        "Start once the image topic has so many subscribers.",
        minimum=0,
        maximum=100,
    ),
    _spec(
        "start_delay",
        0.0,
        "Wait so long before the first image.",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
    ),
)


def intrinsics_matrix(values: Sequence[float]) -> NDArray[np.float64] | None:
    """K [3, 3] of the parameter `intrinsics`; None when it is empty."""
    if not values:
        return None
    fx, fy, cx, cy = values
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
