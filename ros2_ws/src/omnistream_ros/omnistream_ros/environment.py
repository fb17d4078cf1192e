# SPDX-License-Identifier: Apache-2.0
"""Environment variables for ROS 2 processes that carry images: loopback discovery, and a Fast DDS profile for them.

Fast DDS reads its profile from an environment variable when the first participant is made, so this must happen before
`rclpy.init`: in the parent of the processes (`omnistream-up`, the demo, the tests) or in the shell. No rclpy here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

LOOPBACK_PROFILE = Path(__file__).parent / "assets" / "fastdds_loopback.xml"
"""Shared memory + UDP on 127.0.0.1 only: demo, tests, a single machine."""
ROBOT_PROFILE = Path(__file__).parent / "assets" / "fastdds_robot.xml"
"""Shared memory + UDP on all interfaces: a robot and the machines around it."""

SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
"""What both profiles ask for; a 640x480 rgb8 image is 0.9 MB."""
SHARED_MEMORY_BYTES = 16 * 1024 * 1024
"""Shared memory segment of each participant in both profiles."""

# Fast DDS 2 (Jazzy) reads the first name, Fast DDS 3 (Kilted and later) both.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
MAX_DOMAIN_ID = 101
"""Largest domain whose UDP ports stay below Linux' ephemeral range."""


def loopback_environment(domain_id: int | None = None) -> dict[str, str]:
    """Variables that keep ROS 2 traffic on this machine and let images through. A user's own DDS profile is respected.

    Args:
        domain_id: 0..101 to be apart from other graphs on the machine; None keeps ROS_DOMAIN_ID as it is.

    Returns:
        Only the variables to set; merge them: ``{**os.environ, **loopback_environment()}``.

    Raises:
        ValueError: domain_id out of range.
    """
    return _environment(LOOPBACK_PROFILE, "LOCALHOST", domain_id, os.environ)


def robot_environment(domain_id: int | None = None) -> dict[str, str]:
    """As `loopback_environment`, for traffic between machines of one subnet."""
    return _environment(ROBOT_PROFILE, "SUBNET", domain_id, os.environ)


def transport_problems(sysctl: Path = Path("/proc/sys/net/core"), shared_memory: Path = Path("/dev/shm")) -> list[str]:
    """What of this machine is too small for images over DDS, one sentence each with the cure; empty if all is well."""
    problems = []
    for name in ("rmem_max", "wmem_max"):
        try:
            found = int((sysctl / name).read_text())
        except (OSError, ValueError):
            continue  # not Linux, or a sandbox that hides it: nothing to report
        if found < SOCKET_BUFFER_BYTES:
            problems.append(
                f"net.core.{name} is {found}; expected at least {SOCKET_BUFFER_BYTES} for images over UDP: "
                f"sudo sysctl -w net.core.{name}={SOCKET_BUFFER_BYTES}"
            )
    try:
        free = shutil.disk_usage(shared_memory).free
    except OSError:
        problems.append(f"{shared_memory} is missing; images between processes will go over UDP, which is slower")
    else:
        if free < 4 * SHARED_MEMORY_BYTES:
            problems.append(
                f"{shared_memory} has {free} bytes free; expected at least {4 * SHARED_MEMORY_BYTES} "
                "(16 MB for each ROS process): in a container start it with a larger --shm-size"
            )
    return problems


def _environment(profile: Path, discovery: str, domain_id: int | None, current: Mapping[str, str]) -> dict[str, str]:
    variables = {"ROS_AUTOMATIC_DISCOVERY_RANGE": discovery}
    own = next((current[name] for name in PROFILE_VARIABLES if current.get(name)), None)
    for name in PROFILE_VARIABLES:
        variables[name] = own or str(profile)
    if domain_id is not None:
        if not 0 <= domain_id <= MAX_DOMAIN_ID:
            raise ValueError(f"ROS domain id is {domain_id}; expected 0..{MAX_DOMAIN_ID}")
        variables["ROS_DOMAIN_ID"] = str(domain_id)
    return variables
