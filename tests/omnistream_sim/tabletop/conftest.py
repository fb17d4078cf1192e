# SPDX-License-Identifier: Apache-2.0
"""The tabletop needs PyBullet, which is optional."""

from __future__ import annotations

import importlib.util

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("pybullet") is None:
        skip = pytest.mark.skip(reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')
        for item in items:
            if "omnistream_sim/tabletop" in item.path.as_posix():
                item.add_marker(skip)
