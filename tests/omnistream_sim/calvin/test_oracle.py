# SPDX-License-Identifier: Apache-2.0
"""The oracle on made-up moments with known answers, and beside the official one on random moments."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from omnistream_sim.calvin.oracle import RULES, solved, turn_degrees
from omnistream_sim.calvin.tasks import TASKS

ROBOT, TABLE, RED, BLUE, PINK = 0, 1, 2, 3, 4
LINKS = {"base_link": -1, "plank_link": 5, "drawer_link": 3}
BLOCKS = {"block_red": RED, "block_blue": BLUE, "block_pink": PINK}


def contact(body: int, link: int = -1) -> tuple:
    return (0, 99, body, -1, link, None)


def moment() -> dict:
    """Blocks on the table, doors closed, lights off, empty hand."""
    blocks = {
        name: {
            "uid": uid,
            "current_pos": (0.1 * uid, -0.1, 0.46),
            "current_orn": (0.0, 0.0, 0.0, 1.0),
            "current_lin_vel": (0.0, 0.0, 0.0),
            "current_ang_vel": (0.0, 0.0, 0.0),
            "contacts": [contact(TABLE, LINKS["base_link"])],
        }
        for name, uid in BLOCKS.items()
    }
    return {
        "robot_info": {"uid": ROBOT, "contacts": []},
        "scene_info": {
            "movable_objects": blocks,
            "fixed_objects": {"table": {"uid": TABLE, "links": LINKS}},
            "doors": {"base__slide": {"current_state": 0.0}, "base__drawer": {"current_state": 0.0}},
            "lights": {"led": {"logical_state": 0}, "lightbulb": {"logical_state": 0}},
        },
    }


def block(info: dict, colour: str = "red") -> dict:
    return info["scene_info"]["movable_objects"][f"block_{colour}"]


def move(info: dict, dx: float = 0.0, dz: float = 0.0, colour: str = "red") -> dict:
    x, y, z = block(info, colour)["current_pos"]
    block(info, colour)["current_pos"] = (x + dx, y, z + dz)
    return info


def turn(info: dict, degrees: float, axis: int = 2) -> dict:
    half = math.radians(degrees) / 2
    block(info)["current_orn"] = tuple(np.eye(4)[axis] * math.sin(half) + np.eye(4)[3] * math.cos(half))
    return info


def touch(info: dict, *contacts: tuple, colour: str = "red") -> dict:
    block(info, colour)["contacts"] = list(contacts)
    return info


def hold(info: dict, colour: str = "red") -> dict:
    info["robot_info"]["contacts"] = [contact(BLOCKS[f"block_{colour}"])]
    return touch(info, contact(ROBOT, 9), colour=colour)


def everything(start: dict, end: dict) -> set[str]:
    return {task for task in TASKS if solved(task, start, end)}


def test_every_task_has_a_rule():
    assert set(RULES) == set(TASKS)


def test_nothing_happened():
    assert everything(moment(), moment()) == set()


@pytest.mark.parametrize(
    ("degrees", "tasks"),
    [
        (61, {"rotate_red_block_left"}),
        (-61, {"rotate_red_block_right"}),
        (59, set()),
        (179, {"rotate_red_block_left"}),
        (190, {"rotate_red_block_right"}),  # 190 to the left is 170 to the right
    ],
)
def test_rotating(degrees, tasks):
    assert everything(moment(), turn(moment(), degrees)) == tasks


def test_a_rotation_counts_on_a_surface_upright_and_in_place():
    turned = turn(moment(), 90)
    assert not everything(moment(), touch(copy.deepcopy(turned), contact(ROBOT)))  # in the air
    assert not everything(moment(), move(copy.deepcopy(turned), dx=0.11, dz=0.01)) & {"rotate_red_block_left"}
    assert everything(moment(), touch(copy.deepcopy(turned), contact(ROBOT), contact(TABLE)))
    assert not everything(moment(), turn(moment(), 90, axis=0))  # tipped over


def test_pushing():
    assert everything(moment(), move(moment(), dx=0.11)) == {"push_red_block_right"}
    assert everything(moment(), move(moment(), dx=-0.11)) == {"push_red_block_left"}
    assert everything(moment(), move(moment(), dx=0.09)) == set()
    assert everything(moment(), touch(move(moment(), dx=0.2))) == set()  # flying
    other = touch(move(moment(), dx=0.2), contact(TABLE, LINKS["drawer_link"]))
    assert "push_red_block_right" not in everything(moment(), other)  # onto another surface


@pytest.mark.parametrize(
    ("link", "rise", "task"),
    [
        ("base_link", 0.051, "lift_red_block_table"),
        ("drawer_link", 0.051, "lift_red_block_drawer"),
        ("plank_link", 0.031, "lift_red_block_slider"),
    ],
)
def test_lifting(link, rise, task):
    start = touch(moment(), contact(TABLE, LINKS[link]))
    assert everything(start, hold(move(moment(), dz=rise))) == {task}
    assert everything(start, hold(move(moment(), dz=rise - 0.002))) == set()
    resting = touch(move(moment(), dz=rise), contact(ROBOT), contact(TABLE, LINKS[link]))
    assert everything(start, resting) == set()  # it still touches the table


@pytest.mark.parametrize(("link", "task"), [("plank_link", "place_in_slider"), ("drawer_link", "place_in_drawer")])
def test_placing(link, task):
    start, end = hold(moment()), touch(moment(), contact(TABLE, LINKS[link]))
    assert everything(start, end) == {task}
    assert everything(moment(), end) - {"push_into_drawer"} == set()  # it was not held
    held = copy.deepcopy(end)
    held["robot_info"]["contacts"] = [contact(RED)]
    assert everything(start, held) == set()  # it still is


def test_pushing_into_the_drawer():
    assert everything(moment(), touch(moment(), contact(TABLE, LINKS["drawer_link"]))) == {"push_into_drawer"}


@pytest.mark.parametrize(
    ("door", "by", "task"),
    [
        ("base__slide", 0.151, "move_slider_left"),
        ("base__slide", -0.151, "move_slider_right"),
        ("base__drawer", 0.121, "open_drawer"),
        ("base__drawer", -0.121, "close_drawer"),
    ],
)
def test_doors(door, by, task):
    end = moment()
    end["scene_info"]["doors"][door]["current_state"] = by
    assert everything(moment(), end) == {task}
    end["scene_info"]["doors"][door]["current_state"] = by * 0.98
    assert everything(moment(), end) == set()


@pytest.mark.parametrize("light", ["led", "lightbulb"])
def test_lights(light):
    on = moment()
    on["scene_info"]["lights"][light]["logical_state"] = 1
    assert everything(moment(), on) == {f"turn_on_{light}"}
    assert everything(on, moment()) == {f"turn_off_{light}"}


def test_stacking():
    end = touch(touch(moment(), contact(BLUE)), contact(RED), contact(TABLE), colour="blue")
    assert everything(moment(), end) == {"stack_block"}
    assert everything(end, moment()) == {"unstack_block"}
    block(end)["current_ang_vel"] = (0.0, 1.1, 0.0)
    assert everything(moment(), end) == set()  # it is falling


def test_turns_of_all_axes():
    assert turn_degrees((0, 0, 0, 1), (0, 0, math.sqrt(0.5), math.sqrt(0.5))) == pytest.approx((0, 0, 90))
    assert turn_degrees((0, 0, math.sqrt(0.5), math.sqrt(0.5)), (0, 0, 0, 1)) == pytest.approx((0, 0, -90))
    assert turn_degrees((0, 0, 0, 1), (math.sin(0.2), 0, 0, math.cos(0.2)))[0] == pytest.approx(math.degrees(0.4))


def random_moment(rng: np.random.Generator) -> dict:
    """Something near every threshold."""
    info = moment()
    for name in BLOCKS:
        thing = info["scene_info"]["movable_objects"][name]
        thing["current_pos"] = tuple(np.add(thing["current_pos"], rng.choice([0, 0.04, 0.06, -0.12, 0.12], 3)))
        quaternion = rng.normal(size=4) * (rng.choice([0.05, 1]), rng.choice([0.05, 1]), 1, 1)
        thing["current_orn"] = tuple(quaternion / np.linalg.norm(quaternion))
        thing["current_lin_vel"] = tuple(rng.choice([0.0, 0.5, -1.5], 3, p=[0.6, 0.3, 0.1]))
        bodies = [body for body in (ROBOT, TABLE, RED, BLUE, PINK) if body != thing["uid"]]
        thing["contacts"] = [
            contact(int(body), int(rng.choice(list(LINKS.values()))))
            for body in rng.choice(bodies, rng.integers(0, 3), replace=False)
        ]
    info["robot_info"]["contacts"] = [contact(int(body)) for body in rng.choice(5, rng.integers(0, 3), replace=False)]
    for door in info["scene_info"]["doors"].values():
        door["current_state"] = float(rng.choice([0, 0.1, 0.2]))
    for light in info["scene_info"]["lights"].values():
        light["logical_state"] = int(rng.integers(2))
    return info


def test_the_official_oracle_says_the_same(checkout):
    """5000 random pairs of moments, all 34 tasks each."""
    from omnistream_sim.calvin.official import official_oracle

    official, rng, seen = official_oracle(checkout), np.random.default_rng(0), set()
    for _ in range(5000):
        start, end = random_moment(rng), random_moment(rng)
        expected = official.get_task_info(start, end)
        assert everything(start, end) == expected
        seen |= expected
    assert len(seen) >= 30
