# SPDX-License-Identifier: Apache-2.0
"""The simulated Panda with a policy: what its two nodes are started with. The limits are in assets/tabletop.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnistream.contract import Contract, load_contract
from omnistream.errors import ContractError
from omnistream.policy.default import DEFAULT, default_policy
from omnistream_ros.processes import ros_parameters

PARAMETERS = Path(__file__).parent / "assets" / "tabletop.yaml"
CAMERAS = {"static": "static", "gripper": "wrist"}
"""In contracts of its demonstrations, and as the simulator calls them."""
PHYSICS_RATE = 240
PATIENCE_S = 0.25


@dataclass(frozen=True, kw_only=True)
class TabletopRobot:
    """See the module; `open_robot` makes one."""

    policy: Path
    """Its folder."""
    contract: Contract
    """Of the policy."""
    weights: str = "default"
    """Of the backbone that it was trained on."""
    sim_time: bool = False
    """Whether all are on simulated time: then a machine that does not keep up slows the robot, not only the policy."""
    factor: float = 1.0
    """Simulated seconds per second."""
    patience: float = PATIENCE_S
    """Seconds for which a picture, an inference and a command are good."""
    task_time: float = 8.0
    """Simulated seconds that a task may take."""
    policy_parameters: Mapping[str, Any] = field(default_factory=dict)
    """More of the policy node's, or other values."""

    @property
    def cameras(self) -> dict[str, str]:
        """Topics of the policy's pictures, by the contract's names."""
        return {camera.name: f"/{CAMERAS[camera.name]}/image_raw" for camera in self.contract.cameras}

    def simulator_words(self) -> list[str]:
        """Arguments of the simulator node. The static camera is always there: people look through it."""
        sizes = {camera.name: [camera.width, camera.height] for camera in self.contract.cameras}
        given: dict[str, Any] = {
            "cameras": ["static", *(CAMERAS[name] for name in sizes if name != "static")],
            "rate": round(self.contract.rate),
            "real_time_factor": float(self.factor),
            "publish_clock": self.sim_time,
            "command_timeout": self.patience,
            "task_time": float(self.task_time),
            "ground_truth": False,
            "publish_tf": False,
        }
        given |= {"image_size": sizes["static"]} if "static" in sizes else {}
        given |= {"wrist_image_size": sizes["gripper"]} if "gripper" in sizes else {}
        return _with_file(given)

    def policy_words(self) -> list[str]:
        """Arguments of the policy node, whose commands go to the simulator."""
        gates = dict.fromkeys(("max_observation_age", "inference_deadline", "max_tick_gap"), self.patience)
        given: dict[str, Any] = {"policy": str(self.policy), "weights": self.weights, "use_sim_time": self.sim_time}
        given |= gates | dict(self.policy_parameters)
        grippers = [self.contract.action_names[gripper.index] for gripper in self.contract.action.grippers]
        remaps = [
            *(f"/{name}/image_raw:={topic}" for name, topic in self.cameras.items()),
            "~/twist:=/simulator/delta_twist_cmds",
            *(f"~/{name}:=/simulator/gripper_command" for name in grippers),
        ]
        return [*_with_file(given), *(word for remap in remaps for word in ("-r", remap))]


def open_robot(policy: str | Path, weights: str = "default", **options: Any) -> TabletopRobot:
    """A policy's folder, or `default`; options: other fields of `TabletopRobot`.

    Raises:
        CheckpointError: there is no default policy.
        ContractError: its contract cannot be read, or is that of another robot.
    """
    folder = default_policy() if policy == DEFAULT else Path(policy).expanduser().absolute()
    path = folder / "contract.json"
    contract = load_contract(path)
    if problem := _problem(contract):
        raise ContractError(f"{path}: {problem}: it is not a policy of the simulated robot at the table")
    return TabletopRobot(policy=folder, contract=contract, weights=weights, **options)


def _problem(contract: Contract) -> str:
    unknown = [camera.name for camera in contract.cameras if camera.name not in CAMERAS]
    if unknown:
        return f"camera {unknown[0]!r}; expected {' and '.join(CAMERAS)}"
    if contract.rate != round(contract.rate) or PHYSICS_RATE % round(contract.rate):
        return f"{contract.rate:g} Hz; expected a divisor of {PHYSICS_RATE}"
    if contract.action.mode != "delta" or contract.action.frame != "world":
        return f"actions are {contract.action.mode} in {contract.action.frame}; expected delta in world"
    return ""


def _with_file(given: dict[str, object]) -> list[str]:
    words = ros_parameters(**given)
    return [words[0], "--params-file", str(PARAMETERS), *words[1:]]
