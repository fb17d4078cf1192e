# SPDX-License-Identifier: Apache-2.0
"""The tabletop one moment after the other, for whoever shows it live: the robot under its two cameras, or the free
camera of the geometry streams. No ROS here; the node is `omnistream_sim.tabletop.ros`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError

from . import arm as panda
from .config import TabletopConfig
from .env import EnvConfig, TabletopEnv, View
from .physics import Client
from .scene import Scene
from .stage import Stage, draw_stage
from .state import Pose, State

ROBOT_CAMERAS = {"static": "static", "wrist": "gripper"}
"""Our names, and the environment's."""
FLYING = "flying"
CAMERAS = (*ROBOT_CAMERAS, FLYING)
_FOR_EVER = 1 << 62


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """What is shown."""

    cameras: tuple[str, ...] = ("static", "wrist")
    """Of `CAMERAS`. The free camera flies alone: its scene is a film, nothing in it can be commanded."""
    size: tuple[int, int] = (128, 128)
    """(height, width) of every picture."""
    wrist_size: tuple[int, int] | None = None
    """Of the camera on the wrist, where it is another."""
    rate: int = 20
    """Moments per simulated second; a divisor of 240."""
    flight_length: float = 60.0
    """Seconds of the free camera's way; then it flies the same way back, and so on."""
    flight: Mapping[str, object] = field(default_factory=dict)
    """Fields of `TabletopConfig`, `scene` left out."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.cameras if name not in CAMERAS]
        if unknown or not self.cameras or len(set(self.cameras)) < len(self.cameras):
            raise ConfigError(f"cameras are {list(self.cameras)}; expected some of {', '.join(CAMERAS)}, each once")
        if FLYING in self.cameras and len(self.cameras) > 1:
            raise ConfigError(f"cameras are {list(self.cameras)}; expected {FLYING} alone: the others show the robot")
        if "scene" in self.flight:
            raise ConfigError("flight has the option 'scene'; expected it as the scene of an episode")
        if not self.flight_length > 0:
            raise ConfigError(f"flight_length is {self.flight_length}; expected seconds above 0")


@dataclass(frozen=True)
class Picture:
    """What a camera sees."""

    rgb: NDArray[np.uint8]
    """[H, W, 3]."""
    depth: NDArray[np.float32]
    """[H, W] metres along the optical axis, NaN where there is nothing."""
    T_world_camera: NDArray[np.float64]
    K: NDArray[np.float64]


@dataclass(frozen=True)
class Moment:
    """Everything at one time. The arm's parts are None where the scene has no arm."""

    pictures: dict[str, Picture]
    blocks: dict[str, Pose]
    joints: NDArray[np.float64] | None
    """Angles [7]."""
    opening: float
    """Between the fingers, metres."""
    T_world_hand: NDArray[np.float64] | None
    T_hand_tool: NDArray[np.float64] | None
    feeling: NDArray[np.float64] | None = None
    """What the robot knows of itself: the environment's `state` [15]."""


class Live(Protocol):
    """Something that goes on."""

    text: str
    """What there is to see, in words."""

    def begin(self, seed: int, scene: str, start: Mapping[str, Any] | None) -> None:
        """A new episode; the same arguments give the same one. ConfigError names what is wrong with them."""

    def step(self, action: NDArray[np.float64] | None) -> None:
        """One period on, the arm following an action [7] where it can be commanded."""

    def look(self) -> Moment:
        """Render what is the case now."""

    def state(self) -> State | None:
        """All that is the case, where there is physics."""

    def close(self) -> None:
        """Free the physics client."""


def open_live(config: LiveConfig) -> Live:
    """Raises PhysicsMissing where PyBullet or Gymnasium is not installed."""
    return LiveFlight(config) if FLYING in config.cameras else LiveRobot(config)


