# SPDX-License-Identifier: Apache-2.0
"""A real perception node on real rclpy, with models so small that a frame takes a few milliseconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from omnistream.model.omnistream import OmniStream
from omnistream.weights import random_model, save_model
from omnistream_msgs.msg import StreamStatus
from omnistream_perception.node import PerceptionNode
from omnistream_ros import images
from omnistream_ros.lifecycle import State
from omnistream_ros.testing import SMALL_MODEL, Graph

SIZE = (64, 64)
K = np.array([[60.0, 0, 31.5], [0, 60.0, 31.5], [0, 0, 1]])
FRAME = "camera_optical"

CONFIG = dataclasses.replace(SMALL_MODEL, backbone=dataclasses.replace(SMALL_MODEL.backbone, dim=32))
KINDS = {
    "metric": CONFIG,
    "relative": dataclasses.replace(CONFIG, scale="relative"),
    "untrained": dataclasses.replace(CONFIG, scale="none"),
    "backbone": dataclasses.replace(CONFIG, heads=None, camera_token=False, scale="none"),
}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Checkpoint directories by kind."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return {kind: str(save_model(moving(random_model(config, 0)), folder / kind)) for kind, config in KINDS.items()}


def moving(model: OmniStream) -> OmniStream:
    """Random heads whose pose depends visibly on the frame: their last layers start out as zeros."""
    if model.heads is not None:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.heads.named_parameters():
                if name.startswith("camera") and parameter.ndim > 1:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The models are tiny; more threads only fight for the cores."""
    torch.set_num_threads(1)


@pytest.fixture
def graph(ros_domain: int) -> Iterator[Graph]:
    with Graph(ros_domain) as graph:
        yield graph


Start = Callable[..., PerceptionNode]


@pytest.fixture
def start(graph: Graph, weights: dict[str, str]) -> Start:
    """``start(max_gap=2.0, ...)``: a node with these parameters, active (or as far as it gets with `wait=False`)."""

    def start(name: str = "perception", wait: bool = True, namespace: str = "", **parameters: Any) -> PerceptionNode:
        given = {
            "weights": weights["metric"],
            "expected_image_size": [64, 64],
            "image_topic": "/image",
            "status_rate": 20.0,  # tests wait for it
        } | parameters
        overrides = [Parameter(key.replace("__", "."), value=value) for key, value in given.items()]
        keywords = {"namespace": namespace} if namespace else {}
        node = PerceptionNode(name, context=graph.context, parameter_overrides=overrides, **keywords)
        graph.add(node)
        if wait:
            graph.wait(lambda: node.state is State.ACTIVE or node.fault, "the node to become active")
            assert node.state is State.ACTIVE, node.fault
        return node

    return start


class Camera:
    """A test camera: publishes images with increasing stamps, and listens to what comes back.

    Reliable delivery and a deep queue, so that a test may count.
    """

    def __init__(self, graph: Graph, topic: str = "/image", node: str = "/perception", rate: float = 30.0) -> None:
        self.graph, self.topic, self.node, self.period = graph, topic, node, 1 / rate
        self.stamp = 100.0
        self.random = np.random.default_rng(0)
        self.features = graph.collect(_feature_map(), f"{node}/features", "reliable:100")
        self.statuses: list[StreamStatus] = graph.collect(StreamStatus, f"{node}/status", "latched")

    def header(self, stamp: float | None = None, frame: str = FRAME) -> Header:
        if stamp is None:
            self.stamp += self.period
            stamp = self.stamp
        return Header(stamp=images.seconds_to_stamp(stamp), frame_id=frame)

    def picture(self, size: tuple[int, int] = SIZE) -> np.ndarray:
        return self.random.integers(0, 256, (*size, 3), np.uint8)

    def send(self, message: Image | None = None, **header: Any) -> Image:
        """Publishes an image (a random one) without waiting."""
        if message is None:
            message = images.image_message(self.picture(), self.header(**header))
        self.graph.publish(type(message), self.topic, message, "reliable:100")
        return message

    def served(self, message: Image | None = None, **header: Any) -> Image:
        """Publishes an image and waits for its features; returns it."""
        count = len(self.features)
        message = self.send(message, **header)
        self.graph.wait(lambda: len(self.features) > count, f"the features of the image at {message.header.stamp}")
        assert self.features[-1].header == message.header
        return message

    def calibrate(self, K: np.ndarray = K, size: tuple[int, int] = SIZE, **more: Any) -> None:
        info = images.camera_info_message(K, size[1], size[0], Header(frame_id=FRAME), **more)
        topic = "/".join([*self.topic.split("/")[:-1], "camera_info"])
        self.graph.publish(CameraInfo, topic, info, "reliable:100")

    def status(self, condition: Callable[[StreamStatus], bool], what: str, timeout: float = 5.0) -> StreamStatus:
        """Waits for a status of which `condition` is true: the last one so far, or one that comes."""
        now = max(len(self.statuses) - 1, 0)

        def find() -> StreamStatus | None:
            return next(filter(condition, self.statuses[now:]), None)

        return self.graph.wait(find, f"a status that says {what}", timeout)

    def drops(self, reason: str, count: int = 1) -> StreamStatus:
        """Waits until `count` images were dropped for `reason`."""
        return self.status(lambda s: any(d.reason == reason and d.count == count for d in s.drops), f"{count} {reason}")


def _feature_map() -> type:
    from omnistream_msgs.msg import FeatureMap

    return FeatureMap


@pytest.fixture
def camera(graph: Graph) -> Callable[..., Camera]:
    """``camera()`` after ``start()``: a `Camera` on its image topic."""
    return lambda **keywords: Camera(graph, **keywords)
