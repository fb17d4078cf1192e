# SPDX-License-Identifier: Apache-2.0
"""An expert in the simulator node: does the task that was begun, and says at every moment what it wants to do."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from ..demos import ACTION, UNITS, DemoOptions, shaken
from ..expert import Expert
from ..state import State
from ..tasks import Task


class Demonstration:
    """Of one task.

    Args:
        task: which is done.
        seed: of the disturbance.
        noise: of the arm, as in `omnistream-sim demos`; 0: it does what the expert wants.
    """

    def __init__(self, task: Task, seed: int, noise: float) -> None:
        self._expert, self._rng, self._noise = Expert(task), np.random.default_rng(seed), noise

    def next(self, state: State) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """[7] in -1 .. 1: what is wanted in this state, and what is done; None where the expert gives up."""
        wanted = self._expert.action(state)
        if wanted is None:
            return None
        done = wanted
        if self._noise and self._rng.random() < DemoOptions.disturbed:
            done = shaken(wanted, self._rng, self._noise)
        return wanted, np.clip(done, -1, 1)


def demonstration_message(wanted: NDArray[np.float64], stamp: Time) -> JointState:
    """An action of the environment, in the units and by the names of the demonstrations' contract."""
    names = [dimension.name for dimension in ACTION.dimensions]
    return JointState(header=Header(stamp=stamp), name=names, position=(wanted * UNITS).tolist())
