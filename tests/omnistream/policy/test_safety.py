# SPDX-License-Identifier: Apache-2.0
"""No command outside the limits ever leaves, whatever a network says and whenever it says it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnistream.errors import ConfigError
from omnistream.policy.guard import Facts, Gates, Guard, Mode, Stop, checked, cleared, disabled, estopped, finding
from omnistream.policy.guard import started as started_guard
from omnistream.policy.safety import (
    Limits,
    Motion,
    Refused,
    Wish,
    at_rest,
    broadcast,
    held,
    limit,
    ramp_at,
    stopping_speed,
)

T = 0.05
LIMITS = Limits(
    period=T,
    velocity=(0.3, 0.2, 1.0),
    acceleration=(1.5, 3.0, 8.0),
    lower=(-0.2, 0.0, -math.inf),
    upper=(0.2, 0.5, math.inf),
    start_jump=(0.05, 0.05, 0.3),
    grippers=((1.0, -1.0),),
    gripper_dwell=0.4,
)
FREE = dataclasses.replace(LIMITS, lower=(-math.inf,) * 3, upper=(math.inf,) * 3)
WILD = (0.0, -0.0, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf)
EPS = 1e-9


def inside(limits: Limits, before: Motion, after: Motion, step: float, bounded: bool) -> None:
    """Every invariant of one command."""
    speed, change = np.array(limits.velocity), np.array(limits.acceleration) * step
    assert np.isfinite(after.velocity).all()
    assert (np.abs(after.velocity) <= speed + EPS).all()
    faster = np.abs(after.velocity - before.velocity) > change + EPS
    # The one exception: a bound ahead, for which it may brake harder, never speed up.
    slower = (np.abs(after.velocity) <= np.abs(before.velocity) + EPS) & (after.velocity * before.velocity >= -EPS)
    assert (~faster | (slower & bounded)).all(), (before.velocity, after.velocity)
    if after.position is not None and before.position is not None:
        low, high = np.array(limits.lower), np.array(limits.upper)
        was_in = (before.position >= low) & (before.position <= high)
        is_in = (after.position >= low) & (after.position <= high)
        assert (~was_in | is_in).all(), (before.position, after.position)
        assert (np.abs(after.position - before.position) <= speed * step + EPS).all()


def test_what_is_inside_passes_unchanged() -> None:
    wish = Wish(velocity=np.array([0.05, -0.1, 0.3]), grippers=np.array([1.0]))
    out = limit(LIMITS, at_rest(LIMITS, [0.0, 0.25, 0.0]), wish, elapsed=T)
    assert out.motion.velocity.tolist() == [0.05, -0.1, 0.3]
    assert not out.clamps and out.grippers == (1.0,) and out.step == T
    assert out.motion.position is not None
    there = out.motion.position + 0.9 * T * out.motion.velocity
    target = limit(LIMITS, out.motion, Wish(target=there, grippers=np.ones(1)), elapsed=T)
    assert np.allclose(target.motion.position, there) and not target.clamps


def test_a_hundred_thousand_steps_of_a_mad_network() -> None:
    """Random walks, NaN, Inf, huge values, periods of zero, below zero and ten times too long, stops in between."""
    draw = np.random.default_rng(0)
    steps = refused = 0
    clamps: set[str] = set()
    for limits, absolute in ((LIMITS, False), (LIMITS, True), (FREE, False)):
        before = at_rest(limits, [0.0, 0.25, 0.0])
        changed = -math.inf
        clock = 0.0
        for _ in range(40_000):
            steps += 1
            scale = 10.0 ** draw.uniform(-3, 3)
            values = draw.normal(size=3) * scale
            if draw.random() < 0.05:
                values[draw.integers(3)] = draw.choice(WILD)
            gripper = np.array([draw.choice([1.0, -1.0, 0.3, 1e300, math.nan], p=[0.45, 0.45, 0.05, 0.04, 0.01])])
            elapsed = float(
                draw.choice([T, T * draw.uniform(), 0.0, -T, 10 * T, math.nan, math.inf], p=[0.8] + 6 * [1 / 30])
            )
            wish = Wish(target=values, grippers=gripper) if absolute else Wish(velocity=values, grippers=gripper)
            try:
                out = limit(limits, before, wish, elapsed=elapsed, ramp=float(draw.choice([1.0, 0.3, 0.0, 7.0])))
            except Refused as error:
                assert error.reason == "not_finite"
                assert not (np.isfinite(values).all() and np.isfinite(gripper).all())
                refused += 1
                before = held(before)
                continue
            assert np.isfinite(values).all() and np.isfinite(gripper).all()
            inside(limits, before, out.motion, out.step, bool(out.clamps["bounds"]))
            assert 0 <= out.step <= T
            clock += elapsed if 0 < elapsed < math.inf else 0.0
            assert out.grippers[0] in (1.0, -1.0)
            if before.opened[0] is not None and out.motion.opened != before.opened:
                assert clock - changed >= limits.gripper_dwell - 1e-6
            if out.motion.opened != before.opened:
                changed = clock
            clamps |= set(out.clamps)
            before = out.motion if draw.random() > 0.01 else held(out.motion)
    assert steps >= 100_000 and refused > 1000
    assert clamps == {"period", "velocity", "acceleration", "bounds", "dwell"}


number = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(number, number, number, number, number), min_size=1, max_size=12),
    st.booleans(),
    st.floats(-0.3, 0.3),
)
def test_no_sequence_of_numbers_leads_out(sequence: list[tuple[float, ...]], absolute: bool, start: float) -> None:
    before = at_rest(LIMITS, [start, 0.25, 0.0])
    for a, b, c, gripper, elapsed in sequence:
        values, told = np.array([a, b, c]), np.array([gripper])
        wish = Wish(target=values, grippers=told) if absolute else Wish(velocity=values, grippers=told)
        try:
            out = limit(LIMITS, before, wish, elapsed=elapsed)
        except Refused:
            before = held(before)
            continue
        inside(LIMITS, before, out.motion, out.step, bool(out.clamps["bounds"]))
        before = out.motion


def test_full_speed_into_a_wall_stops_at_it_without_braking_too_hard() -> None:
    before = at_rest(LIMITS, [0.0, 0.25, 0.0])
    for _ in range(100):
        out = limit(LIMITS, before, Wish(velocity=np.array([9.0, 0, 0]), grippers=np.ones(1)), elapsed=T)
        assert np.abs(out.motion.velocity - before.velocity).max() <= 1.5 * T + EPS
        before = out.motion
    assert before.position is not None and before.position[0] == pytest.approx(0.2) and abs(before.velocity[0]) < EPS


def test_measured_positions_count_not_wishes() -> None:
    """An arm that was pushed out of the box may only come back; an arm that is nowhere gets nothing."""
    wish = Wish(velocity=np.array([0.1, 0.0, 0.0]), grippers=np.ones(1))
    outside = limit(LIMITS, at_rest(LIMITS), wish, elapsed=T, measured=[0.3, 0.25, 0.0])
    assert outside.motion.velocity[0] == 0 and outside.clamps["bounds"] == 1
    back = limit(
        LIMITS, at_rest(LIMITS), Wish(velocity=np.array([-0.05, 0, 0]), grippers=np.ones(1)), elapsed=T,
        measured=[0.3, 0.25, 0.0],
    )  # fmt: skip
    assert back.motion.velocity[0] == -0.05
    with pytest.raises(Refused, match="nobody says where the arm is"):
        limit(LIMITS, at_rest(LIMITS), wish, elapsed=T)
    with pytest.raises(Refused, match="finite"):
        limit(LIMITS, at_rest(LIMITS), wish, elapsed=T, measured=[math.nan, 0, 0])


def test_a_first_target_far_away_is_refused() -> None:
    rest = at_rest(LIMITS, [0.0, 0.25, 0.0])
    near = Wish(target=np.array([0.01, 0.25, 0.0]), grippers=np.ones(1))
    far = Wish(target=np.array([0.19, 0.25, 0.0]), grippers=np.ones(1))
    limit(LIMITS, rest, near, elapsed=T, first=True)
    with pytest.raises(Refused, match=r"0\.19 away") as caught:
        limit(LIMITS, rest, far, elapsed=T, first=True)
    assert caught.value.reason == "start_jump"
    assert limit(LIMITS, rest, far, elapsed=T).clamps["velocity"] == 1  # later it is a matter of speed


def test_the_ramp_lets_speed_grow() -> None:
    assert [ramp_at(t, 2.0) for t in (-1.0, 0.0, 1.0, 2.0, 9.0, math.nan)] == [0, 0, 0.5, 1, 1, 0]
    assert ramp_at(0.0, 0.0) == 1.0
    wish = Wish(velocity=np.array([0.06, 0, 0]), grippers=np.ones(1))
    out = limit(FREE, at_rest(FREE, [0, 0, 0]), wish, elapsed=T, ramp=0.5)
    assert out.motion.velocity[0] == pytest.approx(0.03)


@given(st.floats(0, 10), st.floats(0.01, 50))
def test_from_the_stopping_speed_one_can_stop(distance: float, acceleration: float) -> None:
    speed, way = float(stopping_speed([distance], [acceleration], T)[0]), 0.0
    while speed > 0:
        way += speed * T
        speed -= acceleration * T
    assert way <= distance + 1e-9 * max(1.0, distance)


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="velocity limits"):
        dataclasses.replace(LIMITS, velocity=(0.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match="lengths"):
        dataclasses.replace(LIMITS, lower=(0.0,))
    with pytest.raises(ConfigError, match="lower below upper"):
        dataclasses.replace(LIMITS, lower=(1.0, 0.0, 0.0))
    assert broadcast([2.0], 3, "x") == (2.0, 2.0, 2.0)
    with pytest.raises(ConfigError, match="x has 2 numbers"):
        broadcast([1.0, 2.0], 3, "x")


WELL = Facts(instruction=True, observation_age=0.05)
GATES = Gates(frozen_after=10)


@pytest.mark.parametrize(
    ("changes", "stop"),
    [
        ({}, Stop.NONE),
        ({"instruction": False}, Stop.NO_INSTRUCTION),
        ({"observation_age": None}, Stop.NO_OBSERVATION),
        ({"observation_age": 0.26}, Stop.OBSERVATION_AGE),
        ({"observation_age": -0.26}, Stop.OBSERVATION_AGE),
        ({"observation_age": math.nan}, Stop.OBSERVATION_AGE),
        ({"state_age": None}, Stop.STATE_AGE),
        ({"state_age": 1.0}, Stop.STATE_AGE),
        ({"identical": 10}, Stop.FROZEN),
        ({"inference_busy": 0.5}, Stop.INFERENCE_DEADLINE),
        ({"tick_gap": 0.3}, Stop.TICK_LATE),
        ({"planned": False}, Stop.STARVED),
        ({"rivals": 1}, Stop.RIVAL),
    ],
)
def test_each_fact_has_its_stop(changes: dict[str, object], stop: Stop) -> None:
    assert finding(dataclasses.replace(WELL, **changes), GATES) is stop  # type: ignore[arg-type]


def test_what_passes_goes_on_and_what_must_be_looked_at_does_not() -> None:
    guard = started_guard(Guard(), 1.0)
    assert guard.mode is Mode.HOLDING
    running = checked(guard, Stop.NONE, 2.0)
    assert running.mode is Mode.RUNNING and running.since == 2.0
    held_ = checked(running, Stop.OBSERVATION_AGE, 3.0)
    assert (held_.mode, held_.reason) == (Mode.HOLDING, Stop.OBSERVATION_AGE)
    again = checked(held_, Stop.NONE, 4.0)
    assert again.mode is Mode.RUNNING and again.since == 4.0  # ramped in anew
    bad = checked(again, Stop.NOT_FINITE, 5.0)
    assert bad.mode is Mode.DISABLED
    assert checked(bad, Stop.NONE, 6.0).mode is Mode.DISABLED


def test_the_estop_is_latched_until_it_is_cleared() -> None:
    for guard in (Guard(), started_guard(Guard(), 0.0), checked(started_guard(Guard(), 0.0), Stop.NONE, 0.0)):
        stopped = estopped(guard, 1.0)
        assert stopped.mode is Mode.STOPPED
        assert checked(stopped, Stop.NONE, 2.0) is stopped and disabled(stopped, Stop.REQUESTED, 2.0) is stopped
        with pytest.raises(ConfigError, match="latched"):
            started_guard(stopped, 2.0)
        assert cleared(stopped, 3.0).mode is Mode.DISABLED
