# SPDX-License-Identifier: Apache-2.0
"""Recordings in, results out: videos, image folders, bags; depth, poses, points, features, contact sheets.

    from omnistream.io import open_source
    for frame in open_source("drive.mcap", topic="/camera/image_raw"):
        session.step(frame.image, frame.stamp)
"""

from omnistream.io.frames import Frame, FrameSource
from omnistream.io.source import open_source

__all__ = ["Frame", "FrameSource", "open_source"]
