# SPDX-License-Identifier: Apache-2.0
"""The run log of a node (`omnistream.io.run_log`): its parameter, and opening it at configure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnistream.io.run_log import RunLog

from .lifecycle import ManagedNode
from .parameters import Effect, ParameterSpec

RUN_LOG = ParameterSpec(
    "run_log",
    "",
    "Folder for a log of each run, from which omnistream-replay gets the same results again. Empty: none. It grows by "
    "0.2 to 0.5 KB for each image, inference and control tick.",
    effect=Effect.CONFIGURE,
)


def open_run_log(node: ManagedNode, header: Mapping[str, Any]) -> RunLog | None:
    """A log of its own for each configure, None where none is wanted. OSError where it cannot be written."""
    if not node.parameters["run_log"]:
        return None
    begin = {"node": node.get_fully_qualified_name(), "parameters": dict(node.parameters)}
    folder = Path(node.parameters["run_log"]).expanduser()
    log = RunLog(folder, node.get_name(), begin | dict(header), node.get_logger().warning)
    node.get_logger().info(f"run log: {log.path}")
    return log
