# SPDX-License-Identifier: Apache-2.0
"""Replay of a run log: every call that the live node made, in its order, with the pictures of the bag.

The same code then gives the same commands, bit by bit, on the same kind of machine. What a log says came out is
compared, never used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from omnistream.errors import InputError, OmniStreamError
from omnistream.io.run_log import RecordedRun
from omnistream.policy.drive import Drive
from omnistream.policy.guard import Facts, Stop
from omnistream.policy.intake import STATE
from omnistream.policy.mind import Mind, Thought
from omnistream.policy.outbox import Outgoing
from omnistream.replay.pictures import Key
from omnistream.replay.track import Track
from omnistream.sync.aligner import Observation

KEPT_CHUNKS = 64
"""Predictions that may still be adopted; live it is the next line."""


class Pictures(Protocol):
    """Where pictures, or features, come from."""

    def find(self, topic: str, stamp: int, crc: int) -> Any:
        """The message of that stamp (ns) with these bytes; None where there is none."""
        ...


@dataclass
class Comparison:
    """Replay against live."""

    compared: int = 0
    """Moments at which something left, live or here."""
    different: int = 0
    first: str = ""
    """A sentence about the first difference; '' while there is none."""
    largest: float = 0.0
    """Largest difference of one number that left."""
    chunks: int = 0
    chunks_different: int = 0
    not_in_bag: list[int] = field(default_factory=list)
    """Observations whose pictures the bag does not have."""

    def note(self, sentence: str) -> None:
        """The first counts."""
        self.first = self.first or sentence


class LockStep:
    """See the module.

    Args:
        run: the log.
        pictures: of the bag, or features made of them again.
        mind, drive: as the log's parameters make them, before anything happened.
    """

    def __init__(self, run: RecordedRun, pictures: Pictures, mind: Mind, drive: Drive) -> None:
        self.track = Track(drive, mind)
        self.comparison = Comparison()
        self._run, self._pictures = run, pictures
        self._topics: dict[str, str] = run.header["topics"]
        self._thoughts: dict[int, Thought] = {}

    def run(self, step: Callable[[], Any] = lambda: None) -> None:
        """All of it. step: called after each line. InputError for a line that makes no sense."""
        for number, event in enumerate(self._run.events, 2):
            try:
                self._do(event)
            except (KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{self._run.path}: line {number} ({event['event']}) is damaged: {error!r}") from error
            step()
        if any(event["event"] == "unlocked" for event in self._run.events):
            self.track.notes.append("live, a stop did not wait for the control loop: lines may be out of order there")

    def _do(self, event: dict[str, Any]) -> None:
        mind, drive, kind = self.track.mind, self.track.drive, event["event"]
        if kind == "instruct":
            mind.instruct(event["text"])
        elif kind == "forget_frames":
            mind.reset()
        elif kind == "think":
            self._think(event)
        elif kind == "adopt":
            self._adopt(event)
        elif kind == "forget":
            drive.forget(clock=event["clock"])
        elif kind == "failed":
            self.track.notes.append(
                f"live, a control tick failed: {event['detail']}; what it changed is not known here"
            )
        elif kind in ("start", "clear", "stop", "estop", "hold", "tick"):
            self._drive(event)

    def _drive(self, event: dict[str, Any]) -> None:
        drive, kind = self.track.drive, event["event"]
        when: dict[str, Any] = {"stamp": event["stamp"], "now": event["now"]}
        left: list[Outgoing] = []
        try:
            if kind == "tick":
                seen = {"at": _array(event["at"]), "orientation": event["orientation"]}
                left = drive.tick(Facts(**event["facts"]), **seen, **when)
            elif kind == "start":
                drive.start(at=_array(event["at"]), **when)
            elif kind == "clear":
                drive.clear(**when)
            elif kind == "estop":
                left = drive.estop(**when)
            else:
                left = (drive.stop if kind == "stop" else drive.hold)(Stop(event["reason"]), **when)
        except OmniStreamError as error:  # live it was accepted
            self.comparison.note(f"{kind} at {event['stamp']}: refused here: {error}")
        self.track.leave(event["stamp"], left)
        self._compare(event, left)

    def _think(self, event: dict[str, Any]) -> None:
        values: dict[str, Any] = {}
        for name, (stamp, crc) in event["inputs"].items():
            message = self._pictures.find(self._topics[name], stamp, crc)
            if message is None:
                self.comparison.not_in_bag.append(event["number"])
                self.comparison.note(f"observation {event['number']}: the bag does not have its picture of {name}")
                return
            values[name] = message
        if event["state"] is not None:
            values[STATE] = _array(event["state"])
        ages = {name: event["stamp"] - stamp for name, (stamp, _) in event["inputs"].items()}
        asked = event["asked"]
        thought = self.track.mind.think(Observation(event["stamp"], event["stamp"], values, ages), lambda: asked)
        self.track.think(thought)
        if event["result"] == "chunk":
            self.comparison.chunks += 1
        if (thought.result, thought.digest) != (event["result"], event["chunk"]):
            self.comparison.chunks_different += 1
            same = (
                "another prediction"
                if thought.result == event["result"]
                else f"{thought.result}, not {event['result']}"
            )
            self.comparison.note(f"observation {event['number']}: {same}")
        # Numbers are the log's: those of observations that the bag lacks are not used again.
        self._thoughts[event["number"]] = thought
        for old in list(self._thoughts)[:-KEPT_CHUNKS]:
            del self._thoughts[old]

    def _adopt(self, event: dict[str, Any]) -> None:
        thought = self._thoughts.get(event["number"])
        chunk = None if thought is None else thought.chunk
        if chunk is None or chunk.stamp is None:
            return  # noted where it was thought
        ticks = self.track.drive.adopt(event["number"], chunk.actions, chunk.stamp)
        if ticks != (None if event["start"] is None else (event["start"], event["arrived"])):
            self.comparison.note(f"prediction {event['number']} is planned for {ticks} here, {event['start']} live")

    def _compare(self, event: dict[str, Any], left: list[Outgoing]) -> None:
        live = event.get("left") or {}
        if not live and not left:
            return
        self.comparison.compared += 1
        here = {one.output: one.values for one in left}
        same = live.keys() == here.keys()
        for name in live.keys() & here.keys():
            theirs = np.array(live[name], np.float64)
            if theirs.shape == here[name].shape:
                self.comparison.largest = max(self.comparison.largest, float(np.abs(theirs - here[name]).max()))
            same = same and theirs.shape == here[name].shape and theirs.tobytes() == here[name].tobytes()
        if not same:
            self.comparison.different += 1
            tick = self.track.drive.control.tick_now
            self.comparison.note(f"what left at tick {tick} ({event['event']}, stamp {event['stamp']})")


def wanted(run: RecordedRun) -> tuple[list[str], list[Key]]:
    """Topics of pictures, and the keys of those that were used. InputError for a log without them."""
    topics = run.header.get("topics")
    if not isinstance(topics, dict):
        raise InputError(f"{run.path}: its header names no topics")
    try:
        keys = [
            (topics[name], stamp)
            for event in run.events
            if event["event"] == "think"
            for name, (stamp, _) in event["inputs"].items()
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{run.path}: a line about an observation is damaged: {error!r}") from error
    return [topic for name, topic in topics.items() if name != STATE], keys


def _array(values: list[float] | None) -> Any:
    return None if values is None else np.array(values, np.float64)
