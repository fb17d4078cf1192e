# SPDX-License-Identifier: Apache-2.0
"""A bag as steps of episodes, in one pass and bounded memory: messages are aligned as the robot's node aligns them."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ContractError, InputError
from omnistream.io.bag import COMPRESSED, RAW
from omnistream.io.bag_reader import BagReader, Topic, topic_table
from omnistream.io.pixels import decode_compressed, decode_image
from omnistream.sync import ActionPairer, Aligner, Begin, Cutter, End, Gap, Mapping, Observation, Step, read_fields
from omnistream.sync.assemble import action_vector, fit_picture, state_vector
from omnistream.sync.fields import read_text
from omnistream.sync.mapping import CameraTopic
from omnistream_training.robot_data.topic_meter import TopicMeter

STAMPED = frozenset(
    {RAW, COMPRESSED, "sensor_msgs/msg/JointState", "nav_msgs/msg/Odometry", "trajectory_msgs/msg/JointTrajectory"}
    | {f"geometry_msgs/msg/{name}Stamped" for name in ("Pose", "PoseWithCovariance", "Twist", "TwistWithCovariance")}
)
"""Types that begin with a header, whose stamp is read without decoding the rest."""
CLOCKS_APART = 1.0
"""Seconds between stamps and log from which messages without a stamp cannot be placed, and by which the stamps of a
topic may leap ahead of its log."""
FASTEST = 10.0
"""Times faster than the log that stamps may run: simulations do."""


@dataclass(frozen=True, eq=False)
class BagStep:
    """One control period; pictures are decoded when asked for."""

    stamp: float
    """Seconds."""
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    ages: dict[str, float]
    """Seconds between each stream's value and the tick."""
    _pictures: dict[str, tuple[Topic, bytes]]
    _bag: BagReader

    def picture(self, camera: CameraTopic) -> NDArray[np.uint8]:
        """u8 [H, W, 3], at the mapping's size. InputError if it cannot be decoded."""
        topic, data = self._pictures[camera.topic]
        message = self._bag.decode(topic, data)
        if topic.type == COMPRESSED:
            image = decode_compressed(message.data, message.format)
        else:
            image = decode_image(
                message.encoding, message.height, message.width, message.step, message.data, message.is_bigendian
            )
        if camera.height is None or camera.width is None:
            return image
        return fit_picture(image, camera.height, camera.width)


