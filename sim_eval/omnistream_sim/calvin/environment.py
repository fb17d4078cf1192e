# SPDX-License-Identifier: Apache-2.0
"""The real CALVIN as an environment of the evaluator."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError
from omnistream_sim.evaluation.protocols import Episode, Observation

from . import oracle
from .checkout import find_checkout
from .official import official_environment, official_oracle
from .starts import start_state

Renderer = Literal["tiny", "egl", "none"]
BLACK = {"static": np.zeros((200, 200, 3), np.uint8), "gripper": np.zeros((84, 84, 3), np.uint8)}


class CalvinEnvironment:
    """PlayTableSimEnv, the official oracle, and our own beside it.

    Actions: relative, [dx dy dz droll dpitch dyaw gripper] in CALVIN's units (1 is 0.02 m or 0.05 rad, world frame),
    gripper above 0 opens. State: robot_obs [15]. An episode's state is a symbolic start scene.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        renderer: Renderer = "tiny",
        scene: str = "calvin_scene_D_eval",
        dataset: Path | None = None,
        reload: bool = True,
    ) -> None:
        """
        root: the checkout; None: found by `find_checkout`.
        renderer: tiny (software), egl (OpenGL, as for the published numbers), or none: black pictures, for scripts.
        reload: load the scene anew for every episode. Bullet keeps contacts and joint impulses over a reset, so that
        without it an episode depends in its last digits, and then in its outcome, on the ones before.
        """
        if renderer not in ("tiny", "egl", "none"):
            raise ConfigError(f"renderer is {renderer!r}; expected tiny, egl or none")
        self._checkout = find_checkout(root)
        self._instructions = self._checkout.instructions()
        self._oracle = official_oracle(self._checkout)
        self._env = official_environment(self._checkout, scene=scene, egl=renderer == "egl", dataset=dataset)
        self._cameras = [] if renderer == "none" else self._env.cameras
        self.look(True)
        self._about = {"renderer": renderer, "scene": "dataset" if dataset else scene, "reload": reload}
        self._reload, self._used = reload, False
        self.raw: dict[str, Any] = {}
        """The newest observation as calvin_env gives it, with depth."""
        self._task = ""
        self._start: dict[str, Any] = {}
        self._info: dict[str, Any] = {}
        self._disagreed = 0

    def reset(self, episode: Episode) -> Observation:
        """Robot and scene as the protocol puts them."""
        return self.place(*start_state(episode.state))

    def place(self, robot: NDArray[np.float64], scene: NDArray[np.float64]) -> Observation:
        """Robot and scene as robot_obs [15] and scene_obs [24] say; one physics step later."""
        if self._reload and self._used:
            self._env.load()
        self._used = True
        self._env.robot.gripper_action = int(robot[14])  # its reset forgets this one: it would be the last chain's
        self.raw = self._env.reset(robot_obs=robot, scene_obs=scene)
        return _observation(self.raw)

    def look(self, on: bool) -> None:
        """Whether pictures are made from now on; without, they are black, and a step takes a tenth of the time."""
        self._env.cameras = self._cameras if on else []

    def begin(self, task: str) -> str:
        """Remember how things are; the instruction is the unseen one of the evaluation."""
        if task not in self._instructions:
            raise ConfigError(f"task {task!r} is unknown; expected one of {', '.join(self._instructions)}")
        self._task, self._disagreed = task, 0
        self._start = self._info = self._env.get_info()
        return self._instructions[task]

    def step(self, action: NDArray[np.float64]) -> Observation:
        """One control period of 1/30 s."""
        command = np.array(action, np.float64)  # a copy: calvin_env scales it in place
        command[6] = 1 if command[6] > 0 else -1
        self.raw, _, _, self._info = self._env.step(command)
        return _observation(self.raw)

    def success(self) -> bool:
        """The official oracle's word."""
        return bool(self._oracle.get_task_info_for_set(self._start, self._info, {self._task}))

    def check(self, official: bool) -> None:
        """Our own oracle is asked too, and differences are counted."""
        self._disagreed += official != oracle.solved(self._task, self._start, self._info)

    def metrics(self) -> dict[str, float | bool]:
        """In how many steps of the task the two oracles differed."""
        return {"oracles_differ": self._disagreed}

    def describe(self) -> dict[str, Any]:
        """Simulator, commits, renderer, versions."""
        versions = {name: importlib.metadata.version(name) for name in ("pybullet", "numpy")}
        commits = self._checkout.commits()
        return {"name": "CALVIN", **commits, **self._about, **versions, "platform": platform.machine()}

    def close(self) -> None:
        """Disconnect from Bullet."""
        self._env.close()
        self._env.ownsPhysicsClient = False  # or its destructor closes it again, and complains


def _observation(raw: dict[str, Any]) -> Observation:
    pictures = raw["rgb_obs"]
    return {
        "rgb_static": np.ascontiguousarray(pictures.get("rgb_static", BLACK["static"]), np.uint8),
        "rgb_gripper": np.ascontiguousarray(pictures.get("rgb_gripper", BLACK["gripper"]), np.uint8),
        "state": np.array(raw["robot_obs"], np.float64),
        "scene": np.array(raw["scene_obs"], np.float64),
    }
