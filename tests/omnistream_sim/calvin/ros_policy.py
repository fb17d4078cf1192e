# SPDX-License-Identifier: Apache-2.0
"""A policy node as the evaluator's policy: observations go to it as ROS messages, its chunks come back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from omnistream.contract import Contract
from omnistream_msgs.msg import ActionChunk
from omnistream_msgs.srv import SetInstruction
from omnistream_policy.node import PolicyNode
from omnistream_ros import images
from omnistream_ros.lifecycle import State
from omnistream_ros.testing import Graph
from omnistream_sim.evaluation.convention import Convention
from omnistream_sim.evaluation.protocols import Observation

CAMERAS = {"static": "rgb_static", "gripper": "rgb_gripper"}
PAUSE = 0.15
"""Seconds between two observations: several control periods, so that a chunk is asked for at each."""
PAST = 0.1
"""How old an observation is when it is sent, s: a late tick of the node must not take it for one from the future."""


class RosPolicy:
    """The protocol of `omnistream_sim.evaluation.protocols.Policy`."""

    def __init__(self, graph: Graph, policy: Path, contract: Contract, convention: Convention, **given: Any) -> None:
        self._graph, self._contract, self._convention = graph, contract, convention
        parameters = {
            "policy": str(policy),
            "image_topic": "/{camera}/image_raw",
            "engine": "torch",
            "device": "cpu",
            "qos.input": "reliable:10",
            "frozen_after": 0,
            "ramp": 0.0,
            # Observations come slower than the robot moves, and the machine may be busy.
            "max_observation_age": 30.0,
            "inference_deadline": 30.0,
            "max_tick_gap": 30.0,
        } | given
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = graph.add(PolicyNode("policy", context=graph.context, parameter_overrides=overrides))
        graph.wait(lambda: self.node.state is State.ACTIVE or self.node.fault, "the node to become active", 60)
        assert self.node.state is State.ACTIVE, self.node.fault
        self._chunks: list[ActionChunk] = graph.collect(ActionChunk, "/policy/chunk", "reliable:100")
        self._instruction = ""
        self._started = False

    def reset(self) -> None:
        """A new episode for the node: it forgets all frames."""
        self._call("reset")
        self._started = False

    def __call__(self, observation: Observation, instruction: str) -> NDArray[np.float64]:
        """Show it one observation, wait for what it makes of it."""
        if instruction != self._instruction:
            request = SetInstruction.Request(instruction=instruction)
            answer = self._graph.call(SetInstruction, "/policy/set_instruction", request, timeout=30)
            assert answer.success, answer.message
            self._instruction = instruction
        if not self._started:
            self._call("start")
            self._started = True
        time.sleep(PAUSE)
        header = Header(stamp=images.seconds_to_stamp(time.time() - PAST), frame_id="optical")
        count = len(self._chunks)
        state = JointState(header=header, name=list(self._contract.state_names), position=observation["state"].tolist())
        self._graph.publish(JointState, "/joint_states", state)
        for name, key in reversed(CAMERAS.items()):  # the first camera, which gives the ticks, comes last
            picture = observation[key]  # type: ignore[literal-required]
            self._graph.publish(Image, f"/{name}/image_raw", images.image_message(picture, header))
        self._graph.wait(lambda: len(self._chunks) > count, "a chunk", 60)
        chunk = self._chunks[-1]
        assert len(self._chunks) == count + 1 and chunk.header.stamp == header.stamp
        actions = np.array(chunk.values).reshape(chunk.rows, len(chunk.names))
        return self._convention.to_simulator(actions, self._contract)

    def _call(self, service: str) -> None:
        answer = self._graph.call(Trigger, f"/policy/{service}", timeout=30)
        assert answer.success, answer.message