class BagSteps:
    """Iterates a bag: Begin, steps, End, ... What was seen and lost is in the other members afterwards.

    Raises InputError if topics of the mapping are missing or of a type that does not fit; ContractError if stamps and
    log are different clocks and messages without a stamp are needed.
    """

    def __init__(self, path: Path, mapping: Mapping) -> None:
        self.path, self.mapping = path, mapping
        self.topics: dict[str, TopicMeter] = {}
        self.gaps: Counter[str] = Counter()
        """Ticks without a step, by reason."""
        self.ticks = 0
        self.ages: dict[str, list[float]] = {}
        """Per stream: sum, maximum and number of ages at ticks, s."""
        self.lost: list[str] = []
        self._aligner = Aligner(mapping.streams(), mapping.cameras[0].topic, mapping.period, _ns(mapping.patience))
        self._pairer = ActionPairer(
            mapping.commands(),
            mapping.period,
            wants_next=bool(mapping.action.from_state),
            is_gap=self._aligner.is_gap,
            patience=_ns(mapping.patience),
        )
        self._cutter = Cutter(
            marked=mapping.episodes.topic is not None,
            instruction=mapping.instruction.text,
            is_gap=self._aligner.is_gap,
        )
        self._offset: float | None = None
        self._doubted: dict[str, tuple[int, int]] = {}
        """Topic -> stamp and arrival of a message from the future, until the next one of that topic."""

    def __iter__(self) -> Iterator[Begin | BagStep | End]:
        with BagReader(self.path, salvage=True) as bag:
            self._check_topics(bag)
            for topic, arrival, data in bag.raw_messages(self.mapping.topics()):
                for item in self._take(bag, topic, arrival, data):
                    yield from self._out(bag, item)
            for observed in self._aligner.flush():
                for item in self._observe(observed):
                    yield from self._out(bag, item)
            for item in self._pairer.flush():
                yield from self._out(bag, item)
            for last in self._cutter.flush():
                assert not isinstance(last, Step)
                yield last
            self.lost += bag.lost

    # -------------------------------------------------------------------------------------------- messages

    def _take(self, bag: BagReader, topic: Topic, arrival: int, data: bytes) -> Iterator[Step | Gap]:
        meter = self.topics.setdefault(topic.name, TopicMeter(topic.name, topic.type))
        message: Any = None
        try:
            if not self._is_camera(topic.name):
                message = bag.decode(topic, data)
            stamp = self._stamp(bag, topic, arrival, data, message, meter)
            self._doubt(topic.name, stamp, arrival, meter)
        except InputError as error:
            meter.refuse(error, damaged=True)
            return
        meter.add(stamp, arrival, len(data))
        yield from self._pairer.poll(arrival)
        yield from self._commands(topic.name, stamp, message, meter)
        for stream, value in self._values(topic, data, message, meter):
            for observed in self._aligner.add(stream, stamp, value, arrival):
                yield from self._observe(observed)

    def _observe(self, observed: Observation | Gap) -> Iterator[Step | Gap]:
        self.ticks += 1
        if isinstance(observed, Observation):
            for name, age in observed.ages.items():
                total = self.ages.setdefault(name, [0.0, 0.0, 0.0])
                self.ages[name] = [total[0] + age / 1e9, max(total[1], age / 1e9), total[2] + 1]
        yield from self._pairer.observe(observed)

    def _values(self, topic: Topic, data: bytes, message: Any, meter: TopicMeter) -> Iterable[tuple[str, Any]]:
        """(stream, value) of a message that observations need."""
        if message is None:
            yield topic.name, (topic, data)
            return
        for i, part in enumerate(self.mapping.state):
            if part.topic == topic.name:
                try:
                    yield self.mapping.stream_name(i), read_fields(message, part.fields, part.quantity)
                except InputError as error:
                    meter.refuse(error, damaged=False)

    def _commands(self, topic: str, stamp: int, message: Any, meter: TopicMeter) -> Iterator[Step | Gap]:
        if message is None:
            return
        try:
            if topic == self.mapping.instruction.topic:
                self._cutter.instruct(stamp, read_text(message))
            if topic == self.mapping.episodes.topic:
                self._cutter.mark(stamp, read_text(message))
        except InputError as error:
            meter.refuse(error, damaged=False)
        for i, part in enumerate(self.mapping.action.parts):
            if part.topic == topic:
                try:
                    values = read_fields(message, part.fields, part.quantity)
                except InputError as error:
                    meter.refuse(error, damaged=False)
                    continue
                yield from self._pairer.command(str(i), stamp, values)

    def _stamp(self, bag: BagReader, topic: Topic, arrival: int, data: bytes, message: Any, meter: TopicMeter) -> int:
        """ns; the header's or the log's, as the mapping says."""
        if self.mapping.clock == "log":
            return arrival
        stamp = 0
        if topic.type in STAMPED:
            stamp = _header_stamp(bag, topic, data)
            if stamp == 0:
                meter.unstamped += 1
            elif self._offset is None:
                self._offset = (arrival - stamp) / 1e9
        if stamp == 0 and self._offset is not None and abs(self._offset) > CLOCKS_APART:
            raise ContractError(
                f"{self.path}: a message on {topic.name} has no stamp, and the log runs {self._offset:.3f} s apart "
                "from the stamps of other topics; say `clock: log` in the mapping"
            )
        return stamp or arrival

    def _doubt(self, topic: str, stamp: int, arrival: int, meter: TopicMeter) -> None:
        """InputError for a stamp that leaps into the future: believed, it would make everything after it seem late. Two
        that agree are a clock that was set.
        """
        before = self._doubted.pop(topic, None)
        if meter.newest is None or (before is not None and not _leaps(before, (stamp, arrival))):
            return
        if _leaps(meter.newest, (stamp, arrival)):
            self._doubted[topic] = (stamp, arrival)
            ahead = (stamp - meter.newest[0] - (arrival - meter.newest[1])) / 1e9
            raise InputError(f"{self.path}: a message on {topic} has a stamp that leaps {ahead:.3f} s into the future")

    def _is_camera(self, topic: str) -> bool:
        return any(camera.topic == topic for camera in self.mapping.cameras)

    # -------------------------------------------------------------------------------------------- steps

    def _out(self, bag: BagReader, item: Step | Gap) -> Iterator[Begin | BagStep | End]:
        if isinstance(item, Gap):
            self.gaps[_without_numbers(item.reason)] += 1
        for cut in self._cutter.take(item):
            yield self._step(bag, cut) if isinstance(cut, Step) else cut

    def _step(self, bag: BagReader, step: Step) -> BagStep:
        seen = step.observation
        return BagStep(
            stamp=seen.stamp / 1e9,
            state=state_vector(self.mapping, seen),
            action=action_vector(self.mapping, step),
            ages={name: age / 1e9 for name, age in seen.ages.items()},
            _pictures={camera.topic: seen.values[camera.topic] for camera in self.mapping.cameras},
            _bag=bag,
        )

    def _check_topics(self, bag: BagReader) -> None:
        there = {topic.name: topic.type for topic in bag.topics if topic.count}
        optional = (self.mapping.instruction.topic,)
        missing = [name for name in self.mapping.topics() if name not in there and name not in optional]
        if missing:
            raise InputError(
                f"{self.path}: no messages on {', '.join(missing)}, which the mapping asks for. The bag has:\n"
                f"{topic_table(bag.topics)}"
            )
        for camera in self.mapping.cameras:
            if there[camera.topic] not in (RAW, COMPRESSED):
                raise InputError(
                    f"{self.path}: camera {camera.name!r}: {camera.topic} is {there[camera.topic]}; "
                    f"expected {RAW} or {COMPRESSED}"
                )


def _header_stamp(bag: BagReader, topic: Topic, data: bytes) -> int:
    """ns of a message that begins with a header; CDR: 4 bytes of encapsulation, then seconds and nanoseconds."""
    if bag.ros1:
        stamp = bag.decode(topic, data).header.stamp
        return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
    if len(data) < 12:
        raise InputError(f"{bag.path}: a message on {topic.name} has {len(data)} bytes; a header has 12 at least")
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    if seconds < 0 or nanoseconds >= 1_000_000_000:
        raise InputError(f"{bag.path}: a message on {topic.name} is stamped {seconds} s {nanoseconds} ns")
    return seconds * 1_000_000_000 + nanoseconds


def _leaps(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether the stamp runs ahead from one message to the next, each (stamp, arrival) in ns."""
    elapsed = max(0, after[1] - before[1])
    return after[0] - before[0] > max(elapsed + _ns(CLOCKS_APART), round(FASTEST * elapsed))


def _without_numbers(reason: str) -> str:
    """Ages differ from tick to tick; the sentence up to them is what is counted."""
    return reason.partition(" is ")[0] + " is too old" if " s old; at most" in reason else reason


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
