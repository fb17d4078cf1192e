# SPDX-License-Identifier: Apache-2.0
"""The arrows of the design: which of our packages may import which, imports inside functions included.

    omnistream, omnistream_msgs <- omnistream_ros <- omnistream_perception <- omnistream_policy
    omnistream <- omnistream_training, omnistream_export, omnistream_sim

Training, export and simulation meet in files, not in imports.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ALLOWED = {
    "omnistream": set(),
    "omnistream_ros": {"omnistream", "omnistream_msgs"},
    "omnistream_perception": {"omnistream", "omnistream_msgs", "omnistream_ros"},
    "omnistream_policy": {"omnistream", "omnistream_msgs", "omnistream_ros", "omnistream_perception"},
    "omnistream_bringup": set(),
    "omnistream_training": {"omnistream"},
    "omnistream_export": {"omnistream"},
    "omnistream_sim": {"omnistream"},
}
# The simulator as a robot in a ROS graph: the files of this folder, and no others.
EXCEPTIONS = {("omnistream_sim/tabletop/ros", "omnistream_ros"), ("omnistream_sim/tabletop/ros", "omnistream_msgs")}
# What stays out of `omnistream`: it runs on machines without any of them.
NOT_IN_CORE = {"rclpy", "std_msgs", "sensor_msgs", "geometry_msgs", "nav_msgs", "cv_bridge", "tf2_ros", "pybullet"}


def package_folders() -> dict[str, Path]:
    roots = [*ROOT.glob("ros2_ws/src/*"), ROOT / "training", ROOT / "export", ROOT / "sim_eval"]
    folders = [path for root in roots if root.is_dir() for path in root.glob("omnistream*") if path.is_dir()]
    return {path.name: path for path in folders if list(path.rglob("*.py"))}


def imported_packages(source: str) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every absolute import, import_module("...") and find_spec("...") with a literal."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__", "find_spec") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value.split(".")[0]


@pytest.mark.parametrize("package", sorted(package_folders()))
def test_imports_follow_the_arrows(package: str) -> None:
    folder = package_folders()[package]
    assert package in ALLOWED, f"{package} has no place in the arrows; add it to the design and to this test"
    wrong = []
    for path in sorted(folder.rglob("*.py")):
        where = str(path.relative_to(folder.parent))
        for line, name in imported_packages(path.read_text()):
            ours = name.startswith("omnistream") and name != package
            folder_of = str(path.parent.relative_to(folder.parent))
            if ours and name not in ALLOWED[package] and (folder_of, name) not in EXCEPTIONS:
                wrong.append(f"{where}:{line} imports {name}; allowed: {sorted(ALLOWED[package]) or 'none of ours'}")
            if package == "omnistream" and name in NOT_IN_CORE:
                wrong.append(f"{where}:{line} imports {name}; the core runs without it")
    assert not wrong, "\n".join(wrong)


def test_the_check_sees_imports_inside_functions_and_by_name() -> None:
    source = "def f():\n    from omnistream_ros.qos import x\n    importlib.import_module('omnistream_sim.worlds')\n"
    assert [name for _, name in imported_packages(source)] == ["omnistream_ros", "omnistream_sim"]


def test_every_package_was_looked_at() -> None:
    assert {"omnistream", "omnistream_ros", "omnistream_perception", "omnistream_sim"} <= set(package_folders())
