# SPDX-License-Identifier: Apache-2.0
"""The topics on which the simulated arm is commanded. What is refused changes nothing, and is told of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from std_msgs.msg import Float64, Float64MultiArray

from omnistream.errors import InputError
from omnistream_ros.diagnostics import Level, Report
from omnistream_ros.qos import qos_profile

from ..commander import Commander
from .messages import BASE, TOOL, Frames

REFUSED_FOR_S = 5.0
"""So long diagnostics tell of a command that was refused."""


class CommandTopics:
    """Messages in, whenever they come; what they ask for goes to the commander.

    Args:
        node: whose topics they are.
        commander: asked for the next action by the simulation.
        frames: in which a velocity may be.
    """

    def __init__(self, node: Node, commander: Commander, frames: Frames) -> None:
        self._node, self._commander = node, commander
        self._in_tool = {frames.world: False, frames(BASE): False, frames(TOOL): True}
        self._refused, self._refused_at, self._refusals = "", -REFUSED_FOR_S, 0

    def listen(self) -> None:
        """Commands are taken from now on."""
        qos = qos_profile("command")
        for kind, topic, take in (
            (Float64MultiArray, "~/relative_action", self._on_action),
            (TwistStamped, "~/delta_twist_cmds", self._on_twist),
            (Float64, "~/gripper_command", self._on_gripper),
        ):
            self._node.create_subscription(kind, topic, self._guarded(take), qos)

    def report(self) -> Report:
        """What was commanded, for /diagnostics."""
        commander = self._commander
        findings = []
        if time.monotonic() - self._refused_at < REFUSED_FOR_S:
            findings.append((Level.WARN, f"refused: {self._refused}"))
        return Report.worst(
            findings,
            f"{commander.accepted} commands",
            accepted=commander.accepted,
            refused=self._refusals,
            superseded=commander.superseded,
            clipped=commander.clipped,
        )

    def _guarded(self, take: Callable[[Any], None]) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            try:
                take(message)
            except InputError as error:
                self._refused, self._refused_at = str(error), time.monotonic()
                self._refusals += 1
                self._node.get_logger().warning(f"refused: {error}", throttle_duration_sec=1.0)

        return receive

    def _on_action(self, message: Float64MultiArray) -> None:
        self._commander.act(message.data)

    def _on_twist(self, message: TwistStamped) -> None:
        frame = message.header.frame_id.lstrip("/")
        if frame not in self._in_tool:
            raise InputError(f"twist is in the frame {frame!r}; expected one of {', '.join(self._in_tool)}")
        linear, angular = message.twist.linear, message.twist.angular
        velocity = [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]
        self._commander.move(velocity, in_tool=self._in_tool[frame])

    def _on_gripper(self, message: Float64) -> None:
        self._commander.grip(message.data)
