# SPDX-License-Identifier: Apache-2.0
"""Undistortion of images by their CameraInfo; the formulas are in `omnistream.stream.rectify`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from omnistream.errors import InputError
from omnistream.stream.rectify import Lens, Undistortion
from omnistream_ros.images import camera_info_message, intrinsics


def is_distorted(info: CameraInfo) -> bool:
    """Whether the lens of `info` bends lines."""
    return any(value != 0 for value in info.d)


class Rectifier:
    """Undistorts images of one calibration; K stays as it is, so the edge of the picture may become black.

    Raises:
        InputError: the distortion model is not known, or the camera is not calibrated.
    """

    def __init__(self, info: CameraInfo, size: tuple[int, int]) -> None:
        """size: (height, width) of the images."""
        K = intrinsics(info)
        if K is None:
            raise InputError("camera info has K[0] = 0 (uncalibrated); images cannot be rectified")
        D = tuple(float(value) for value in info.d)
        self.undistortion = Undistortion(Lens(tuple(K.ravel().tolist()), D, info.distortion_model), size)
        self.info = camera_info_message(K, size[1], size[0], info.header)
        """CameraInfo of the rectified images: no distortion, no binning, no ROI."""

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """u8 [H, W, 3] -> u8 [H, W, 3]."""
        return self.undistortion(image)
