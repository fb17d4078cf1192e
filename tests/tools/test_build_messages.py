# SPDX-License-Identifier: Apache-2.0
"""tools/build_messages.py: what a user sees of it, and that it builds any interface package."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "build_messages.py"
MESSAGES = ROOT / "ros2_ws" / "src" / "omnistream_msgs"

pytestmark = pytest.mark.ros


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    without_ros = {key: value for key, value in os.environ.items() if key not in ("ROS_DISTRO", "AMENT_PREFIX_PATH")}
    return subprocess.run(command, capture_output=True, text=True, env={**without_ros, **environment})


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_messages", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_messages"] = module
    spec.loader.exec_module(module)
    return module


def test_a_second_build_does_nothing() -> None:
    result = run(MESSAGES)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "omnistream_msgs: up to date\n"


def test_a_sourced_ros_is_left_alone() -> None:
    result = run(MESSAGES, "--force", ROS_DISTRO="jazzy")
    assert result.returncode == 0
    assert "ROS 2 (jazzy) is sourced" in result.stdout


def test_a_sourced_overlay_is_not_a_ros(tmp_path: Path) -> None:
    """Sourcing the install folder of our own workspace sets AMENT_PREFIX_PATH too."""
    (tmp_path / "share" / "omnistream_ros").mkdir(parents=True)
    assert run(MESSAGES, AMENT_PREFIX_PATH=str(tmp_path)).stdout == "omnistream_msgs: up to date\n"
    (tmp_path / "share" / "rclpy").mkdir()
    assert f"ROS 2 ({tmp_path}) is sourced" in run(MESSAGES, AMENT_PREFIX_PATH=str(tmp_path)).stdout


def test_a_missing_compiler_is_named() -> None:
    result = run(MESSAGES, "--force", CXX="g++-of-nowhere")
    assert result.returncode == 2
    assert "no compiler 'g++-of-nowhere'" in result.stderr
    assert "apt install" in result.stderr


def test_a_folder_without_package_xml_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.returncode == 2
    assert f"{tmp_path}: no package.xml" in result.stderr


def test_the_digest_follows_the_sources(tool: ModuleType, tmp_path: Path) -> None:
    package = make_package(tmp_path)
    before = tool.Interfaces.read(package).digest()
    (package / "msg" / "Reading.msg").write_text("float32 celsius\n")
    assert tool.Interfaces.read(package).digest() != before


@pytest.mark.slow
def test_messages_services_and_actions_build(tool: ModuleType, tmp_path: Path) -> None:
    """Up to the installation, which would put the package into the environment of these tests."""
    package = tool.Interfaces.read(make_package(tmp_path))
    environment = tool.Environment.current()
    out = tmp_path / "out"
    out.mkdir()
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import build_messages as b\n"
        "p = b.Interfaces.read(Path(sys.argv[2])); e = b.Environment.current()\n"
        "b.generate(p, e, Path(sys.argv[3])); b.build_libraries(p, e, Path(sys.argv[3]))\n"
    )
    arguments = [str(TOOL.parent), str(package.folder), str(out)]
    result = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    built = {path.name for path in (out / "lib").iterdir()}
    assert {f"libweather_msgs__rosidl_typesupport_{name}.so" for name in tool.TYPE_SUPPORTS} <= built
    assert f"weather_msgs_s__rosidl_typesupport_c{environment.extension_suffix}" in built
    modules = {path.name for path in (out / "py" / "weather_msgs").rglob("_*.py")}
    assert {"_reading.py", "_ask.py", "_measure.py"} <= modules


@pytest.mark.slow
def test_a_compiler_error_is_shown(tmp_path: Path) -> None:
    fake = tmp_path / "cxx"
    fake.write_text("#!/bin/sh\necho 'internal compiler error: no luck' >&2\nexit 3\n")
    fake.chmod(0o755)
    result = run(make_package(tmp_path), CXX=str(fake))
    assert result.returncode == 1
    assert "internal compiler error: no luck" in result.stderr
    assert importlib.util.find_spec("weather_msgs") is None


def make_package(folder: Path) -> Path:
    """A small interface package with one message, one service and one action."""
    package = folder / "weather_msgs"
    for kind, name, text in (
        ("msg", "Reading", "std_msgs/Header header\nfloat64 celsius\n"),
        ("srv", "Ask", "string place\n---\nReading reading\n"),
        ("action", "Measure", "uint32 count\n---\nReading[] readings\n---\nuint32 done\n"),
    ):
        (package / kind).mkdir(parents=True)
        (package / kind / f"{name}.{kind}").write_text(text)
    (package / "package.xml").write_text(
        '<package format="3"><name>weather_msgs</name><version>0.0.1</version><description>test</description>'
        '<maintainer email="a@b.invalid">a</maintainer><license>Apache-2.0</license><depend>std_msgs</depend></package>'
    )
    return package
