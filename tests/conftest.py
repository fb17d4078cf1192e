# SPDX-License-Identifier: Apache-2.0
"""Shared by all tests: ROS 2 traffic stays on loopback, every test that asks for it has a ROS domain of its own.

This file sets the environment before any test module imports rclpy or torch; both read it once.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omnistream_ros.domains import reserved_domain_id
from omnistream_ros.environment import loopback_environment

REAL_DATA = os.environ.get("OMNISTREAM_REAL_DATA")
HAVE_ROS = importlib.util.find_spec("rclpy") is not None

os.environ.update(loopback_environment())
os.environ["ROS_LOG_DIR"] = tempfile.mkdtemp(prefix="omnistream_ros_log_")
atexit.register(shutil.rmtree, os.environ["ROS_LOG_DIR"], ignore_errors=True)
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; two pools of threads would fight for them
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

# Test modules of the nodes import rclpy at their top; without it they are left out, and the report header says so.
collect_ignore = [] if HAVE_ROS else ["omnistream_ros", "omnistream_perception", "omnistream_policy"]


def pytest_report_header() -> list[str]:
    ros = "rclpy found" if HAVE_ROS else "NO rclpy: the tests of the nodes are left out (pip install -e '.[ros]')"
    return [f"ros: {ros}", f"real data: {REAL_DATA or 'none (OMNISTREAM_REAL_DATA is not set)'}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not HAVE_ROS and item.get_closest_marker("ros"):
            item.add_marker(pytest.mark.skip(reason="rclpy is not installed"))
        if not REAL_DATA and item.get_closest_marker("realdata"):
            item.add_marker(pytest.mark.skip(reason="OMNISTREAM_REAL_DATA is not set"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says how many tests on real recordings ran, lest a green run without them be taken for one with them."""
    counts = {
        outcome: sum("realdata" in report.keywords for report in terminalreporter.getreports(outcome))
        for outcome in ("passed", "failed", "skipped")
    }
    terminalreporter.write_line(
        f"tests on real recordings: {counts['passed'] + counts['failed']} ran "
        f"({counts['failed']} failed), {counts['skipped']} left out"
    )


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of recordings that OMNISTREAM_REAL_DATA names; a test that asks for it carries the mark `realdata`."""
    if not REAL_DATA:
        pytest.skip("OMNISTREAM_REAL_DATA is not set")
    folder = Path(REAL_DATA).resolve()
    if not folder.is_dir():
        pytest.fail(f"OMNISTREAM_REAL_DATA is {REAL_DATA}, which is not a folder")
    return folder


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A ROS_DOMAIN_ID that nobody on this machine uses meanwhile, set in the environment for child processes too."""
    with reserved_domain_id() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        yield domain
