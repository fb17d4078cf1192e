# SPDX-License-Identifier: Apache-2.0
"""The camera of a bag: one image topic and its CameraInfo. Stamps are the headers', not the log's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError, OptionError
from omnistream.io.bag_reader import BagReader, Topic, topic_table
from omnistream.io.frames import DEFAULT_FRAME_ID, Frame, FrameSource
from omnistream.io.pixels import DEPTH_ENCODINGS, decode_compressed, decode_image
from omnistream.io.topic_names import is_rectified_topic

RAW = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
INFO = "sensor_msgs/msg/CameraInfo"


class BagImageSource(FrameSource):
    """Images of one topic of a bag.

    The topic may be left out where only one holds pictures (depth does not count). InputError lists the image topics
    if there are several, and all topics if there is none or the wrong one was named.
    """

    def __init__(self, path: Path, topic: str | None = None) -> None:
        self._path = path
        with BagReader(path) as bag:
            self._topic = _choose(bag, topic)
            self._info_topic = _info_topic(bag, self._topic.name)
            self._info = _first_info(bag, self._info_topic)
            rate, self._use_log_time = _timing(bag, self._topic)
        calibrated = "CameraInfo" if self._info is not None and self._info.K is not None else "no calibration"
        note = ", stamps from the log (the headers have none)" if self._use_log_time else ""
        super().__init__(
            description=f"bag {path.name}: {self._topic.count} images on {self._topic.name}, {calibrated}{note}",
            rate=rate,
            length=self._topic.count,
        )

    def _read(self) -> Iterator[Frame]:
        info = self._info
        names = {self._topic.name} | ({self._info_topic} if self._info_topic else set())
        index = -1
        with BagReader(self._path) as bag:
            for topic, log_time, data in bag.raw_messages(names):
                if topic.type == INFO:
                    info = _calibration(bag.decode(topic, data))
                    continue
                if topic.type != self._topic.type:
                    continue
                index += 1
                try:
                    frame = self._frame(bag.decode(topic, data), log_time, index, info)
                except InputError as error:
                    self._unreadable(InputError(f"{self._path}: image {index} on {topic.name}: {error}"))
                    continue
                yield frame

    def _frame(self, message: Any, log_time: int, index: int, info: _Calibration | None) -> Frame:
        image = _pixels(message, self._topic.type)
        calibration = None
        if info is not None:
            calibration = info.for_image(image.shape[0], image.shape[1], rectified=is_rectified_topic(self._topic.name))
        return Frame(
            image=image,
            stamp=(log_time if self._use_log_time else _nanoseconds(message.header.stamp)) / 1e9,
            index=index,
            name=f"{self._topic.name}#{index}",
            frame_id=message.header.frame_id or DEFAULT_FRAME_ID,
            K=None if calibration is None else calibration.K,
            D=() if calibration is None else calibration.D,
            distortion_model="" if calibration is None else calibration.model,
        )


def _pixels(message: Any, type_: str) -> NDArray[np.uint8]:
    if type_ == COMPRESSED:
        return decode_compressed(message.data, message.format)
    return decode_image(
        message.encoding, message.height, message.width, message.step, message.data, message.is_bigendian
    )


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


# ------------------------------------------------------------------------------------------------ choosing topics


def _choose(bag: BagReader, wanted: str | None) -> Topic:
    topics = bag.topics
    images = [topic for topic in topics if topic.type in (RAW, COMPRESSED) and topic.count]
    if not images:
        table = topic_table(topics) if topics else "  (no topics at all)"
        raise InputError(f"{bag.path}: no images in this bag. It has:\n{table}")
    if wanted is not None:
        named = [topic for topic in images if topic.name == wanted]
        if not named:
            raise OptionError(f"{bag.path}: no image topic {wanted!r}. The bag has:\n{topic_table(topics)}")
        if _is_depth(bag, named[0]):
            raise OptionError(f"{bag.path}: {wanted} holds depth, not pictures. Image topics:\n{topic_table(images)}")
        return named[0]
    pictures = [topic for topic in images if not _is_depth(bag, topic)] if len(images) > 1 else images
    if len(pictures) != 1:
        raise OptionError(
            f"{bag.path}: several image topics; choose one with topic:\n{topic_table(pictures or images)}"
        )
    return pictures[0]


def _is_depth(bag: BagReader, topic: Topic) -> bool:
    """Whether the topic's first message holds depth."""
    message = _first(bag, topic)
    if message is None:
        return False
    if topic.type == COMPRESSED:
        return "compresseddepth" in message.format.lower()
    return message.encoding in DEPTH_ENCODINGS and message.encoding != "mono16"


