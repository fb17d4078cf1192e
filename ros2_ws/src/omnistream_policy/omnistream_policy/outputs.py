# SPDX-License-Identifier: Apache-2.0
"""Commands as messages. Which numbers leave is decided before, in `omnistream.policy.outbox`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, TwistStamped, Vector3
from numpy.typing import NDArray
from rclpy.duration import Duration as Timeout
from rclpy.node import Node
from std_msgs.msg import Float64, Float64MultiArray, Header, MultiArrayDimension, MultiArrayLayout
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from omnistream.errors import ConfigError
from omnistream.policy.control import ControlSettings
from omnistream.policy.outbox import GRIPPER, Outbox, Outgoing
from omnistream.policy.settings import output_names
from omnistream_ros.parameters import Parameters
from omnistream_ros.qos import qos_profile

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

    def __init__(self, node: Node, parameters: Parameters, settings: ControlSettings) -> None:
        self._node, self._settings = node, settings
        action = settings.contract.action
        self.outbox = Outbox(settings, output_names(parameters, settings), parameters["trajectory_velocities"])
        """What commands become."""
        self._frame = parameters["command_frame"] or action.frame
        arm_names = [settings.contract.action_names[i] for i in action.arm]
        self._joints = list(parameters["joint_names"]) or arm_names
        if len(self._joints) != len(arm_names):
            raise ConfigError(f"joint_names has {len(self._joints)} names; the action's arm has {len(arm_names)}")
        self._dry = bool(parameters["dry_run"])
        prefix = "~/dry_run/" if self._dry else "~/"
        qos = qos_profile(parameters["qos.command"])
        self._publishers = {
            name: node.create_publisher(KINDS.get(name, Float64), prefix + name.removeprefix(GRIPPER), qos)
            for name in self.outbox.outputs
        }
        self.topic_of = {name: publisher.topic_name for name, publisher in self._publishers.items()}
        """Output (as in `omnistream.policy.outbox`) -> topic, resolved."""
        self._make: dict[str, Callable[[NDArray[np.float64], Header], Any]] = {
            "twist": self._twist,
            "pose": self._pose,
            "joint_trajectory": self._trajectory,
            "action": self._action,
        }

    @property
    def topics(self) -> list[str]:
        """Resolved names."""
        return list(self.topic_of.values())

    def rivals(self) -> list[str]:
        """Topics of ours on which somebody else publishes too; none in a dry run."""
        return [] if self._dry else [topic for topic in self.topics if self._node.count_publishers(topic) > 1]

    def describe(self) -> list[str]:
        """What will leave, a sentence each: for people, before anything does."""
        limits, action = self._settings.limits, self._settings.contract.action
        names = [self._settings.contract.action_names[i] for i in action.arm]
        kinds = [f"{topic} ({KINDS.get(name, Float64).__name__})" for name, topic in self.topic_of.items()]
        lines = [f"commands ({action.mode}, frame {self._frame}, {1 / limits.period:g} Hz): {', '.join(kinds)}"]
        for i, name in enumerate(names):
            unit = "rad" if action.dimensions[action.arm[i]].unit.startswith("rad") else "SI"
            bounds = f" within {limits.lower[i]:g} .. {limits.upper[i]:g}" if limits.bounded else ""
            lines.append(
                f"  {name}: at most {limits.velocity[i]:g}, {limits.acceleration[i]:g} per s ({unit}/s){bounds}"
            )
        for gripper in action.grippers:
            lines.append(f"  {action.dimensions[gripper.index].name}: open {gripper.open:g}, closed {gripper.closed:g}")
        return lines

    def send(self, left: Sequence[Outgoing], stamp: Time) -> None:
        """Publishes what leaves."""
        for one in left:
            publisher = self._publishers.get(one.output)
            if publisher is not None:  # None: destroyed meanwhile
                make = self._make.get(one.output)
                header = Header(stamp=stamp, frame_id=self._frame)
                publisher.publish(Float64(data=float(one.values[0])) if make is None else make(one.values, header))

    def settle(self, seconds: float) -> None:
        """Waits until all reliable receivers have what was sent, at most so long: with its writer a message may go."""
        end = time.monotonic() + seconds
        with contextlib.suppress(RuntimeError):  # of a middleware that cannot tell
            for publisher in list(self._publishers.values()):
                publisher.wait_for_all_acked(Timeout(seconds=max(0.0, end - time.monotonic())))

    def destroy(self) -> None:
        """Removes the topics."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers = {}

    def _twist(self, values: NDArray[np.float64], header: Header) -> TwistStamped:
        v = values.tolist()
        message = TwistStamped(header=header)
        message.twist.linear = Vector3(x=v[0], y=v[1], z=v[2])
        message.twist.angular = Vector3(x=v[3], y=v[4], z=v[5])
        return message

    def _pose(self, values: NDArray[np.float64], header: Header) -> PoseStamped:
        x, y, z, *q = values.tolist()
        pose = Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=q[0], y=q[1], z=q[2], w=q[3]))
        return PoseStamped(header=header, pose=pose)

    def _trajectory(self, values: NDArray[np.float64], _header: Header) -> JointTrajectory:
        """Stamp zero: starts when it is received (joint_trajectory_controller)."""
        count = len(self._joints)
        points = [
            JointTrajectoryPoint(
                positions=row[:count].tolist(), velocities=row[count:-1].tolist(), time_from_start=_duration(row[-1])
            )
            for row in values
        ]
        return JointTrajectory(header=Header(frame_id=""), joint_names=self._joints, points=points)

    def _action(self, values: NDArray[np.float64], _header: Header) -> Float64MultiArray:
        label = ",".join(self._settings.contract.action_names)
        layout = MultiArrayLayout(dim=[MultiArrayDimension(label=label, size=len(values), stride=len(values))])
        return Float64MultiArray(layout=layout, data=values.tolist())


def _duration(seconds: float) -> Duration:
    whole = round(float(seconds) * 1e9)
    return Duration(sec=whole // 10**9, nanosec=whole % 10**9)
