# SPDX-License-Identifier: Apache-2.0
"""Recordings in, results out: videos, image folders, bags; depth, poses, points, features, contact sheets.

    from omnistream.io import open_source
    for frame in open_source("drive.mcap", topic="/camera/image_raw"):
        session.step(frame.image, frame.stamp)

Libraries for videos and bags are imported when one is opened (`pip install "omnistream[io]"`).
"""

from omnistream.io.frames import Frame, FrameSource
from omnistream.io.source import open_source

__all__ = ["Frame", "FrameSource", "open_source"]
