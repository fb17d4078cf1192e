# SPDX-License-Identifier: Apache-2.0
"""Episode recorder node: the topics of a mapping into one mcap bag per episode, begun and ended by services.

    omnistream-up recorder --ros-args -p mapping:=robot.yaml -p directory:=bags

Services (std_srvs/Trigger): ~/start, then one of ~/success, ~/failure, ~/stop (nobody knows), ~/discard (the bag is
removed). Instructions come on the mapping's topic, or by the parameter `instruction`. Messages are written as they
arrive, undecoded. What was said last on each topic before the start is written too: a gripper's command still holds.
The bags are what `omnistream-data import` reads with the same mapping.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from std_msgs.msg import String
from std_srvs.srv import Trigger

from omnistream.errors import ContractError, InputError
from omnistream.io.bag_writer import BagWriter, is_known, message_types
from omnistream.sync.cutter import DISCARD, FAILURE, START, STOP, SUCCESS, WORDS
from omnistream.sync.mapping import load_mapping_file
from omnistream_ros.diagnostics import Diagnostics, Level, Report
from omnistream_ros.parameters import Effect, Parameters, ParameterSpec, help_text
from omnistream_ros.running import run

TEXT = "std_msgs/msg/String"
QUEUE = 50
DISCOVERY_S = 0.25
SILENT_S = 1.0
"""A camera or a state that has said nothing for so long keeps an episode from starting, and is a warning during one."""

PARAMETERS = (
    ParameterSpec("mapping", "", "YAML file that says which topics mean what.", effect=Effect.START),
    ParameterSpec("directory", "episodes", "Folder that gets one bag per episode.", effect=Effect.START),
    ParameterSpec("instruction", "", "Instruction of the next episodes, until one comes on the mapping's topic."),
    ParameterSpec("minimum_free", 1.0, "An episode is stopped when less disk is free.", unit="GB", minimum=0.0),
)


@dataclass
class _Topic:
    """One topic of the mapping."""

    name: str
    streams: bool
    """Cameras and states: they must talk all the time."""
    keep: bool
    """Whether its last message is written at the start of an episode."""
    type: str = ""
    last: bytes | None = None
    heard: float = 0.0
    """Steady seconds of the last message; 0: none yet."""
    count: int = 0


class EpisodeRecorder(Node):
    """See the module.

    Raises:
        OmniStreamError: the mapping cannot be read or has no topic for episodes, or a parameter is refused.
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__("recorder", **keywords)
        self.parameters = p = Parameters(self, PARAMETERS)
        for sentence in p.undeclared():
            self.get_logger().warning(sentence)
        if not p["mapping"]:
            raise InputError("`mapping` is empty; give the YAML file of your robot: -p mapping:=FILE")
        self._mapping = load_mapping_file(Path(p["mapping"]).expanduser())
        if self._mapping.episodes.topic is None:
            raise ContractError(f"{p['mapping']}: episodes has no topic; the marks of episodes are recorded on it")
        self._marks = self._mapping.episodes.topic
        self._directory = Path(p["directory"]).expanduser()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._types = message_types()
        self._bag: BagWriter | None = None
        self._begun = 0.0
        self.episodes = 0
        """Episodes kept since the node started."""
        cameras = {camera.topic for camera in self._mapping.cameras}
        streams = cameras | {part.topic for part in self._mapping.state}
        self._topics = {
            name: _Topic(name, streams=name in streams, keep=name not in cameras)
            for name in self._mapping.topics()
            if name != self._marks
        }
        for word in WORDS:
            self.create_service(Trigger, f"~/{word}", partial(self._on_service, word))
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(DISCOVERY_S, self._look_around, clock=steady)
        self._diagnostics = Diagnostics(self, hardware_id="episodes")
        self._diagnostics.add("recording", self.report)
        self.get_logger().info(f"waiting for ~/{START}; {len(self._topics)} topics, bags go to {self._directory}")

    def stop(self) -> None:
        """Before the process ends: an open episode is kept, with nothing said of its success."""
        if self._bag is not None:
            self.get_logger().info(self._end(STOP))

    def report(self) -> Report:
        """For /diagnostics."""
        silent = [topic.name for topic in self._topics.values() if topic.streams and self._is_silent(topic)]
        findings = [(Level.WARN, f"nothing on {name}") for name in silent]
        if self._bag is None:
            return Report.worst(findings, "waiting for ~/start", episodes=self.episodes)
        seconds, size = time.monotonic() - self._begun, self._bag.bytes / 1e6
        return Report.worst(
            findings, "recording", episodes=self.episodes, seconds=seconds, megabytes=size, bag=self._bag.path
        )

    # ---------------------------------------------------------------- topics

    def _look_around(self) -> None:
        """Subscribes to topics that somebody has begun to publish, and minds the disk."""
        for topic in self._topics.values():
            if not topic.type:
                self._subscribe(topic)
        if self._bag is not None:
            free = shutil.disk_usage(self._directory).free / 1e9
            if free < self.parameters["minimum_free"]:
                self.get_logger().error(f"only {free:.2f} GB are free: {self._end(STOP)}")

    def _subscribe(self, topic: _Topic) -> None:
        publishers = self.get_publishers_info_by_topic(self.resolve_topic_name(topic.name))
        if not publishers:
            return
        topic.type = publishers[0].topic_type
        if not is_known(self._types, topic.type):
            self.get_logger().error(f"{topic.name}: type {topic.type} is not recorded: its definition is not known")
            return
        package, _, name = topic.type.split("/")
        try:
            kind = getattr(importlib.import_module(f"{package}.msg"), name)
        except (ImportError, AttributeError) as error:
            self.get_logger().error(f"{topic.name}: messages of type {topic.type} are not installed here: {error}")
            return
        profiles = [publisher.qos_profile for publisher in publishers]
        qos = QoSProfile(
            depth=QUEUE,
            reliability=_common(profiles, "reliability", ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT),
            durability=_common(profiles, "durability", DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE),
        )
        self.create_subscription(kind, topic.name, partial(self._receive, topic), qos, raw=True)

    def _receive(self, topic: _Topic, data: bytes) -> None:
        topic.heard = time.monotonic()
        topic.count += 1
        if topic.keep:
            topic.last = data
        if self._bag is not None:
            self._write(topic.name, topic.type, data)

    def _write(self, topic: str, type_: str, data: bytes, before: int = 0) -> None:
        assert self._bag is not None
        self._bag.write(topic, type_, self.get_clock().now().nanoseconds - before, data)

    def _is_silent(self, topic: _Topic) -> bool:
        return time.monotonic() - topic.heard > SILENT_S

    # ---------------------------------------------------------------- services

    def _on_service(self, word: str, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message = self._start() if word == START else self._end(word)
            response.success = True
        except (InputError, OSError) as error:
            response.message = str(error)
        if response.success:
            self.get_logger().info(response.message)
        else:
            self.get_logger().warning(response.message)
        return response

    def _start(self) -> str:
        if self._bag is not None:
            raise InputError(f"{self._bag.path.name} is being recorded; end it first: ~/{', ~/'.join(WORDS[1:])}")
        silent = [topic.name for topic in self._topics.values() if topic.streams and self._is_silent(topic)]
        if silent:
            raise InputError(f"not started: nothing on {', '.join(silent)} in the last {SILENT_S:g} s")
        now = datetime.now(UTC)
        self._bag = BagWriter(self._directory / f"episode_{now:%Y%m%d_%H%M%S}_{now.microsecond // 1000:03d}")
        self._begun = time.monotonic()
        instruction = self._topics.get(self._mapping.instruction.topic or "")
        for topic in self._topics.values():
            if topic.last is not None:
                self._write(topic.name, topic.type, topic.last, before=1000)
        if instruction is not None and instruction.last is None and self.parameters["instruction"]:
            self._write(instruction.name, TEXT, _text(self.parameters["instruction"]))
        self._write(self._marks, TEXT, _text(START))
        return f"recording {self._bag.path}"

    def _end(self, word: str) -> str:
        if self._bag is None:
            raise InputError(f"nothing is being recorded; ~/{word} ends what ~/start began")
        bag, seconds = self._bag, time.monotonic() - self._begun
        if word == DISCARD:
            self._bag = None
            bag.discard()
            return f"discarded {bag.path.name} after {seconds:.1f} s"
        assert word in (SUCCESS, FAILURE, STOP)
        self._write(self._marks, TEXT, _text(word))
        self._bag = None
        bag.close()
        self.episodes += 1
        empty = [name for name in self._topics if name not in bag.counts and name != self._mapping.instruction.topic]
        missing = f"; NOTHING was recorded on {', '.join(empty)}" if empty else ""
        return f"{bag.path}: {word}, {seconds:.1f} s, {sum(bag.counts.values())} messages{missing}"


def _common(profiles: Sequence[QoSProfile], name: str, strong: Any, weak: Any) -> Any:
    """The stronger policy where all publishers offer it: a weaker offer would not be connected to."""
    return strong if all(getattr(profile, name) == strong for profile in profiles) else weak


def _text(words: str) -> bytes:
    return serialize_message(String(data=words))


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node; 0 after a signal, 2 when the mapping or a parameter was refused."""
    return run(EpisodeRecorder, args, help_text=help_text(__doc__ or "", PARAMETERS))


if __name__ == "__main__":
    sys.exit(main())
