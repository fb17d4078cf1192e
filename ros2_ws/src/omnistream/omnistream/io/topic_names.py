# SPDX-License-Identifier: Apache-2.0
"""What the name of an image topic says about its images."""

from __future__ import annotations

import re

_TRANSPORTS = frozenset({"compressed", "compressedDepth", "ffmpeg", "theora", "zstd"})
_WORD = re.compile(r"(^|_)rect(ified)?(_|$)")


def is_rectified_topic(name: str) -> bool:
    """Whether images on topic `name` are undistorted already, so that P of their CameraInfo describes them.

    They are where the last part of the name has the word rect or rectified (image_proc: image_rect, image_rect_color;
    RealSense: image_rect_raw), or a part before it is that word (ZED: rgb/color/rect/image). The suffix of a transport
    (/compressed) does not count. Letters alone are no word: neither /director/image nor /correct/image_raw is meant.
    """
    parts = [part for part in name.split("/") if part]
    if parts and parts[-1] in _TRANSPORTS:
        parts.pop()
    return bool(parts) and (_WORD.search(parts[-1]) is not None or not {"rect", "rectified"}.isdisjoint(parts))
