# SPDX-License-Identifier: Apache-2.0
"""Names of topics: which say that their images are rectified."""

from __future__ import annotations

import pytest

from omnistream.io.topic_names import is_rectified_topic


@pytest.mark.parametrize(
    "name",
    [
        "/camera/image_rect",
        "/camera/image_rect_color",
        "/camera/image_rect_color/compressed",
        "/camera/infra1/image_rect_raw",
        "/left/rectified_image",
        "/camera/rectified/image",
        "/zed/zed_node/rgb/color/rect/image/theora",
        "image_rect",
    ],
)
def test_rectified(name: str) -> None:
    assert is_rectified_topic(name)


@pytest.mark.parametrize(
    "name",
    [
        "/camera/image_raw",
        "/director/image_raw",
        "/correct/image",
        "/camera/image_corrected",
        "/camera/image_unrectified",
        "/image_rect_node/image_raw",  # the node's name, not the image's
        "/rectangle",
        "/",
        "",
    ],
)
def test_not_rectified(name: str) -> None:
    assert not is_rectified_topic(name)
