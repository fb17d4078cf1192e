# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of the tabletop."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
