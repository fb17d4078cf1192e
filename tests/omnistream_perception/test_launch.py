# SPDX-License-Identifier: Apache-2.0
"""Launch and parameter files name only parameters that the node declares, without ROS 2's `launch` being installed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from omnistream_perception.parameters import NODE, camera_specs
from omnistream_ros.lifecycle import LIFECYCLE_PARAMETERS
from omnistream_sim.tabletop.ros.parameters import PARAMETERS as SIMULATOR

BRINGUP = Path(__file__).resolve().parents[2] / "ros2_ws" / "src" / "omnistream_bringup"
LAUNCH_FILES = sorted(BRINGUP.glob("launch/*.py"))
PARAMETER_FILES = [BRINGUP / "config" / "perception.yaml"]

SPECS = {spec.name: spec for spec in (*LIFECYCLE_PARAMETERS, *NODE, *camera_specs(""))}
OF_EVERY_NODE = {"use_sim_time"}
DECLARED = {
    "omnistream.launch.py": OF_EVERY_NODE,
    "perception.launch.py": set(SPECS) | OF_EVERY_NODE,
    "simulator.launch.py": {spec.name for spec in SIMULATOR},
}
ARGUMENTS = {
    "image_topic",
    "camera_info_topic",
    "weights",
    "policy",
    "engine",
    "namespace",
    "params_file",
    "use_sim_time",
    "autostart",
    "log_level",
}
"""What the documentation promises of perception.launch.py."""


def named_parameters(tree: ast.Module) -> Iterator[str]:
    """Keys of the PARAMETERS table, and of dictionaries given to ``Node(parameters=[...])``."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Name) and t.id == "PARAMETERS" for t in targets):
                assert isinstance(node.value, ast.Dict)
                yield from (key.value for key in node.value.keys if isinstance(key, ast.Constant))
        if isinstance(node, ast.keyword) and node.arg == "parameters":
            for inner in ast.walk(node.value):
                if isinstance(inner, ast.Dict):
                    yield from (key.value for key in inner.keys if isinstance(key, ast.Constant))


def launch_arguments(tree: ast.Module) -> set[str]:
    """Names in DeclareLaunchArgument calls; those made in a loop come from PARAMETERS."""
    calls = [
        n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "DeclareLaunchArgument"
    ]
    names = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    return names | set(named_parameters(tree))


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda file: file.name)
def test_launch_files_name_only_declared_parameters(file: Path) -> None:
    named = set(named_parameters(ast.parse(file.read_text())))
    assert named, f"{file.name} sets no parameter: has the check gone blind?"
    assert named <= DECLARED[file.name]


def test_simulator_launch_hands_on_what_the_included_file_takes() -> None:
    tree = ast.parse((BRINGUP / "launch" / "simulator.launch.py").read_text())
    own = launch_arguments(tree)
    assert own == {"cameras", "image_size", "rate", "real_time_factor", "scene", "seed"} | {
        "camera",
        "namespace",
        "use_sim_time",
    }
    handed = {
        constant.value
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AugAssign))
        for constant in ast.walk(node.value)
        if isinstance(constant, ast.Constant) and constant.value in ("weights", "policy", "engine", "image_topic")
    }
    assert handed == {"weights", "policy", "engine", "image_topic"} and handed <= ARGUMENTS


def test_perception_launch_has_the_documented_arguments_and_no_others() -> None:
    tree = ast.parse((BRINGUP / "launch" / "perception.launch.py").read_text())
    assert launch_arguments(tree) == ARGUMENTS


@pytest.mark.parametrize("file", PARAMETER_FILES, ids=lambda file: file.name)
def test_parameter_files_name_only_declared_parameters_with_their_types_and_defaults(file: Path) -> None:
    ((_, node),) = yaml.safe_load(file.read_text()).items()
    given: dict[str, Any] = node["ros__parameters"]
    assert given
    for name, value in given.items():
        assert name in SPECS, f"{file.name}: {name} is not declared"
        assert type(value) is type(SPECS[name].default), f"{file.name}: {name} is {value!r}"
        assert SPECS[name].problem(value) is None
        if name != "weights":  # the file starts the node without a checkpoint; the node's own default is to refuse
            assert value == SPECS[name].default, f"{file.name}: {name} is {value!r}, the node's default is another"


def test_there_is_something_to_check() -> None:
    assert LAUNCH_FILES and PARAMETER_FILES
