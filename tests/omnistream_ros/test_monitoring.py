# SPDX-License-Identifier: Apache-2.0
"""Latency and rate windows, diagnostics, QoS names and the DDS environment."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from omnistream_ros import environment
from omnistream_ros.diagnostics import Diagnostics, Level, Report
from omnistream_ros.latency import LatencyWindow, RateWindow
from omnistream_ros.qos import QOS_NAMES, qos_profile
from omnistream_ros.testing import Graph

# ------------------------------------------------------------------------------------------------ windows


def test_latency_is_that_of_the_last_ones() -> None:
    window = LatencyWindow(size=100)
    assert math.isnan(window.summary().p50)
    for value in [1000.0] * 50 + list(range(1, 101)):
        window.add(value)
    summary = window.summary()
    expected = np.percentile(range(1, 101), (50, 99))
    assert (summary.p50, summary.p99, summary.max) == (expected[0], expected[1], 100.0)


def test_rate_is_exact_while_it_runs_and_sinks_when_it_stops() -> None:
    now = [0.0]
    window = RateWindow(3.0, clock=lambda: now[0])
    assert window.rate() == 0 and window.age() == math.inf
    for _ in range(100):
        now[0] += 1 / 30
        window.tick()
    assert window.rate() == pytest.approx(30, rel=1e-6)
    now[0] += 1.0
    assert 15 < window.rate() < 25
    now[0] += 10.0
    assert window.rate() == 0
    assert window.age() == pytest.approx(11.0)  # known for ever, not only within the window


# ------------------------------------------------------------------------------------------------ diagnostics


@pytest.fixture
def graph(ros_domain: int) -> Iterator[Graph]:
    with Graph(ros_domain) as graph:
        yield graph


def test_reports_reach_the_topic_with_level_name_and_values(graph: Graph) -> None:
    node = Node("robot", namespace="left", context=graph.context)
    diagnostics = Diagnostics(node, hardware_id="camera 7", period=0.05)
    diagnostics.add("input", lambda: Report.ok("30 Hz", rate=29.97123456, topic="/image"))
    diagnostics.add("model", lambda: Report(Level.ERROR, "no weights"))
    graph.add(node)
    heard = graph.collect(DiagnosticArray, "/diagnostics")
    graph.wait(lambda: len(heard) >= 2, "two periods")
    first, second = heard[-1].status
    assert (first.name, first.level, first.message, first.hardware_id) == (
        "left/robot: input",
        b"\x00",
        "30 Hz",
        "camera 7",
    )
    assert {value.key: value.value for value in first.values} == {"rate": "29.97", "topic": "/image"}
    assert (second.name, second.level) == ("left/robot: model", b"\x02")
    assert heard[-1].header.stamp.sec > 0


def test_the_worst_finding_decides_and_all_are_said() -> None:
    findings = [(Level.OK, "fine"), (Level.WARN, "slow"), (Level.ERROR, "lost")]
    report = Report.worst(findings, "all is well", rate=1.0)
    assert (report.level, report.message, report.values) == (Level.ERROR, "lost; slow", {"rate": 1.0})
    assert Report.worst([(Level.OK, "fine")], "all is well").message == "all is well"


# ------------------------------------------------------------------------------------------------ quality of service


@pytest.mark.parametrize("name", QOS_NAMES)
def test_every_named_profile_exists(name: str) -> None:
    assert qos_profile(name).depth >= 1


def test_profiles_mean_what_their_names_say() -> None:
    assert qos_profile("sensor").reliability == ReliabilityPolicy.BEST_EFFORT
    assert qos_profile("latched").durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert qos_profile("reliable:7").depth == 7
    assert qos_profile("reliable:7").reliability == ReliabilityPolicy.RELIABLE


@pytest.mark.parametrize("text", ["", "fast", "sensor:", "sensor:0", "sensor:-1", "sensor:many", "sensor:1001"])
def test_others_are_refused_with_what_was_given(text: str) -> None:
    with pytest.raises(ValueError, match=repr(text)):
        qos_profile(text)


# ------------------------------------------------------------------------------------------------ environment


def test_loopback_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.PROFILE_VARIABLES:
        monkeypatch.delenv(name)
    variables = environment.loopback_environment(42)
    assert variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert variables["ROS_DOMAIN_ID"] == "42"
    profile = Path(variables["FASTRTPS_DEFAULT_PROFILES_FILE"])
    assert profile.is_file() and "127.0.0.1" in profile.read_text()
    robot = environment.robot_environment()
    assert "ROS_DOMAIN_ID" not in robot and "127.0.0.1" not in Path(robot["FASTDDS_DEFAULT_PROFILES_FILE"]).read_text()


def test_a_profile_of_the_user_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE")
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/etc/mine.xml")
    variables = environment.loopback_environment()
    assert {variables[name] for name in environment.PROFILE_VARIABLES} == {"/etc/mine.xml"}


@pytest.mark.parametrize("domain", [-1, 102])
def test_domain_out_of_range_is_refused(domain: int) -> None:
    with pytest.raises(ValueError, match=str(domain)):
        environment.loopback_environment(domain)


def test_small_buffers_are_reported_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "rmem_max").write_text("212992\n")
    (tmp_path / "wmem_max").write_text(f"{environment.SOCKET_BUFFER_BYTES}\n")
    problems = environment.transport_problems(tmp_path, tmp_path)
    assert len([p for p in problems if "net.core" in p]) == 1
    assert "sudo sysctl -w net.core.rmem_max" in problems[0] and "212992" in problems[0]
    assert any("is missing" in p for p in environment.transport_problems(tmp_path, tmp_path / "none"))
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"  # the tests themselves keep to loopback
