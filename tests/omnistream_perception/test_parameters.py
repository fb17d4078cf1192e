# SPDX-License-Identifier: Apache-2.0
"""The node's own parameters through the services that `ros2 param` uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rcl_interfaces.msg import ParameterDescriptor
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters
from rclpy.parameter import Parameter, parameter_value_to_python

from omnistream_perception.node import PerceptionNode
from omnistream_perception.parameters import CAMERA, CAMERAS, NODE, camera_specs
from omnistream_ros.lifecycle import LIFECYCLE_PARAMETERS
from omnistream_ros.testing import Graph

Make = Callable[..., Any]
P = "/perception"


def described(graph: Graph) -> dict[str, ParameterDescriptor]:
    names = graph.call(ListParameters, f"{P}/list_parameters").result.names
    request = DescribeParameters.Request(names=names)
    return {d.name: d for d in graph.call(DescribeParameters, f"{P}/describe_parameters", request).descriptors}


def test_every_parameter_is_declared_described_and_bounded(graph: Graph, start: Make) -> None:
    start(wait=False, autostart=False)
    descriptors = described(graph)
    for spec in (*LIFECYCLE_PARAMETERS, *NODE, *CAMERA):
        descriptor = descriptors[spec.name]
        assert len(descriptor.description) > 5 and descriptor.description[-1] in ".]", spec.name
        if isinstance(spec.default, (int, float)) and not isinstance(spec.default, bool):
            bounds = [*descriptor.integer_range, *descriptor.floating_point_range]
            assert bounds and bounds[0].from_value <= spec.default <= bounds[0].to_value, spec.name


def test_what_param_dump_writes_starts_the_same_node(graph: Graph, start: Make) -> None:
    """Also for parameters that are empty lists, which have no type of their own in a file."""
    first = start(policy="window:5", max_rate=12.5, cameras=["left", "right"], cameras__left__image_topic="/l")
    names = [name for name in described(graph) if not name.startswith("start_type")]
    values = graph.call(GetParameters, f"{P}/get_parameters", GetParameters.Request(names=names)).values
    dumped = {name: parameter_value_to_python(value) for name, value in zip(names, values, strict=True)}
    graph.remove(first)
    overrides = [Parameter(name, value=list(v) if hasattr(v, "tolist") else v) for name, v in dumped.items()]
    second = PerceptionNode(context=graph.context, parameter_overrides=overrides)
    assert dict(second.parameters) == dict(first.parameters)
    second.destroy_node()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("max_rate", -1.0, "max_rate"),
        ("min_confidence", float("inf"), "min_confidence"),
        ("depth_resolution", "half", "expected one of network, full"),
        ("features_dtype", "int8", "expected one of float16, float32"),
        ("policy", "window:3", "at configure only"),
        ("weights", "/elsewhere", "at configure only"),
        ("cameras", ["a"], "read-only"),
        ("position_sigma", 0.0, "position_sigma"),
    ],
)
def test_refused_while_active_with_the_reason(graph: Graph, start: Make, name: str, value: Any, reason: str) -> None:
    start()
    result = graph.set_parameter(P, name, value)
    assert not result.successful and reason in result.reason


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("policy", "full", "bound"),
        ("policy", "window:0", "window"),
        ("base_to_camera", [1.0, 2.0], "expected none, or 7"),
        ("base_to_camera", [0.0] * 7, "quaternion of length 0"),
        ("expected_image_size", [640], "expected 2"),
        ("qos.depth", "quick", "'quick'"),
        ("engine", "steam", "expected one of auto"),
        ("engine", "torch:/somewhere", "onnxruntime:DIR"),
    ],
)
def test_refused_before_configure_with_the_reason(
    graph: Graph, start: Make, name: str, value: Any, reason: str
) -> None:
    start(wait=False, autostart=False)
    result = graph.set_parameter(P, name, value)
    assert not result.successful and reason in result.reason, result.reason


@pytest.mark.parametrize("names", [["1front"], ["a b"], ["x", "x"], [""]])
def test_camera_names_that_cannot_be_topics_are_refused(names: list[str]) -> None:
    assert CAMERAS.problem(names)


def test_cameras_have_parameters_of_their_own() -> None:
    specs = {spec.name: spec for spec in camera_specs("front")}
    assert specs["cameras.front.image_topic"].default == "front/image_raw"
    assert len(specs) == len(CAMERA)
