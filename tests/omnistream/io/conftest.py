# SPDX-License-Identifier: Apache-2.0
"""Makers of small recordings: bags written by `rosbags`, videos by PyAV, pictures whose content tells their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


def _numbered(number: int, size: tuple[int, int] = (24, 32)) -> NDArray[np.uint8]:
    image = np.zeros((*size, 3), np.uint8)
    image[:, :, 0] = np.linspace(0, 255, size[1]).astype(np.uint8)
    image[:, :, 1] = 8 * number
    return image


@pytest.fixture
def numbered() -> Callable[..., NDArray[np.uint8]]:
    """numbered(n, size) -> a picture [H, W, 3] with a ramp in red and its number 0..31 in green."""
    return _numbered


@pytest.fixture
def number_of() -> Callable[[NDArray[np.uint8]], int]:
    """Reads the number of such a picture back, also after JPEG or video."""
    return lambda image: round(float(np.median(image[:, :, 1])) / 8)


class BagMaker:
    """Writes a bag: topics of (type, messages), each message (log time ns, message)."""

    def __init__(self, path: Path, plugin: str) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        self.path = path
        self.store = get_typestore(Stores.ROS2_JAZZY)
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin[plugin.upper()])
        self._writer.open()
        self._connections: dict[str, Any] = {}

    def close(self) -> Path:
        self._writer.close()
        return self.path

    def type(self, name: str) -> Any:
        return self.store.types[name]

    def header(self, stamp: float, frame_id: str = "front_optical") -> Any:
        seconds = int(stamp)
        time = self.type("builtin_interfaces/msg/Time")(sec=seconds, nanosec=round((stamp - seconds) * 1e9))
        return self.type("std_msgs/msg/Header")(stamp=time, frame_id=frame_id)

    def write(self, topic: str, message: Any, log_time: int) -> None:
        name = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, name, typestore=self.store)
        self._writer.write(self._connections[topic], log_time, bytes(self.store.serialize_cdr(message, name)))

    def image(
        self, topic: str, image: NDArray[Any], stamp: float, log_time: int, encoding: str = "rgb8", cut: int = 0
    ) -> None:
        data = np.frombuffer(np.ascontiguousarray(image).tobytes(), np.uint8)
        message = self.type("sensor_msgs/msg/Image")(
            header=self.header(stamp),
            height=image.shape[0],
            width=image.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=data.size // image.shape[0],
            data=data[: data.size - cut],
        )
        self.write(topic, message, log_time)

    def compressed(self, topic: str, data: bytes, format: str, stamp: float, log_time: int) -> None:
        kind = self.type("sensor_msgs/msg/CompressedImage")
        self.write(topic, kind(header=self.header(stamp), format=format, data=np.frombuffer(data, np.uint8)), log_time)

    def info(
        self,
        topic: str,
        K: Sequence[float],
        size: tuple[int, int],
        log_time: int,
        D: Sequence[float] = (),
        P: Sequence[float] | None = None,
        binning: int = 0,
        offset: tuple[int, int] = (0, 0),
    ) -> None:
        roi = self.type("sensor_msgs/msg/RegionOfInterest")(
            x_offset=offset[1], y_offset=offset[0], height=0, width=0, do_rectify=False
        )
        message = self.type("sensor_msgs/msg/CameraInfo")(
            header=self.header(log_time / 1e9),
            height=size[0],
            width=size[1],
            distortion_model="plumb_bob",
            d=np.array(D, np.float64),
            k=np.array(K, np.float64),
            r=np.eye(3).reshape(-1),
            p=np.zeros(12) if P is None else np.array(P, np.float64),
            binning_x=binning,
            binning_y=binning,
            roi=roi,
        )
        self.write(topic, message, log_time)

    def text(self, topic: str, log_time: int) -> None:
        self.write(topic, self.type("std_msgs/msg/String")(data="hello"), log_time)


@pytest.fixture(params=["mcap", "sqlite3"])
def make_bag(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., BagMaker]:
    """A maker of bags, in both storages."""
    return lambda name="bag": BagMaker(tmp_path / name, request.param)


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """A maker of videos of noise-free numbered frames."""

    def make(name: str = "clip.mp4", count: int = 12, codec: str = "mpeg4", rate: int = 10, **options: str) -> Path:
        import av

        path = tmp_path / name
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.bit_rate = 2_000_000
            for number in range(count):
                frame = av.VideoFrame.from_ndarray(_numbered(number, (48, 64)), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make


def _read_ply(path: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    words = [line.split() for line in header.decode("ascii").splitlines()]
    sizes = {line[1]: int(line[2]) for line in words if line[0] == "obj_info"}
    numpy_types = {"float": "<f4", "uchar": "u1"}
    vertex = np.dtype([(line[2], numpy_types[line[1]]) for line in words if line[0] == "property"])
    vertices = np.frombuffer(body, vertex).reshape(sizes["num_rows"], sizes["num_cols"])
    points = np.stack([vertices[name] for name in ("x", "y", "z")], axis=-1)
    return points, np.stack([vertices[name] for name in ("red", "green", "blue")], axis=-1)


@pytest.fixture
def read_ply() -> Callable[[Path], tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """Points [H, W, 3] and colours [H, W, 3] of an organised binary PLY, read by what its header says."""
    return _read_ply
