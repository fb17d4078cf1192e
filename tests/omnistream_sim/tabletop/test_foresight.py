# SPDX-License-Identifier: Apache-2.0
"""What an expert would do, foretold: against what it then does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason='needs gymnasium: pip install "omnistream[sim]"')
pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')
pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "omnistream[io]"')

from omnistream.episodes import open_dataset
from omnistream.episodes.plans import Plans, read_plans
from omnistream_sim.tabletop.control import CLOSE, OPEN, Script, Waypoint, grasp_yaw
from omnistream_sim.tabletop.demos import UNITS, DemoOptions, make_demos
from omnistream_sim.tabletop.expert import Expert, plan
from omnistream_sim.tabletop.foresight import GOAL, HORIZON, imagined, keyframes, other_tasks, told_otherwise
from omnistream_sim.tabletop.layout import Layout
from omnistream_sim.tabletop.situation import situation_of
from omnistream_sim.tabletop.starts import start_for
from omnistream_sim.tabletop.task_env import TaskWorld, View
from omnistream_sim.tabletop.tasks import TASKS

VIEW = View(static=16, gripper=0)


@pytest.mark.parametrize("name", ["lift_red", "stack_green_on_blue", "place_red_in_drawer", "open_drawer"])
def test_the_imagined_actions_are_those_that_follow_and_the_hand_gets_where_it_was_told(name: str) -> None:
    task, world, layout = TASKS[name], TaskWorld(VIEW), Layout()
    world.reset(start_for(task, 3).plain(), 3)
    begin = state = world.env.state()
    expert, done, foretold, switched = Expert(task), [], [], []
    goals: list[np.ndarray] = []
    while not task.solved(begin, state):
        action = expert.action(state)
        assert action is not None
        foretold.append(imagined(expert.left, state))
        goals.append(keyframes(task, expert.left, state, layout))
        if done and done[-1][6] != action[6]:
            switched.append((len(done), state.tool))
        done.append(action)
        world.step(action)
        state = world.env.state()
    world.env.close()
    # The arm lags by a millimetre, so the real tool goes on to the next waypoint a little later than the imagined one.
    whole = [(rows, np.array(done[t : t + len(rows)])) for t, rows in enumerate(foretold)]
    off = [np.abs(rows[: len(real)] - real).mean() for rows, real in whole]
    assert np.mean(off) < 0.1 and np.median(off) < 0.05
    assert np.abs(foretold[0][0] - done[0]).max() == 0
    # Every switch happens where all frames since the one before have said.
    last = 0
    assert switched
    for t, tool in switched:
        for goal in goals[last:t]:
            assert np.abs(goal[0, :3] - tool).max() < 0.01
        last = t


@pytest.mark.parametrize(
    ("name", "told"), [("lift_red", "place_red_in_drawer"), ("stack_green_on_blue", "place_green_in_drawer")]
)
def test_who_is_told_another_task_on_the_way_does_not_begin_anew(name: str, told: str) -> None:
    """The same block is taken for both, so the actions are the same until it is."""
    task, other, world, layout = TASKS[name], TASKS[told], TaskWorld(VIEW), Layout()
    start = replace(start_for(task, 3), drawer=0.14)
    world.reset(start.plain(), 3)
    begin = state = world.env.state()
    expert, off, frames = Expert(task), [], 0
    while not state.grasped(task.block):
        action = expert.action(state)
        assert action is not None
        if (
            other.possible(situation_of(state))
            and np.linalg.norm(state.tool[:2] - expert.left[-1].position[:2]) < 0.015
        ):
            off.append(np.abs(told_otherwise(other, state, layout, action[6])[1][0] - action).max())
        world.step(action)
        state, frames = world.env.state(), frames + 1
        assert frames < 100
    assert len(off) > 10
    assert max(off) < 0.1 and not task.solved(begin, state)
    world.env.close()


def test_over_what_it_is_put_on_a_held_block_comes_down() -> None:
    task, world = TASKS["lift_red"], TaskWorld(VIEW)
    world.reset(start_for(task, 4).plain(), 4)
    begin = state = world.env.state()
    expert = Expert(task)
    while not task.solved(begin, state):
        action = expert.action(state)
        assert action is not None
        world.step(action)
        state = world.env.state()
    base = state.blocks["blue"]
    over = Waypoint((*base.position[:2], 0.15), grasp_yaw(base), CLOSE)
    script = Script([Waypoint((*base.position[:2], 0.24), over.yaw, CLOSE, tolerance=0.01), over])
    while (action := script.action(world.env.state())) is not None:
        world.step(action)
    goals, actions = told_otherwise(TASKS["stack_red_on_blue"], world.env.state(), Layout(), CLOSE)
    world.env.close()
    assert actions[0, 2] < -0.4 and (actions[:, 6] == CLOSE).all()
    assert goals[0, :2] == pytest.approx(base.position[:2], abs=1e-3)


def test_what_is_put_somewhere_is_foreseen_when_it_is_taken() -> None:
    task, world = TASKS["stack_yellow_on_red"], TaskWorld(VIEW)
    world.reset(start_for(task, 5).plain(), 5)
    state = world.env.state()
    taken, put = keyframes(task, plan(task, state, Layout()), state, Layout())
    world.env.close()
    assert taken[:2] == pytest.approx(state.blocks["yellow"].position[:2], abs=1e-6)
    assert put[:2] == pytest.approx(state.blocks["red"].position[:2], abs=1e-6)
    assert put[2] - taken[2] == pytest.approx(0.04, abs=0.005)


def test_getting_ready_is_no_keyframe() -> None:
    """A hand that is closed and low has to open and rise first; what counts is where it will close."""
    task, world = TASKS["lift_blue"], TaskWorld(VIEW)
    world.reset(start_for(task, 1).plain(), 1)
    for _ in range(12):
        world.step(np.array([0, 0, -1, 0, 0, 0, CLOSE]))
    state = world.env.state()
    points = plan(task, state, Layout())
    assert {point.gripper for point in points[:1]} == {CLOSE} and points[1].gripper == OPEN
    goal = keyframes(task, points, state, Layout())
    assert goal[0, :2] == pytest.approx(state.blocks["blue"].position[:2], abs=1e-6)
    push = TASKS["push_blue_left"]
    ends = keyframes(push, plan(push, state, Layout()), state, Layout())
    assert ends[0].tolist() == ends[1].tolist() and ends[0, 1] > state.blocks["blue"].position[1] + 0.05
    world.env.close()


def test_others_are_possible_and_none_is_the_task_itself() -> None:
    task, world = TASKS["push_red_left"], TaskWorld(VIEW)
    world.reset(start_for(task, 2).plain(), 2)
    state, rng = world.env.state(), np.random.default_rng(0)
    seen = set()
    for _ in range(50):
        for other in other_tasks(task, state, 2, rng):
            assert other != task and other.possible(situation_of(state))
            goals, actions = told_otherwise(other, state, Layout(), OPEN)
            assert goals.shape == (2, 4) and actions.shape == (HORIZON, 7) and np.abs(actions).max() <= 1
            seen.add(other.kind)
    world.env.close()
    assert len(seen) >= 5
    assert len(other_tasks(task, state, 1000, rng)) < 34


def test_a_data_set_tells_them_and_is_the_same_without(tmp_path: Path) -> None:
    sets: dict[int, Plans] = {}
    for others in (0, 2):
        options = DemoOptions(episodes=2, tasks=("lift", "button"), later=0.0, others=others, view=VIEW)
        make_demos(tmp_path / str(others), options, progress=lambda done, total: None)
        found = read_plans(tmp_path / str(others), open_dataset(tmp_path / str(others)).contract)
        assert found is not None and found.goal == GOAL
        sets[others] = found
    bare, told = (open_dataset(tmp_path / str(others)) for others in (0, 2))
    for one, other in zip(bare, told, strict=True):
        assert np.array_equal(one.action, other.action) and one.instruction == other.instruction
    assert (sets[0].steps == 0).all() and len(sets[0]) == bare.frames
    own = sets[2].steps == 0
    assert own.sum() == told.frames and (~own).sum() == 2 * told.frames
    assert sets[2].frame[own].tolist() == [t for episode in told for t in range(len(episode))]
    assert np.abs(sets[2].actions[..., :6]).max() <= UNITS[:6].max() + 1e-6
    for row in np.flatnonzero(~own):
        assert sets[2].instruction[row] != told[int(sets[2].episode[row])].instruction
