# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 section of `omnistream-info`: where rclpy comes from, DDS, and whether images fit through it."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from omnistream.cli.info import Section
from omnistream_ros.environment import LOOPBACK_PROFILE, PROFILE_VARIABLES, SOCKET_BUFFER_BYTES, transport_problems


def section() -> Section:
    """Values and problems of ROS 2 in this environment; says so where there is none."""
    found = importlib.util.find_spec("rclpy")
    if found is None or found.origin is None:
        remedy = "source a ROS 2 installation, or pip install 'omnistream[ros]' (x86-64)"
        return Section({"rclpy": None}, [f"no rclpy, so the nodes do not start: {remedy}"])

    profile = next((os.environ[name] for name in PROFILE_VARIABLES if os.environ.get(name)), None)
    values: dict[str, object] = {
        "rclpy": f"{_origin(Path(found.origin))}, {Path(found.origin).parent}",
        "middleware": _middleware(),
        "messages": "built" if importlib.util.find_spec("omnistream_msgs") else None,
        "domain": os.environ.get("ROS_DOMAIN_ID", "0"),
        "discovery": os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET (default)"),
        "DDS profile": profile or "none set (omnistream-up sets one)",
    }
    for name in ("rmem_max", "wmem_max"):
        path = Path("/proc/sys/net/core") / name
        values[f"net.core.{name}"] = f"{path.read_text().strip() if path.exists() else '?'} of {SOCKET_BUFFER_BYTES}"
    for name in ("tf2_ros", "cv_bridge", "message_filters", "launch"):
        values[name] = "found" if importlib.util.find_spec(name) else "not here (optional)"

    problems = transport_problems()
    if values["messages"] is None:
        problems.append("omnistream_msgs is not built; run make setup, or colcon build with ROS 2 sourced")
    if profile is not None and not Path(profile.removeprefix("file://")).is_file():
        problems.append(f"the DDS profile {profile} does not exist; expected a file such as {LOOPBACK_PROFILE}")
    if os.environ.get("ROS_LOCALHOST_ONLY"):
        problems.append("ROS_LOCALHOST_ONLY is deprecated; use ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST")
    return Section(values, problems)


def _origin(module: Path) -> str:
    if module.is_relative_to(sys.prefix):
        try:
            return f"PyPI wheel {version('ros-rclpy')}"
        except PackageNotFoundError:
            pass
    return f"ROS 2 {os.environ.get('ROS_DISTRO', 'installation (not sourced)')}"


def _middleware() -> str:
    """Name of the RMW implementation, as rclpy loads it."""
    from rclpy.utilities import get_rmw_implementation_identifier

    return str(get_rmw_implementation_identifier())