def _first(bag: BagReader, wanted: Topic) -> Any:
    """The first readable message of a topic, or None."""
    for topic, _, data in bag.raw_messages([wanted.name]):
        if topic.type == wanted.type:
            try:
                return bag.decode(topic, data)
            except InputError:
                continue
    return None


def _timing(bag: BagReader, topic: Topic) -> tuple[float | None, bool]:
    """Rate in Hz from the log times of the first messages, and whether the headers are unstamped (all zero)."""
    times: list[int] = []
    for found, log_time, data in bag.raw_messages([topic.name]):
        if found.type == topic.type:
            times.append(log_time)
            if len(times) == 1:
                first = data
            if len(times) == 30:
                break
    period = float(np.median(np.diff(times))) / 1e9 if len(times) > 1 else 0.0
    try:
        unstamped = _nanoseconds(bag.decode(topic, first).header.stamp) == 0
    except InputError:
        unstamped = False
    return (1 / period if period > 0 else None), unstamped


# ------------------------------------------------------------------------------------------------ calibration


def _info_topic(bag: BagReader, image_topic: str) -> str | None:
    """.../camera_info beside .../image_raw, beside .../image_raw/compressed too."""
    names = {topic.name for topic in bag.topics if topic.type == INFO}
    parts = image_topic.split("/")
    for keep in (len(parts) - 1, len(parts) - 2):
        candidate = "/".join([*parts[:keep], "camera_info"])
        if keep > 0 and candidate in names:
            return candidate
    return None


def _first_info(bag: BagReader, name: str | None) -> _Calibration | None:
    if name is None:
        return None
    message = _first(bag, Topic(name, INFO, 0))
    return None if message is None else _calibration(message)


@dataclass(frozen=True, eq=False)
class _Calibration:
    """What CameraInfo says about the full-resolution image, and how the published image was cut from it."""

    size: tuple[int, int]
    K: NDArray[np.float64] | None
    P: NDArray[np.float64] | None
    D: tuple[float, ...]
    model: str
    binning: tuple[int, int]
    offset: tuple[int, int]

    def for_image(self, height: int, width: int, rectified: bool) -> _Calibration | None:
        """K in pixels of the image that was published; None if the calibration is for another size.

        A rectified image is described by P and has no distortion left (sensor_msgs/CameraInfo).
        """
        K = self.P if rectified else self.K
        if K is None:
            return None
        (by, bx), (oy, ox) = self.binning, self.offset
        if (height, width) != self.size and (by, bx, oy, ox) == (1, 1, 0, 0):
            return None
        cut = np.array([[1 / bx, 0, (0.5 - ox) / bx - 0.5], [0, 1 / by, (0.5 - oy) / by - 0.5], [0, 0, 1]])
        D, model = ((), "") if rectified else (self.D, self.model)
        return _Calibration((height, width), cut @ K, None, D, model, (1, 1), (0, 0))


def _calibration(message: Any) -> _Calibration:
    """From a CameraInfo of ROS 2, or of ROS 1 where the fields have capital letters."""

    def field(name: str) -> NDArray[np.float64]:
        value = getattr(message, name, None)
        return np.asarray(getattr(message, name.upper()) if value is None else value, np.float64)

    K, P, D = field("k").reshape(3, 3), field("p").reshape(3, 4)[:, :3], field("d")
    return _Calibration(
        size=(int(message.height), int(message.width)),
        K=K if K[0, 0] > 0 and np.isfinite(K).all() else None,  # zero: not calibrated
        P=P if P[0, 0] > 0 and np.isfinite(P).all() else None,
        D=tuple(float(value) for value in D.reshape(-1)),
        model=str(message.distortion_model),
        binning=(max(1, int(message.binning_y)), max(1, int(message.binning_x))),
        offset=(int(message.roi.y_offset), int(message.roi.x_offset)),
    )
