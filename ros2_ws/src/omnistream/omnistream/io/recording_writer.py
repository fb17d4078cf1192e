# SPDX-License-Identifier: Apache-2.0
"""Writes the recording folder that `omnistream.io.recording` describes and reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from omnistream.errors import InputError
from omnistream.io.files import replacing, write_bytes
from omnistream.io.frames import DEFAULT_FRAME_ID
from omnistream.io.recording import FORMAT, HEADER, VERSION
from omnistream.io.trajectory import write_tum


class RecordingWriter:
    """Writes a recording folder; a context manager. recording.yaml comes last, so a broken run is not a recording.

        with RecordingWriter(folder, rate=30.0, size=(480, 640), K=K) as writer:
            writer.add(image, depth=depth, T_world_camera=pose)

    Depth is in metres; any frame may come without depth or pose.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rate: float,
        size: tuple[int, int],
        K: NDArray[np.float64] | None = None,
        D: tuple[float, ...] = (),
        distortion_model: str = "plumb_bob",
        frame_id: str = DEFAULT_FRAME_ID,
        depth_scale: float = 0.001,
        jpeg_quality: int | None = 92,
        description: str = "",
        licence: str = "",
        made_by: str = "",
    ) -> None:
        """size: (height, width). jpeg_quality: None writes PNG. The folder must not hold a recording yet."""
        if (folder / HEADER).exists():
            raise InputError(f"{folder} already holds a recording; choose another folder or remove it first")
        camera: dict[str, Any] = {"width": size[1], "height": size[0]}
        if K is not None:
            camera["K"] = [float(value) for value in np.asarray(K).reshape(9)]
        camera |= {"D": [float(d) for d in D], "distortion_model": distortion_model, "frame_id": frame_id}
        self._header = {
            "format": FORMAT,
            "version": VERSION,
            "rate": float(rate),
            "camera": camera,
            "depth_scale": float(depth_scale),
            "description": description,
            "licence": licence,
            "made_by": made_by,
        }
        self._folder, self._size, self._rate, self._quality = folder, size, float(rate), jpeg_quality
        self._depth_scale = depth_scale
        self._stamps: list[float] = []
        self._poses: list[tuple[float, NDArray[np.float64]]] = []

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()

    def add(
        self,
        image: NDArray[np.uint8],
        *,
        stamp: float | None = None,
        depth: NDArray[np.floating[Any]] | None = None,
        T_world_camera: NDArray[np.float64] | None = None,
    ) -> None:
        """Append a frame: image u8 [H, W, 3] RGB, stamp in s (default index / rate), depth [H, W] in m (NaN: none)."""
        if image.shape != (*self._size, 3) or image.dtype != np.uint8:
            raise InputError(f"image is {image.dtype} {image.shape}; expected uint8 {(*self._size, 3)}")
        index = len(self._stamps)
        stamp = index / self._rate if stamp is None else float(stamp)
        suffix = ".png" if self._quality is None else ".jpg"
        options: dict[str, Any] = {} if self._quality is None else {"quality": self._quality, "subsampling": 0}
        with replacing(self._folder / "rgb" / f"{index:06d}{suffix}") as path:
            Image.fromarray(image).save(path, **options)
        if depth is not None:
            units = np.nan_to_num(np.asarray(depth, np.float64), nan=0.0, posinf=0.0, neginf=0.0) / self._depth_scale
            values = np.where((units > 0) & (units < 65534.5), np.rint(units), 0).astype(np.uint16)
            with replacing(self._folder / "depth" / f"{index:06d}.png") as path:
                Image.fromarray(values).save(path)
        if T_world_camera is not None:
            self._poses.append((stamp, np.asarray(T_world_camera, np.float64)))
        self._stamps.append(stamp)

    def close(self) -> None:
        """Write stamps, poses and the header."""
        write_bytes(self._folder / "stamps.txt", "".join(f"{stamp:.9f}\n" for stamp in self._stamps).encode())
        if self._poses:
            write_tum(self._folder / "poses.txt", self._poses)
        text = yaml.safe_dump(self._header, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
        write_bytes(self._folder / HEADER, text.encode())
