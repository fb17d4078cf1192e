# SPDX-License-Identifier: Apache-2.0
"""Tests that need the real CALVIN get its checkout here, or are skipped with the line that installs it."""

from __future__ import annotations

import importlib.util

import pytest

from omnistream_sim.calvin.checkout import Checkout, NoCalvin, find_checkout

NEEDED = ("pybullet", "hydra", "omegaconf", "scipy")


@pytest.fixture(scope="session")
def checkout() -> Checkout:
    try:
        found = find_checkout()
    except NoCalvin as error:
        pytest.skip(str(error))
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed: omnistream-sim install calvin --run")
    return found
