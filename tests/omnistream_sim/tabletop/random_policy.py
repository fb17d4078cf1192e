# SPDX-License-Identifier: Apache-2.0
"""A policy of the simulated robot that knows nothing: random weights under the contract of its demonstrations."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from omnistream.contract import Statistics
from omnistream_sim.tabletop.demos import DemoOptions
from omnistream_sim.tabletop.task_env import View
from tests.omnistream_policy.conftest import CONFIG, make_policy


def random_policy(folder: Path, view: View) -> Path:
    """Bare pixels and the robot's state to movements as large as they come."""
    contract = DemoOptions(episodes=1, view=view).contract

    def statistics(count: int) -> Statistics:
        low, middle, high = (-1.0,) * count, (0.0,) * count, (1.0,) * count
        return Statistics(100, low, high, middle, high, low, high)

    known = dataclasses.replace(
        contract, state_statistics=statistics(len(contract.state)), action_statistics=statistics(7)
    )
    return Path(make_policy(folder, known, CONFIG))
