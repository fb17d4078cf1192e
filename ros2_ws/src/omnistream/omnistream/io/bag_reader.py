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
    """An open bag; a context manager. InputError names the file that is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rosbag2 = need("rosbags.rosbag2", "io", "reading bags")
        typesys = need("rosbags.typesys", "io", "reading bags")
        files = [path]
        if path.is_dir() and not (path / "metadata.yaml").is_file():
            files = _storage_files(path)  # a recorder that was killed leaves its files without the table of contents
        self._ros1 = files[0].suffix.lower() == ".bag"
        if self._ros1:
            rosbag1 = need("rosbags.rosbag1", "io", "reading bags")
            self._types: Any = typesys.get_typestore(typesys.Stores.ROS1_NOETIC)
            make: Callable[[Path], Any] = rosbag1.Reader
        else:
            self._types = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
            make = rosbag2.Reader
        self._serde_error: type[Exception] = need("rosbags.serde", "io", "reading bags").SerdeError
        self._readers: list[Any] = []
        try:
            for file in files:
                try:
                    reader = make(file)
                    reader.open()
                except Exception as error:  # damage shows as errors of rosbags, struct, apsw, lz4, zstd, yaml, ...
                    raise InputError(_cannot_read(file, error)) from error
                self._readers.append(reader)
        except InputError:
            self.close()
            raise
        self._readers.sort(key=lambda reader: reader.start_time)

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
            connections = [connection for connection in reader.connections if connection.topic in names]
            if not connections:
                continue
            messages = reader.messages(connections=connections)
            while True:
                try:
                    item = next(messages, None)
                except Exception as error:  # see above
                    raise InputError(_cannot_read(reader.path, error)) from error
                if item is None:
                    break
                connection, log_time, data = item
                yield Topic(connection.topic, connection.msgtype, connection.msgcount), log_time, data

    def decode(self, topic: Topic, data: bytes) -> Any:
        """The message as an object with the fields of its definition. InputError if bytes are missing or wrong."""
        try:
            decode = self._types.deserialize_ros1 if self._ros1 else self._types.deserialize_cdr
            return decode(data, topic.type)
        except (*DAMAGED, self._serde_error) as error:
            reason = f"{type(error).__name__} {error}".strip()
            raise InputError(f"{self.path}: a message on {topic.name} ({topic.type}) is damaged: {reason}") from error


def _cannot_read(path: Path, error: Exception) -> str:
    advice = "; `mcap recover` may help if it was cut off" if path.suffix == ".mcap" else ""
    return f"{path}: bag cannot be read: {str(error) or type(error).__name__}{advice}"
