# SPDX-License-Identifier: Apache-2.0
"""The contact sheet: one picture that shows what a stream gave. Rows are moments, columns are

    image | reference depth | depth | error | features        (the second and fourth where the recording has depth)

It holds a bounded number of frames, however long the stream: every n-th, with n doubling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnistream.errors import InputError
from omnistream.geometry.rigid import apply, inverse
from omnistream.io.colours import DEPTH, ERROR, FeatureColours, colour_depth, colour_error, depth_range
from omnistream.io.depth_error import DepthError, compare_depth, stream_scale
from omnistream.io.files import replacing
from omnistream.io.frames import Frame
from omnistream.io.page import BOX, Page, fit
from omnistream.io.resample import nearest_resize
from omnistream.stream.result import StepResult

UNITS = {"metric": " m", "relative": "", "none": ""}
MEANINGS = {"metric": "metres", "relative": "relative scale", "none": "untrained: numbers mean nothing"}
MAX_PATH = 4000


@dataclass(frozen=True, eq=False)
class _Moment:
    """What is kept of a frame."""

    label: str
    image: Image.Image
    depth: NDArray[np.float32] | None
    features: NDArray[np.float32]
    reference: NDArray[np.float32] | None


@dataclass
class ContactSheet:
    """Collects frames and results; `save` draws them.

        sheet = ContactSheet("kitchen.mp4", "tiny, random weights: depth means nothing", scale="none")
        sheet.add(frame, result)
        sheet.save(Path("sheet.png"))

    Its memory is bounded: some rows are kept, evenly over all that was added.
    """

    title: str
    subtitle: str
    scale: str
    """As in StepResult: metric, relative or none. Depth is compared with the reference unless it is none."""
    rows: int = 6
    expected: int | None = None
    """Number of frames to come, if known: then the rows are evenly spaced in all cases."""
    _moments: list[_Moment] = field(default_factory=list, init=False)
    _latest: _Moment | None = field(default=None, init=False)
    _every: int = field(default=1, init=False)
    _count: int = field(default=0, init=False)
    _path: list[NDArray[np.float64]] = field(default_factory=list, init=False)
    _reference_path: list[NDArray[np.float64]] = field(default_factory=list, init=False)
    _path_every: int = field(default=1, init=False)
    _origins: dict[str, NDArray[np.float64]] = field(default_factory=dict, init=False)
    """T_first_world of the poses, and of those of the reference."""

    def add(self, frame: Frame, result: StepResult, T_world_camera: NDArray[np.float64] | None = None) -> None:
        """Take a frame and its result; T_world_camera [4, 4]: the pose to draw, default the result's."""
        pose = result.T_world_camera if T_world_camera is None else T_world_camera
        if self._count % self._path_every == 0:
            self._add_to_path(pose, frame.T_world_camera)
        size = result.network_size if result.depth is None else (result.depth.shape[0], result.depth.shape[1])
        moment = _Moment(
            label=f"#{frame.index}   {frame.stamp:.2f} s" if frame.stamp < 1e6 else f"#{frame.index}",
            image=fit(Image.fromarray(frame.image), BOX),
            depth=result.depth,
            features=result.features,
            reference=None if frame.depth is None else nearest_resize(frame.depth, size),
        )
        self._latest = moment
        if self._wanted(self._count):
            self._moments.append(moment)
            if len(self._moments) >= 4 * self.rows:
                self._moments = self._moments[::2]
                self._every *= 2
        self._count += 1

    def _wanted(self, number: int) -> bool:
        if self.expected is None or self.expected <= self.rows:
            return number % self._every == 0
        step = (self.expected - 1) / (self.rows - 1) if self.rows > 1 else self.expected
        return round(round(number / step) * step) == number

    def _add_to_path(self, pose: NDArray[np.float64] | None, reference: NDArray[np.float64] | None) -> None:
        """Positions as the first camera sees them: so two worlds are one."""
        for name, path, T in (("own", self._path, pose), ("reference", self._reference_path, reference)):
            if T is not None:
                origin = self._origins.setdefault(name, inverse(T))
                path.append(apply(origin, T[:3, 3]))
        if max(len(self._path), len(self._reference_path)) >= MAX_PATH:
            self._path, self._reference_path = self._path[::2], self._reference_path[::2]
            self._path_every *= 2

    def save(self, path: Path) -> None:
        """Draw and write a PNG, atomically. InputError if no frame was added."""
        picture = self.render()
        with replacing(path) as temporary:
            picture.save(temporary)

    def render(self) -> Image.Image:
        """Draw the sheet."""
        moments = self._choose()
        colours = FeatureColours.fit([moment.features for moment in moments])
        depths = [moment.depth for moment in moments if moment.depth is not None]
        references = [moment.reference for moment in moments if moment.reference is not None]
        errors, factor = self._compare(moments)
        columns = ["image"] + ["reference depth"] * bool(references) + ["depth"] * bool(depths)
        columns += ["error"] * bool(errors) + ["features"]
        near, far = depth_range([depth * factor for depth in depths] + (references if self.scale != "none" else []))
        reference_range = (near, far) if self.scale != "none" else depth_range(references)

        cell_height = max(moment.image.height for moment in moments)
        page = Page(columns, len(moments), cell_height, self.title, self.subtitle, warn=self.scale == "none")
        for row, moment in enumerate(moments):
            size = moment.image.size
            page.cell(row, "image", moment.image, size, label=moment.label)
            if moment.depth is not None:
                page.cell(row, "depth", colour_depth(moment.depth * factor, near, far), size)
            page.cell(row, "features", colours(moment.features), size)
            if moment.reference is not None:
                page.cell(row, "reference depth", colour_depth(moment.reference, *reference_range), size)
            if error := errors.get(row):
                page.cell(row, "error", colour_error(error.relative), size, label=error.text)
        self._foot(page, (near, far), reference_range, factor, bool(references))
        return page.image

    def _choose(self) -> list[_Moment]:
        if self._latest is None:
            raise InputError("the contact sheet has no frames")
        moments = self._moments if self._moments[-1] is self._latest else [*self._moments, self._latest]
        wanted = np.linspace(0, len(moments) - 1, min(self.rows, len(moments))).round().astype(int)
        return [moments[i] for i in wanted]

    def _compare(self, moments: list[_Moment]) -> tuple[dict[int, DepthError], float]:
        """Errors by row, and the factor that brings depth to the reference's unit: 1 unless the scale is relative."""
        pairs = {
            row: (moment.depth, moment.reference)
            for row, moment in enumerate(moments)
            if moment.depth is not None and moment.reference is not None and np.isfinite(moment.reference).any()
        }
        if self.scale == "none" or not pairs:
            return {}, 1.0
        factor = stream_scale(list(pairs.values())) if self.scale == "relative" else 1.0
        return {row: compare_depth(depth * factor, reference) for row, (depth, reference) in pairs.items()}, factor

    def _foot(
        self,
        page: Page,
        own: tuple[float, float],
        reference: tuple[float, float],
        factor: float,
        has_reference: bool,
    ) -> None:
        if self._path:
            page.path("image", self._path, self._reference_path, UNITS[self.scale], to_fit=self.scale != "metric")
        if "depth" in page.columns:
            note = MEANINGS[self.scale]
            if factor != 1.0:
                note = f"relative scale, times {factor:.3g} to match the reference"
            page.legend("depth", DEPTH, own, " m" if factor != 1.0 else UNITS[self.scale], note)
        page.note("features", "three strongest directions of the patch\nfeatures (PCA over all rows) as R, G, B")
        if has_reference:
            page.legend("reference depth", DEPTH, reference, " m", "from the recording, metres")
        if "error" in page.columns:
            page.legend("error", ERROR, (0.0, 0.5), "", "|depth - reference| / reference")
