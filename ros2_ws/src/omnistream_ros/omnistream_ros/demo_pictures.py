# SPDX-License-Identifier: Apache-2.0
"""What the demo draws of a recorder's sample of frames: a contact sheet, and a recording for the Rerun viewer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.geometry.pinhole import unproject
from omnistream.geometry.rigid import apply
from omnistream.io import Frame
from omnistream.io.rerun_log import RerunLog
from omnistream.io.sheet import ContactSheet
from omnistream.stream.result import StepResult
from omnistream_ros.recorder import FrameRecord, Recorder

MIN_ROWS = 3
"""A recording may have reference depth for some of its images only; the sheet shows those, if they are enough."""


def write_pictures(recorder: Recorder, out: Path, title: str) -> tuple[list[Path], list[str]]:
    """Writes contact_sheet.png and recording.rrd to `out`.

    Returns:
        The files, and sentences on what was not written and why.
    """
    frames = [frame for frame in recorder.frames if frame.image is not None and frame.features is not None]
    if not frames or recorder.status is None:
        return [], ["no pictures: no image came back with its features"]
    status = recorder.status
    first = frames[0].stamp_ns
    steps = [_as_step(frame, index, first, status.scale) for index, frame in enumerate(frames)]
    model = recorder.description.partition(";")[0]
    sheet = ContactSheet(title, f"{model}; {status.engine}, {status.policy}", scale=status.scale)
    with_reference = [(frame, result) for frame, result in steps if frame.depth is not None]
    for frame, result in with_reference if len(with_reference) >= MIN_ROWS else steps:
        sheet.add(frame, result)
    sheet.save(out / "contact_sheet.png")
    try:
        with RerunLog(out / "recording.rrd", title=title, scale=status.scale) as log:
            for frame, result in steps:
                log.add(frame, result, result.T_world_camera, _world_points(result))
    except InputError as error:  # the viewer's package is optional
        return [out / "contact_sheet.png"], [f"no recording.rrd: {error}"]
    return [out / "contact_sheet.png", out / "recording.rrd"], []


def _world_points(result: StepResult) -> NDArray[np.float32] | None:
    if result.depth is None or result.K is None or result.T_world_camera is None:
        return None
    return apply(result.T_world_camera, unproject(result.depth, result.K)).astype(np.float32)


def _as_step(record: FrameRecord, index: int, first_ns: int, scale: str) -> tuple[Frame, StepResult]:
    """What came over ROS 2 in the form in which a `StreamSession` gives it; stamps count from the first frame."""
    assert record.image is not None and record.features is not None
    features = record.features.astype(np.float32)
    stamp = (record.stamp_ns - first_ns) * 1e-9
    frame = Frame(
        image=record.image,
        stamp=stamp,
        index=index,
        name=f"image {index}",
        K=record.K,
        depth=record.true_depth,
        T_world_camera=record.T_world_camera,
    )
    result = StepResult(
        index=index,
        stamp=stamp,
        time=float(index),
        network_size=(record.image.shape[0], record.image.shape[1]),
        depth=record.depth,
        depth_confidence=None,
        rays=None,
        ray_confidence=None,
        T_world_camera=record.T_odom_camera,
        K=record.K,
        features=features,
        cls=features.mean(axis=(0, 1)),
        scale=scale,
    )
    return frame, result
