# SPDX-License-Identifier: Apache-2.0
"""Replay of a bag that has no run log: the node as it would be if nothing ever came late.

Time is that of the stamps. A message arrives at its stamp; those without one (instruction, e-stop, a position whose
stamp is zero) with the last picture before them in the bag. An inference takes `latency`, always. The robot is started
with the first observation, control ticks follow a period apart, nobody else publishes. So a run depends on the bag and
the settings alone. What a service did live (start, stop, reset, clear) is not in a bag.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnistream.errors import ConfigError, InputError, OptionError
from omnistream.io.bag_reader import BagReader
from omnistream.policy.chunks import should_ask
from omnistream.policy.drive import Drive
from omnistream.policy.guard import Facts, Mode, Stop
from omnistream.policy.intake import Intake, camera_topics, stamp_of
from omnistream.policy.mind import Mind, Thought
from omnistream.policy.settings import DEFAULTS, JOINTS
from omnistream.replay.pictures import PICTURES, check_topics
from omnistream.replay.track import Track
from omnistream.sync.aligner import Observation

LONGEST_PAUSE = 10.0
"""Seconds without a message over which no ticks are made: two recordings in one bag, or a clock that was set."""


@dataclass(frozen=True)
class Sources:
    """Topics of a bag."""

    pictures: dict[str, str]
    """Topic -> camera."""
    state: str | None
    position: str | None
    joints: bool
    """Whether the position is that of joints."""
    instruction: str
    estop: str

    @property
    def names(self) -> list[str]:
        """All of them."""
        some = [self.state, self.position, self.instruction, self.estop]
        return [*self.pictures, *dict.fromkeys(name for name in some if name)]


def sources(parameters: dict[str, Any], intake: Intake, node: str) -> Sources:
    """Where the node of that name would listen."""
    namespace, _, own = node.rpartition("/")

    def resolved(topic: str) -> str:
        if topic.startswith("~"):
            return f"{namespace}/{own}{topic[1:]}"
        return topic if topic.startswith("/") else f"{namespace}/{topic}"

    cameras = {resolved(topic): name for name, topic in camera_topics(parameters, intake.contract).items()}
    return Sources(
        pictures=cameras,
        state=resolved(parameters["state_topic"]) if intake.has_state else None,
        position=resolved(parameters["position_topic"]) if intake.located else None,
        joints=intake.contract.action.frame == JOINTS,
        instruction=resolved("~/instruction"),
        estop=resolved("~/estop"),
    )


class Ideal:
    """See the module.

    Args:
        path: of the bag; what is left of a damaged one is read.
        where: topics.
        intake, mind, drive: as the parameters make them.
        execute: actions of a chunk that are executed before the next is asked for.
        latency: s that an inference takes.
        max_failures: observations in a row that cannot be used, after which the robot is stopped.
        instruction: from the beginning; None: only what the bag says.

    Raises OptionError, with the topics that there are, for a bag of something else.
    """

    def __init__(
        self,
        path: Path,
        where: Sources,
        intake: Intake,
        mind: Mind,
        drive: Drive,
        *,
        execute: int,
        latency: float,
        instruction: str | None,
        max_failures: int = DEFAULTS["max_failures"],
    ) -> None:
        if not 0 <= latency < math.inf:
            raise ConfigError(f"latency is {latency}; expected seconds, 0 or more")
        self.track = Track(drive, mind)
        self.counts = dict.fromkeys(where.names, 0)
        self._path, self._where, self._intake = path, where, intake
        self._execute, self._latency, self._max_failures = execute, latency, max_failures
        self._failures = 0
        self._period = round(1e9 * drive.control.settings.limits.period)
        self._text = ""
        self._now: int | None = None
        self._next_tick: int | None = None
        self._thought: tuple[int, Thought] | None = None
        """When it will be there, and what; none while the network is idle."""
        self._begun = 0
        self._waiting: Observation | None = None
        self._started = self._ticked = self._went_back = False
        with BagReader(path, salvage=True) as bag:
            check_topics(bag, list(where.pictures), PICTURES)
            for name in (where.state, where.position):
                if name is not None:
                    check_topics(bag, [name], _TYPES)
            told = any(topic.name == where.instruction and topic.count for topic in bag.topics)
        if instruction is None and not told:
            raise OptionError(f"{path}: nothing on {where.instruction}, and no --instruction: what is it to do?")
        if instruction is not None:
            self._instruct(instruction)

    def run(self, step: Callable[[], Any] = lambda: None) -> list[str]:
        """All of it; what is lost of the bag, as sentences. step: called after each message."""
        with BagReader(self._path, salvage=True) as bag:
            lost: list[str] = []
            for topic, message in _messages(bag, self._where.names, lost):
                self.counts[topic] += 1
                self._arrive(topic, message)
                step()
            if self._now is not None:
                self._advance(self._now + self._period)
                stamp, now = self._now + self._period, (self._now + self._period) / 1e9
                self.track.leave(stamp, self.track.drive.stop(Stop.DEACTIVATED, stamp=stamp, now=now))
            return list(dict.fromkeys([*bag.lost, *lost]))

    # ---------------------------------------------------------------- messages

    def _arrive(self, topic: str, message: Any) -> None:
        where, intake = self._where, self._intake
        if hasattr(message, "header"):
            stamp = stamp_of(message)
            if stamp or topic in where.pictures or topic == where.state:  # a position need not have one
                self._go_to(stamp)
        now = self._now or 0
        seen: list[Observation] = []
        if topic in where.pictures:
            seen = intake.add_picture(where.pictures[topic], message, now)
        if topic == where.state:
            seen += intake.add_state(message, now)
        if topic == where.position:
            (intake.add_joints if where.joints else intake.add_pose)(message, now / 1e9)
        if topic == where.instruction:
            self._instruct(str(message.data).strip())
        if topic == where.estop and message.data:
            self.track.leave(now, self.track.drive.estop(stamp=now, now=now / 1e9))
        for observation in seen:
            if self._next_tick is None:
                self._next_tick = observation.stamp
            self._start(now)
            self._observe(observation)

    def _go_to(self, stamp: int) -> None:
        """Time goes on to a stamp; messages that come out of order do not turn it back."""
        if stamp == 0:
            raise InputError(
                f"{self._path}: pictures or states have no stamps (zero); a robot would never move on them"
            )
        if self._now is not None and self._now - stamp > LONGEST_PAUSE * 1e9 and not self._went_back:
            self._went_back = True
            self.track.notes.append(f"stamps go back by {(self._now - stamp) / 1e9:.0f} s: what follows is too old")
        if self._now is not None and stamp - self._now > LONGEST_PAUSE * 1e9:
            self.track.notes.append(f"{(stamp - self._now) / 1e9:.0f} s without a message: no ticks were made in it")
            self._advance(self._now + round(LONGEST_PAUSE * 1e9))
            if self._next_tick is not None:
                self._next_tick += (stamp - self._next_tick) // self._period * self._period
        else:
            self._advance(stamp)
        self._now = stamp if self._now is None else max(self._now, stamp)

    def _advance(self, until: int) -> None:
        """Predictions that are ready and ticks that are due before `until`."""
        while True:
            ready = math.inf if self._thought is None else self._thought[0]
            due = math.inf if self._next_tick is None else self._next_tick
            if min(ready, due) >= until:
                return
            if ready <= due:
                self._answer()
            else:
                self._tick(int(due))

    # ---------------------------------------------------------------- the node's parts

    def _instruct(self, text: str) -> None:
        if text == self._text:
            return
        self._thought, self._waiting, self._text = None, None, text
        self.track.drive.forget()
        if text:
            self.track.mind.instruct(text)

    def _observe(self, observation: Observation) -> None:
        if self._thought is not None:
            self._intake.drops["superseded"] += self._waiting is not None
            self._waiting = observation
            return
        now = self._now or 0
        thought = self.track.mind.think(observation, self._asked)
        self.track.think(thought)
        self._failures = self._failures + 1 if thought.result == "unusable" else 0
        if thought.result in ("contract", "not_finite") or self._failures >= self._max_failures:
            reason = Stop.NOT_FINITE if thought.result == "not_finite" else Stop.FAULT
            if self._failures <= self._max_failures:  # once, not for every picture
                self.track.notes.append(f"observation {thought.number}: {thought.detail}")
            self.track.leave(now, self.track.drive.stop(reason, stamp=now, now=now / 1e9))
        if thought.chunk is not None:
            self._begun = now
            self._thought = (now + round(1e9 * self._latency), thought)

    def _asked(self) -> int | None:
        control = self.track.drive.control
        if not self._text or control.guard.mode not in (Mode.HOLDING, Mode.RUNNING):
            return None
        return control.tick_now if should_ask(control.plan, control.tick_now + 1, execute=self._execute) else None

    def _answer(self) -> None:
        assert self._thought is not None
        at, thought = self._thought
        self._thought = None
        if thought.chunk is not None and thought.chunk.stamp is not None:
            self.track.drive.adopt(thought.number, thought.chunk.actions, thought.chunk.stamp)
        if self._waiting is not None:
            observation, self._waiting = self._waiting, None
            self._now = max(self._now or 0, at)
            self._observe(observation)

    def _tick(self, stamp: int) -> None:
        intake, now = self._intake, stamp / 1e9
        self._start(stamp)
        facts = Facts(
            instruction=bool(self._text),
            observation_age=intake.age(now, now),
            state_age=intake.place_age(now, now),
            inference_busy=0.0 if self._thought is None else max(0.0, now - self._begun / 1e9),
            tick_gap=self._period / 1e9 if self._ticked else 0.0,
            identical=intake.identical,
        )
        self._ticked = True
        at = (None, None) if intake.place is None else (intake.place.values, intake.place.orientation)
        left = self.track.drive.tick(facts, stamp=stamp, now=now, at=at[0], orientation=at[1])
        self.track.leave(stamp, left)
        self._next_tick = stamp + self._period

    def _start(self, stamp: int) -> None:
        """Once, as soon as it is known where the arm is, if that is asked."""
        place = self._intake.place
        if self._started or (place is None and self._intake.located):
            return
        self._started = True
        self.track.drive.start(stamp=stamp, now=stamp / 1e9, at=None if place is None else place.values)


_TYPES = ("sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped")


def _messages(bag: BagReader, names: list[str], lost: list[str]) -> Iterator[tuple[str, Any]]:
    for topic, _, data in bag.raw_messages(names):
        try:
            yield topic.name, bag.decode(topic, data)
        except InputError as error:
            lost.append(str(error))
