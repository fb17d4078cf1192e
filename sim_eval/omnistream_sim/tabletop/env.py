# SPDX-License-Identifier: Apache-2.0
"""The tabletop as a Gymnasium environment with CALVIN's interface: seven numbers in, two cameras and fifteen out.

Actions [7] in -1 .. 1: 0.02 m along x, y, z and 0.05 rad about x, y, z of the world, added to the pose that the tool is
sent to (not to where it is), and the gripper: above 0 opens, else closes. 20 Hz of control, 240 Hz of physics.
"""

from __future__ import annotations

import importlib.metadata
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError

from . import arm as panda
from .camera import intrinsics, look_at
from .config import SCENES
from .kinematics import forward, solve, to_euler, tool_pose
from .layout import DRAWER_TRAVEL, SLIDER_TRAVEL, Layout, random_layout
from .physics import INSTALL, Client, PhysicsMissing
from .simulation import PHYSICS_RATE, Simulation
from .state import Pose, Start, State
from .story import place_blocks

try:
    import gymnasium
    from gymnasium import spaces
except ImportError as error:
    raise PhysicsMissing(f"the tabletop environment needs Gymnasium, which is not installed: {INSTALL}") from error

ENV_ID = "omnistream/Tabletop-v0"
"""gymnasium.make("omnistream_sim.tabletop.env:omnistream/Tabletop-v0") makes one without an import."""
STEP = 0.02
"""Metres of an action of 1."""
TURN = 0.05
"""Radians of an action of 1."""
REACH_LOW, REACH_HIGH = np.array([0.22, -0.45, 0.012]), np.array([0.74, 0.45, 0.55])
"""Where the tool may be sent."""
STATE_SIZE = 15
HOME_TOOL = (0.38, 0.0, 0.28)
GRASPABLE = 0.085
"""Metres between blocks, so that open fingers fit round each."""
ROOM_FOR_THE_HAND = 0.12
"""Metres between a block and the knob of the opened drawer, which the hand would hit."""
_SETTLE = 24


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """What is simulated and what is seen."""

    scene: str = "shipped"
    """"shipped" or "random": a new layout, light and static camera with every reset."""
    static_size: tuple[int, int] = (128, 128)
    """(height, width)."""
    gripper_size: tuple[int, int] = (96, 96)
    rate: int = 20
    """Actions per second; a divisor of 240."""
    max_steps: int = 360
    """Then the episode is truncated."""
    shadow: bool = False
    pictures: bool = True
    """False leaves the cameras out of the observation: an expert that looks at the state runs twenty times as fast."""

    def __post_init__(self) -> None:
        if self.scene not in SCENES:
            raise ConfigError(f"scene is {self.scene!r}; expected one of {', '.join(SCENES)}")
        if self.rate < 1 or PHYSICS_RATE % self.rate:
            raise ConfigError(f"rate is {self.rate}; expected a divisor of {PHYSICS_RATE}")
        if self.max_steps < 1 or min(*self.static_size, *self.gripper_size) < 8:
            raise ConfigError(
                f"max_steps {self.max_steps}, sizes {self.static_size}, {self.gripper_size}; expected >= 1, >= 8 pixels"
            )


@dataclass(frozen=True)
class View:
    """A camera at a moment."""

    T_world_camera: NDArray[np.float64]
    K: NDArray[np.float64]
    size: tuple[int, int]


@dataclass(frozen=True)
class Snapshot:
    """All of a running episode. Going on from it gives the same bits, in this environment and in others."""

    seed: int
    layout_seed: int
    physics: bytes
    memory: dict[str, Any]


