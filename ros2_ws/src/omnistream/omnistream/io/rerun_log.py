# SPDX-License-Identifier: Apache-2.0
"""A stream as a Rerun recording (.rrd), or live in its viewer: image, depth, camera, points, path. Extra `viz`."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.geometry.pinhole import scale_intrinsics
from omnistream.io.extras import need
from omnistream.io.files import temporary_path
from omnistream.io.frames import Frame
from omnistream.io.resample import nearest_resize
from omnistream.stream.result import StepResult

MAX_POINTS = 10_000
"""Points per frame; the recording of a minute stays in the tens of megabytes."""
JPEG_QUALITY = 80


class RerunLog:
    """Logs frames; a context manager. The file appears under its name when the log is closed.

    path: the .rrd to write, or None. view: open the viewer and show the stream live.
    title: what the viewer calls it. scale: as in StepResult; only metric depth is given a unit.
    """

    def __init__(self, path: Path | None, *, title: str, scale: str, view: bool = False) -> None:
        self._rr: Any = need("rerun", "viz", "a Rerun recording")
        self._path, self._scale = path, scale
        self._recording = self._rr.RecordingStream("omnistream")
        sinks: list[Any] = []
        self._temporary: Path | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = temporary_path(path)
            sinks.append(self._rr.FileSink(str(self._temporary)))
        if view:
            try:
                self._rr.spawn(connect=False)
            except (RuntimeError, OSError) as error:
                raise InputError(f"the Rerun viewer cannot be opened here: {error}") from error
            sinks.append(self._rr.GrpcSink())
        self._recording.set_sinks(*sinks, default_blueprint=self._blueprint())
        self._recording.send_recording_name(title)
        self._log("world", self._rr.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
        self._path_points: list[NDArray[np.float64]] = []

    def __enter__(self) -> RerunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep=kind is None)

    def add(
        self,
        frame: Frame,
        result: StepResult,
        T_world_camera: NDArray[np.float64] | None = None,
        points: NDArray[np.float32] | None = None,
    ) -> None:
        """Log a frame. T_world_camera [4, 4] and points [h, w, 3]: in one world for the whole recording."""
        rr, camera = self._rr, "world/camera"
        self._recording.set_time("frame", sequence=frame.index)
        clock = {"timestamp": frame.stamp} if frame.stamp > 1e8 else {"duration": frame.stamp}
        self._recording.set_time("stamp", **clock)
        height, width = frame.image.shape[:2]
        K = frame.K
        if K is None and result.K is not None:
            K = scale_intrinsics(result.K, result.network_size, (height, width))
        if T_world_camera is not None:
            self._log(camera, rr.Transform3D(translation=T_world_camera[:3, 3], mat3x3=T_world_camera[:3, :3]))
            self._path_points.append(T_world_camera[:3, 3].copy())
        if K is not None:
            self._log(camera, rr.Pinhole(image_from_camera=K, width=width, height=height))
        self._log(f"{camera}/image", rr.Image(frame.image).compress(jpeg_quality=JPEG_QUALITY))
        if result.depth is not None:
            # Beside the camera and not under it, or the viewer would unproject it with the wrong resolution's K.
            meter = 1.0 if self._scale == "metric" else None
            self._log("depth", rr.DepthImage(result.depth.astype(np.float16), meter=meter))
        if points is not None:
            stride = max(1, int(np.ceil(np.sqrt(points.shape[0] * points.shape[1] / MAX_POINTS))))
            xyz, colours = points[::stride, ::stride], nearest_resize(frame.image, (points.shape[0], points.shape[1]))
            known = np.isfinite(xyz).all(axis=-1)
            self._log("world/points", rr.Points3D(xyz[known], colors=colours[::stride, ::stride][known]))

    def close(self, keep: bool = True) -> None:
        """Finish the file; `keep=False` throws it away."""
        if len(self._path_points) > 1:
            self._log("world/path", self._rr.LineStrips3D([np.array(self._path_points)]), static=True)
        self._recording.flush()
        self._recording.disconnect()
        if self._temporary is not None and self._path is not None:
            if keep:
                self._temporary.replace(self._path)
            else:
                self._temporary.unlink(missing_ok=True)
            self._temporary = None

    def _log(self, name: str, what: Any, static: bool = False) -> None:
        self._recording.log(name, what, static=static)

    @staticmethod
    def _blueprint() -> Any:
        """3-D on the left; image and depth on the right."""
        blueprint = need("rerun.blueprint", "viz", "a Rerun recording")
        return blueprint.Blueprint(
            blueprint.Horizontal(
                blueprint.Spatial3DView(origin="world", name="world"),
                blueprint.Vertical(
                    blueprint.Spatial2DView(origin="world/camera/image", name="image"),
                    blueprint.Spatial2DView(origin="depth", name="depth"),
                ),
                column_shares=[2, 1],
            ),
            collapse_panels=True,
        )
