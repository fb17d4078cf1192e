# SPDX-License-Identifier: Apache-2.0
"""Our own recording folder: pictures, calibration, and reference depth and poses where they are known.

recording.yaml      format: omnistream-recording, version: 1, rate (Hz), camera: {width, height, K: 9 numbers, D,
                    distortion_model, frame_id}, depth_scale (metres per unit), description, licence, made_by
rgb/000000.jpg      or png
depth/000000.png    16 bit, value * depth_scale is metres, 0 is no value          (optional)
poses.txt           TUM lines: stamp tx ty tz qx qy qz qw, T_world_camera         (optional)
stamps.txt          one number of seconds per line                  (optional, else by the pictures' numbers / rate)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.io.files import IMAGE_SUFFIXES, natural_key, read_depth, read_rgb
from omnistream.io.frames import DEFAULT_FRAME_ID, DEFAULT_RATE, Frame, FrameSource
from omnistream.io.tables import read_table
from omnistream.io.trajectory import nearest, read_tum

FORMAT = "omnistream-recording"
VERSION = 1
HEADER = "recording.yaml"


class RecordingSource(FrameSource):
    """Reads a recording folder. InputError names the file, and the field of recording.yaml, that is wrong."""

    def __init__(self, folder: Path) -> None:
        self._header = header = _Header(folder / HEADER)
        self._images = sorted(
            (path for path in (folder / "rgb").glob("*") if path.suffix.lower() in IMAGE_SUFFIXES), key=natural_key
        )
        if not self._images:
            raise InputError(f"{folder / 'rgb'}: no images in this recording")
        self._depth_folder = folder / "depth"
        self._stamps = self._read_stamps(folder / "stamps.txt")
        self._poses = self._read_poses(folder / "poses.txt")
        parts = [f"recording {folder.name}: {len(self._images)} images"]
        parts += ["depth"] if self._depth_folder.is_dir() else []
        parts += ["poses"] if self._poses is not None else []
        parts += [header.description] if header.description else []
        super().__init__(description=", ".join(parts), rate=header.rate, length=len(self._images))

    def _read_stamps(self, path: Path) -> NDArray[np.float64]:
        count = len(self._images)
        if not path.is_file():
            return _places(self._images) / self._header.rate
        stamps, _ = read_table(path, 1, "seconds")
        if len(stamps) != count:
            raise InputError(f"{path}: {len(stamps)} stamps; expected {count}, one per image")
        return stamps[:, 0]

    def _read_poses(self, path: Path) -> dict[int, NDArray[np.float64]] | None:
        """Pose per image index: the nearest in time within half a period."""
        if not path.is_file():
            return None
        times, poses = read_tum(path)
        pairs = nearest(self._stamps, times, 0.5 / self._header.rate)
        return {index: poses[other] for index, other in enumerate(pairs) if other >= 0}

    def _read(self) -> Iterator[Frame]:
        header = self._header
        for index, path in enumerate(self._images):
            depth = self._depth_folder / f"{path.stem}.png"
            try:
                image = read_rgb(path, upright=False)
                if image.shape[:2] != header.size:
                    expected = f"{header.size[1]}x{header.size[0]} as in {HEADER}"
                    raise InputError(f"{path}: image is {image.shape[1]}x{image.shape[0]}; expected {expected}")
                frame = Frame(
                    image=image,
                    stamp=float(self._stamps[index]),
                    index=index,
                    name=path.name,
                    frame_id=header.frame_id,
                    K=header.K,
                    D=header.D,
                    distortion_model=header.distortion_model,
                    depth=read_depth(depth, header.depth_scale) if depth.is_file() else None,
                    T_world_camera=None if self._poses is None else self._poses.get(index),
                )
            except InputError as error:
                self._unreadable(error)
                continue
            yield frame


def _places(images: Sequence[Path]) -> NDArray[np.float64]:
    """0, 1, 2, ... for pictures in order; where names are numbers, a picture that is missing leaves its place empty.

    Otherwise a lost file would give all later pictures the times, and so the poses, of others.
    """
    if len(images) < 3 or not all(path.stem.isdecimal() for path in images):
        return np.arange(len(images), dtype=np.float64)
    numbers = np.array([int(path.stem) for path in images], np.float64)
    steps, times = np.unique(np.diff(numbers), return_counts=True)
    usual = steps[times.argmax()]
    places = (numbers - numbers[0]) / usual if usual > 0 else np.zeros(0)
    whole = len(places) > 0 and np.allclose(places, places.round()) and times.max() > len(images) / 2
    return places.round() if whole else np.arange(len(images), dtype=np.float64)


class _Header:
    """The checked content of recording.yaml."""

    def __init__(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
            data = yaml.safe_load(text)
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read: {error}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"{path}: not a recording; expected 'format: {FORMAT}'")
        if data.get("version") != VERSION:
            raise InputError(f"{path}: version is {data.get('version')!r}; this release reads {VERSION}")
        camera = data.get("camera")
        if not isinstance(camera, dict):
            raise InputError(f"{path}: camera is {camera!r}; expected width, height and K")
        self.path = path
        self._lines = text.splitlines()
        self.rate = self._number(data, "rate", DEFAULT_RATE)
        self.depth_scale = self._number(data, "depth_scale", 0.001)
        self.size = (int(self._number(camera, "height")), int(self._number(camera, "width")))
        values = camera.get("K")
        self.K: NDArray[np.float64] | None = None
        if values is not None:
            self.K = np.array(self._numbers("camera.K", values, 9)).reshape(3, 3)
        self.D = tuple(self._numbers("camera.D", camera.get("D") or []))
        self.distortion_model = str(camera.get("distortion_model") or "")
        self.frame_id = str(camera.get("frame_id") or DEFAULT_FRAME_ID)
        self.description = str(data.get("description") or "")

    def _number(self, data: dict[str, Any], name: str, default: float | None = None) -> float:
        value = data.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (np.isfinite(value) and value > 0):
            raise InputError(f"{self._place(name)}: {name} is {value!r}; expected a number above 0")
        return float(value)

    def _numbers(self, name: str, values: Any, count: int | None = None) -> list[float]:
        try:
            numbers = [float(value) for value in values]
        except (TypeError, ValueError):
            numbers = [float("nan")]
        if not np.isfinite(numbers).all() or (count is not None and len(numbers) != count):
            raise InputError(f"{self._place(name)}: {name} is {values!r}; expected {count or 'a list of'} numbers")
        return numbers

    def _place(self, name: str) -> str:
        """File and, where the key is at the start of one, its line."""
        key = name.split(".")[-1]
        found = (number for number, line in enumerate(self._lines, start=1) if re.match(rf"\s*{key}\s*:", line))
        number = next(found, None)
        return str(self.path) if number is None else f"{self.path}: line {number}"
