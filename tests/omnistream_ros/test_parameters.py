# SPDX-License-Identifier: Apache-2.0
"""Parameters through the services that `ros2 param` uses: described, ranged, refused with reasons, effective."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from rcl_interfaces.srv import DescribeParameters, GetParameters
from rclpy.node import Node

from omnistream.errors import ConfigError
from omnistream_ros.parameters import Effect, Parameters, ParameterSpec, reference_rows
from omnistream_ros.qos import qos_problem
from omnistream_ros.testing import Graph

SPECS = (
    ParameterSpec("max_rate", 0.0, "Frames per second at most.", unit="Hz", minimum=0.0, maximum=1000.0),
    ParameterSpec("window", 16, "Frames.", minimum=1, maximum=64, effect=Effect.CONFIGURE),
    ParameterSpec("transport", "raw", "Which topic.", choices=("raw", "compressed"), effect=Effect.START),
    ParameterSpec("image_qos", "sensor", "QoS.", check=qos_problem),
    ParameterSpec("cameras", (), "Names."),
    ParameterSpec("extrinsic", (), "Pose.", item_type=float, check=lambda v: None if len(v) in (0, 7) else "7 numbers"),
    ParameterSpec("on", True, "Switch."),
)


@pytest.fixture
def graph(ros_domain: int) -> Iterator[Graph]:
    with Graph(ros_domain) as graph:
        yield graph


@pytest.fixture
def parameters(graph: Graph) -> Parameters:
    node = Node("subject", context=graph.context)
    parameters = Parameters(node, SPECS)
    graph.add(node)
    return parameters


def test_descriptions_and_ranges_reach_the_tools(graph: Graph, parameters: Parameters) -> None:
    request = DescribeParameters.Request(names=["max_rate", "window", "transport"])
    rate, window, transport = graph.call(DescribeParameters, "/subject/describe_parameters", request).descriptors
    assert rate.description == "Frames per second at most. [Hz]"
    assert (rate.floating_point_range[0].from_value, rate.floating_point_range[0].to_value) == (0.0, 1000.0)
    assert window.integer_range[0].to_value == 64
    assert transport.read_only and transport.additional_constraints == "one of: raw, compressed"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("max_rate", 2000.0, "max_rate"),
        ("max_rate", float("nan"), "finite|range"),
        ("max_rate", "fast", "type"),
        ("transport", "compressed", "read-only"),
        ("image_qos", "fastest", "'fastest'; expected one of sensor"),
        ("image_qos", "sensor:0", "depth '0'"),
        ("extrinsic", [1.0, 2.0], "extrinsic: 7 numbers"),
    ],
)
def test_a_bad_value_is_refused_with_the_reason(
    graph: Graph, parameters: Parameters, name: str, value: object, reason: str
) -> None:
    before = parameters[name]
    result = graph.set_parameter("/subject", name, value)
    assert not result.successful
    assert re.search(reason, result.reason), result.reason
    assert parameters[name] == before


def test_a_good_value_takes_effect(graph: Graph, parameters: Parameters) -> None:
    assert graph.set_parameter("/subject", "max_rate", 12.5).successful
    assert parameters["max_rate"] == 12.5
    response = graph.call(GetParameters, "/subject/get_parameters", GetParameters.Request(names=["max_rate"]))
    assert response.values[0].double_value == 12.5


def test_a_configure_parameter_is_locked_while_configured(graph: Graph) -> None:
    locked = [False]
    node = Node("subject", context=graph.context)
    parameters = Parameters(node, SPECS, locked=lambda: locked[0])
    graph.add(node)
    assert graph.set_parameter("/subject", "window", 8).successful
    locked[0] = True
    result = graph.set_parameter("/subject", "window", 4)
    assert not result.successful and "configure" in result.reason
    assert parameters["window"] == 8
    assert graph.set_parameter("/subject", "window", 8).successful  # loading the same file again does no harm


def test_lists_are_lists_and_may_be_empty(graph: Graph, parameters: Parameters) -> None:
    assert parameters["cameras"] == [] and parameters["extrinsic"] == []
    assert graph.set_parameter("/subject", "extrinsic", [0.0] * 6 + [1.0]).successful
    assert parameters["extrinsic"] == [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("max_rate:=10", r"max_rate is 10; expected double; write 10\.0"),
        ("max_rate:=-1.0", "max_rate"),
        ("transport:=smoke", "transport is 'smoke'; expected one of raw, compressed"),
    ],
)
def test_a_bad_value_at_start_is_refused_readably(ros_domain: int, override: str, reason: str) -> None:
    with Graph(ros_domain, ["--ros-args", "-p", override]) as graph:
        node = graph.add(Node("subject", context=graph.context))
        with pytest.raises(ConfigError, match=reason):
            Parameters(node, SPECS)


def test_misspelt_parameters_are_reported(ros_domain: int) -> None:
    with Graph(ros_domain, ["--ros-args", "-p", "max_rat:=1.0", "-p", "window:=3"]) as graph:
        node = graph.add(Node("subject", context=graph.context))
        parameters = Parameters(node, SPECS)
        assert parameters["window"] == 3
        (sentence,) = parameters.undeclared()
        assert "'max_rat'" in sentence and "'max_rate'" in sentence


def test_documentation_rows_come_from_the_same_table() -> None:
    rows = {row[0]: row for row in reference_rows(SPECS)}
    assert rows["max_rate"] == ("max_rate", "double", "0.0", "0.0..1000.0 Hz", "Frames per second at most.")
    assert rows["cameras"][1:3] == ("string array", "[]")
    assert rows["on"][2] == "true"
    assert "at start" in rows["transport"][4]
