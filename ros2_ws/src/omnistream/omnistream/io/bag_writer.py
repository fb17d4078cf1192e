# SPDX-License-Identifier: Apache-2.0
"""Writes rosbag2 (mcap) message by message, as they are serialised. What a killed process leaves can be read again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from omnistream.errors import InputError
from omnistream.io.bag_reader import MORE_TYPES
from omnistream.io.extras import need


class BagWriter:
    """A new bag in the folder `path`. InputError if it exists already."""

    def __init__(self, path: Path) -> None:
        rosbag2: Any = need("rosbags.rosbag2", "io", "writing bags")
        self.path = path
        self._types = message_types()
        if path.exists():
            raise InputError(f"{path} exists already; choose another name")
        self._writer = rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP)
        self._writer.open()
        self._connections: dict[tuple[str, str], Any] = {}
        self.counts: dict[str, int] = {}
        """Messages by topic."""
        self.bytes = 0

    def write(self, topic: str, type_: str, log_time: int, data: bytes) -> None:
        """Append a CDR message. type_: as in sensor_msgs/msg/Image; log_time in ns. InputError for an unknown type."""
        key = (topic, type_)
        if key not in self._connections:
            if not is_known(self._types, type_):
                raise InputError(f"{topic}: messages of type {type_} cannot be recorded: no definition of it is known")
            self._connections[key] = self._writer.add_connection(topic, type_, typestore=self._types)
        self._writer.write(self._connections[key], log_time, data)
        self.counts[topic] = self.counts.get(topic, 0) + 1
        self.bytes += len(data)

    def close(self) -> None:
        """Finish the bag."""
        self._writer.close()

    def discard(self) -> None:
        """Remove the bag."""
        self._writer.close()
        shutil.rmtree(self.path)


def message_types() -> Any:
    """The definitions of ROS 2's standard messages, and `MORE_TYPES`."""
    typesys: Any = need("rosbags.typesys", "io", "writing bags")
    types = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    for name, definition in MORE_TYPES.items():
        types.register(typesys.get_types_from_msg(definition, name))
    return types


def is_known(types: Any, type_: str) -> bool:
    """Whether messages of a type can be written."""
    return type_ in types.fielddefs
