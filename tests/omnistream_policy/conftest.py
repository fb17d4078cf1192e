# SPDX-License-Identifier: Apache-2.0
"""A real policy node on real rclpy with a network of random weights; a robot that shows pictures and hears commands."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from geometry_msgs.msg import TwistStamped
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Float64, Header
from std_srvs.srv import Trigger

from omnistream.contract import Action, Camera, Contract, Dimension, Gripper, Statistics
from omnistream.policy.checkpoint import LoadedPolicy, save_policy
from omnistream.policy.config import HeadConfig, LanguageConfig, PolicyConfig, PolicyShape, PoolingConfig, VisionConfig
from omnistream.policy.network import PolicyNetwork
from omnistream.policy.scaling import scaling_from
from omnistream.policy.tokens import WordTokens
from omnistream.policy.vision import feature_size, grid_of
from omnistream_msgs.msg import PolicyStatus
from omnistream_msgs.srv import SetInstruction
from omnistream_policy.node import PolicyNode
from omnistream_ros import images
from omnistream_ros.lifecycle import State
from omnistream_ros.testing import SMALL_MODEL, Graph

SIZE = 64
RATE = 20.0
LIMIT = 0.1
CONFIG = PolicyConfig(
    chunk=8,
    vision=VisionConfig(source="pixels", image_size=64, stream="sink_window:1,3"),
    language=LanguageConfig(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=64),
    pooling=PoolingConfig(heads=4, width=32, values=8),
    head=HeadConfig(hidden=32, widths=(32,)),
)
SEEING = dataclasses.replace(CONFIG, vision=dataclasses.replace(CONFIG.vision, source="backbone"))
MODEL = dataclasses.replace(SMALL_MODEL, backbone=dataclasses.replace(SMALL_MODEL.backbone, dim=32))
MOVES = ("x", "y", "z", "roll", "pitch", "yaw")


def contract(**changes: Any) -> Contract:
    ones = (1.0,) * 7
    statistics = Statistics(100, (-1.0,) * 7, ones, (0.0,) * 7, (0.3,) * 7, (-0.9,) * 7, (0.9,) * 7)
    action = Action(
        tuple(Dimension(name, "1") for name in (*MOVES, "gripper")),
        mode="delta",
        frame="base_link",
        grippers=(Gripper(6, 1.0, -1.0),),
    )
    whole = Contract(
        rate=RATE, cameras=(Camera("front", SIZE, SIZE),), state=(), action=action, action_statistics=statistics
    )
    return dataclasses.replace(whole, **changes)


def make_policy(folder: Path, agreed: Contract, config: PolicyConfig, backbone: Any = None, seed: int = 3) -> str:
    """A random policy on disk. backbone: (hash, ModelConfig) where it looks at features."""
    dim, patch = feature_size(config.vision, None if backbone is None else backbone[1])
    grids = tuple(grid_of(c.height, c.width, config.vision, patch) for c in agreed.cameras)
    shape = PolicyShape(
        cameras=tuple(c.name for c in agreed.cameras), grids=grids, feature_dim=dim, arm=len(agreed.action.arm),
        grippers=len(agreed.action.grippers), state=len(agreed.state),
    )  # fmt: skip
    tokens = WordTokens.of(["lift the red cube", "open the drawer"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PolicyNetwork(config, shape, tokens).eval()
    hashed = dataclasses.replace(agreed, backbone=None if backbone is None else backbone[0])
    return str(save_policy(LoadedPolicy(network, tokens, hashed, scaling_from(agreed, "none")), folder))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def graph(ros_domain: int) -> Iterator[Graph]:
    with Graph(ros_domain) as graph:
        yield graph


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_policy(tmp_path_factory.mktemp("policies") / "pixels", contract(), CONFIG)


GIVEN: dict[str, Any] = {
    "image_topic": "/{camera}/image_raw",
    "action_scale": [0.02, 0.02, 0.02, 0.05, 0.05, 0.05],
    "status_rate": 20.0,
    "ramp": 0.0,
    "frozen_after": 0,
    # The machine that runs tests may be busy with ten other things; `make bench-policy-node` measures the real numbers.
    "max_observation_age": 1.0,
    "inference_deadline": 1.0,
    "max_tick_gap": 1.5,
}


@pytest.fixture
def start_node(graph: Graph, policy_folder: str) -> Iterator[Callable[..., PolicyNode]]:
    nodes: list[PolicyNode] = []

    def start(name: str = "policy", wait: bool = True, own_process: bool = False, **parameters: Any) -> PolicyNode:
        given = GIVEN | {"policy": policy_folder} | {k.replace("__", "."): v for k, v in parameters.items()}
        overrides = [Parameter(key, value=value) for key, value in given.items()]
        node = graph.add(
            PolicyNode(name, own_process=own_process, context=graph.context, parameter_overrides=overrides)
        )
        nodes.append(node)
        if wait:
            graph.wait(lambda: node.state is State.ACTIVE or node.fault, "the node to become active", 30)
            assert node.state is State.ACTIVE, node.fault
        return node

    yield start
    for node in nodes:
        node.stop()


class Robot:
    """Shows pictures at the control rate from a thread of its own, and hears what it is told."""

    def __init__(self, graph: Graph, prefix: str = "/policy/", stamped: Callable[[], float] = time.time) -> None:
        self.graph, self.stamped = graph, stamped
        self.statuses: list[PolicyStatus] = graph.collect(PolicyStatus, "/policy/status", "latched")
        self.twists: list[TwistStamped] = []
        self.times: list[float] = []
        graph.node.create_subscription(TwistStamped, f"{prefix}twist", self._hear, 10)
        self.grippers: list[Float64] = graph.collect(Float64, f"{prefix}gripper", "reliable:100", connect=False)
        self.showing = threading.Event()
        self.picture: np.ndarray | None = None
        self.offset = 0.0
        self.damage: Callable[[Image], None] = lambda message: None
        """Done to each picture before it is sent."""
        self._ended = threading.Event()
        self._random = np.random.default_rng(0)
        self._publisher = graph.node.create_publisher(Image, "/front/image_raw", 5)
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()

    def _hear(self, message: TwistStamped) -> None:
        self.times.append(time.monotonic())
        self.twists.append(message)

    def _show(self) -> None:
        while not self._ended.wait(1 / RATE):
            if self.showing.is_set():
                picture = self.picture
                if picture is None:
                    picture = self._random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
                stamp = images.seconds_to_stamp(self.stamped() + self.offset)
                message = images.image_message(picture, Header(stamp=stamp, frame_id="optical"))
                self.damage(message)
                self._publisher.publish(message)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def call(self, service: str) -> Trigger.Response:
        return self.graph.call(Trigger, f"/policy/{service}", timeout=20)

    def instruct(self, text: str) -> SetInstruction.Response:
        request = SetInstruction.Request(instruction=text)
        return self.graph.call(SetInstruction, "/policy/set_instruction", request, timeout=20)

    def run(self, text: str = "open the drawer") -> None:
        """Until commands that move leave."""
        self.showing.set()
        assert self.instruct(text).success
        answer = self.call("start")
        assert answer.success, answer.message
        count = len(self.twists)
        self.graph.wait(lambda: any(map(moves, self.twists[count:])), "a command that moves", 20)

    def stopped(self, state: int, reason: str, timeout: float = 20) -> PolicyStatus:
        """Waits until a status says so, and the last thing heard is a stop."""

        def found() -> PolicyStatus | None:
            last = self.statuses[-1] if self.statuses else None
            return last if last is not None and (last.state, last.reason) == (state, reason) else None

        status = self.graph.wait(found, f"state {state}, {reason}", timeout)
        self.graph.wait(lambda: self.twists and not moves(self.twists[-1]), "a stop command as the last")
        count = len(self.twists)
        time.sleep(0.3)
        assert not any(map(moves, self.twists[count:]))
        return status


def numbers(message: TwistStamped) -> np.ndarray:
    linear, angular = message.twist.linear, message.twist.angular
    return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])


def moves(message: TwistStamped) -> bool:
    return bool(np.abs(numbers(message)).max() > 0)


@pytest.fixture
def robot(graph: Graph) -> Iterator[Callable[..., Robot]]:
    made: list[Robot] = []

    def make(**keywords: Any) -> Robot:
        made.append(Robot(graph, **keywords))
        return made[-1]

    yield make
    for one in made:
        one.close()
