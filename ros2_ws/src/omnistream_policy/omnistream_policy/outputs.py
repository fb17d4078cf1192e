# SPDX-License-Identifier: Apache-2.0
"""Commands as messages. Each kind says what it needs of the contract, and what its stop command is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, TwistStamped, Vector3
from numpy.typing import NDArray
from rclpy.node import Node
from std_msgs.msg import Float64, Float64MultiArray, Header, MultiArrayDimension, MultiArrayLayout
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from omnistream.errors import ConfigError
from omnistream.geometry.rotations import matrix_from_quaternion, quaternion_from_matrix
from omnistream.policy.control import Command, ControlSettings
from omnistream_ros.parameters import Parameters
from omnistream_ros.qos import qos_profile

from .parameters import JOINTS, default_outputs

STOP_REPEATS = 2
"""So often a stop command is sent again, one control period apart: a receiver may just have been starting."""

KINDS: dict[str, Any] = {
    "twist": TwistStamped,
    "pose": PoseStamped,
    "joint_trajectory": JointTrajectory,
    "action": Float64MultiArray,
}


class Outputs:
    """The command publishers. They are no lifecycle publishers: a stop command must leave in every state.

    Raises ConfigError for an output that the contract, or what is known of the arm, cannot fill.
    """

    def __init__(self, node: Node, parameters: Parameters, settings: ControlSettings, located: bool) -> None:
        """located: whether somebody says where the arm is (position_topic)."""
        self._node, self._settings = node, settings
        action = settings.contract.action
        self.names = list(parameters["outputs"]) or default_outputs(settings.contract)
        for name in self.names:
            _check(name, settings, located)
        self._frame = parameters["command_frame"] or action.frame
        arm_names = [settings.contract.action_names[i] for i in action.arm]
        self._joints = list(parameters["joint_names"]) or arm_names
        if len(self._joints) != len(arm_names):
            raise ConfigError(f"joint_names has {len(self._joints)} names; the action's arm has {len(arm_names)}")
        self._velocities = parameters["trajectory_velocities"]
        prefix = "~/dry_run/" if parameters["dry_run"] else "~/"
        qos = qos_profile(parameters["qos.command"])
        self._publishers = {
            name: node.create_publisher(KINDS[name], prefix + name, qos) for name in self.names if name in KINDS
        }
        grippers = [action.dimensions[g.index].name for g in action.grippers] if "gripper" in self.names else []
        self._grippers = [node.create_publisher(Float64, prefix + name, qos) for name in grippers]
        self._make: dict[str, Callable[[Command, Header], Any]] = {
            "twist": self._twist,
            "pose": self._pose,
            "joint_trajectory": self._trajectory,
            "action": self._action,
        }
        self._orientation = np.eye(3)
        self._repeats = 0
        self._stop: Command | None = None

    @property
    def topics(self) -> list[str]:
        """Resolved names."""
        return [publisher.topic_name for publisher in [*self._publishers.values(), *self._grippers]]

    def rivals(self) -> list[str]:
        """Topics of ours on which somebody else publishes too."""
        return [topic for topic in self.topics if self._node.count_publishers(topic) > 1]

    def describe(self) -> list[str]:
        """What will leave, a sentence each: for people, before anything does."""
        limits, action = self._settings.limits, self._settings.contract.action
        names = [self._settings.contract.action_names[i] for i in action.arm]
        lines = [f"commands ({action.mode}, frame {self._frame}, {1 / limits.period:g} Hz): {', '.join(self.topics)}"]
        for i, name in enumerate(names):
            unit = "rad" if action.dimensions[action.arm[i]].unit.startswith("rad") else "SI"
            bounds = f" within {limits.lower[i]:g} .. {limits.upper[i]:g}" if limits.bounded else ""
            lines.append(
                f"  {name}: at most {limits.velocity[i]:g}, {limits.acceleration[i]:g} per s ({unit}/s){bounds}"
            )
        for gripper in action.grippers:
            lines.append(f"  {action.dimensions[gripper.index].name}: open {gripper.open:g}, closed {gripper.closed:g}")
        return lines

    def begin(self, orientation: Sequence[float] | None) -> None:
        """A start: targets go on from this orientation (quaternion x y z w) of the tool."""
        self._orientation = np.eye(3) if orientation is None else matrix_from_quaternion(orientation)

    def send(self, command: Command, stamp: Time) -> None:
        """Publishes a command. A stop is sent again at the next ticks on which nothing else leaves."""
        if command.kind == "none":
            if self._stop is None or not self._repeats:
                return
            self._repeats -= 1
            command = self._stop
        elif command.kind == "stop":
            self._stop, self._repeats = command, STOP_REPEATS
        else:
            self._stop = None
            if len(command.velocity) >= 6:
                self._orientation = _turned(self._orientation, command.velocity[3:6] * command.step)
        for name, publisher in self._publishers.items():
            message = self._make[name](command, Header(stamp=stamp, frame_id=self._frame))
            if message is not None:
                publisher.publish(message)
        if command.kind == "move":  # at a stop a gripper keeps what it holds
            for publisher, value in zip(self._grippers, command.grippers, strict=False):
                publisher.publish(Float64(data=float(value)))

    def destroy(self) -> None:
        """Removes the topics."""
        for publisher in [*self._publishers.values(), *self._grippers]:
            self._node.destroy_publisher(publisher)
        self._publishers, self._grippers = {}, []

    def _twist(self, command: Command, header: Header) -> TwistStamped:
        v = [*command.velocity.tolist(), 0.0, 0.0, 0.0]
        message = TwistStamped(header=header)
        message.twist.linear = Vector3(x=v[0], y=v[1], z=v[2])
        message.twist.angular = Vector3(x=v[3], y=v[4], z=v[5])
        return message

    def _pose(self, command: Command, header: Header) -> PoseStamped | None:
        if command.target is None:
            return None
        x, y, z = command.target[:3].tolist()
        q = quaternion_from_matrix(self._orientation).tolist()
        pose = Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=q[0], y=q[1], z=q[2], w=q[3]))
        return PoseStamped(header=header, pose=pose)

    def _trajectory(self, command: Command, header: Header) -> JointTrajectory | None:
        """Stamp zero: starts when it is received (joint_trajectory_controller)."""
        if command.target is None:
            return None
        limits, still = self._settings.limits, [0.0] * len(command.velocity)
        moving = command.kind == "move" and self._velocities
        first = JointTrajectoryPoint(positions=command.target.tolist(), time_from_start=_duration(limits.period))
        if self._velocities:
            first.velocities = command.velocity.tolist() if moving else still
        points = [first]
        if moving:  # comes to rest half a period's way further, if nothing more is heard
            rest = np.clip(command.target + command.velocity * limits.period / 2, limits.lower, limits.upper)
            points.append(
                JointTrajectoryPoint(
                    positions=rest.tolist(), velocities=still, time_from_start=_duration(2 * limits.period)
                )
            )
        return JointTrajectory(header=Header(frame_id=""), joint_names=self._joints, points=points)

    def _action(self, command: Command, header: Header) -> Float64MultiArray | None:
        values = command.in_units(self._settings)
        if not np.isfinite(values).all() or (command.kind == "stop" and not self._tells(command)):
            return None
        label = ",".join(self._settings.contract.action_names)
        layout = MultiArrayLayout(dim=[MultiArrayDimension(label=label, size=len(values), stride=len(values))])
        return Float64MultiArray(layout=layout, data=values.tolist())

    def _tells(self, command: Command) -> bool:
        """Whether a stop can be said in the contract's action: its grippers have values only once they had one."""
        return len(command.grippers) == len(self._settings.contract.action.grippers)


def _check(name: str, settings: ControlSettings, located: bool) -> None:
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


def _duration(seconds: float) -> Duration:
    whole = round(seconds * 1e9)
    return Duration(sec=whole // 10**9, nanosec=whole % 10**9)


def _turned(rotation: NDArray[np.float64], vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """[3, 3] turned by a rotation vector [3] about the frame's axes."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return rotation
    axis = vector / angle
    quaternion = [*(axis * np.sin(angle / 2)).tolist(), np.cos(angle / 2)]
    return matrix_from_quaternion(quaternion) @ rotation
