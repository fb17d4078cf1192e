# SPDX-License-Identifier: Apache-2.0
"""What leaves for a robot stays inside limits, whatever a network says. Pure functions, last before the publisher.

Everything is in SI units per arm dimension. A command inside the limits passes unchanged; what is cut is counted.
Not a certified safety function: it knows nothing of the robot's body, of people, or of what the robot really does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.errors import ConfigError

CLAMPS = ("period", "velocity", "acceleration", "bounds", "dwell")
"""What a command can be cut for."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one arm and its grippers; every tuple has one number per arm dimension (N)."""

    period: float
    """Control period, s."""
    velocity: tuple[float, ...]
    """Largest speed, m/s or rad/s."""
    acceleration: tuple[float, ...]
    """m/s^2 or rad/s^2."""
    lower: tuple[float, ...]
    """Workspace box or joint limits, m or rad; -inf: none."""
    upper: tuple[float, ...]
    start_jump: tuple[float, ...]
    """How far the first absolute target may be from where the arm is; inf: any."""
    grippers: tuple[tuple[float, float], ...] = ()
    """(open, closed) values of each gripper: no other ever leaves."""
    gripper_dwell: float = 0.0
    """Seconds that a gripper stays open or closed before it may change again."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.period) and self.period > 0):
            raise ConfigError(f"period is {self.period}; expected seconds above 0")
        sizes = {name: len(getattr(self, name)) for name in ("velocity", "acceleration", "lower", "upper")}
        sizes["start_jump"] = len(self.start_jump)
        if len(set(sizes.values())) != 1 or not self.velocity:
            raise ConfigError(f"limits have lengths {sizes}; expected one per arm dimension")
        for name in ("velocity", "acceleration"):
            if any(not (math.isfinite(value) and value > 0) for value in getattr(self, name)):
                raise ConfigError(f"{name} limits are {getattr(self, name)}; expected finite numbers above 0")
        if any(not low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ConfigError(f"bounds go from {self.lower} to {self.upper}; expected lower below upper")
        if any(not jump > 0 for jump in self.start_jump) or not 0 <= self.gripper_dwell < math.inf:
            raise ConfigError(f"start_jump {self.start_jump}, gripper_dwell {self.gripper_dwell}: expected above 0, 0")

    @property
    def size(self) -> int:
        """N."""
        return len(self.velocity)

    @property
    def bounded(self) -> bool:
        """Whether a place is needed: some dimension has a lower or upper bound."""
        return any(math.isfinite(bound) for bound in (*self.lower, *self.upper))


@dataclass(frozen=True, kw_only=True, eq=False)
class Wish:
    """What the policy asks for, before anything was checked. One of velocity and target."""

    velocity: Vector | None = None
    """[N] per second."""
    target: Vector | None = None
    """[N] absolute."""
    grippers: Vector = field(default_factory=lambda: np.zeros(0))
    """[G] absolute values; the nearer of open and closed is meant."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """What was commanded last; `at_rest` before anything was."""

    velocity: Vector
    """[N]."""
    position: Vector | None
    """[N] commanded target, or where the arm was measured; None: not known, and no bounds then."""
    opened: tuple[bool | None, ...] = ()
    """Per gripper; None: never commanded."""
    kept: tuple[float, ...] = ()
    """Seconds for which each gripper has been as it is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Limited:
    """A command that may leave."""

    motion: Motion
    grippers: tuple[float, ...]
    """One of the two values each."""
    step: float
    """Seconds that the command is good for: the time that passed, at most a period."""
    clamps: Counter[str]
    """Of `CLAMPS`: in how many dimensions it was cut."""


