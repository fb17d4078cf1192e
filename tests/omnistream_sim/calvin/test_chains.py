# SPDX-License-Identifier: Apache-2.0
"""The chain generator against the official one, and by its own rules."""

from __future__ import annotations

import pytest

from omnistream.errors import ConfigError
from omnistream_sim.calvin.chains import DIGEST, TOTAL, digest, is_valid, official_chains, start_scenes
from omnistream_sim.calvin.tasks import TASKS

FIRST_TEN = "16fb3ecf5dee9e85d68ae0a661058079db001103315e2bf6945184cf6c652a06"
"""Digest of the first ten chains of a run of mees/calvin fa03f01 with numpy 2.4.6."""


def pairs(chains):
    return [(chain.scene, chain.tasks) for chain in chains]


def test_there_are_34_tasks_and_192_start_scenes():
    assert len(TASKS) == 34
    assert len({task.kind for task in TASKS.values()}) == 11
    assert len(start_scenes()) == 192
    assert len({tuple(scene.items()) for scene in start_scenes()}) == 192


def test_the_first_chain_is_the_published_one():
    (first,) = official_chains(1)
    assert first.scene == {
        "led": 1, "lightbulb": 1, "slider": "left", "drawer": "open",
        "red_block": "slider_left", "blue_block": "table", "pink_block": "slider_right", "grasped": 0,
    }  # fmt: skip
    assert first.tasks == (
        "rotate_blue_block_right",
        "move_slider_right",
        "lift_red_block_slider",
        "place_in_slider",
        "turn_off_lightbulb",
    )


def test_the_first_chains_are_those_of_the_original():
    chains = official_chains(10)
    assert digest(pairs(chains)) == FIRST_TEN
    assert all(is_valid(chain.scene, chain.tasks) for chain in chains)
    assert pairs(official_chains(3)) == pairs(chains[:3])


@pytest.mark.slow
def test_all_1000_chains_are_those_of_the_original():
    """The hash is of a run of the original (mees/calvin fa03f01, numpy 2.4.6), which was compared list by list."""
    chains = official_chains()
    assert len(chains) == TOTAL
    assert digest(pairs(chains)) == DIGEST
    assert len({task for chain in chains for task in chain.tasks}) == len(TASKS)
    assert len({tuple(chain.scene.items()) for chain in chains}) == 192


SCENE = {
    "led": 0, "lightbulb": 0, "slider": "right", "drawer": "open",
    "red_block": "table", "blue_block": "slider_left", "pink_block": "slider_right", "grasped": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("tasks", "valid"),
    [
        (["lift_red_block_table", "place_in_drawer"], True),
        (["lift_red_block_table", "open_drawer"], False),  # the drawer is open
        (["lift_red_block_table", "turn_on_led"], False),  # the hand is full
        (["place_in_drawer"], False),  # the hand is empty
        (["lift_blue_block_slider"], True),  # the door is on the right, the block on the left
        (["lift_pink_block_slider"], False),  # behind the door
        (["move_slider_left", "lift_pink_block_slider", "place_in_slider"], True),
        (["push_into_drawer"], True),  # the others are in the cabinet
        (["turn_on_led", "turn_on_lightbulb"], False),  # of one kind
        (["rotate_red_block_left", "push_red_block_left"], False),  # of one kind
        (["lift_red_block_table", "stack_block"], False),  # nothing on the table to stack it on
    ],
)
def test_what_can_follow_what(tasks, valid):
    assert is_valid(SCENE, tasks) is valid


def test_stacking_and_unstacking():
    scene = SCENE | {"blue_block": "table"}
    assert is_valid(scene, ["lift_red_block_table", "stack_block", "unstack_block"])
    assert TASKS["stack_block"].result(scene | {"red_block": "grasped", "grasped": 1, "pink_block": "table"}) is None


@pytest.mark.parametrize("count", [0, 1001])
def test_other_counts_are_refused(count):
    with pytest.raises(ConfigError, match="expected 1 to 1000"):
        official_chains(count)
