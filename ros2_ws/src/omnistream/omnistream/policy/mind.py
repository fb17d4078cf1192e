# SPDX-License-Identifier: Apache-2.0
"""The network's side of a robot: observes every observation, predicts where it is asked to, writes down what it used.

The node calls it from its inference thread, `omnistream-replay` from a loop; both get the same thoughts. Nothing here
decides what leaves for the robot.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from omnistream.errors import ContractError, InputError
from omnistream.io.run_log import RunLog
from omnistream.policy.intake import STATE, camera_input, checksum
from omnistream.policy.session import ActionChunk, PolicySession
from omnistream.policy.tokens import Encoded
from omnistream.sync.aligner import Observation

DIGEST_LENGTH = 16

Result = Literal["chunk", "observed", "unusable", "contract", "not_finite", "failed"]


@dataclass(frozen=True, eq=False)
class Thought:
    """What came of one observation."""

    number: int
    result: Result
    """chunk: a prediction; observed: none was wanted; the others: nothing that can be used. failed: in the log alone,
    of what is raised."""
    asked: int | None
    """Control tick at which a prediction was wanted; None where none was."""
    chunk: ActionChunk | None = None
    detail: str = ""
    """Of what cannot be used, a sentence."""

    @property
    def digest(self) -> str:
        """Start of the SHA-256 of the predicted actions; '' without."""
        if self.chunk is None:
            return ""
        actions = np.ascontiguousarray(self.chunk.actions, "<f8")
        return hashlib.sha256(actions.tobytes()).hexdigest()[:DIGEST_LENGTH]


class Mind:
    """See the module. One thread at a time.

    Args:
        session: the policy.
        log: where every call is written down.
    """

    def __init__(self, session: PolicySession, log: RunLog | None = None) -> None:
        self.session = session
        self.thoughts = 0
        self._log = log

    def instruct(self, text: str) -> Encoded:
        """What to do from now on; see `PolicySession.set_instruction`."""
        encoded = self.session.set_instruction(text)
        if self._log is not None:
            self._log.write("instruct", text=text)
        return encoded

    def reset(self) -> None:
        """Forget all frames."""
        self.session.reset()
        if self._log is not None:
            self._log.write("forget_frames")

    def think(self, observation: Observation, asked: Callable[[], int | None]) -> Thought:
        """Observe, then predict if that is wanted.

        asked: called after observing; the control tick at which a prediction is wanted, or None.
        Raises what a bug or a library raises; what is known to go wrong is a result.
        """
        self.thoughts += 1
        begin = time.perf_counter()
        try:
            thought = self._think(self.thoughts, observation, asked)
        except Exception as error:  # the stream may hold the frame by now: who reads the log has to know
            if self._log is not None:
                failed = Thought(self.thoughts, "failed", None, None, f"{type(error).__name__}: {error}")
                self._write(failed, observation, (time.perf_counter() - begin) * 1e3)
            raise
        if self._log is not None:
            self._write(thought, observation, (time.perf_counter() - begin) * 1e3)
        return thought

    def _think(self, number: int, observation: Observation, asked: Callable[[], int | None]) -> Thought:
        memory = self.session.policy.config.vision.stream
        try:
            pictures = {
                name: camera_input(message, memory) for name, message in observation.values.items() if name != STATE
            }
            self.session.observe(pictures, stamp=observation.stamp / 1e9)
        except (InputError, ContractError) as error:
            return Thought(
                number, "contract" if isinstance(error, ContractError) else "unusable", None, None, str(error)
            )
        tick = asked()
        if tick is None or self.session.instruction is None:
            return Thought(number, "observed", tick)
        try:
            return Thought(number, "chunk", tick, self.session.act(observation.values.get(STATE)))
        except InputError as error:
            return Thought(number, "not_finite", tick, None, str(error))

    def _write(self, thought: Thought, observation: Observation, milliseconds: float) -> None:
        assert self._log is not None
        state = observation.values.get(STATE)
        inputs = {
            name: [observation.stamp - observation.ages[name], checksum(message)]
            for name, message in observation.values.items()
            if name != STATE
        }
        self._log.write(
            "think",
            number=thought.number,
            stamp=observation.stamp,
            inputs=inputs,
            state=state,
            asked=thought.asked,
            result=thought.result,
            chunk=thought.digest,
            ms=round(milliseconds, 3),
        )
