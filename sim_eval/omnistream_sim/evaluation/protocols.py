# SPDX-License-Identifier: Apache-2.0
"""What an environment, a policy and a benchmark are to the evaluator. Nothing here knows a simulator.

An episode is a start state and one or more tasks, done one after the other without a reset in between. A chain of five
(CALVIN) has five, every other benchmark one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.errors import ConfigError, OmniStreamError

from .convention import Convention


class EvaluationError(OmniStreamError):
    """An evaluation cannot go on: no simulator, no renderer, a policy that always fails, a full disk."""


class Observation(TypedDict):
    """What the robot sees and feels."""

    rgb_static: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    rgb_gripper: NotRequired[NDArray[np.uint8]]
    """[h, w, 3] RGB; not every robot has it."""
    state: NDArray[np.float64]
    """[S] proprioception in the simulator's own order and units."""
    scene: NotRequired[NDArray[np.float64]]
    """Where everything is. For scripted policies and checks; a policy that reads it solves another problem."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One start and what is to be done from there; the index decides everything random."""

    index: int
    tasks: tuple[str, ...]
    state: Any = None
    """What the environment's reset needs, plain data; None: the environment derives it from `seed`."""
    seed: int
    """Of every generator that a policy or simulator may draw from."""
    max_steps: int | None = None
    """Per task, if it is not the rules' own."""


class Environment(Protocol):
    """A simulator with one robot. Made inside a worker process; never crosses a process border.

    It may also have
        metrics() -> dict[str, float | bool]    what else is known of the current task when it ends
        check(solved)                           called after every `success` with what that said: checks of our own,
                                                whose time is not the simulator's
    """

    def reset(self, episode: Episode) -> Observation:
        """Put everything into the episode's start. Nothing of earlier episodes may be left."""
        ...

    def begin(self, task: str) -> str:
        """Start a task where things are now, without moving anything; returns its instruction."""
        ...

    def step(self, action: NDArray[np.float64]) -> Observation:
        """Act for one control period."""
        ...

    def success(self) -> bool:
        """Whether the task is solved as things are now, since `begin`."""
        ...

    def describe(self) -> dict[str, Any]:
        """Simulator, versions, commit, renderer: what a number depends on. Plain data."""
        ...

    def close(self) -> None:
        """Free the simulator."""
        ...


class Policy(Protocol):
    """Any callable from observation and instruction to actions, [A] or a chunk [K, A], in the environment's units.

    It may also have
        reset()                  called before every task
        observe(observation)     called with every frame for which no action is asked, while a chunk is executed
        carry_out(row) -> row    called with each row of a chunk when its turn has come; what it returns is done
        describe() -> dict       for the report
    """

    def __call__(self, observation: Observation, instruction: str) -> ArrayLike: ...


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How an episode is run and read."""

    max_steps: int
    """Control periods per task."""
    stop_at_success: bool = True
    """True: a task ends when it is solved. False: it runs to its last step, and the state there decides."""
    action_size: int = 7
    source: str = ""
    """Where the rules come from."""

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.action_size < 1:
            raise ConfigError(f"max_steps is {self.max_steps}, action_size {self.action_size}; expected at least 1")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Everything that is fixed before a policy comes."""

    name: str
    rules: Rules
    episodes: Sequence[Episode]
    environment: Callable[[], Environment]
    """Makes one; picklable, since it is called in every worker."""
    convention: Convention | None = None
    """Of its actions; needed to run a checkpoint, whose actions are in metres and radians."""
    wrap: Callable[[Policy], Policy] | None = None
    """Put around every policy, such as a rule for the gripper; picklable, and named in `settings`."""
    deviations: tuple[str, ...] = ()
    """From the published protocol, in words."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What else decides the numbers, such as which split; part of a run's identity."""

    def __post_init__(self) -> None:
        if not self.episodes:
            raise ConfigError(f"{self.name}: no episodes; expected at least one")
        indices = [episode.index for episode in self.episodes]
        if len(set(indices)) != len(indices):
            raise ConfigError(f"{self.name}: two episodes have the same index; expected distinct ones")
