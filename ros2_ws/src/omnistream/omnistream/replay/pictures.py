# SPDX-License-Identifier: Apache-2.0
"""The messages of a bag by topic and stamp, in about the order in which a run used them. Little of it is in memory."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from omnistream.errors import InputError, OptionError
from omnistream.io.bag_reader import BagReader, Topic, topic_table
from omnistream.policy.intake import checksum

IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
PICTURES = ("sensor_msgs/msg/Image", "omnistream_msgs/msg/FeatureMap")
"""What a policy node reads."""

Key = tuple[str, int]
"""Topic, and the header's stamp in ns."""


def check_topics(bag: BagReader, names: Collection[str], types: Collection[str]) -> None:
    """OptionError with the topics that the bag has, unless all `names` are there with one of `types`."""
    found = {topic.name: topic.type for topic in bag.topics if topic.count}
    table = topic_table(bag.topics) if bag.topics else "  (no topics at all)"
    for name in names:
        if name not in found:
            raise OptionError(f"{bag.path}: nothing on {name}. The bag has:\n{table}")
        if found[name] not in types:
            raise OptionError(f"{bag.path}: {name} is {found[name]}; expected {' or '.join(types)}")


def header_stamp(data: bytes) -> int:
    """ns; of a serialised message (CDR) that begins with a header. InputError if it is too short for one."""
    if len(data) < 12:
        raise InputError(f"a message has {len(data)} bytes; expected a header")
    sec, nanosec = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


class BagPictures:
    """Those pictures of a bag that are asked for. A context manager.

    Args:
        path: of the bag; what is left of a damaged one is read, and `lost` says what is missing.
        topics: to read.
        wanted: keys that will be asked for, as often as they will be, about in the order of the bag.
        types: that the topics may have.

    Raises OptionError, with the topics that there are, for a bag of something else.
    """

    def __init__(
        self, path: Path, topics: Collection[str], wanted: Collection[Key], types: Collection[str] = PICTURES
    ) -> None:
        self._bag = BagReader(path, salvage=True)
        try:
            check_topics(self._bag, topics, types)
            self.lost = list(dict.fromkeys(self._bag.lost))
            """Sentences."""
            self._wanted = Counter(wanted)
            self._left = dict.fromkeys(topics, 0)
            present: Counter[Key] = Counter()
            for topic, _, data in self._bag.raw_messages(topics):
                self._left[topic.name] += 1
                if len(data) >= 12:
                    present[topic.name, header_stamp(data)] += 1
            self.lost = list(dict.fromkeys(self._bag.lost))
        except InputError:
            self._bag.close()
            raise
        self.counts = dict(self._left)
        """Messages by topic."""
        self.missing = sorted(self._wanted.keys() - present.keys(), key=lambda key: key[1])
        """Keys that the bag does not have."""
        self._unread = present
        self._buffer: dict[Key, list[Any]] = {}
        self._messages = self._read(topics)

    def __enter__(self) -> BagPictures:
        return self

    def __exit__(self, *_: object) -> None:
        self._bag.close()

    def find(self, topic: str, stamp: int, crc: int) -> Any:
        """The message; None where the bag has none with that stamp, or none with these bytes."""
        key = (topic, stamp)
        while not (match := [m for m in self._buffer.get(key, ()) if checksum(m) == crc]):
            if not self._unread[key] or not self._advance():
                return None
        self._wanted[key] -= 1
        if not self._wanted[key]:
            del self._buffer[key]
        return match[0]

    def _advance(self) -> bool:
        """Reads the next message that is wanted, if it can be read; False at the end."""
        for key, topic, data in self._messages:
            self._unread[key] -= 1
            try:
                message = self._bag.decode(topic, data)
            except InputError as error:
                self.lost.append(str(error))
            else:
                self._buffer.setdefault(key, []).append(message)
            return True
        return False

    def _read(self, topics: Collection[str]) -> Iterator[tuple[Key, Topic, bytes]]:
        for topic, _, data in self._bag.raw_messages(topics):
            if len(data) >= 12 and (key := (topic.name, header_stamp(data))) in self._wanted:
                yield key, topic, data
