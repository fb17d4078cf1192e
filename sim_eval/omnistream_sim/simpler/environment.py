# SPDX-License-Identifier: Apache-2.0
"""SIMPLER's Bridge tasks as an environment of the evaluator, in ManiSkill 3 (SAPIEN 3).

The papers' numbers are from ManiSkill 2 (SAPIEN 2). ManiSkill 3 has the same grid, robot, camera and controller gains;
its controller takes Euler angles of the body instead of a rotation vector, its contact test for success is another, and
numbers of the two are not the same numbers. Reports name it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream_sim.evaluation.convention import Convention
from omnistream_sim.evaluation.protocols import Episode, EvaluationError, Observation

from .tasks import BRIDGE, bridge_task

INSTALL = "omnistream-sim install simpler --run"
CONVENTION = Convention(rate=5.0, rotation="euler_body", resize=True)
CAMERA = "3rd_view_camera"
MODELS = {
    "spoon": ("bridge_spoon_generated_modified", "table_cloth_generated_shorter"),
    "carrot": ("bridge_carrot_generated_modified", "bridge_plate_objaverse_larger"),
    "stack": ("baked_green_cube_3cm", "baked_yellow_cube_3cm"),
    "eggplant": ("eggplant", "sink", "dummy_sink_target_plane"),
}
"""Folders of meshes that a task needs."""
STATS = ("is_src_obj_grasped", "consecutive_grasp", "src_on_target")


class NoSimpler(InputError):
    """ManiSkill, its assets or a Vulkan driver is missing; the message says how to get them."""


class SimplerEnvironment:
    """One ManiSkill environment per task, made when the task first comes.

    Actions [7]: dxyz in m, Euler angles XYZ in rad, gripper (+1 opens), added to the target pose. Picture 480 x 640.
    State [15]: tool xyz, quaternion wxyz (both in the robot's base frame), joints [8]. An episode has one task; its
    state is {"episode_id": 0..23}.
    """

    def __init__(self, *, render_backend: str = "cpu") -> None:
        """render_backend: cpu (any Vulkan driver that runs on the CPU) or gpu."""
        require_simpler(())
        self._gym = importlib.import_module("gymnasium")
        self._torch = importlib.import_module("torch")
        importlib.import_module("mani_skill.envs")
        self._backend = render_backend
        self._worlds: dict[str, Any] = {}
        self._env: Any = None
        self._info: dict[str, Any] = {}

    def reset(self, episode: Episode) -> Observation:
        """One of the 24 starts."""
        task = episode.tasks[0]
        self._env = self._world(task)
        number = bridge_task(task).maniskill_number(int(episode.state["episode_id"]))
        options = {"episode_id": self._torch.tensor([number]), "reconfigure": True}
        raw, self._info = self._env.reset(seed=episode.seed, options=options)
        return self._observation(raw)

    def begin(self, task: str) -> str:
        """The task's instruction; the simulator's own, which must be the protocol's."""
        instruction = bridge_task(task).instruction
        found = self._env.unwrapped.get_language_instruction()[0]
        if found != instruction:
            raise EvaluationError(f"{task}: the simulator says {found!r}, the protocol {instruction!r}")
        return instruction

    def step(self, action: NDArray[np.float64]) -> Observation:
        """One control period of 0.2 s."""
        raw, _, _, _, self._info = self._env.step(np.asarray(action, np.float32)[None])
        return self._observation(raw)

    def success(self) -> bool:
        """The simulator's flag as things are now."""
        return bool(self._info["success"][0])

    def metrics(self) -> dict[str, float | bool]:
        """Partial success: whether the right thing was ever grasped, and for five steps in a row."""
        return {name: bool(self._info[name][0]) for name in STATS if name in self._info}

    def describe(self) -> dict[str, Any]:
        """Simulator, versions, on what it draws."""
        versions = {name: importlib.metadata.version(name) for name in ("mani_skill", "sapien")}
        return {"name": "SIMPLER in ManiSkill 3", **versions, "render_backend": self._backend}

    def close(self) -> None:
        """Free all scenes."""
        for world in self._worlds.values():
            world.close()

    def _world(self, task: str) -> Any:
        if task not in self._worlds:
            require_simpler((task,))
            name = f"{bridge_task(task).environment}-v1"
            try:
                self._worlds[task] = self._gym.make(
                    name,
                    obs_mode="rgb+segmentation",
                    num_envs=1,
                    sim_backend="physx_cpu",
                    render_backend=self._backend,
                )
            except RuntimeError as error:
                raise NoSimpler(f"{name} cannot be made: {error}; if it is the renderer: {INSTALL}") from error
        return self._worlds[task]

    def _observation(self, raw: dict[str, Any]) -> Observation:
        world = self._env.unwrapped
        picture = raw["sensor_data"][CAMERA]["rgb"][0]
        arm = world.agent.robot.pose.inv() * world.agent.robot.links_map["ee_gripper_link"].pose
        joints = world.agent.robot.get_qpos()
        scene = [world.objs[name].pose.raw_pose for name in (world.source_obj_name, world.target_obj_name)]
        tool = world.agent.robot.links_map["ee_gripper_link"].pose.raw_pose
        return {
            "rgb_static": np.ascontiguousarray(picture.cpu().numpy(), np.uint8),
            "state": _flat(arm.raw_pose, joints),
            "scene": _flat(*scene, tool),  # source, target, tool: xyz and wxyz in the world
        }


def assets_folder() -> Path:
    """Where ManiSkill looks for its assets."""
    return Path(os.environ.get("MS_ASSET_DIR") or Path.home() / ".maniskill") / "data"


def missing_assets(tasks: Iterable[str] = tuple(BRIDGE)) -> list[Path]:
    """Files of these tasks that are not there."""
    bridge = assets_folder() / "tasks/bridge_v2_real2sim_dataset"
    needed = [bridge / "custom/info_bridge_custom_v0.json", assets_folder() / "robots/widowx/wx250s.urdf"]
    for task in tasks:
        sink = task == "eggplant"
        stage = "bridge_table_1_v2" if sink else "bridge_table_1_v1"
        picture = "bridge_sink" if sink else "bridge_real_eval_1"
        needed += [bridge / f"stages/{stage}.glb", bridge / f"real_inpainting/{picture}.png"]
        needed += [bridge / f"custom/models/{model}/collision.obj" for model in MODELS[task]]
    return [path for path in dict.fromkeys(needed) if not path.exists()]


def require_simpler(tasks: Iterable[str]) -> None:
    """NoSimpler unless ManiSkill 3 and the assets of these tasks are there."""
    if importlib.util.find_spec("mani_skill") is None:
        raise NoSimpler(f"mani_skill is not installed: {INSTALL}")
    if missing := missing_assets(tasks):
        raise NoSimpler(f"{missing[0]} is missing: {INSTALL}")


def _flat(*tensors: Any) -> NDArray[np.float64]:
    return np.concatenate([tensor.cpu().numpy().reshape(-1) for tensor in tensors]).astype(np.float64)
