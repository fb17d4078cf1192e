# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of the ray caster: both renderers, and a camera to look with."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor

from omnistream_sim.worlds import look_at


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=["native", "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "native" and shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    return request.param


@pytest.fixture
def camera() -> Tensor:
    """Two frames, both from (-3, 0.4, 1.2) towards (0, 0, 1)."""
    position = torch.tensor([[-3.0, 0.4, 1.2]]).expand(2, 3)
    return look_at(position, torch.tensor([0.0, 0.0, 1.0]))
