# SPDX-License-Identifier: Apache-2.0
"""Policies that know nothing, as controls: `--policy omnistream_sim.tabletop.policies:random`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnistream_sim.evaluation.protocols import Observation


class RandomActions:
    """Uniform actions, each kept for a few control periods so that the arm gets somewhere."""

    HOLD = 8

    def reset(self) -> None:
        """A new task."""

    def __call__(self, observation: Observation, instruction: str) -> NDArray[np.float64]:
        """[HOLD, 7]; drawn from numpy's global generator, which the evaluator seeds."""
        action = np.random.uniform(-1, 1, 7)  # noqa: NPY002
        return np.tile(action, (self.HOLD, 1))


def random() -> RandomActions:
    """Acts at random."""
    return RandomActions()
