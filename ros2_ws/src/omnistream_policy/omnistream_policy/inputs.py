# SPDX-License-Identifier: Apache-2.0
"""The subscriptions of an active node. What becomes of the messages is `omnistream.policy.intake`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState

from omnistream.contract import Contract
from omnistream.policy.intake import STATE, Intake, camera_topics, stamp_of
from omnistream.policy.settings import JOINTS
from omnistream.sync.aligner import Observation
from omnistream_msgs.msg import FeatureMap
from omnistream_ros.parameters import Parameters
from omnistream_ros.qos import qos_profile


class Inputs(Intake):
    """See the module.

    Args:
        contract: of the policy.
        state: whether the policy reads the contract's state.
        observed: called with each aligned observation (messages, undecoded), in the thread of the callback.
    """

    def __init__(
        self,
        node: Node,
        parameters: Parameters,
        contract: Contract,
        state: bool,
        observed: Callable[[Observation], None],
    ) -> None:
        super().__init__(parameters, contract, state)
        self._node, self._parameters = node, parameters
        self._observed = observed
        self._ahead = round(parameters["max_observation_age"] * 1e9)
        self._subscriptions: list[Any] = []
        self._group = MutuallyExclusiveCallbackGroup()

    def topics(self) -> dict[str, str]:
        """Camera (or state, position) -> topic, resolved."""
        found = camera_topics(self._parameters, self.contract)
        if self.has_state:
            found[STATE] = self._parameters["state_topic"]
        return {name: self._node.resolve_topic_name(topic) for name, topic in found.items()}

    def subscribe(self) -> None:
        """Messages are taken from now on."""
        self.forget()
        qos = qos_profile(self._parameters["qos.input"])
        kind = FeatureMap if self._parameters["source"] == "features" else Image
        for name, topic in self.topics().items():
            if name == STATE:
                self._listen(JointState, topic, self._on_state, qos)
            else:
                self._listen(kind, topic, partial(self._on_picture, name), qos)
        if self.located:
            joints = self.contract.action.frame == JOINTS
            topic = self._parameters["position_topic"]
            self._listen(JointState if joints else PoseStamped, topic, self._on_place, qos)

    def unsubscribe(self) -> None:
        """No more messages."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _listen(self, kind: Any, topic: str, callback: Callable[[Any], None], qos: Any) -> None:
        self._subscriptions.append(
            self._node.create_subscription(kind, topic, callback, qos, callback_group=self._group)
        )

    def _on_picture(self, name: str, message: Image | FeatureMap) -> None:
        if not self._early(message):
            self._tell(self.add_picture(name, message, time.monotonic_ns()))

    def _on_state(self, message: JointState) -> None:
        if not self._early(message):
            self._tell(self.add_state(message, time.monotonic_ns()))

    def _on_place(self, message: PoseStamped | JointState) -> None:
        if not self._early(message):
            (self.add_pose if isinstance(message, PoseStamped) else self.add_joints)(message, time.monotonic())

    def _early(self, message: Any) -> bool:
        """Whether it is of the future. Taken, it would hold up whatever comes until that is now."""
        early = stamp_of(message) - self._node.get_clock().now().nanoseconds > self._ahead
        self.drops["ahead"] += early
        return bool(early)

    def _tell(self, observations: list[Observation]) -> None:
        for observation in observations:
            self._observed(observation)
