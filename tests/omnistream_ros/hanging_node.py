# SPDX-License-Identifier: Apache-2.0
"""A node whose callback never ends, for test_running.py."""

from __future__ import annotations

import sys
import time

from rclpy.node import Node

from omnistream_ros.running import run


class HangingNode(Node):
    """Says what it is told."""

    def __init__(self) -> None:
        super().__init__("hanging")
        self.create_timer(0.01, self._hang)

    def _hang(self) -> None:
        print("hangs", flush=True)
        time.sleep(60)

    def leaving(self) -> None:
        """See `run`."""
        print("leaving", flush=True)


if __name__ == "__main__":
    sys.exit(run(HangingNode, threads=2))
