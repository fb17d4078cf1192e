#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/reference.md: parameters, topics, services and messages, from the code that declares them.

    .venv/bin/python tools/generate_reference.py [--check]

Parameters and topics come from the nodes' own tables, services from a perception node that is really started, messages
from the comments of the .msg, .srv and .action files. With --check nothing is written and the exit code is 1 when the
file differs: a reference that can drift would be wrong one day.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference.md"
MESSAGES = ROOT / "ros2_ws" / "src" / "omnistream_msgs"

INTRODUCTION = """\
# Reference

Made from the code by `make docs`; do not edit. Topics and services are written as the nodes name them: `~/depth` of a
node called `/perception` is `/perception/depth`. All can be remapped. With several cameras, `cameras: [front, wrist]`,
a topic has its camera's name in it: `~/front/depth`.
"""

# Services of a standard type, whose own text says nothing of what they do here.
STANDARD_SERVICES = {"reset": "Forgets all frames of all cameras: the next image starts a new segment."}
# What every node of ROS 2 has, or every lifecycle node.
COMMON = ("rcl_interfaces", "lifecycle_msgs", "type_description_interfaces")


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/reference.md from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when the file is out of date")
    check = parser.parse_args().check
    new = reference()
    old = REFERENCE.read_text() if REFERENCE.exists() else ""
    name = REFERENCE.relative_to(ROOT)
    if new == old:
        print(f"{name} is up to date")
        return 0
    if check:
        sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), new.splitlines(True), str(name), "generated"))
        print(f"error: {name} is out of date; run make docs", file=sys.stderr)
        return 1
    REFERENCE.parent.mkdir(exist_ok=True)
    REFERENCE.write_text(new)
    print(f"wrote {name}")
    return 0


def reference() -> str:
    from omnistream_perception import parameters as perception
    from omnistream_perception.outputs import TOPICS
    from omnistream_policy import parameters as policy
    from omnistream_ros.camera_parameters import PARAMETERS as CAMERA_SOURCE
    from omnistream_ros.lifecycle import LIFECYCLE_PARAMETERS
    from omnistream_sim.tabletop.ros import parameters as simulator

    services = perception_services()
    parts = [
        INTRODUCTION,
        "## perception_node\n",
        "`omnistream-up perception --ros-args ...`, `ros2 run omnistream_perception perception_node --ros-args ...`\n",
        "### Published topics\n",
        table(
            ("topic", "type", "QoS parameter", "what"),
            [(f"`~/{t.name}`", type_name(t.kind), f"`qos.{t.qos}`", t.description) for t in TOPICS]
            + [
                ("`~/status`", "omnistream_msgs/msg/StreamStatus", "", summary(MESSAGES / "msg" / "StreamStatus.msg")),
                ("`/diagnostics`", "diagnostic_msgs/msg/DiagnosticArray", "", "State, rates, drops and latency, 1 Hz."),
            ],
        ),
        "### Services\n",
        table(("service", "type", "what"), services),
        "### Parameters\n",
        parameter_table((*LIFECYCLE_PARAMETERS, *perception.NODE)),
        "For each camera; with several, the name is `cameras.<camera>.<parameter>`:\n",
        parameter_table(perception.CAMERA),
        "## policy_node\n",
        "`omnistream-up policy --ros-args ...`, `ros2 run omnistream_policy policy_node --ros-args ...`\n",
        "### Published topics\n",
        table(("topic", "type", "what"), [(f"`{name}`", *rest) for name, *rest in policy.TOPICS]),
        "### Subscribed topics, beside cameras, state and position\n",
        table(("topic", "type", "what"), [(f"`{name}`", *rest) for name, *rest in policy.LISTENS]),
        "### Services\n",
        table(("service", "type", "what"), [(f"`{name}`", *rest) for name, *rest in policy.SERVICES]),
        "### Actions\n",
        named_table("action", policy.ACTIONS),
        "### Parameters\n",
        parameter_table((*LIFECYCLE_PARAMETERS, *policy.NODE)),
        "## camera_source\n",
        "`omnistream-up camera --ros-args ...`, `ros2 run omnistream_ros camera_source --ros-args ...`\n",
        parameter_table(CAMERA_SOURCE),
        "## simulator\n",
        "`omnistream-up simulator --ros-args ...`; what it simulates is in [tabletop.md](tabletop.md). `<camera>` is "
        "each of `cameras`.\n",
        "### Published topics\n",
        named_table("topic", simulator.TOPICS),
        "### Commands\n",
        named_table("topic", simulator.COMMANDS),
        "### Services\n",
        named_table("service", simulator.SERVICES),
        "### Parameters\n",
        parameter_table(simulator.PARAMETERS),
        "## Messages, services and actions\n",
        *(interface(path) for kind in ("msg", "srv", "action") for path in sorted((MESSAGES / kind).glob(f"*.{kind}"))),
    ]
    return "\n".join(parts)


def perception_services() -> list[tuple[str, str, str]]:
    """(name, type, what) of each service that an unconfigured perception node offers beyond those of every node."""
    import rclpy
    from rclpy.parameter import Parameter

    from omnistream_perception.node import PerceptionNode
    from omnistream_ros.domains import reserved_domain_id
    from omnistream_ros.environment import loopback_environment

    with reserved_domain_id() as domain:
        os.environ.update(loopback_environment(domain))
        rclpy.init(domain_id=domain)
        node = PerceptionNode("perception", parameter_overrides=[Parameter("autostart", value=False)])
        found = {service.srv_name: type_name(service.srv_type) for service in node.services}
        node.destroy_node()
        rclpy.shutdown()
    rows = []
    for name, kind in sorted(found.items()):
        package, short = kind.split("/")[0], name.rpartition("/")[2]
        if package == "omnistream_msgs":
            rows.append((f"`~/{short}`", kind, summary(MESSAGES / "srv" / f"{kind.rpartition('/')[2]}.srv")))
        elif package not in COMMON:
            rows.append((f"`~/{short}`", kind, STANDARD_SERVICES[short]))
    return rows


def named_table(kind: str, rows: Iterable[tuple[str, str, str]]) -> str:
    """Of (name, type, what)."""
    names = [(", ".join(f"`{one}`" for one in name.split(", ")), *rest) for name, *rest in rows]
    return table((kind, "type", "what"), names)


def parameter_table(specs: Iterable[Any]) -> str:
    from omnistream_ros.parameters import reference_rows

    header = ("parameter", "type", "default", "allowed", "what")
    return table(
        header, [(f"`{name}`", kind, f"`{default}`", *rest) for name, kind, default, *rest in reference_rows(specs)]
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def interface(path: Path) -> str:
    text = "\n".join(path.read_text().splitlines()[1:]).strip()  # without the licence line
    return f"### {path.stem}\n\n```\n{text}\n```\n"


def summary(path: Path) -> str:
    """The comment at the head of a .msg or .srv file, as one line."""
    lines = path.read_text().splitlines()[1:]
    head = lines[: lines.index("")] if "" in lines else lines
    return " ".join(line.removeprefix("#").strip() for line in head)


def type_name(kind: type) -> str:
    """sensor_msgs.msg._image.Image -> sensor_msgs/msg/Image"""
    return re.sub(r"\._\w+$", "", kind.__module__).replace(".", "/") + f"/{kind.__name__}"


if __name__ == "__main__":
    sys.exit(main())
