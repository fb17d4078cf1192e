# SPDX-License-Identifier: Apache-2.0
"""Chunks to commands, tick by tick: inside the limits whatever comes in, and the same for the same input."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from omnistream.contract import Action, Contract, Dimension, Gripper
from omnistream.errors import ConfigError
from omnistream.policy.chunks import Blend
from omnistream.policy.control import Command, Control, ControlSettings
from omnistream.policy.guard import Facts, Mode, Stop
from omnistream.policy.safety import Limits

T = 0.05
NAMES = ("x", "y", "z")
WELL = Facts(instruction=True, observation_age=0.02)
LIMITS = Limits(
    period=T,
    velocity=(0.1,) * 3,
    acceleration=(0.5,) * 3,
    lower=(-0.3, -0.3, 0.0),
    upper=(0.3, 0.3, 0.4),
    start_jump=(0.05,) * 3,
    grippers=((1.0, -1.0),),
    gripper_dwell=0.3,
)


def settings(mode: str = "delta", **changes: Any) -> ControlSettings:
    action = Action(
        tuple(Dimension(name, "1") for name in (*NAMES, "gripper")),
        mode=mode,
        frame="base_link",
        grippers=(Gripper(3, 1.0, -1.0),),
    )
    contract = Contract(rate=1 / T, cameras=(), state=(), action=action)
    given: dict[str, Any] = {"limits": LIMITS, "scale": (0.02,) * 3, "ramp": 0.0, "integrate": True}
    return ControlSettings(contract=contract, **(given | changes))


def row(x: float = 0.0, gripper: float = 1.0) -> np.ndarray:
    return np.array([x, 0.0, 0.0, gripper])


class Driven:
    """A controller whose clock goes on by itself."""

    def __init__(self, given: ControlSettings, begin: float = 1000.0) -> None:
        self.control, self.now = Control(given), begin
        self.place = np.array([0.0, 0.0, 0.2])

    def start(self) -> Driven:
        self.tick()
        self.control.start(self.now, self.place)
        return self

    def plan(self, *rows: np.ndarray, age: float = 0.0) -> tuple[int, int] | None:
        return self.control.adopt(np.stack(rows), self.now - age)

    def tick(self, facts: Facts = WELL, elapsed: float = T) -> Command:
        self.now += elapsed
        return self.control.tick(self.now, self.now, facts, self.place)


def test_deltas_pass_in_the_contracts_units() -> None:
    driven = Driven(settings(limits=dataclasses.replace(LIMITS, acceleration=(50.0,) * 3))).start()
    driven.plan(*[row(0.2, -1.0)] * 4)
    command = driven.tick()
    assert command.kind == "move" and command.stamp == pytest.approx(driven.now - T)
    assert command.velocity.tolist() == [pytest.approx(0.08), 0, 0]  # 0.2 * 0.02 m per 0.05 s
    assert command.in_units(driven.control.settings).tolist() == [pytest.approx(0.2), 0, 0, -1.0]


def test_the_rows_that_passed_while_thinking_are_skipped() -> None:
    free = dataclasses.replace(LIMITS, acceleration=(50.0,) * 3)
    driven = Driven(settings(limits=free, blend=Blend(kind="replace"))).start()
    driven.plan(row(0.01), row(0.02), row(0.03), row(0.04), age=2 * T)
    assert driven.tick().in_units(driven.control.settings)[0] == pytest.approx(0.04)
    command = driven.tick()
    assert (command.kind, command.reason) == ("stop", Stop.STARVED)
    assert driven.tick().kind == "none"


def test_an_overtaken_chunk_changes_nothing_and_one_from_the_future_neither() -> None:
    driven = Driven(settings()).start()
    assert driven.plan(*[row()] * 4) is not None
    assert driven.plan(*[row(1.0)] * 8, age=3 * T) is None
    assert driven.plan(*[row(1.0)] * 8, age=-1.0) is None
    assert driven.control.adopt(np.full((4, 4), np.nan), driven.now) is None
    assert driven.control.adopt(np.zeros((4, 3)), driven.now) is None
    assert driven.control.drops == {"overtaken": 1, "future": 1, "not_finite": 2}


def test_nothing_leaves_before_a_start_and_a_stop_is_sent_once() -> None:
    driven = Driven(settings())
    driven.tick()
    driven.plan(*[row(1.0)] * 8)
    assert driven.tick().kind == "none"
    driven.control.start(driven.now, driven.place)
    driven.plan(*[row(1.0)] * 8)
    assert driven.tick().kind == "move"
    stop = driven.control.stop(Stop.REQUESTED, driven.now)
    assert stop.kind == "stop" and not stop.velocity.any() and stop.grippers == (1.0,)
    driven.plan(*[row(1.0)] * 8)
    assert driven.tick().kind == "none"


def test_after_a_hold_speed_grows_again_from_zero() -> None:
    driven = Driven(settings(ramp=1.0)).start()
    for _ in range(10):
        driven.plan(*[row(1.0)] * 4)
        fast = driven.tick()
    lost = driven.tick(dataclasses.replace(WELL, observation_age=9.0))
    assert (lost.kind, lost.reason) == ("stop", Stop.OBSERVATION_AGE)
    driven.plan(*[row(1.0)] * 4)
    again = driven.tick()
    assert again.kind == "move" and 0 < again.velocity[0] < 0.2 * fast.velocity[0]


def test_absolute_targets_are_reached_and_the_first_must_be_near() -> None:
    given = settings("absolute", scale=(1.0,) * 3)
    driven = Driven(given).start()
    near = np.array([0.02, 0.0, 0.2, 1.0])
    for _ in range(20):
        driven.plan(*[near] * 8)
        command = driven.tick()
    assert command.target is not None and np.allclose(command.target, near[:3], atol=1e-3)
    stop = driven.control.stop(Stop.REQUESTED, driven.now)
    assert np.allclose(stop.in_units(given)[:3], near[:3], atol=1e-3), "zero would be another place"
    driven.control.start(driven.now, driven.place)
    driven.plan(*[np.array([0.2, 0.0, 0.2, 1.0])] * 8)
    refused = driven.tick()
    assert (refused.kind, refused.reason, driven.control.guard.mode) == ("stop", Stop.START_JUMP, Mode.DISABLED)


def test_a_jump_of_the_clock_counts_ticks_anew() -> None:
    driven = Driven(settings()).start()
    driven.plan(*[row(1.0)] * 8)
    assert driven.tick().kind == "move"
    driven.control.rebase()
    driven.now -= 500.0
    assert driven.tick().reason is Stop.STARVED
    driven.plan(*[row(1.0)] * 8)
    assert driven.tick().kind == "move"


@pytest.mark.parametrize("steps", [4000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["delta", "absolute"])
def test_whatever_a_network_says_and_whenever(mode: str, steps: int) -> None:
    """Random chunks, NaN, Inf, huge; overtaken and reordered; ticks early, late, twice, backwards; stops and starts."""
    draw = np.random.default_rng(1)
    given = settings(mode, limits=dataclasses.replace(LIMITS, start_jump=(math.inf,) * 3))
    driven = Driven(given).start()
    control, position, velocity = driven.control, driven.place.copy(), np.zeros(3)
    moved = 0
    for _ in range(steps):
        if draw.random() < 0.5:
            chunk = draw.normal(size=(int(draw.integers(1, 9)), 4)) * 10.0 ** draw.uniform(-3, 3)
            if draw.random() < 0.05:
                chunk[int(draw.integers(len(chunk))), int(draw.integers(4))] = draw.choice([math.nan, math.inf, 1e308])
            control.adopt(
                chunk, driven.now + draw.choice([0.0, -T, -3 * T, T, 5.0, math.nan], p=[0.6, 0.1, 0.1, 0.1, 0.05, 0.05])
            )
        facts = (
            WELL
            if draw.random() < 0.97
            else dataclasses.replace(WELL, observation_age=draw.choice([None, 9.0, math.nan]))
        )
        command = driven.tick(facts, float(draw.choice([T, 0.0, -T, 10 * T, 0.3 * T], p=[0.8, 0.05, 0.05, 0.05, 0.05])))
        if command.kind == "move":
            moved += 1
            assert np.isfinite(command.in_units(given)).all() and command.target is not None
            assert (np.abs(command.velocity) <= np.array(LIMITS.velocity) + 1e-9).all()
            slower = np.abs(command.velocity) <= np.abs(velocity) + 1e-9
            assert (slower | (np.abs(command.velocity - velocity) <= 0.5 * command.step + 1e-9)).all()
            assert (command.target >= np.array(LIMITS.lower)).all() and (command.target <= np.array(LIMITS.upper)).all()
            assert (np.abs(command.target - position) <= 0.1 * T + 1e-9).all()
            assert command.grippers[0] in (1.0, -1.0)
            position, velocity = command.target, command.velocity
        else:
            assert not command.velocity.any()
            velocity = np.zeros(3)
        driven.place = position  # an arm that follows
        if control.guard.mode is Mode.DISABLED:
            control.start(driven.now, position)
    assert moved > steps / 10


def test_the_same_calls_give_the_same_commands() -> None:
    def commands() -> list[bytes]:
        draw, driven = np.random.default_rng(2), Driven(settings()).start()
        out = []
        for _ in range(200):
            driven.plan(*draw.normal(size=(4, 4)))
            out.append(driven.tick().in_units(driven.control.settings).tobytes())
        return out

    assert commands() == commands()


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="scales of 2"):
        settings(scale=(1.0, 1.0))
    with pytest.raises(ConfigError, match="mode is 'unspecified'"):
        settings("unspecified")
    with pytest.raises(ConfigError, match="other than 0"):
        settings(scale=(0.0, 1.0, 1.0))
