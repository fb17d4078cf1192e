# SPDX-License-Identifier: Apache-2.0
"""The environment: Gymnasium's rules, the meaning of an action, equal bits, geometry, states."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason='needs gymnasium: pip install "omnistream[sim]"')
pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')

import gymnasium
from gymnasium.utils.env_checker import check_env

from omnistream.errors import ConfigError
from omnistream_sim.tabletop import arm as panda
from omnistream_sim.tabletop.env import ENV_ID, REACH_LOW, EnvConfig, TabletopEnv
from omnistream_sim.tabletop.kinematics import forward, from_euler, rotation_vector, solve, to_euler, tool_pose
from omnistream_sim.tabletop.layout import BLOCK_SIZE, BLOCKS
from omnistream_sim.tabletop.simulation import resting
from omnistream_sim.tabletop.state import Start

SMALL = EnvConfig(static_size=(48, 64), gripper_size=(32, 32))
OPEN = np.array([0, 0, 0, 0, 0, 0, 1.0])


@pytest.fixture
def env() -> Iterator[TabletopEnv]:
    env = TabletopEnv(EnvConfig(pictures=False))
    env.reset(seed=1)
    yield env
    env.close()


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("scene", ["shipped", "random"])
def test_gymnasium_finds_nothing_wrong(scene: str) -> None:
    made = gymnasium.make(ENV_ID, scene=scene, static_size=(24, 24), gripper_size=(16, 16), render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made.unwrapped)
    made.close()


def test_an_action_of_one_moves_the_tool_two_centimetres(env: TabletopEnv) -> None:
    for axis in range(3):
        for sign in (1.0, -1.0):
            before = env.state().tool
            env.step(np.where(np.arange(7) == axis, sign, OPEN))
            assert (env.state().tool - before)[axis] == pytest.approx(0.02 * sign, abs=0.002)
            env.step(OPEN)
            expected = np.where(np.arange(3) == axis, 0.02 * sign, 0)
            assert np.abs(env.state().tool - before - expected).max() < 2e-4


def test_an_action_of_one_turns_the_tool_about_the_worlds_axes(env: TabletopEnv) -> None:
    for axis in range(3):
        before = from_euler(env.state().tool_euler)
        env.step(np.where(np.arange(7) == 3 + axis, 1.0, OPEN))
        env.step(OPEN)
        turned = rotation_vector(from_euler(env.state().tool_euler) @ before.T)
        assert np.linalg.norm(turned) == pytest.approx(0.05, abs=1e-3)
        assert abs(turned[axis]) > 0.049


def test_the_target_adds_up_and_stays_in_reach(env: TabletopEnv) -> None:
    down = np.array([0.5, 0, -1, 0, 0, 0, 1.0])
    for _ in range(40):
        env.step(down)
    state = env.state()
    assert state.target[2] == REACH_LOW[2] and state.target[0] > 0.6
    assert state.tool[2] > 0.0  # whatever lies there, the table is not gone through


def test_the_gripper_opens_above_zero(env: TabletopEnv) -> None:
    for _ in range(8):
        observation = env.step(-OPEN)[0]
    assert env.state().opening < 0.002 and observation["state"][-1] == -1
    for _ in range(8):
        observation = env.step(OPEN * 0.1)[0]
    assert env.state().opening > 0.078 and observation["state"][-1] == 1


def test_equal_seeds_give_equal_bits_and_environments_do_not_meet() -> None:
    one, other = TabletopEnv(SMALL), TabletopEnv(SMALL)
    rng = np.random.default_rng(0)
    other.reset(seed=8)
    for action in rng.uniform(-1, 1, (3, 7)):
        other.step(action)
    assert same(one.reset(seed=5)[0], other.reset(seed=5)[0])
    for action in rng.uniform(-1, 1, (12, 7)) - [0, 0, 0.3, 0, 0, 0, 0]:
        assert same(one.step(action)[0], other.step(action)[0])
    assert not same(one.reset(seed=6)[0], other.reset(seed=5)[0])
    one.close()
    assert np.isfinite(other.step(OPEN)[0]["state"]).all()


def test_a_saved_episode_goes_on_with_the_same_bits_elsewhere() -> None:
    one, other = TabletopEnv(SMALL), TabletopEnv(SMALL)
    rng = np.random.default_rng(1)
    one.reset(seed=2)
    other.reset(seed=3)
    for action in rng.uniform(-1, 1, (25, 7)) - [0, 0, 0.5, 0, 0, 0, 0]:
        one.step(action)
    saved = pickle.loads(pickle.dumps(one.save()))
    actions = rng.uniform(-1, 1, (10, 7))
    first = [one.step(action)[0] for action in actions]
    now = other.restore(saved)
    assert now["state"][-1] in (-1, 1) and other.state().step == 25
    assert all(same(a, other.step(action)[0]) for a, action in zip(first, actions, strict=True))
    one.restore(saved)
    assert all(same(a, one.step(action)[0]) for a, action in zip(first, actions, strict=True))


def test_what_the_cameras_see_is_where_the_state_says() -> None:
    env = TabletopEnv(EnvConfig(static_size=(128, 128), gripper_size=(128, 128)))
    blocks = {
        name: resting((0.36 + 0.03 * (i % 2), 0.12 - 0.09 * i), yaw=0.2 * i) for i, name in enumerate(sorted(BLOCKS))
    }
    observation, info = env.reset(seed=4, options={"start": Start(blocks=blocks, tool=(0.36, 0.0, 0.35), lamp=False)})
    seen = 0
    for name, (T_world_camera, K) in info["cameras"].items():
        depth = observation[f"depth_{name}"]
        assert (depth > 0).all()
        for block in env.state().blocks.values():
            top = np.array(block.position) + np.array([0, 0, BLOCK_SIZE / 2])
            x, y, z = T_world_camera[:3, :3].T @ (top - T_world_camera[:3, 3])
            u, v = round(K[0, 0] * x / z + K[0, 2]), round(K[1, 1] * y / z + K[1, 2])
            if 2 < u < 125 and 2 < v < 125 and abs(float(depth[v, u]) - z) < 0.01:
                colour = observation[f"rgb_{name}"][v, u].astype(int)
                assert colour.max() > 2 * colour.min()
                seen += 1
    assert seen >= 6  # of eight; the gripper hides some
    env.close()


def test_an_episode_begins_where_it_is_told(env: TabletopEnv) -> None:
    blocks = {name: resting((0.3, 0.1 * i - 0.2)) for i, name in enumerate(BLOCKS)}
    start = Start(blocks=blocks, drawer=0.1, slider=-0.05, lamp=True, tool=(0.45, 0.1, 0.2))
    env.reset(seed=1, options={"start": json.loads(json.dumps(start.plain()))})
    state = env.state()
    assert state.drawer == pytest.approx(0.1, abs=1e-3) and state.slider == pytest.approx(-0.05, abs=1e-3)
    assert state.lamp and np.abs(state.tool - [0.45, 0.1, 0.2]).max() < 1e-3
    for name, pose in blocks.items():
        assert np.abs(np.subtract(state.blocks[name].position, pose.position)).max() < 1e-3
        assert state.touch(name, "table") and not state.touch(name, "left_finger")
    assert state.held is None and state.handle[0] == pytest.approx(0.64 - 0.055 - 0.1, abs=1e-3)


def test_wrong_use_is_named(env: TabletopEnv) -> None:
    with pytest.raises(ConfigError, match="7 finite numbers"):
        env.step(np.full(7, np.nan))
    with pytest.raises(ConfigError, match="'chairs'"):
        env.reset(options={"chairs": 4})
    with pytest.raises(ConfigError, match=r"drawer 0\.5"):
        env.reset(options={"start": {"drawer": 0.5}})
    with pytest.raises(ConfigError, match=r"blocks \['red'\]"):
        env.reset(options={"start": {"blocks": {"red": resting((0.3, 0.0))}}})
    with pytest.raises(ConfigError, match="expected a divisor of 240"):
        EnvConfig(rate=25)
    with pytest.raises(ConfigError, match="reset"):
        TabletopEnv(SMALL).state()


def test_the_arms_kinematics_are_pybullets(env: TabletopEnv) -> None:
    simulation = env.simulation
    rng = np.random.default_rng(3)
    for _ in range(5):
        joints = rng.uniform(panda.LOWER, panda.UPPER)
        simulation.scene.set_arm(joints, 0.02)
        theirs = panda.link_pose(simulation.client, simulation.scene.arm, panda.TOOL)  # type: ignore[arg-type]
        assert np.abs(forward(joints) - theirs).max() < 1e-6
        angles = to_euler(theirs[:3, :3])
        assert np.abs(from_euler(angles) - theirs[:3, :3]).max() < 1e-6


def test_inverse_kinematics_reach_the_table_and_the_furniture() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        where, yaw = rng.uniform((0.26, -0.3, 0.02), (0.68, 0.3, 0.3)), rng.uniform(-0.8, 0.8)
        pose = tool_pose(where, np.array([np.pi, 0, yaw]))
        joints = solve(pose, panda.HOME, iterations=200)
        assert np.abs(forward(joints) - pose).max() < 1e-4
        assert (joints >= panda.LOWER).all() and (joints <= panda.UPPER).all()
