# SPDX-License-Identifier: Apache-2.0
"""The network's side of the node: a thread that observes every observation and predicts when it is asked to.

Nothing here decides what leaves for the robot. A prediction that was overtaken by a reset or another instruction is
thrown away.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from omnistream.policy.mind import Mind, Thought
from omnistream.policy.session import PolicySession
from omnistream.sync.aligner import Observation
from omnistream_ros.latency import LatencyWindow
from omnistream_ros.worker import Worker

CALL_TIMEOUT = 30.0
"""Seconds that a service waits for the inference in hand."""
SOURCE = "observation"


class Thinking:
    """See the module.

    Args:
        mind: the policy; touched by this thread alone.
        asked: the control tick at which a prediction is wanted now, or None.
        answered: called with each thought that has a chunk.
        failed: called with a reason (not_finite or fault) and a sentence when no answer can be trusted.
        max_failures: observations in a row that may fail.
    """

    def __init__(
        self,
        mind: Mind,
        asked: Callable[[], int | None],
        answered: Callable[[Thought], None],
        failed: Callable[[str, str], None],
        max_failures: int,
    ) -> None:
        self.mind = mind
        self.latencies = {stage: LatencyWindow() for stage in ("vision", "policy", "total")}
        self.drops: Counter[str] = Counter()
        self.observations = self.chunks = 0
        self._asked, self._answered, self._failed = asked, answered, failed
        self._max_failures = max_failures
        self._failures = 0
        self._epoch = 0
        self._busy_since: float | None = None
        self._worker: Worker[Observation] = Worker(
            "policy", self._process, capacity=2, evicted=lambda *_: self._superseded()
        )

    @property
    def session(self) -> PolicySession:
        """The policy."""
        return self.mind.session

    def start(self) -> None:
        """Observations are taken from now on."""
        self._failures = 0
        self._worker.start()

    def stop(self, timeout: float) -> bool:
        """False if still busy after `timeout` seconds."""
        return self._worker.stop(timeout)

    def observe(self, observation: Observation) -> None:
        """Hands over; never blocks."""
        self._worker.put(SOURCE, observation)

    def outdate(self) -> None:
        """A prediction in hand will be thrown away."""
        self._epoch += 1

    def call(self, function: Callable[[], Any]) -> Any:
        """Runs `function` between two observations. TimeoutError after `CALL_TIMEOUT`."""
        return self._worker.call(function, CALL_TIMEOUT)

    def post(self, function: Callable[[], Any]) -> None:
        """As `call`, without waiting."""
        self._worker.post(function)

    def busy(self, now: float) -> float:
        """For how long the inference in hand has been at work, s; 0 when there is none."""
        since = self._busy_since
        return 0.0 if since is None else now - since

    def _superseded(self) -> None:
        self.drops["superseded"] += 1

    def _process(self, _source: str, waiting: list[Observation]) -> None:
        """The newest one; the others came while the last was at work."""
        for _ in waiting[1:]:
            self._superseded()
        self._busy_since = time.monotonic()
        try:
            self._think(waiting[0])
        except Exception as error:  # a bug, or a library's own word: never the end of the thread, always a stop
            last = traceback.extract_tb(error.__traceback__)[-1]
            self._failed("fault", f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})")
        finally:
            self._busy_since = None

    def _think(self, observation: Observation) -> None:
        epoch = self._epoch
        thought = self.mind.think(observation, self._asked)
        if thought.result in ("unusable", "contract"):
            self.drops[thought.result] += 1
            self._failures += 1
            if thought.result == "contract" or self._failures >= self._max_failures:
                self._failed("fault", thought.detail)
            return
        self._failures = 0
        self.observations += 1
        if thought.result == "not_finite":
            self.drops["not_finite"] += 1
            self._failed("not_finite", thought.detail)
            return
        if thought.chunk is None:
            return
        if epoch != self._epoch:
            self.drops["outdated"] += 1
            return
        self.chunks += 1
        for stage, milliseconds in thought.chunk.timings.items():
            self.latencies[stage].add(milliseconds)
        self.latencies["total"].add((time.monotonic_ns() - observation.arrival) / 1e6)
        self._answered(thought)
