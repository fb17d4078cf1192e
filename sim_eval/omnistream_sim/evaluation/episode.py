# SPDX-License-Identifier: Apache-2.0
"""Runs one episode: the only place where a policy and an environment meet."""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError

from .protocols import Environment, Episode, EvaluationError, Observation, Policy, Rules
from .records import EpisodeRecord, Latencies, TaskRecord

Watcher = Callable[[Observation, str, int], None]
"""Called with every observation, the instruction and the step within the task: pictures, signs of life."""


class Clock:
    """Seconds by stage and histograms of single calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"simulator": 0.0, "policy": 0.0, "watcher": 0.0, "checks": 0.0}
        self.histograms = {"simulator": Latencies(), "policy": Latencies()}
        self._begin = time.perf_counter()

    def call(self, stage: str, function: Callable[..., Any], *values: Any, count: bool = False) -> Any:
        """function(*values), its time added to the stage; `count`: and to the stage's histogram."""
        begin = time.perf_counter()
        result = function(*values)
        passed = time.perf_counter() - begin
        self.seconds[stage] += passed
        if count:
            self.histograms[stage].add(passed * 1e3)
        return result

    def timing(self) -> dict[str, Any]:
        """As EpisodeRecord.timing has it."""
        seconds = self.seconds | {"total": time.perf_counter() - self._begin}
        return {
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            **{f"{name}_ms": dict(histogram.counts) for name, histogram in self.histograms.items()},
        }


class Actions:
    """Asks the policy for a chunk, hands out its first `execute` rows one by one, then asks again."""

    def __init__(self, policy: Policy, size: int, execute: int, clock: Clock) -> None:
        """execute: rows of a chunk that are carried out; 0: all of them."""
        if execute < 0:
            raise ConfigError(f"execute is {execute}; expected 0 (all) or more")
        self._policy, self._size, self._execute, self._clock = policy, size, execute, clock
        self._observe = getattr(policy, "observe", None)
        self._carry_out = getattr(policy, "carry_out", None)
        self._rows: deque[NDArray[np.float64]] = deque()

    def reset(self) -> None:
        """A new task: what is left of the last chunk is dropped, and the policy forgets."""
        self._rows.clear()
        if (reset := getattr(self._policy, "reset", None)) is not None:
            self._clock.call("policy", reset)

    def next(self, observation: Observation, instruction: str) -> NDArray[np.float64]:
        """The action for now."""
        if self._rows:
            if self._observe is not None:
                self._clock.call("policy", self._observe, observation)
            return self._turn()
        chunk = self._clock.call("policy", self._policy, observation, instruction, count=True)
        rows = np.array(chunk, np.float64, ndmin=2)
        if rows.ndim != 2 or rows.shape[1] != self._size or not len(rows) or not np.isfinite(rows).all():
            shaped = rows.shape[1:] == (self._size,) and len(rows)
            found = "NaN or infinity" if shaped else f"shape {list(rows.shape)}"
            raise EvaluationError(f"the policy gave actions with {found}; expected finite [K, {self._size}]")
        self._rows.extend(rows[: self._execute or None])
        return self._turn()

    def _turn(self) -> NDArray[np.float64]:
        """The next row, as the policy wants it carried out."""
        row = self._rows.popleft()
        return row if self._carry_out is None else self._clock.call("policy", self._carry_out, row)


def run_episode(
    environment: Environment,
    policy: Policy,
    episode: Episode,
    rules: Rules,
    *,
    execute: int = 0,
    watch: Watcher | None = None,
) -> EpisodeRecord:
    """Run an episode to its first failed task or its end.

    Between tasks nothing is reset but the policy. Every global generator is seeded with the episode's seed, so the
    record depends on the episode alone: not on the worker, nor on what it ran before.
    """
    _seed_everything(episode.seed)
    clock = Clock()
    actions = Actions(policy, rules.action_size, execute, clock)
    digest = hashlib.blake2s(digest_size=8)
    observation = clock.call("simulator", environment.reset, episode)
    check = getattr(environment, "check", None)
    done: list[TaskRecord] = []
    for task in episode.tasks:
        instruction = clock.call("simulator", environment.begin, task)
        actions.reset()
        solved, step = False, 0
        for step in range(1, (episode.max_steps or rules.max_steps) + 1):
            if watch is not None:
                clock.call("watcher", watch, observation, instruction, step - 1)
            action = actions.next(observation, instruction)
            observation = cast(Observation, clock.call("simulator", environment.step, action, count=True))
            digest.update(action.tobytes())
            digest.update(np.ascontiguousarray(observation["state"], np.float64).tobytes())
            solved = bool(clock.call("simulator", environment.success))
            if check is not None:
                clock.call("checks", check, solved)
            if solved and rules.stop_at_success:
                break
        if watch is not None:
            clock.call("watcher", watch, observation, instruction, step)
        metrics: dict[str, Any] = getattr(environment, "metrics", dict)()
        done.append(TaskRecord(task=task, instruction=instruction, solved=solved, steps=step, metrics=metrics))
        if not solved:
            break
    return EpisodeRecord(
        index=episode.index,
        tasks=episode.tasks,
        done=tuple(done),
        digest=digest.hexdigest(),
        timing=clock.timing(),
    )


def _seed_everything(seed: int) -> None:
    """Of Python, numpy's global generator and torch, if the policy brought it."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # the global one is what foreign policies draw from
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
