# SPDX-License-Identifier: Apache-2.0
"""The tabletop with its tasks, as the evaluator wants it: an episode's start, an instruction per task, success."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError
from omnistream_sim.evaluation.convention import Convention
from omnistream_sim.evaluation.protocols import Episode, Observation

from .env import STEP, TURN, EnvConfig, TabletopEnv
from .state import State
from .tasks import TASKS, Task

RATE = 20
CONVENTION = Convention(rate=float(RATE), metres=STEP, radians=TURN)
CAMERAS = ("static", "gripper")
Words = Literal["unseen", "seen", "blank"]
"""Which sentences a policy is told: those of no demonstration, those of demonstrations, or none at all."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What a policy is shown."""

    static: int = 128
    """Pixels per side of the camera beside the table."""
    gripper: int = 96
    """Of the camera on the hand; 0: there is none, and a step costs half."""
    scene: str = "shipped"

    def __post_init__(self) -> None:
        if self.static < 16 or (self.gripper and self.gripper < 16):
            raise ConfigError(f"pictures of {self.static} and {self.gripper} pixels; expected 16 or more, or gripper 0")

    @property
    def cameras(self) -> dict[str, int]:
        """Side in pixels by name."""
        return {name: side for name, side in (("static", self.static), ("gripper", self.gripper)) if side}


class TaskWorld:
    """The environment, its pictures taken only when somebody looks. Also what demonstrations are recorded in."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.env = TabletopEnv(
            EnvConfig(
                scene=view.scene,
                static_size=(view.static, view.static),
                gripper_size=(view.gripper or 16, view.gripper or 16),
                rate=RATE,
                max_steps=1 << 30,
                pictures=False,
            )
        )
        self._state: NDArray[np.float64] = np.zeros(0)

    def reset(self, start: dict[str, Any], seed: int) -> None:
        """Put everything where `start` (plain data of a `Start`) says."""
        self._state = self.env.reset(seed=seed, options={"start": start})[0]["state"]

    def step(self, action: NDArray[np.float64]) -> None:
        """Act for one control period."""
        self._state = self.env.step(action.astype(np.float32))[0]["state"]

    def look(self) -> Observation:
        """What the robot sees and feels."""
        views, observation = self.env.cameras(), dict[str, Any](state=self._state)
        for name in self.view.cameras:
            view = views[name]
            observation[f"rgb_{name}"] = self.env.simulation.scene.render(view.T_world_camera, view.K, view.size)[0]
        return observation  # type: ignore[return-value]


class TaskEnvironment:
    """`Environment` of the evaluator. An episode's state is {"start": ..., "instead": the task that was meant}.

    With "instead" the policy is told another task than the start was drawn for; `metrics` then tells whether it did
    what it was not told.
    """

    def __init__(self, view: View, words: Words = "unseen") -> None:
        self._world, self._words = TaskWorld(view), words
        self._seed = self._count = 0
        self._instead: Task | None = None
        self._begin: State | None = None
        self._task: Task | None = None

    def reset(self, episode: Episode) -> Observation:
        """The episode's start."""
        self._seed, self._count = episode.seed, 0
        instead = episode.state.get("instead")
        self._instead = None if instead is None else TASKS[instead]
        self._world.reset(episode.state["start"], episode.seed)
        return self._world.look()

    def begin(self, task: str) -> str:
        """One of the task's sentences, drawn from the episode's seed."""
        self._task, self._begin = TASKS[task], self._world.env.state()
        self._count += 1
        return instruction(self._task, self._words, self._seed, self._count)

    def step(self, action: NDArray[np.float64]) -> Observation:
        """Act for one control period."""
        self._world.step(action)
        return self._world.look()

    def success(self) -> bool:
        """Whether the task is solved."""
        return self._solved(self._task)

    def metrics(self) -> dict[str, float | bool]:
        """Whether the task was done that it was not told to do."""
        return {} if self._instead is None else {"did_the_other": self._solved(self._instead)}

    def describe(self) -> dict[str, Any]:
        """What the numbers depend on."""
        view = self._world.view
        sizes = {name: f"{side}x{side}" for name, side in view.cameras.items()}
        about = {key: value for key, value in self._world.env.describe().items() if not key.endswith("_size")}
        return about | sizes

    def close(self) -> None:
        """Free the physics client."""
        self._world.env.close()

    def _solved(self, task: Task | None) -> bool:
        assert task is not None and self._begin is not None
        return task.solved(self._begin, self._world.env.state())


def instruction(task: Task, words: Words, seed: int, count: int = 0) -> str:
    """A sentence for the task; `count` tells the tasks of an episode apart."""
    if words == "blank":
        return ""
    sentences = task.wording.unseen if words == "unseen" else task.wording.seen
    return sentences[int(np.random.default_rng([seed, count]).integers(len(sentences)))]