class LiveRobot:
    """The environment: physics, an arm that takes actions, a static camera and one on the wrist."""

    def __init__(self, config: LiveConfig) -> None:
        self._config = config
        self._env: TabletopEnv | None = None
        self._feeling: NDArray[np.float64] = np.zeros(0)
        self._scene = self.text = ""

    def begin(self, seed: int, scene: str, start: Mapping[str, Any] | None) -> None:
        """See `Live`. start: fields of `Start`; what it leaves out is drawn."""
        if self._env is None or scene != self._scene:
            settings = EnvConfig(
                scene=scene,
                static_size=self._config.size,
                gripper_size=self._config.wrist_size or self._config.size,
                rate=self._config.rate,
                max_steps=_FOR_EVER,
                pictures=False,
            )
            env = TabletopEnv(settings)
            self.close()
            self._env, self._scene = env, scene
        observation, _ = self._env.reset(seed=seed, options={"start": start} if start else None)
        self._feeling = observation["state"]
        self.text = f"A {scene} tabletop with a Panda, seed {seed}."

    def step(self, action: NDArray[np.float64] | None) -> None:
        """See `Live`; None: hold."""
        self._feeling = self._open().step(np.array([0, 0, 0, 0, 0, 0, 1.0]) if action is None else action)[0]["state"]

    def look(self) -> Moment:
        """See `Live`."""
        env = self._open()
        views = env.cameras()
        simulation = env.simulation
        pictures = {name: _picture(simulation.scene, views[ROBOT_CAMERAS[name]]) for name in self._config.cameras}
        moment = _moment(simulation.scene, pictures, simulation.joints(), simulation.opening())
        return replace(moment, feeling=self._feeling)

    def state(self) -> State | None:
        """See `Live`."""
        return self._open().state()

    def close(self) -> None:
        """See `Live`."""
        if self._env is not None:
            self._env.close()
        self._env = None

    def _open(self) -> TabletopEnv:
        if self._env is None:
            raise ConfigError("there is no episode yet; expected begin() first")
        return self._env


class LiveFlight:
    """The free camera's geometry stream: the same clips that training draws, as long as wanted."""

    def __init__(self, config: LiveConfig) -> None:
        self._config = config
        self._settings("shipped")  # says now that an option is wrong
        self._client = Client()
        self._stage: Stage | None = None
        self._time = 0
        self.text = ""

    def begin(self, seed: int, scene: str, start: Mapping[str, Any] | None) -> None:
        """See `Live`; where things are is drawn, so `start` has to be empty."""
        if start:
            raise ConfigError(f"start is {dict(start)}; expected none: a free camera's scene is drawn from the seed")
        if seed < 0:
            raise ConfigError(f"seed is {seed}; expected 0 or more")
        config, settings = self._config, self._settings(scene)
        frames = max(2, round(config.flight_length * config.rate))
        rate = float(config.rate)
        self._stage = draw_stage(self._client, settings, seed, frames=frames, size=config.size, rate=rate)
        self._time, self.text = 0, self._stage.story.text

    def step(self, action: NDArray[np.float64] | None) -> None:
        """See `Live`; there is nothing that could follow an action."""
        self._time += 1

    def look(self) -> Moment:
        """See `Live`."""
        if self._stage is None:
            raise ConfigError("there is no episode yet; expected begin() first")
        scene, story = self._stage.scene, self._stage.story
        frame = there_and_back(self._time, len(story.T_world_camera))
        rgb, depth = self._stage.render(frame)
        picture = Picture(rgb, depth, story.T_world_camera[frame].copy(), self._stage.K)
        joints = None if story.joints is None else story.joints[frame]
        return _moment(scene, {FLYING: picture}, joints, story.opening)

    def state(self) -> State | None:
        """See `Live`."""
        return None

    def close(self) -> None:
        """See `Live`."""
        self._client.close()

    def _settings(self, scene: str) -> TabletopConfig:
        try:
            return TabletopConfig.from_options({"scene": scene, **self._config.flight})
        except ValueError as error:
            raise ConfigError(str(error)) from None


def there_and_back(step: int, count: int) -> int:
    """Index of `count` frames shown for ever without a jump: 0 1 2 1 0 1 2 ... for 3."""
    position = step % (2 * count - 2) if count > 1 else 0
    return position if position < count else 2 * count - 2 - position


def _picture(scene: Scene, view: View) -> Picture:
    rgb, depth = scene.render(view.T_world_camera, view.K, view.size)
    return Picture(rgb, depth, view.T_world_camera, view.K)


def _moment(
    scene: Scene, pictures: dict[str, Picture], joints: Sequence[float] | NDArray[np.float64] | None, opening: float
) -> Moment:
    hand = tool = None
    if scene.arm is not None and joints is not None:
        hand = panda.link_pose(scene.client, scene.arm, panda.HAND)
        tool = np.linalg.inv(hand) @ panda.link_pose(scene.client, scene.arm, panda.TOOL)
    blocks = {name: Pose(*scene.client.getBasePositionAndOrientation(body)) for name, body in scene.blocks.items()}
    return Moment(pictures, blocks, None if joints is None else np.asarray(joints), opening, hand, tool)
