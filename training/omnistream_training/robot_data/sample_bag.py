# SPDX-License-Identifier: Apache-2.0
"""A bag of an invented arm, as large as asked for: for measuring, for trying a mapping, for tests.

The numbers are known: joint i is at sin(0.2 t + i), every command is the joint's value at its own stamp, and the first
row of a picture spells the number of the picture.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnistream.errors import ConfigError
from omnistream.io.extras import need

JOINTS = ("shoulder", "elbow", "wrist")
START = 1_700_000_000 * 10**9
"""Stamp of the first picture, ns."""
LATENCY = 3_000_000
"""ns between stamp and log."""

MAPPING = """\
format: omnistream-mapping
version: 1
rate: {rate}
cameras:
- {{name: front, topic: {camera}, max_age: 0.1}}
state:
- {{topic: /joint_states, fields: [shoulder, elbow, wrist], unit: rad, max_age: 0.1}}
action:
  mode: absolute
  frame: joints
  parts:
  - {{topic: /joint_commands, fields: [shoulder, elbow, wrist], names: [shoulder_to, elbow_to, wrist_to], unit: rad,
     pick: next, max_age: 0.2}}
  - {{topic: /gripper/command, fields: [value], names: [gripper], unit: "1", pick: hold, max_age: null,
     gripper: {{open: 1.0, closed: -1.0}}}}
instruction: {{topic: /instruction}}
episodes: {{topic: /episode, shortest: 0.5}}
"""


@dataclass(frozen=True, kw_only=True)
class SampleBag:
    """What to write."""

    seconds: float = 4.0
    """Of each episode; one second of idling lies between two."""
    episodes: int = 2
    rate: float = 30.0
    """Pictures per second."""
    height: int = 480
    width: int = 640
    transport: Literal["raw", "jpeg"] = "raw"
    storage: Literal["mcap", "sqlite3"] = "mcap"
    compression: bool = False
    """zstd chunks (mcap only)."""

    @property
    def camera(self) -> str:
        """The image topic."""
        return "/camera/image_raw" if self.transport == "raw" else "/camera/image_raw/compressed"

    def mapping(self) -> str:
        """The YAML text of a mapping that fits."""
        return MAPPING.format(rate=self.rate, camera=self.camera)


def joints(seconds: float) -> NDArray[np.float64]:
    """[3] rad at a time after the first picture."""
    return np.sin(0.2 * seconds + np.arange(len(JOINTS)))


def picture(number: int, height: int, width: int) -> NDArray[np.uint8]:
    """u8 [H, W, 3]: a pattern that moves; the first row has the number in binary, black and white, in 16 fields."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows + number, columns - number, rows + columns], -1).astype(np.uint8)
    bits = (number >> np.arange(16)) & 1
    image[: max(1, height // 16)] = (np.repeat(bits, -(-width // 16))[:width] * 255).astype(np.uint8)[None, :, None]
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    """The number that a picture spells."""
    height, width = image.shape[:2]
    centres = (np.arange(16) * -(-width // 16) + width // 32).clip(max=width - 1)
    return int(((image[max(1, height // 16) // 2, centres, 1] > 127) << np.arange(16)).sum())


def write_sample_bag(path: Path, sample: SampleBag) -> Path:
    """Write the bag into the folder `path`, which is replaced if it is there; returns it."""
    rosbag2: Any = need("rosbags.rosbag2", "io", "writing bags")
    typesys: Any = need("rosbags.typesys", "io", "writing bags")
    if sample.compression and sample.storage != "mcap":
        raise ConfigError("compression is for storage mcap")
    shutil.rmtree(path, ignore_errors=True)
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    plugin = rosbag2.StoragePlugin.MCAP if sample.storage == "mcap" else rosbag2.StoragePlugin.SQLITE3
    writer = rosbag2.Writer(path, version=9, storage_plugin=plugin)
    if sample.compression:
        writer.set_compression(rosbag2.CompressionMode.STORAGE, rosbag2.CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for time, topic, message in _messages(sample, store.types):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], time, store.serialize_cdr(message, kind))
    return path


def _messages(sample: SampleBag, types: Any) -> Iterator[tuple[int, str, Any]]:
    """(log time, topic, message) in order."""
    header, stamp = types["std_msgs/msg/Header"], types["builtin_interfaces/msg/Time"]
    text, number = types["std_msgs/msg/String"], types["std_msgs/msg/Float64"]
    joint_state = types["sensor_msgs/msg/JointState"]
    period = 1e9 / sample.rate
    count = round(sample.episodes * (sample.seconds + 1) * sample.rate)
    drawn = [_image(sample, types, i) for i in range(min(count, 16))]  # pictures repeat; only the number is drawn anew

    def at(nanoseconds: int) -> Any:
        return header(stamp=stamp(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9), frame_id="camera")

    events: list[tuple[int, int, str, Any]] = []
    for i in range(count):
        events.append((START + round(i * period), 2, sample.camera, i))
    for i in range(round(count / sample.rate * 100)):
        events.append((START + i * 10**7, 1, "/joint_states", None))
        events.append((START + i * 10**7 + 2_000_000, 1, "/joint_commands", None))
    for e in range(sample.episodes):
        begin = START + round(e * (sample.seconds + 1) * 1e9)
        end = begin + round(sample.seconds * 1e9)
        events.append((begin - LATENCY - 2, 0, "/instruction", text(data=f"task {e}")))
        events.append((begin - LATENCY - 1, 0, "/gripper/command", number(data=1.0)))
        events.append((begin - LATENCY - 1, 0, "/episode", text(data="start")))
        events.append(((begin + end) // 2 - LATENCY, 0, "/gripper/command", number(data=-1.0)))
        events.append((end - LATENCY - 1, 0, "/episode", text(data="failure" if e % 2 else "success")))
    for time, _, topic, content in sorted(events, key=lambda event: event[:3]):
        if topic == sample.camera:
            content = drawn[content % len(drawn)](at(time), content)
        elif content is None:
            values = joints((time - START) / 1e9)
            empty = np.zeros(0)
            content = joint_state(header=at(time), name=list(JOINTS), position=values, velocity=empty, effort=empty)
        yield time + LATENCY, topic, content


def _image(sample: SampleBag, types: Any, number: int) -> Any:
    """A function of header and number that makes the message of a picture."""
    height, width = sample.height, sample.width
    image = picture(number, height, width)
    top = max(1, height // 16)

    def make(header: Any, shown: int) -> Any:
        image[:top] = picture(shown, top, width)[:1]
        if sample.transport == "raw":
            return types["sensor_msgs/msg/Image"](
                header=header,
                height=height,
                width=width,
                encoding="rgb8",
                is_bigendian=0,
                step=3 * width,
                data=image.reshape(-1),
            )
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
        data = np.frombuffer(buffer.getvalue(), np.uint8)
        return types["sensor_msgs/msg/CompressedImage"](header=header, format="jpeg", data=data)

    return make
