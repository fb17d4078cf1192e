# SPDX-License-Identifier: Apache-2.0
"""The calibration that goes with a camera's images: the last CameraInfo that fits them, and undistortion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from omnistream.errors import InputError
from omnistream.io.topic_names import is_rectified_topic
from omnistream.stream.rectify import Undistortion
from omnistream_ros import images

from .rectify import Rectifier, is_distorted


class Calibration:
    """Of one camera.

    Args:
        rectify: undistort images where the calibration says that they are distorted.
        topic: of the images; their name may say that they are rectified already (`is_rectified_topic`).
        warn: each warning is said once.
    """

    def __init__(self, rectify: bool, topic: str, warn: Callable[[str], object]) -> None:
        self.topic = topic
        self._rectify = rectify
        self._warn = warn
        self._said: set[str] = set()
        self._info: CameraInfo | None = None
        self._rectifier: Rectifier | None = None
        self._rectifier_of: CameraInfo | None = None

    def update(self, info: CameraInfo) -> None:
        """The subscription's callback."""
        if self._info is None or not _same(info, self._info):
            self._info = info

    def of(self, size: tuple[int, int]) -> CameraInfo | None:
        """CameraInfo of images of `size` (height, width); None when there is none that fits, or none that can be used.

        The K that `undistortion` makes of it is valid, and its D is finite.
        """
        info = self._info
        if info is None or info.k[0] == 0:  # sensor_msgs: uncalibrated
            return None
        height, width = images.picture_size(info)
        if (height, width) != size:
            sentence = f"camera info is for {width}x{height} pixels, images have {size[1]}x{size[0]}; it is not used"
            self._say("size", sentence)
            return None
        fault = _fault(info, is_rectified_topic(self.topic))
        if fault:
            self._say("fault", f"camera info has {fault}; images count as uncalibrated")
            return None
        return info

    def rectify(self, image: NDArray[np.uint8], info: CameraInfo | None) -> tuple[NDArray[np.uint8], CameraInfo | None]:
        """The image and CameraInfo to go on with."""
        undistort, info = self.undistortion((image.shape[0], image.shape[1]), info)
        return (image if undistort is None else undistort(image)), info

    def undistortion(
        self, size: tuple[int, int], info: CameraInfo | None
    ) -> tuple[Undistortion | None, CameraInfo | None]:
        """What to do to images of `size` (height, width), None for nothing; and the CameraInfo to go on with."""
        if info is None or not is_distorted(info):
            return None, info
        if is_rectified_topic(self.topic):
            return None, _rectified(info)
        if not self._rectify:
            self._say(
                "distorted",
                f"images are distorted ({info.distortion_model}, D = {[round(float(v), 4) for v in info.d]}) and used "
                "as they are: points bend towards the edge; set rectify to auto, or subscribe to a rectified topic",
            )
            return None, info
        try:
            rectifier = self._rectifier_for(info, size)
        except InputError as error:
            self._say("model", f"{error}; images are used as they are")
            return None, info
        return rectifier.undistortion, rectifier.info

    def _rectifier_for(self, info: CameraInfo, size: tuple[int, int]) -> Rectifier:
        if self._rectifier is None or self._rectifier_of is not info:  # `update` keeps the object while nothing changes
            self._rectifier, self._rectifier_of = Rectifier(info, size), info
            self._say("rectify", f"images are undistorted ({info.distortion_model}) before they are processed")
        return self._rectifier

    def _say(self, what: str, sentence: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._warn(f"{self.topic}: {sentence}")


def _same(a: CameraInfo, b: CameraInfo) -> bool:
    """Whether two messages are the same calibration, whatever their stamps."""
    return (
        np.array_equal(a.k, b.k)
        and np.array_equal(a.p, b.p)
        and np.array_equal(a.d, b.d)
        and (a.width, a.height, a.distortion_model, a.binning_x, a.binning_y, a.roi)
        == (b.width, b.height, b.distortion_model, b.binning_x, b.binning_y, b.roi)
    )


def _fault(info: CameraInfo, rectified_topic: bool) -> str:
    """What makes `info` unusable, '' for nothing: a ray through such a lens has no direction, or no number."""
    if images.intrinsics(info) is None:
        return f"K = {np.round(info.k, 4).tolist()}, expected finite, positive focal lengths, last row 0 0 1"
    if not np.isfinite(info.d).all():
        return f"D = {list(info.d)}, expected finite"
    if rectified_topic and is_distorted(info) and images.intrinsics(_rectified(info)) is None:
        return f"P = {np.round(info.p, 4).tolist()}, expected finite, positive focal lengths, last row 0 0 1 0"
    return ""


def _rectified(info: CameraInfo) -> CameraInfo:
    """CameraInfo of images that image_proc has rectified with `info`: P holds their K."""
    height, width = images.picture_size(info)
    p = np.array(info.p, np.float64).reshape(3, 4)
    if p[0, 0] <= 0:
        p = np.hstack((np.array(info.k, np.float64).reshape(3, 3), np.zeros((3, 1))))
    straight = CameraInfo(header=info.header, width=info.width, height=info.height, distortion_model="plumb_bob")
    straight.k, straight.p, straight.r = p[:, :3].ravel(), p.ravel(), np.eye(3).ravel()
    straight.binning_x, straight.binning_y, straight.roi = info.binning_x, info.binning_y, info.roi
    return images.scale_camera_info(straight, width, height)
