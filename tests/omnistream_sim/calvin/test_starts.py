# SPDX-License-Identifier: Apache-2.0
"""Start states: the hash that seeds them, and the numbers of known scenes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from omnistream_sim.calvin.chains import official_chains, start_scenes
from omnistream_sim.calvin.starts import IN_SLIDER, ON_TABLE, fnv0_32, scene_seed, start_state


def test_the_hash_against_pyhash():
    assert fnv0_32("hello world") == 2805756500  # pyhash's README, fnv1_32
    assert fnv0_32("") == 0


def test_the_seed_is_of_the_text_that_python_prints():
    scene = start_scenes()[0]
    assert scene_seed(scene) == fnv0_32(str(scene.values())) == 960588878


def test_the_first_chain_starts_where_the_original_does():
    """scene_obs of get_env_state_for_initial_condition, mees/calvin fa03f01."""
    robot, scene = start_state(official_chains(1)[0].scene)
    assert robot.shape == (15,)
    expected = [
        0.28, 0.22, 0, 0.088, 1, 1,
        -0.24085166, 0.09240447, 0.46099001, 0, 0, 1.33454576,
        0.05000009, -0.12000018, 0.45999001, 0, 0, 1.81045609,
        0.07034163, 0.09240447, 0.46099001, 0, 0, 1.33104847,
    ]  # fmt: skip
    assert scene == pytest.approx(expected, abs=5e-9)


@pytest.mark.parametrize("scene", start_scenes(), ids=lambda scene: "-".join(map(str, scene.values())))
def test_every_scene_is_possible(scene):
    """No two blocks in one place, all yaws within a quarter turn's eighth, the right lights on."""
    state = start_state(scene)[1]
    blocks = state[6:].reshape(3, 6)
    assert len({tuple(block[:3]) for block in blocks}) == 3
    assert {tuple(block[:3]) for block in blocks} <= {*IN_SLIDER.values(), *ON_TABLE}
    assert (np.abs(blocks[:, 5] - math.pi / 2) <= math.pi / 8).all()
    assert (state[4], state[5]) == (scene["lightbulb"], scene["led"])
    assert (state[3] > 0) == (scene["lightbulb"] == 1)
    assert (state == start_state(scene)[1]).all()
