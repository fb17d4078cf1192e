# SPDX-License-Identifier: Apache-2.0
"""From a symbolic start scene to the numbers that the simulator is reset to.

Positions and how they are drawn: get_env_state_for_initial_condition in calvin_agent/evaluation/utils.py.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .tasks import COLOURS, Scene

ROBOT = (
    *(0.02586889, -0.2313129, 0.5712808),  # tool centre, m
    *(3.09045411, -0.02908596, 1.50013585),  # its Euler angles, rad
    0.07999963,  # gripper width, m
    *(-1.21779124, 1.03987629, 2.11978254, -2.34205014, -0.87015899, 1.64119093, 0.55344928),  # joints, rad
    1.0,  # last gripper action: open
)
IN_SLIDER = {
    "slider_left": (-0.240851662, 0.0924044687, 0.460990009),
    "slider_right": (0.0703416330, 0.0924044687, 0.460990009),
}
ON_TABLE = ((0.0500000896, -0.120000177, 0.459990009), (0.229995412, -0.119995140, 0.459990010))
SLIDER_LEFT, DRAWER_OPEN, SWITCH_ON = 0.28, 0.22, 0.088
YAW = (math.pi / 2 - math.pi / 8, math.pi / 2 + math.pi / 8)

FNV_PRIME = 0x01000193


def fnv0_32(text: str) -> int:
    """32-bit FNV hash that starts from zero, as pyhash's fnv1_32 does with its default seed.

    The usual start value of FNV-1 (0x811C9DC5) gives other scenes than the published ones.
    """
    value = 0
    for byte in text.encode():
        value = (value * FNV_PRIME) % 2**32 ^ byte
    return value


def scene_seed(scene: Scene) -> int:
    """Seed of a start scene: the hash of how Python 3 prints its values."""
    return fnv0_32(f"dict_values({list(scene.values())!r})")


def start_state(scene: Scene) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """robot_obs [15] and scene_obs [24] of a start scene.

    scene_obs: slider, drawer, button, switch (joint values), lightbulb, led (0, 1), then red, blue and pink block with
    position [3] in m and Euler angles [3] in rad.
    """
    rng = np.random.RandomState(scene_seed(scene))
    slots = list(ON_TABLE)
    rng.shuffle(slots)
    state = np.zeros(24)
    state[0] = SLIDER_LEFT if scene["slider"] == "left" else 0.0
    state[1] = DRAWER_OPEN if scene["drawer"] == "open" else 0.0
    state[3] = SWITCH_ON if scene["lightbulb"] == 1 else 0.0
    state[4], state[5] = scene["lightbulb"], scene["led"]
    # Red has the first place on the table and pink the second; blue has what red leaves.
    table = {"red": 0, "blue": 1 if scene["red_block"] == "table" else 0, "pink": 1}
    for number, colour in enumerate(COLOURS):
        place = str(scene[f"{colour}_block"])
        begin = 6 + 6 * number
        state[begin : begin + 3] = slots[table[colour]] if place == "table" else IN_SLIDER[place]
        state[begin + 5] = rng.uniform(*YAW)
    return np.array(ROBOT), state
