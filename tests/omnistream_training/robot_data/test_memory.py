# SPDX-License-Identifier: Apache-2.0
"""A bag that does not fit into the memory allowed is imported all the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

ALLOWED = 300 * 2**20
"""Bytes that an import may take on top of what its modules do."""

IMPORT = """
import resource, sys
from pathlib import Path
import omnistream_training.robot_data.cli as cli
from omnistream_training.robot_data.bag_import import BagImporter
import pyarrow.parquet, rosbags.rosbag2, rosbags.typesys, av
data = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (int(data.split()[1]) * 1024 + {allowed},) * 2)
sys.exit(cli.main(["import", "bag", "--mapping", "bag.yaml", "--out", "set", "--storage", "jpeg"]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_memory_is_bounded(tmp_path, make_bag, storage):
    bag, _ = make_bag(seconds=20, episodes=1, height=480, width=640, storage=storage)
    assert sum(file.stat().st_size for file in bag.iterdir()) > 1.5 * ALLOWED
    done = subprocess.run(
        [sys.executable, "-c", IMPORT.format(allowed=ALLOWED)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert "600 steps" in done.stdout
