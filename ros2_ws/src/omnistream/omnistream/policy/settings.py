# SPDX-License-Identifier: Apache-2.0
"""From parameters, as a robot's file gives them, to what a controller is configured with. The node and
`omnistream-replay` share this; parameters are any mapping by the names of docs/reference.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from omnistream.contract import Contract
from omnistream.errors import ConfigError
from omnistream.policy.chunks import Blend
from omnistream.policy.control import ControlSettings
from omnistream.policy.guard import Gates
from omnistream.policy.safety import Limits, broadcast

OUTPUTS = ("twist", "pose", "joint_trajectory", "action", "gripper")
JOINTS = "joints"
"""The frame of an action in joint space."""

DEFAULTS: dict[str, Any] = {
    "source": "images",
    "engine": "auto",
    "device": "auto",
    "dtype": "float32",
    "num_threads": 1,
    "weights": "default",
    "language_model": "",
    "contract": "",
    "image_topic": "{camera}/image_raw",
    "features_topic": "perception/{camera}/features",
    "max_skew": 0.05,
    "state_topic": "joint_states",
    "state_names": [],
    "position_topic": "",
    "outputs": [],
    "action_scale": [],
    "joint_names": [],
    "trajectory_velocities": True,
    "control_rate": 0.0,
    "blend": "fade",
    "blend_steps": 3,
    "execute": 1,
    "velocity_limit": [0.1, 0.1, 0.1, 0.5, 0.5, 0.5],
    "acceleration_limit": [0.5, 0.5, 0.5, 2.5, 2.5, 2.5],
    "lower_bound": [],
    "upper_bound": [],
    "start_jump": [0.05],
    "gripper_dwell": 0.3,
    "ramp": 1.0,
    "max_observation_age": 0.25,
    "inference_deadline": 0.25,
    "max_tick_gap": 0.2,
    "frozen_after": 30,
    "max_failures": 5,
}
"""Of the parameters that decide what a policy commands. The node's table has the same; a test holds them together."""


def control_settings(parameters: Mapping[str, Any], contract: Contract) -> ControlSettings:
    """What the parameters and the contract say together. ConfigError, with a sentence, where they disagree."""
    action, p = contract.action, parameters
    size, rate = len(action.arm), p["control_rate"] or contract.rate
    if contract.unspecified:
        raise ConfigError(
            f"the policy's contract does not state {', '.join(contract.unspecified)}; a robot is not commanded in "
            "units or frames that nobody knows"
        )
    if action.mode == "delta" and not math.isclose(rate, contract.rate):
        raise ConfigError(f"control_rate is {rate:g} Hz; deltas are per period of the contract, {contract.rate:g} Hz")
    unitless = [contract.action_names[i] for i in action.arm if action.dimensions[i].unit == "1"]
    if unitless and not p["action_scale"]:
        raise ConfigError(f'action {", ".join(unitless)} has unit "1"; set action_scale to what 1 means in SI units')

    def row(name: str, empty: float) -> tuple[float, ...]:
        return tuple(_bound(value) for value in broadcast(p[name] or [empty], size, name))

    limits = Limits(
        period=1 / rate,
        velocity=row("velocity_limit", 1.0),
        acceleration=row("acceleration_limit", 1.0),
        lower=row("lower_bound", -math.inf),
        upper=row("upper_bound", math.inf),
        start_jump=row("start_jump", 1.0),
        grippers=tuple((gripper.open, gripper.closed) for gripper in action.grippers),
        gripper_dwell=p["gripper_dwell"],
    )
    for i, dimension in enumerate(action.arm[3:] if action.frame != JOINTS else (), 3):
        if math.isfinite(limits.lower[i]) or math.isfinite(limits.upper[i]):
            raise ConfigError(
                f"bounds of {contract.action_names[dimension]} are {limits.lower[i]:g} and {limits.upper[i]:g}; a turn "
                "of a tool is not measured as one number and has none: expected -1e9 and 1e9"
            )
    gates = ("max_observation_age", "inference_deadline", "max_tick_gap", "frozen_after")
    return ControlSettings(
        contract=contract,
        limits=limits,
        scale=broadcast(p["action_scale"] or [1.0], size, "action_scale"),
        gates=Gates(**{name: p[name] for name in gates}),
        blend=Blend(kind=p["blend"], steps=p["blend_steps"]),
        ramp=p["ramp"],
        integrate=bool({"pose", "joint_trajectory"} & set(p["outputs"] or default_outputs(contract))),
    )


def default_outputs(contract: Contract) -> list[str]:
    """What the contract's action asks for."""
    arm = "joint_trajectory" if contract.action.frame == JOINTS else "twist"
    return [arm, *(["gripper"] if contract.action.grippers else [])]


def output_names(parameters: Mapping[str, Any], settings: ControlSettings) -> list[str]:
    """Of `OUTPUTS`, what leaves. ConfigError for one that the contract, or what is known of the arm, cannot fill."""
    names = list(parameters["outputs"]) or default_outputs(settings.contract)
    for name in names:
        _check_output(name, settings, located=bool(parameters["position_topic"]))
    return names


def _check_output(name: str, settings: ControlSettings, located: bool) -> None:
    action = settings.contract.action
    size, joints = len(action.arm), action.frame == JOINTS
    problem = ""
    if name in ("twist", "pose"):
        if joints or size not in (3, 6):
            problem = f"needs 3 or 6 Cartesian dimensions; the action has {size} in frame {action.frame!r}"
        elif action.mode == "absolute" and (name == "twist" or size == 6):
            problem = "needs deltas or velocities; the action is absolute"
    if name == "joint_trajectory" and not joints:
        problem = f"needs an action in joint space (frame {JOINTS!r}); the action's frame is {action.frame!r}"
    if name in ("pose", "joint_trajectory") and not located:
        problem = problem or "needs position_topic: where the arm is at the start"
    if name == "gripper" and not action.grippers:
        problem = "the contract's action has no gripper"
    if problem:
        raise ConfigError(f"output {name!r}: {problem}")


def _bound(value: Any) -> float:
    """Parameters cannot be infinite."""
    return math.copysign(math.inf, value) if abs(value) >= 1e9 else float(value)