class TabletopEnv(gymnasium.Env[dict[str, NDArray[Any]], NDArray[Any]]):
    """See the module's docstring. Reward is 0: tasks and their success are judged from `state()`.

    Observation: rgb_static, rgb_gripper [H, W, 3] uint8; depth_static, depth_gripper [H, W] float32 metres along the
    optical axis, 0: nothing; state [15] float64: tool position and Euler angles, opening, seven joints, last gripper
    action (+1 open). The cameras' poses and intrinsics: `cameras()`, also in info["cameras"].
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, config: EnvConfig | None = None, render_mode: str | None = None, **options: Any) -> None:
        """options: fields of `EnvConfig`, in place of a config."""
        self.config = config or EnvConfig(**options)
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.config.rate}
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        parts: dict[str, spaces.Space[Any]] = {"state": spaces.Box(-10.0, 10.0, (STATE_SIZE,), np.float64)}
        if self.config.pictures:
            for name, size in (("static", self.config.static_size), ("gripper", self.config.gripper_size)):
                parts[f"rgb_{name}"] = spaces.Box(0, 255, (*size, 3), np.uint8)
                parts[f"depth_{name}"] = spaces.Box(0.0, 20.0, size, np.float32)
        self.observation_space = spaces.Dict(parts)  # type: ignore[assignment]
        self._client = Client()
        self._simulation: Simulation | None = None
        self._layout_seed = self._seed = self._step = 0
        self._static_camera = np.eye(4), STATIC_FOV
        self._target, self._target_euler, self._command = np.zeros(3), np.zeros(3), panda.HOME.copy()
        self._gripper = 1.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begin an episode. Nothing of earlier ones is left.

        options: start, a `Start` or its plain data: where things are; layout_seed: of the scene "random" (else drawn).
        """
        super().reset(seed=seed)
        options = dict(options or {})
        start = options.pop("start", None) or Start()
        start = start if isinstance(start, Start) else Start.from_plain(start)
        drawn = int(self.np_random.integers(1 << 62)), int(self.np_random.integers(1 << 62))
        self._layout_seed, self._seed = int(options.pop("layout_seed", drawn[0])), drawn[1]
        if options:
            raise ConfigError(f"reset has the option {sorted(options)[0]!r}; expected start, layout_seed")
        self._build()
        self._place(start)
        return self._observe(), self._info()

    def step(self, action: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Act for one control period."""
        simulation = self.simulation
        values = np.asarray(action, np.float64)
        if values.shape != (7,) or not np.isfinite(values).all():
            raise ConfigError(f"action is {values.tolist()}; expected 7 finite numbers")
        values = np.clip(values, -1, 1)
        self._target = np.clip(self._target + STEP * values[:3], REACH_LOW, REACH_HIGH)
        self._target_euler = self._target_euler + TURN * values[3:6]
        self._gripper = 1.0 if values[6] > 0 else -1.0
        self._command = solve(tool_pose(self._target, self._target_euler), self._command)
        opening = panda.MAX_OPENING if self._gripper > 0 else 0.0
        simulation.advance(self._command, opening, PHYSICS_RATE // self.config.rate)
        self._step += 1
        return self._observe(), 0.0, False, self._step >= self.config.max_steps, self._info()

    @property
    def simulation(self) -> Simulation:
        """The physics of the episode. ConfigError before the first reset."""
        if self._simulation is None:
            raise ConfigError("the environment has no episode yet; expected reset() first")
        return self._simulation

    def state(self) -> State:
        """Everything that is the case, for tasks and experts."""
        simulation = self.simulation
        joints = simulation.joints()
        tool = forward(joints)
        return State(
            step=self._step,
            tool=tool[:3, 3],
            tool_euler=to_euler(tool[:3, :3]),
            target=self._target.copy(),
            target_euler=self._target_euler.copy(),
            joints=joints,
            opening=simulation.opening(),
            blocks=simulation.blocks(),
            drawer=simulation.furniture("drawer"),
            slider=simulation.furniture("slider"),
            button=simulation.furniture("button"),
            lamp=simulation.lamp,
            contacts=simulation.contacts(),
            **simulation.landmarks(),
        )

    def cameras(self) -> dict[str, View]:
        """ "static" and "gripper" as they are now."""
        (pose, fov), static, gripper = self._static_camera, self.config.static_size, self.config.gripper_size
        return {
            "static": View(pose.copy(), intrinsics(static, fov), static),
            "gripper": View(self.simulation.hand_camera(), intrinsics(gripper, GRIPPER_FOV), gripper),
        }

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """The static camera's picture."""
        view = self.cameras()["static"]
        return self.simulation.scene.render(view.T_world_camera, view.K, view.size)[0]

    def save(self) -> Snapshot:
        """The running episode, contacts and all, to go on from here, in this environment or another.

        PyBullet does not save what its solver remembers of the motors, so the running episode forgets it here, too: it
        goes on as every restored one does.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "world.bullet"
            self.simulation.client.saveBullet(str(file))
            physics = file.read_bytes()
        memory = {name: _copy(getattr(self, name)) for name in _MEMORY}
        memory |= {"lamp": self.simulation.lamp, "down": self.simulation.down}
        memory["random"] = self.np_random.bit_generator.state
        snapshot = Snapshot(self._seed, self._layout_seed, physics, memory)
        self.restore(snapshot)
        return snapshot

    def restore(self, snapshot: Snapshot) -> dict[str, NDArray[Any]]:
        """Go on from there; in any environment with the same configuration. Returns the observation."""
        self._seed, self._layout_seed = snapshot.seed, snapshot.layout_seed
        self._build()
        self._place(Start())
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "world.bullet"
            file.write_bytes(snapshot.physics)
            self.simulation.client.restoreState(fileName=str(file))
        for name in _MEMORY:
            setattr(self, name, _copy(snapshot.memory[name]))
        self.simulation.lamp, self.simulation.down = snapshot.memory["lamp"], snapshot.memory["down"]
        self.simulation.scene.set_lamp(self.simulation.lamp)
        self.np_random.bit_generator.state = snapshot.memory["random"]
        return self._observe()

    def describe(self) -> dict[str, Any]:
        """What a number depends on."""
        return {
            "simulator": "omnistream tabletop",
            "pybullet": importlib.metadata.version("pybullet"),
            "renderer": "TinyRenderer",
            "rate": self.config.rate,
            "scene": self.config.scene,
            "static_size": list(self.config.static_size),
            "gripper_size": list(self.config.gripper_size),
        }

    def close(self) -> None:
        """Free the physics client."""
        self._simulation = None
        self._client.close()

    def _build(self) -> None:
        rng = np.random.default_rng(self._layout_seed)
        random = self.config.scene == "random"
        layout = random_layout(rng) if random else Layout()
        layout = replace(layout, light=replace(layout.light, shadow=self.config.shadow))
        jitter = rng.uniform(-1, 1, 7) if random else np.zeros(7)
        pose = look_at(STATIC_EYE + 0.12 * jitter[:3], STATIC_TARGET + 0.05 * jitter[3:6])
        self._static_camera = pose, STATIC_FOV * (1 + 0.15 * jitter[6])
        self._simulation = Simulation(self._client, layout)

    def _place(self, start: Start) -> None:
        rng, simulation = np.random.default_rng(self._seed), self.simulation
        poses = place_blocks(simulation.scene.layout, rng, elsewhere=False, apart=GRASPABLE, clear=ROOM_FOR_THE_HAND)
        drawn = {name: Pose(tuple(position), tuple(quaternion)) for name, (position, quaternion) in poses.items()}
        drawer = float(rng.uniform(0.08, DRAWER_TRAVEL)) if rng.random() < 0.3 else 0.0
        slider = float(rng.uniform(-0.5, 0.5)) * SLIDER_TRAVEL
        lamp = bool(rng.random() < 0.5)
        tool = np.array(HOME_TOOL) + rng.uniform(-1, 1, 3) * (0.03, 0.08, 0.04)
        self._target = np.array(tool if start.tool is None else start.tool, float)
        self._target_euler = np.array([math.pi, 0.0, 0.0])
        self._command = solve(tool_pose(self._target, self._target_euler), panda.HOME, iterations=200)
        self._gripper, self._step = 1.0, 0
        simulation.place(
            self._command,
            panda.MAX_OPENING,
            drawn if start.blocks is None else start.blocks,
            drawer if start.drawer is None else start.drawer,
            slider if start.slider is None else start.slider,
            lamp if start.lamp is None else start.lamp,
        )
        simulation.advance(self._command, panda.MAX_OPENING, _SETTLE)

    def _observe(self) -> dict[str, NDArray[Any]]:
        simulation = self.simulation
        joints = simulation.joints()
        tool = forward(joints)
        opening = simulation.opening()
        observation: dict[str, NDArray[Any]] = {
            "state": np.concatenate([tool[:3, 3], to_euler(tool[:3, :3]), [opening], joints, [self._gripper]])
        }
        if self.config.pictures:
            for name, view in self.cameras().items():
                rgb, depth = simulation.scene.render(view.T_world_camera, view.K, view.size)
                observation[f"rgb_{name}"], observation[f"depth_{name}"] = rgb, np.nan_to_num(depth, nan=0.0)
        return observation

    def _info(self) -> dict[str, Any]:
        return {"cameras": {name: (view.T_world_camera, view.K) for name, view in self.cameras().items()}}


_MEMORY = ("_target", "_target_euler", "_command", "_gripper", "_step")
STATIC_EYE, STATIC_TARGET, STATIC_FOV = np.array([0.22, -0.78, 0.72]), np.array([0.46, 0.0, 0.05]), 48.0
"""Right of the arm, looking across the table; degrees, horizontal."""
GRIPPER_FOV = 75.0


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


gymnasium.register(ENV_ID, entry_point="omnistream_sim.tabletop.env:TabletopEnv")
