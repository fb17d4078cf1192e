# SPDX-License-Identifier: Apache-2.0
"""Simulator node: a Panda at a table, or a free camera about it, as a robot and its cameras in a ROS 2 graph.

    omnistream-up simulator                                                       the robot, two cameras, 20 Hz
    omnistream-up simulator --ros-args -p cameras:="[flying]" -p seed:=7          a geometry stream

Every moment has one stamp, on pictures, calibration, truth, joints and transforms alike. Topics, commands and services
are listed in docs/reference.md, what they mean in docs/tabletop.md. Needs PyBullet and Gymnasium (Python 3.11).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rclpy.node import Node

from omnistream_ros.parameters import help_text
from omnistream_ros.running import run

from .parameters import PARAMETERS


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node; 0 after `frames` moments or a signal, 1 when it failed, 2 when it was refused."""
    return run(make_node, args, help_text=help_text(__doc__ or "", PARAMETERS))


def make_node() -> Node:
    """Raises PhysicsMissing, with the line that installs it, where PyBullet or Gymnasium is not there."""
    from .simulator import SimulatorNode  # loads the physics: --help does without

    return SimulatorNode()


if __name__ == "__main__":
    sys.exit(main())
