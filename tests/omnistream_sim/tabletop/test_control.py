# SPDX-License-Identifier: Apache-2.0
"""Everything on the table can be done by the arm: the skills that scripted experts are made of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason='needs gymnasium: pip install "omnistream[sim]"')
pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')

from omnistream_sim.tabletop.control import (
    Script,
    Waypoint,
    grasp_yaw,
    move_drawer,
    move_slider,
    pick,
    place,
    press_button,
    put_in_drawer,
    stack,
)
from omnistream_sim.tabletop.env import EnvConfig, TabletopEnv
from omnistream_sim.tabletop.layout import BLOCK_SIZE, BLOCKS, CABINET_HEIGHT
from omnistream_sim.tabletop.simulation import resting
from omnistream_sim.tabletop.state import Pose, Start, State


@pytest.fixture
def env() -> Iterator[TabletopEnv]:
    env = TabletopEnv(EnvConfig(pictures=False))
    yield env
    env.close()


def run(env: TabletopEnv, waypoints: list[Waypoint]) -> State:
    script = Script(waypoints)
    while (action := script.action(env.state())) is not None:
        assert np.abs(action).max() <= 1
        env.step(action)
    return env.state()


@pytest.mark.parametrize(("seed", "block", "base"), [(0, "red", "blue"), (1, "yellow", "green")])
def test_lift_and_stack(env: TabletopEnv, seed: int, block: str, base: str) -> None:
    env.reset(seed=seed)
    state = run(env, pick(env.state(), block))
    assert state.held == block and state.blocks[block].position[2] > 0.15
    assert state.opening == pytest.approx(BLOCK_SIZE, abs=0.004)
    state = run(env, stack(state, base))
    offset = np.subtract(state.blocks[block].position, state.blocks[base].position)
    assert np.abs(offset[:2]).max() < 0.015 and offset[2] == pytest.approx(BLOCK_SIZE, abs=0.002)
    assert state.touch(block, base) and state.held is None


def test_open_the_drawer_put_a_block_in_and_close_it(env: TabletopEnv) -> None:
    env.reset(seed=2, options={"start": Start(drawer=0.0)})
    state = run(env, move_drawer(env.state(), 0.135))
    assert state.drawer > 0.12
    state = run(env, pick(state, "green"))
    state = run(env, put_in_drawer(state))
    assert state.touch("green", "drawer")
    state = run(env, move_drawer(state, 0.0))
    assert state.drawer < 0.015 and state.touch("green", "drawer")
    assert state.blocks["green"].position[0] > 0.62


def test_place_on_the_table_and_on_the_cabinet(env: TabletopEnv) -> None:
    blocks = {name: resting((0.31, 0.12 * i - 0.2), yaw=0.3 * i) for i, name in enumerate(BLOCKS)}
    env.reset(seed=7, options={"start": Start(blocks=blocks)})
    for at, height, ground in (((0.40, -0.06), 0.0, "table"), ((0.70, 0.09), CABINET_HEIGHT, "cabinet")):
        run(env, pick(env.state(), "yellow"))
        state = run(env, place(env.state(), at, height))
        assert state.touch("yellow", ground)
        assert np.abs(np.subtract(state.blocks["yellow"].position[:2], at)).max() < 0.01


def test_move_the_slider_both_ways(env: TabletopEnv) -> None:
    env.reset(seed=3)
    for to in (0.07, -0.07):
        assert run(env, move_slider(env.state(), to)).slider == pytest.approx(to, abs=0.015)


def test_every_press_switches_the_lamp_once(env: TabletopEnv) -> None:
    env.reset(seed=4, options={"start": Start(lamp=False)})
    assert run(env, press_button(env.state())).lamp
    state = run(env, press_button(env.state()))
    assert not state.lamp and state.button < 0.002


def test_a_lit_lamp_is_seen(env: TabletopEnv) -> None:
    pictures = []
    for lamp in (False, True):
        env.reset(seed=5, options={"start": Start(lamp=lamp)})
        pictures.append(env.render().astype(int))
    changed = np.abs(pictures[1] - pictures[0]).max(-1) > 40
    assert 4 < changed.sum() < 400


def test_a_script_goes_on_after_a_disturbance_and_gives_up_what_cannot_be_reached(env: TabletopEnv) -> None:
    env.reset(seed=6)
    rng = np.random.default_rng(0)
    script, steps = Script(pick(env.state(), "blue")), 0
    while (action := script.action(env.state())) is not None:
        if steps % 3 == 0 and steps < 24:
            action[:3] = rng.uniform(-1, 1, 3)
        env.step(action)
        steps += 1
    assert env.state().held == "blue"
    script, steps = Script([Waypoint((3.0, 0.0, 0.3))], patience=15), 0
    while (action := script.action(env.state())) is not None:
        env.step(action)
        steps += 1
    assert steps == 15


def test_fingers_close_on_faces() -> None:
    for yaw in np.linspace(-3, 3, 13):
        block = Pose((0.4, 0.0, 0.02), (0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2))))
        chosen = grasp_yaw(block)
        assert abs(chosen) <= np.pi / 4 + 1e-9
        assert abs(np.sin(2 * (chosen - yaw))) < 1e-9
