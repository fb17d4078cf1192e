# SPDX-License-Identifier: Apache-2.0
"""Commands as numbers: what leaves for each output, at a stop, and again after one; and the hash over it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from omnistream.contract import Action, Camera, Contract, Dimension, Gripper
from omnistream.policy.control import Command, ControlSettings
from omnistream.policy.guard import Stop
from omnistream.policy.outbox import CommandHash, Outbox, Outgoing
from omnistream.policy.safety import Limits

PERIOD = 0.1


def settings(arm: int, mode: str = "delta", frame: str = "base", upper: float = np.inf) -> ControlSettings:
    names = ("x", "y", "z", "roll", "pitch", "yaw")[:arm]
    action = Action(
        (*(Dimension(name, "m") for name in names), Dimension("hand", "1")),
        mode=mode,
        frame=frame,
        grippers=(Gripper(arm, 1.0, 0.0),),
    )
    contract = Contract(rate=10.0, cameras=(Camera("front", 64, 64),), state=(), action=action)
    limits = Limits(
        period=PERIOD,
        velocity=(1.0,) * arm,
        acceleration=(10.0,) * arm,
        lower=(-np.inf,) * arm,
        upper=(upper,) * arm,
        start_jump=(1.0,) * arm,
        grippers=((1.0, 0.0),),
    )
    return ControlSettings(contract=contract, limits=limits, scale=(2.0,) * arm)


def move(velocity: Sequence[float], target: Sequence[float] | None = None) -> Command:
    place = None if target is None else np.array(target, np.float64)
    return Command(
        kind="move", tick=1, velocity=np.array(velocity, np.float64), target=place, grippers=(1.0,), step=PERIOD
    )


def stop(size: int, target: Sequence[float] | None = None, grippers: tuple[float, ...] = ()) -> Command:
    return dataclasses.replace(move([0.0] * size, target), kind="stop", reason=Stop.REQUESTED, grippers=grippers)


NOTHING = dataclasses.replace(stop(3), kind="none")


def sent(left: Sequence[Outgoing]) -> dict[str, list[float]]:
    return {one.output: one.values.tolist() for one in left}


def test_a_twist_has_six_numbers_and_a_gripper_one() -> None:
    box = Outbox(settings(3), ["twist", "gripper"])
    assert box.outputs == ["twist", "gripper/hand"]
    assert sent(box.send(move([0.1, 0.2, 0.3]))) == {"twist": [0.1, 0.2, 0.3, 0, 0, 0], "gripper/hand": [1.0]}


def test_a_stop_leaves_three_times_and_no_gripper_moves() -> None:
    box = Outbox(settings(3), ["twist", "gripper"])
    assert box.send(NOTHING) == []
    box.send(move([0.1, 0, 0]))
    assert [sent(box.send(command)) for command in (stop(3), NOTHING, NOTHING)] == [{"twist": [0.0] * 6}] * 3
    assert box.send(NOTHING) == []
    box.send(stop(3))
    box.send(move([0.1, 0, 0]))
    assert box.send(NOTHING) == [], "a movement ends the repeats"


def test_an_action_is_in_the_contracts_units_and_says_no_stop_before_it_knows_the_gripper() -> None:
    box = Outbox(settings(3), ["action"])
    assert box.send(stop(3)) == []
    np.testing.assert_allclose(box.send(move([0.4, 0.0, -0.4]))[0].values, [0.02, 0, -0.02, 1.0])
    assert sent(box.send(stop(3, grippers=(1.0,)))) == {"action": [0, 0, 0, 1.0]}


def test_a_pose_turns_on_from_where_the_tool_was() -> None:
    box = Outbox(settings(6), ["pose"])
    assert box.send(move([0.0] * 6)) == [], "nobody said where the arm is"
    box.begin([0.0, 0.0, np.sin(np.pi / 4), np.cos(np.pi / 4)])  # a quarter turn about z
    for _ in range(5):
        (pose,) = box.send(move([0, 0, 0, 0, 0, np.pi], [1, 2, 3, 0, 0, 0]))
    np.testing.assert_allclose(pose.values, [1, 2, 3, 0, 0, 1, 0], atol=1e-12)  # and half a turn in five periods: 0.5 s


@pytest.mark.parametrize("velocities", [True, False])
def test_a_trajectory_comes_to_rest_inside_the_bounds(velocities: bool) -> None:
    box = Outbox(settings(3, frame="joints", upper=1.0), ["joint_trajectory"], velocities)
    values = box.send(move([0.4, 0.0, 0.8], [0.5, 0.0, 0.99]))[0].values
    if not velocities:
        assert values.tolist() == [[0.5, 0.0, 0.99, PERIOD]]
        return
    np.testing.assert_allclose(
        values, [[0.5, 0, 0.99, 0.4, 0, 0.8, PERIOD], [0.52, 0, 1.0, 0, 0, 0, 2 * PERIOD]], atol=1e-12
    )
    assert sent(box.send(stop(3, [0.5, 0, 0.99]))) == {"joint_trajectory": [[0.5, 0, 0.99, 0, 0, 0, PERIOD]]}


def test_the_hash_sees_every_bit_every_name_and_the_order() -> None:
    def of(*messages: tuple[str, list[float]]) -> str:
        command_hash = CommandHash()
        for output, values in messages:
            command_hash.add([Outgoing(output, np.array(values, np.float64))])
        return command_hash.hex

    base = of(("twist", [0.1, 0.0]), ("action", [1.0]))
    others = [
        of(("twist", [float(np.nextafter(0.1, 1)), 0.0]), ("action", [1.0])),
        of(("twist", [0.1, -0.0]), ("action", [1.0])),
        of(("action", [1.0]), ("twist", [0.1, 0.0])),
        of(("pose", [0.1, 0.0]), ("action", [1.0])),
        of(("twist", [0.1]), ("action", [0.0, 1.0])),
        of(("twist", [0.1, 0.0])),
    ]
    assert len({base, *others}) == 7 and base == of(("twist", [0.1, 0.0]), ("action", [1.0]))
