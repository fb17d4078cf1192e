# SPDX-License-Identifier: Apache-2.0
"""A small ROS graph inside a test: real nodes, real DDS, each node with an executor and a thread of its own.

    with Graph(domain_id) as graph:
        graph.add(NodeUnderTest("node", context=graph.context))
        depth = graph.collect(Image, "/node/depth")
        graph.publish(Image, "/image", message)
        graph.wait(lambda: depth, "a depth image")

Everything is torn down at the end of the ``with`` block. `wait` fails with what was awaited.

It is part of the package because it tests nodes of several packages, and yours that are built on `ManagedNode`. Nothing
else of the package imports it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

from omnistream.model.config import BackboneConfig, HeadConfig, ModelConfig

from .qos import qos_profile
from .running import Spinner

SMALL_MODEL = ModelConfig(
    backbone=BackboneConfig(dim=64, depth=4, heads=2),
    heads=HeadConfig(taps=(0, 1, 2, 3), projections=(8, 16, 24, 32), features=16),
    camera_token=True,
    image_size=64,
    scale="metric",
)
"""A model with everything, a few milliseconds on one core. Called metric so that the node publishes all its topics."""


class Graph:
    """Nodes of one test in one ROS context.

    Args:
        domain_id: ROS domain of this test, so that tests running side by side do not hear each other.
        args: command line arguments of all nodes, e.g. ``["--ros-args", "-p", "max_rate:=5.0"]``.
    """

    def __init__(self, domain_id: int, args: list[str] | None = None) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=args, context=self.context, domain_id=domain_id)
        self.running: list[Spinner] = []
        self._publishers: dict[tuple[str, str], Any] = {}
        self._clients: dict[str, Any] = {}
        self.node = self.add(Node("test", context=self.context, use_global_arguments=False))
        """The test's own node."""

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, node: Any) -> Any:
        """Spins `node` in a thread of its own; returns it."""
        self.running.append(Spinner(node))
        return node

    def remove(self, node: Any) -> None:
        """Stops and destroys `node`, as if its process had ended."""
        spinner = next(spinner for spinner in self.running if spinner.node is node)
        self.running.remove(spinner)
        spinner.end(timeout=2.0)
        node.destroy_node()

    def close(self) -> None:
        """Stops all nodes, last added first."""
        for spinner in reversed(list(self.running)):
            self.remove(spinner.node)
        rclpy.shutdown(context=self.context)

    def publish(self, kind: Any, topic: str, message: Any, qos: str = "reliable") -> None:
        """Publishes one message; before the first on a topic it waits until somebody subscribes."""
        key = (topic, qos)
        if key not in self._publishers:
            publisher = self.node.create_publisher(kind, topic, _qos(qos))
            self._publishers[key] = publisher
            self.wait(lambda: publisher.get_subscription_count() > 0, f"a subscriber of {topic}")
        self._publishers[key].publish(message)

    def collect(self, kind: Any, topic: str, qos: str = "reliable", connect: bool = True) -> list[Any]:
        """A list that fills with the messages of `topic`. With `connect`, waits for its publisher first."""
        received: list[Any] = []
        subscription = self.node.create_subscription(kind, topic, received.append, _qos(qos))
        if connect:
            self.wait(lambda: self.node.count_publishers(topic) > 0, f"a publisher of {topic}")
            # The other end needs a moment more to see us; there is no event for that in rclpy.
            time.sleep(0.1)
        del subscription  # the node keeps it
        return received

    def call(self, kind: Any, name: str, request: Any = None, timeout: float = 10.0) -> Any:
        """Calls a service and returns its response."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        if not client.wait_for_service(timeout_sec=timeout):
            raise AssertionError(f"service {name} did not appear within {timeout} s")
        future = client.call_async(kind.Request() if request is None else request)
        self.wait(future.done, f"a response of {name}", timeout)
        return future.result()

    def set_parameter(self, node_name: str, name: str, value: Any) -> Any:
        """Sets one parameter through the node's service; returns SetParametersResult."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, f"{node_name}/set_parameters", request).results[0]

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = 10.0) -> Any:
        """Waits until `condition` is true and returns its value; fails naming `what` after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > end:
                raise AssertionError(f"waited {timeout} s for {what}, in vain")
            time.sleep(0.005)
        return value


def read_points(cloud: PointCloud2) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Points f32 [H, W, 3] and rgb u8 [H, W, 3] (or None) of a cloud from `images.points_message`, little endian."""
    values = np.frombuffer(cloud.data, np.float32).reshape(cloud.height, cloud.width, cloud.point_step // 4)
    rgb = None if values.shape[2] == 3 else np.ascontiguousarray(values[..., 3:]).view(np.uint8)[..., 2::-1]
    return values[..., :3], rgb


def _qos(text: str) -> QoSProfile:
    return qos_profile(text)
