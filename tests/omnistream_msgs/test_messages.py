# SPDX-License-Identifier: Apache-2.0
"""Every message, service and action of ours goes through real rclpy and DDS and comes out as it went in."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

import rclpy
from rclpy.action import ActionClient, ActionServer
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from omnistream_msgs import action, msg, srv
from omnistream_msgs.msg import FeatureMap, StreamStatus

pytestmark = pytest.mark.ros

SOURCES = Path(__file__).resolve().parents[2] / "ros2_ws" / "src" / "omnistream_msgs"
MESSAGES = sorted(path.stem for path in SOURCES.glob("msg/*.msg"))
SERVICES = sorted(path.stem for path in SOURCES.glob("srv/*.srv"))
ACTIONS = sorted(path.stem for path in SOURCES.glob("action/*.action"))


def filled(kind: Any, salt: int = 1) -> Any:
    """A message in which every field has a value of its own, so that two swapped fields are noticed."""
    return kind(
        **{
            name: _value(field, salt * 31 + place)
            for place, (name, field) in enumerate(kind.get_fields_and_field_types().items())
        }
    )


def _value(field: str, salt: int) -> Any:
    if match := re.fullmatch(r"sequence<(.+)>", field):
        return [_value(match[1], salt + i) for i in range(3)]
    if "/" in field:
        package, name = field.split("/")
        return filled(getattr(importlib.import_module(f"{package}.msg"), name), salt)
    if field == "string":
        return f"text {salt} \N{GREEK SMALL LETTER OMEGA}"
    if field == "boolean":
        return True
    if field in ("float", "double"):
        return salt + 0.25
    bits = int(re.sub(r"\D", "", field))
    return (2 ** (bits - 1) - salt) % 256 if bits == 8 else 2 ** (bits - 1) - salt


@pytest.fixture
def node(ros_domain: int) -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = rclpy.create_node("messages", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield node
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def spin_until(node: Node, condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        node.executor.spin_once(timeout_sec=0.05)
    assert condition(), f"nothing arrived within {seconds} s"


@pytest.mark.parametrize("name", MESSAGES)
def test_message_round_trip(node: Node, name: str) -> None:
    kind = getattr(msg, name)
    received: list[Any] = []
    node.create_subscription(kind, "round_trip", received.append, 1)
    publisher = node.create_publisher(kind, "round_trip", 1)
    sent = filled(kind)
    spin_until(node, lambda: publisher.get_subscription_count() == 1)
    publisher.publish(sent)
    spin_until(node, lambda: received)
    assert received[0] == sent


@pytest.mark.parametrize("name", SERVICES)
def test_service_round_trip(node: Node, name: str) -> None:
    kind = getattr(srv, name)
    requests: list[Any] = []

    def answer(request: Any, response: Any) -> Any:
        requests.append(request)
        return filled(kind.Response)

    node.create_service(kind, "round_trip", answer)
    client = node.create_client(kind, "round_trip")
    spin_until(node, client.service_is_ready)
    future = client.call_async(filled(kind.Request))
    spin_until(node, future.done)
    assert requests == [filled(kind.Request)]
    assert future.result() == filled(kind.Response)


@pytest.mark.parametrize("name", ACTIONS)
def test_action_round_trip(node: Node, name: str) -> None:
    kind = getattr(action, name)
    goals: list[Any] = []

    def execute(handle: Any) -> Any:
        goals.append(handle.request)
        handle.publish_feedback(filled(kind.Feedback))
        handle.succeed()
        return filled(kind.Result)

    server = ActionServer(node, kind, "round_trip", execute)
    client = ActionClient(node, kind, "round_trip")
    spin_until(node, client.server_is_ready)
    feedback: list[Any] = []
    sent = client.send_goal_async(filled(kind.Goal), feedback_callback=lambda m: feedback.append(m.feedback))
    spin_until(node, sent.done)
    result = sent.result().get_result_async()
    spin_until(node, lambda: result.done() and feedback)
    assert (goals, feedback) == ([filled(kind.Goal)], [filled(kind.Feedback)])
    assert result.result().result == filled(kind.Result)
    client.destroy()
    server.destroy()


def test_every_constant_has_a_value_of_its_own() -> None:
    for prefix in ("STATE_", "RESET_"):
        values = [getattr(StreamStatus, name) for name in dir(StreamStatus) if name.startswith(prefix)]
        assert sorted(values) == list(range(len(values)))


def test_every_field_is_documented() -> None:
    """Each field stands below a comment, or beside one, or in a block of fields that does."""
    for path in sorted(path for kind in ("msg", "srv", "action") for path in SOURCES.glob(f"{kind}/*.{kind}")):
        above = ""
        for line in path.read_text().splitlines():
            if re.match(r"[a-z]", line) and "#" not in line:
                assert above.startswith("#") or re.match(r"[a-zA-Z]", above), f"{path.name}: {line!r} has no comment"
            above = line


def test_tf_message_is_the_one_of_ros() -> None:
    """The hash that rosidl gives tf2_msgs/TFMessage in ROS 2 Jazzy; with another one nobody would hear us."""
    from rosbags.typesys import Stores, get_typestore
    from tf2_msgs.msg import TFMessage

    store = get_typestore(Stores.ROS2_JAZZY)
    assert store.hash_rihs01("tf2_msgs/msg/TFMessage").endswith(
        "e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"
    )
    assert TFMessage.get_fields_and_field_types() == {"transforms": "sequence<geometry_msgs/TransformStamped>"}


def test_feature_map_carries_numpy_without_a_copy_per_number() -> None:
    """Assigning an array of bytes is the fast way; a list would be checked element by element."""
    import array

    import numpy as np

    features = np.arange(4 * 5 * 8, dtype=np.float16).reshape(4, 5, 8)
    message = FeatureMap(grid_height=4, grid_width=5, dim=8, dtype="float16")
    message.data = array.array("B", features.tobytes())
    back = np.frombuffer(message.data, np.float16).reshape(message.grid_height, message.grid_width, message.dim)
    np.testing.assert_array_equal(back, features)