class Refused(ConfigError):
    """Nothing may leave; `reason` is one of not_finite, start_jump, no_position."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def at_rest(limits: Limits, position: ArrayLike | None = None, before: Motion | None = None) -> Motion:
    """Standing still at `position` [N]; grippers stay as they were `before`."""
    count = len(limits.grippers)
    return Motion(
        velocity=np.zeros(limits.size),
        position=None if position is None else np.array(position, np.float64),
        opened=(None,) * count if before is None else before.opened,
        kept=(math.inf,) * count if before is None else before.kept,
    )


def limit(
    limits: Limits,
    before: Motion,
    wish: Wish,
    *,
    elapsed: float,
    ramp: float = 1.0,
    measured: ArrayLike | None = None,
    first: bool = False,
) -> Limited:
    """The command nearest to the wish that is inside all limits.

    elapsed: seconds since the last command. More than a period counts as one; zero, negative or NaN as none: nothing
    moves or speeds up then.
    ramp: 0 .. 1, what share of the wished speed is allowed (after a start).
    measured: [N] where the arm is now, for commands of velocity; None: `before.position` goes on.
    first: the first command after a start, whose target may not be far away.
    Raises Refused, with a reason, where nothing may leave.
    """
    clamps: Counter[str] = Counter()
    step = min(elapsed, limits.period) if elapsed > 0 else 0.0
    if step != elapsed:
        clamps["period"] += 1
    position = _position(limits, before, measured)
    wanted = _velocity(limits, wish, position, first)
    grippers, opened, kept = _grippers(limits, before, wish.grippers, elapsed, clamps)

    speed = np.array(limits.velocity)
    velocity = _clip(wanted, -speed, speed, "velocity", clamps) * min(max(ramp, 0.0), 1.0)
    change = np.array(limits.acceleration) * step
    velocity = _clip(velocity, before.velocity - change, before.velocity + change, "acceleration", clamps)
    if position is not None:
        low, high = np.array(limits.lower), np.array(limits.upper)
        ahead = stopping_speed(high - position, limits.acceleration, limits.period)
        behind = stopping_speed(position - low, limits.acceleration, limits.period)
        velocity = _clip(velocity, -behind, ahead, "bounds", clamps)  # only ever slower: both include zero
        moved = position + velocity * step
        # Rounding must not carry it over a bound; from outside it comes back by itself, it is not thrown back.
        position = np.clip(moved, np.minimum(low, position), np.maximum(high, position))
    motion = Motion(velocity=velocity, position=position, opened=opened, kept=kept)
    return Limited(motion=motion, grippers=grippers, step=step, clamps=+clamps)


def stopping_speed(distance: ArrayLike, acceleration: ArrayLike, period: float) -> Vector:
    """Largest speed [N] from which an arm that brakes every period comes to rest within `distance`; 0 beyond it.

    Exact for whole periods: from k periods of braking, the way is a * period^2 * k (k + 1) / 2.
    """
    way = np.maximum(np.asarray(distance, np.float64), 0.0)
    unit = np.asarray(acceleration, np.float64) * period**2
    with np.errstate(invalid="ignore"):
        whole = np.floor((np.sqrt(1 + 8 * way / unit) - 1) / 2)
        speed = (way + unit * whole * (whole + 1) / 2) / ((whole + 1) * period)
    return np.where(np.isfinite(way), speed, np.inf)


def ramp_at(elapsed: float, duration: float) -> float:
    """Share of the speed that is allowed `elapsed` seconds after a start: straight from 0 to 1 within `duration`."""
    if not elapsed > 0:
        return 0.0 if duration > 0 else 1.0
    return 1.0 if elapsed >= duration else elapsed / duration


def _position(limits: Limits, before: Motion, measured: ArrayLike | None) -> Vector | None:
    position = before.position if measured is None else np.array(measured, np.float64)
    if position is None:
        if limits.bounded:
            raise Refused("no_position", "bounds are set, but nobody says where the arm is; nothing is commanded")
        return None
    if position.shape != (limits.size,) or not np.isfinite(position).all():
        raise Refused("not_finite", f"the arm is at {position.tolist()}; expected {limits.size} finite numbers")
    return position


def _velocity(limits: Limits, wish: Wish, position: Vector | None, first: bool) -> Vector:
    asked = wish.target if wish.velocity is None else wish.velocity
    values = np.array([] if asked is None else asked, np.float64)
    told = np.array(wish.grippers, np.float64)
    if values.shape != (limits.size,) or told.shape != (len(limits.grippers),):
        raise Refused(
            "not_finite",
            f"the action has {values.size} + {told.size} numbers; expected {limits.size} + {len(limits.grippers)}",
        )
    if not (np.isfinite(values).all() and np.isfinite(told).all()):
        raise Refused("not_finite", f"the action is {values.tolist()} + {told.tolist()}; expected finite numbers")
    if wish.velocity is not None:
        return values
    if position is None:
        raise Refused("no_position", "targets are commanded, but nobody says where the arm is; nothing is commanded")
    away = np.abs(values - position)
    if first and (away > limits.start_jump).any():
        raise Refused(
            "start_jump",
            f"the first target is {away.max():.4g} away from the arm; at most {min(limits.start_jump):.4g} is allowed",
        )
    with np.errstate(over="ignore"):
        return (values - position) / limits.period


def _grippers(
    limits: Limits, before: Motion, told: Vector, elapsed: float, clamps: Counter[str]
) -> tuple[tuple[float, ...], tuple[bool | None, ...], tuple[float, ...]]:
    passed = elapsed if 0 < elapsed < math.inf else 0.0
    values, opened, kept = [], [], []
    state = zip(limits.grippers, np.asarray(told, np.float64).tolist(), before.opened, before.kept, strict=True)
    for (value_open, value_closed), value, was, age in state:
        age += passed
        wants = abs(value - value_open) < abs(value - value_closed)
        if was is not None and wants != was and age < limits.gripper_dwell:
            clamps["dwell"] += 1
            wants = was
        opened.append(wants)
        kept.append(age if wants == was else 0.0)
        values.append(value_open if wants else value_closed)
    return tuple(values), tuple(opened), tuple(kept)


def _clip(values: Vector, low: Vector, high: Vector, name: str, clamps: Counter[str]) -> Vector:
    cut = np.minimum(np.maximum(values, low), high)
    count = int((cut != values).sum())
    if count:
        clamps[name] += count
    return cut


def held(before: Motion) -> Motion:
    """The motion after a stop command: at rest where it was, at once. A stop is never slowed by a limit."""
    return replace(before, velocity=np.zeros_like(before.velocity))


def broadcast(values: Sequence[float], size: int, name: str) -> tuple[float, ...]:
    """One number for all dimensions, or one for each; ConfigError names what was given."""
    if len(values) == 1:
        return (float(values[0]),) * size
    if len(values) != size:
        raise ConfigError(f"{name} has {len(values)} numbers; expected 1, or {size}: one per arm dimension")
    return tuple(float(value) for value in values)
