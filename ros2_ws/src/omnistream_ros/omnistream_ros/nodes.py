# SPDX-License-Identifier: Apache-2.0
"""The nodes that `omnistream-up` and the demo can start by name, each as a process of its own."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class NodeModule:
    """A node that can be started: the module that `python -m` runs, and what it is for."""

    module: str
    summary: str
    managed: bool = False
    """Whether it is a lifecycle node, which would stay, unconfigured, when it cannot start: nobody here mends it."""


NODES = {
    "camera": NodeModule("omnistream_ros.camera_source", "publishes a video, folder or rosbag2 as a camera does"),
    "perception": NodeModule("omnistream_perception.node", "images in; depth, pose, features and points out", True),
    "policy": NodeModule("omnistream_policy.node", "images or features and an instruction in; safe commands out", True),
    "recorder": NodeModule(
        "omnistream_ros.episode_recorder", "records episodes into mcap, begun and ended by services"
    ),
    "simulator": NodeModule("omnistream_sim.tabletop.ros.node", "a simulated robot at a table and its cameras"),
}


def is_installed(module: str) -> bool:
    """Whether there is such a module; its packages are imported, itself is not."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its package
        return False
