# SPDX-License-Identifier: Apache-2.0
"""All that a streamed recording can leave in a folder, written as it comes; nothing is held until the end.

    depth/000000.npy  f32 [h, w]              depth/000000.png  16 bit, mm (metric models only)
    poses.txt         TUM lines               features/000000.npy  f32 [h/16, w/16, D], 000000_cls.npy  f32 [D]
    points/000000.ply organised, coloured     sheet.png  the contact sheet       stream.rrd  for the Rerun viewer

Files are named by the frame's number in the input; poses and points share one world over resets of the stream.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from omnistream.errors import ConfigError
from omnistream.geometry import rigid
from omnistream.io.depth_files import write_depth_png
from omnistream.io.files import write_npy
from omnistream.io.frames import Frame
from omnistream.io.ply import write_ply
from omnistream.io.rerun_log import RerunLog
from omnistream.io.resample import nearest_resize
from omnistream.io.results_folder import POSES, PRODUCTS, RERUN, SHEET
from omnistream.io.sheet import ContactSheet
from omnistream.io.trajectory import TumWriter
from omnistream.stream.odometry import SegmentedOdometry
from omnistream.stream.result import StepResult

_NEEDS: dict[str, frozenset[str]] = {
    "depth": frozenset({"depth"}),
    "poses": frozenset({"pose"}),
    "features": frozenset({"features"}),
    "points": frozenset({"depth", "rays", "pose"}),
    "sheet": frozenset(),
    "rrd": frozenset(),
}
_LIKES: dict[str, frozenset[str]] = {
    "sheet": frozenset({"features", "depth", "pose"}),
    "rrd": frozenset({"depth", "rays", "pose"}),
}


class ResultWriter:
    """Writes what was asked for, as far as the checkpoint has it; a context manager.

    Attributes:
        wanted: the outputs to ask of `StreamSession.step`.
        notes: whole sentences about what is not written, and why.
    """

    def __init__(
        self,
        folder: Path,
        products: Collection[str],
        *,
        outputs: Collection[str],
        scale: str,
        title: str,
        subtitle: str,
        expected: int | None = None,
        view: bool = False,
    ) -> None:
        """products: of `PRODUCTS`. outputs, scale: what the checkpoint has, as StreamSession says it.

        title, subtitle: for the contact sheet and the viewer; the subtitle has to say what the model is.
        expected: number of frames, if known. view: open the Rerun viewer.
        """
        unknown = sorted(set(products) - set(PRODUCTS))
        if unknown:
            raise ConfigError(f"cannot save {', '.join(unknown)}; expected some of {', '.join(PRODUCTS)}")
        self._folder, self._scale = folder, scale
        self.notes: list[str] = []
        self._products = {product for product in products if self._possible(product, outputs)}
        if products and not self._products:
            raise ConfigError(f"nothing is left to save: {' '.join(self.notes)}")
        if "depth" in self._products and scale != "metric":
            self.notes.append(f"depth has scale {scale!r}: written as .npy alone, a PNG would claim millimetres.")
        likes = (_NEEDS[product] | _LIKES.get(product, frozenset()) for product in self._products)
        self.wanted = frozenset().union(*likes, _LIKES["rrd"] if view else ()) & frozenset(outputs)
        self._odometry = SegmentedOdometry()
        self._frames = 0
        self._files = ExitStack()
        self._poses: TumWriter | None = None
        self._rerun: RerunLog | None = None
        self._sheet: ContactSheet | None = None
        with ExitStack() as opened:  # if one cannot be opened, those before it leave nothing behind
            if "poses" in self._products:
                comment = f"stamp tx ty tz qx qy qz qw: T_world_camera, optical frame; scale {scale}\n{subtitle}"
                self._poses = opened.enter_context(TumWriter(folder / POSES, comment))
            if "rrd" in self._products or view:
                path = folder / RERUN if "rrd" in self._products else None
                self._rerun = opened.enter_context(RerunLog(path, title=title, scale=scale, view=view))
            if "sheet" in self._products:
                self._sheet = ContactSheet(title, subtitle, scale, expected=expected)
            self._files = opened.pop_all()

    def _possible(self, product: str, outputs: Collection[str]) -> bool:
        missing = sorted(_NEEDS[product] - set(outputs))
        if missing:
            self.notes.append(f"{product}: left out, this checkpoint has no {', '.join(missing)}.")
        return not missing

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self._files.__exit__(kind, error, trace)  # files that are not whole are thrown away

    def reset(self, reason: str) -> None:
        """The stream was reset: poses go on from the last one."""
        self._odometry.new_segment()
        if self._poses is not None:
            self._poses.comment(f"reset ({reason}), segment {self._odometry.segment}")

    def add(self, frame: Frame, result: StepResult) -> None:
        """Write one frame's results."""
        name, folder = f"{frame.index:06d}", self._folder
        T_world_camera = T_world_segment = None
        if result.T_world_camera is not None:
            T_world_camera = self._odometry.update(result.T_world_camera)
            T_world_segment = T_world_camera @ rigid.inverse(result.T_world_camera)
        if "depth" in self._products and result.depth is not None:
            write_npy(folder / "depth" / f"{name}.npy", result.depth)
            if self._scale == "metric":
                write_depth_png(folder / "depth" / f"{name}.png", result.depth, self._scale)
        if self._poses is not None and T_world_camera is not None:
            self._poses.add(frame.stamp, T_world_camera)
        if "features" in self._products:
            write_npy(folder / "features" / f"{name}.npy", result.features)
            write_npy(folder / "features" / f"{name}_cls.npy", result.cls)
        points = None
        if ("points" in self._products or self._rerun) and result.rays is not None and T_world_segment is not None:
            points = rigid.apply(T_world_segment, result.points()).astype("float32")
        if "points" in self._products and points is not None:
            comments = (f"world: optical frame of frame 0; scale {self._scale}", f"stamp {frame.stamp:.9f}")
            colours = nearest_resize(frame.image, (points.shape[0], points.shape[1]))
            write_ply(folder / "points" / f"{name}.ply", points, colours, comments)
        if self._rerun is not None:
            self._rerun.add(frame, result, T_world_camera, points)
        if self._sheet is not None:
            self._sheet.add(frame, result, T_world_camera)
        self._frames += 1

    def finish(self) -> None:
        """Finish all files. Idempotent."""
        sheet, self._sheet = self._sheet, None
        if sheet is not None and self._frames:
            sheet.save(self._folder / SHEET)
        self._files.close()
