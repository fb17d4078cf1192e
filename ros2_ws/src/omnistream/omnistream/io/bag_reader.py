# SPDX-License-Identifier: Apache-2.0
"""ROS bags without ROS: rosbag2 (mcap and sqlite3, a folder or one bare file) and ROS 1 .bag, through `rosbags`.

Only the messages that are asked for are decoded, with the standard definitions; a bag full of a robot's own message
types is no obstacle.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from omnistream.errors import InputError
from omnistream.io.bag_salvage import SalvagedMcap, SalvagedSqlite, open_damaged
from omnistream.io.extras import need

STORAGE_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})

DAMAGED = (ValueError, struct.error, IndexError, AssertionError, KeyError, OverflowError, MemoryError)
"""What decoding a message with missing bytes raises."""


def is_bag(path: Path) -> bool:
    """Whether `path` is a bag file or a folder of one."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_storage_files(path))
    return path.suffix.lower() in STORAGE_SUFFIXES


def _storage_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in STORAGE_SUFFIXES)


MORE_TYPES = {
    "control_msgs/msg/GripperCommand": "float64 position\nfloat64 max_effort\n",
    "omnistream_msgs/msg/FeatureMap": "std_msgs/Header header\nuint32 grid_height\nuint32 grid_width\nuint32 dim\n"
    "string dtype\nstring layer\nstring layout\nstring model_hash\nuint8[] data\nuint8[] cls\nstring policy\n"
    "uint64 frames_seen\n",
}
"""Definitions that the standard store lacks. Those inside a bag are not used: they would be turned into code."""


@dataclass(frozen=True)
class Topic:
    """One line of a bag's table of contents."""

    name: str
    type: str
    """As in sensor_msgs/msg/Image."""
    count: int


def topic_table(topics: Collection[Topic]) -> str:
    """Name, type and number of messages of each topic, aligned, one per line."""
    names = max((len(topic.name) for topic in topics), default=0)
    types = max((len(topic.type) for topic in topics), default=0)
    return "\n".join(f"  {topic.name:<{names}}  {topic.type:<{types}}  {topic.count:>7}" for topic in topics)


class BagReader:
    """An open bag; a context manager. InputError names the file that is damaged.

    salvage: read what is left of damaged files instead (`omnistream.io.bag_salvage`); `lost` says what is missing.
    """

    def __init__(self, path: Path, *, salvage: bool = False) -> None:
        self.path = path
        self.lost: list[str] = []
        self._salvage = salvage
        rosbag2 = need("rosbags.rosbag2", "io", "reading bags")
        typesys = need("rosbags.typesys", "io", "reading bags")
        files = [path]
        if path.is_dir() and not (path / "metadata.yaml").is_file():
            files = _storage_files(path)  # a recorder that was killed leaves its files without the table of contents
        self.ros1 = files[0].suffix.lower() == ".bag"
        if self.ros1:
            rosbag1 = need("rosbags.rosbag1", "io", "reading bags")
            self._types: Any = typesys.get_typestore(typesys.Stores.ROS1_NOETIC)
            make: Callable[[Path], Any] = rosbag1.Reader
        else:
            self._types = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
            for name, definition in MORE_TYPES.items():
                self._types.register(typesys.get_types_from_msg(definition, name))
            make = rosbag2.Reader
        self._serde_error: type[Exception] = need("rosbags.serde", "io", "reading bags").SerdeError
        self._readers: list[Any] = []
        try:
            self._open(files, make)
            if not self._readers:
                raise InputError("\n".join(self.lost) or f"{path}: no bag in this folder")
        except InputError:
            self.close()
            raise
        self._readers.sort(key=lambda reader: reader.start_time)

    def _open(self, files: list[Path], make: Callable[[Path], Any]) -> None:
        for file in files:
            try:
                reader = make(file)
                reader.open()
            except Exception as error:  # damage shows as errors of rosbags, struct, apsw, lz4, zstd, yaml, ...
                if not self._salvage or self.ros1:
                    raise InputError(_cannot_read(file, error)) from error
                if file.is_dir():
                    self.lost.append(_cannot_read(file, error))
                    self._open(_storage_files(file), make)
                    continue
                reader = self._damaged(file, error)
            if reader is not None:
                self._readers.append(reader)

    def _damaged(self, file: Path, error: Exception) -> Any:
        """A reader for what is left of a file, or None; what is lost is noted."""
        self.lost.append(_cannot_read(file, error))
        try:
            reader = open_damaged(file)
        except (InputError, OSError) as reason:
            self.lost.append(str(reason))
            return None
        self.lost += [f"{file}: lost: {line}" for line in reader.lost]
        return reader

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        while self._readers:
            self._readers.pop().close()

    @property
    def topics(self) -> list[Topic]:
        """All topics by name; messages of split files are added up."""
        counts: dict[tuple[str, str], int] = {}
        for reader in self._readers:
            for connection in reader.connections:
                key = (connection.topic, connection.msgtype)
                counts[key] = counts.get(key, 0) + connection.msgcount
        return [Topic(name, type_, count) for (name, type_), count in sorted(counts.items())]

    def raw_messages(self, names: Collection[str]) -> Iterator[tuple[Topic, int, bytes]]:
        """(topic, log time in ns, serialised message) of the named topics, in the order of the log."""
        for reader in self._readers:
            yield from self._messages(reader, names)

    def _messages(self, reader: Any, names: Collection[str]) -> Iterator[tuple[Topic, int, bytes]]:
        connections = [connection for connection in reader.connections if connection.topic in names]
        if not connections:
            return
        messages = reader.messages(connections=connections)
        seen: dict[str, int] = {}
        while True:
            try:
                item = next(messages, None)
            except Exception as error:  # see above
                if not self._salvage or isinstance(reader, SalvagedMcap | SalvagedSqlite):
                    raise InputError(_cannot_read(reader.path, error)) from error
                break
            if item is None:
                return
            connection, log_time, data = item
            seen[connection.topic] = seen.get(connection.topic, 0) + 1
            yield Topic(connection.topic, connection.msgtype, connection.msgcount), log_time, data
        for file in _storage_files(reader.path) if reader.path.is_dir() else [reader.path]:
            rest = self._damaged(file, ValueError("damaged further on"))
            if rest is None:
                continue
            for topic, log_time, data in self._messages(rest, names):
                if seen.get(topic.name, 0) > 0:  # these were read before the damage showed
                    seen[topic.name] -= 1
                else:
                    yield topic, log_time, data
            rest.close()

    def decode(self, topic: Topic, data: bytes) -> Any:
        """The message as an object with the fields of its definition. InputError if bytes are missing or wrong."""
        try:
            decode = self._types.deserialize_ros1 if self.ros1 else self._types.deserialize_cdr
            return decode(data, topic.type)
        except (*DAMAGED, self._serde_error) as error:
            reason = f"{type(error).__name__} {error}".strip()
            raise InputError(f"{self.path}: a message on {topic.name} ({topic.type}) is damaged: {reason}") from error


def _cannot_read(path: Path, error: Exception) -> str:
    advice = "; `mcap recover` may help if it was cut off" if path.suffix == ".mcap" else ""
    return f"{path}: bag cannot be read: {str(error) or type(error).__name__}{advice}"
