# SPDX-License-Identifier: Apache-2.0
"""Whether a robot may move now: what must be true, and what happens when it is not. Pure functions.

    disabled --start--> holding --all is well--> running --something is not--> holding (goes on by itself, ramped in)
                                                        \\-- or disabled, where somebody has to look first
    any --e-stop--> stopped --clear--> disabled

Ages and deadlines are on a steady clock: neither simulated time nor a clock that is set may stretch them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from omnistream.errors import ConfigError


class Mode(StrEnum):
    """Of the policy; in none but `RUNNING` does anything but a stop command leave."""

    DISABLED = "disabled"
    HOLDING = "holding"
    """Started, but something is missing."""
    RUNNING = "running"
    STOPPED = "stopped"
    """By the e-stop; latched."""


class Stop(StrEnum):
    """Why nothing moves."""

    NONE = "none"
    NOT_STARTED = "not_started"
    REQUESTED = "requested"
    ESTOP = "estop"
    DEACTIVATED = "deactivated"
    FAULT = "fault"
    NO_INSTRUCTION = "no_instruction"
    NO_OBSERVATION = "no_observation"
    OBSERVATION_AGE = "observation_age"
    STATE_AGE = "state_age"
    FROZEN = "frozen"
    INFERENCE_DEADLINE = "inference_deadline"
    STARVED = "starved"
    """No action is planned for now: inference is slower than its chunks are long."""
    TICK_LATE = "tick_late"
    """The control loop itself stood still: the ROS clock stopped, or the process was not scheduled."""
    CLOCK_JUMP = "clock_jump"
    NOT_FINITE = "not_finite"
    START_JUMP = "start_jump"
    NO_POSITION = "no_position"
    RIVAL = "rival"
    """Somebody else publishes on a command topic."""


LOOK_FIRST = frozenset({Stop.NOT_FINITE, Stop.START_JUMP, Stop.RIVAL, Stop.FAULT, Stop.CLOCK_JUMP, Stop.NO_POSITION})
"""After these the policy is disabled until somebody starts it again."""


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What must hold for the robot to move."""

    max_observation_age: float = 0.25
    """s from the stamp and from the arrival of the newest observation."""
    inference_deadline: float = 0.25
    """s that an inference may take."""
    max_tick_gap: float = 0.2
    """s between two control ticks, on the steady clock."""
    frozen_after: int = 0
    """Pictures in a row with the same bytes; 0: not looked at."""

    def __post_init__(self) -> None:
        for name in ("max_observation_age", "inference_deadline", "max_tick_gap"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}; expected seconds above 0")
        if self.frozen_after < 0:
            raise ConfigError(f"frozen_after is {self.frozen_after}; expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known at a tick; times in seconds."""

    instruction: bool
    observation_age: float | None
    """The larger of ROS time since its stamp and steady time since its arrival; None: nothing observed yet."""
    state_age: float | None = 0.0
    """Of the newest message that a policy with a state, or bounds, needs."""
    inference_busy: float = 0.0
    """For how long the inference in hand has been at work."""
    tick_gap: float = 0.0
    identical: int = 1
    rivals: int = 0
    planned: bool = True
    """Whether the plan has an action for now."""


def finding(facts: Facts, gates: Gates) -> Stop:
    """The first thing that is wrong, most dangerous first; NONE when the robot may move. NaN ages are too old."""
    if facts.rivals:
        return Stop.RIVAL
    if not facts.tick_gap <= gates.max_tick_gap:
        return Stop.TICK_LATE
    if not facts.instruction:
        return Stop.NO_INSTRUCTION
    if facts.observation_age is None:
        return Stop.NO_OBSERVATION
    # A stamp from the future makes an age below zero: clocks disagree, and no age can be trusted.
    if not -gates.max_observation_age <= facts.observation_age <= gates.max_observation_age:
        return Stop.OBSERVATION_AGE
    if facts.state_age is None or not facts.state_age <= gates.max_observation_age:
        return Stop.STATE_AGE
    if gates.frozen_after and facts.identical >= gates.frozen_after:
        return Stop.FROZEN
    if not facts.inference_busy <= gates.inference_deadline:
        return Stop.INFERENCE_DEADLINE
    return Stop.NONE if facts.planned else Stop.STARVED


@dataclass(frozen=True)
class Guard:
    """The state; begin with `Guard()`."""

    mode: Mode = Mode.DISABLED
    reason: Stop = Stop.NOT_STARTED
    since: float = 0.0
    """Steady time at which `mode` began, s."""


def started(guard: Guard, now: float) -> Guard:
    """Somebody wants it to move. ConfigError while the e-stop is latched; a running one goes on."""
    if guard.mode is Mode.STOPPED:
        raise ConfigError("the e-stop is latched; release it, clear it (~/clear_estop), then start")
    return Guard(Mode.HOLDING, Stop.NO_OBSERVATION, now) if guard.mode is Mode.DISABLED else guard


def checked(guard: Guard, found: Stop, now: float) -> Guard:
    """After a tick's finding: goes on, holds, or is disabled. Disabled and stopped ones stay what they are."""
    if guard.mode in (Mode.DISABLED, Mode.STOPPED):
        return guard
    if found is Stop.NONE:
        return guard if guard.mode is Mode.RUNNING else Guard(Mode.RUNNING, found, now)
    if found in LOOK_FIRST:
        return Guard(Mode.DISABLED, found, now)
    return replace(guard, reason=found) if guard.mode is Mode.HOLDING else Guard(Mode.HOLDING, found, now)


def disabled(guard: Guard, reason: Stop, now: float) -> Guard:
    """Somebody or something wants it to stand still. A latched e-stop stays latched."""
    return guard if guard.mode is Mode.STOPPED else Guard(Mode.DISABLED, reason, now)


def estopped(guard: Guard, now: float) -> Guard:
    """From any mode; only `cleared` leads out."""
    return guard if guard.mode is Mode.STOPPED else Guard(Mode.STOPPED, Stop.ESTOP, now)


def cleared(guard: Guard, now: float) -> Guard:
    """The e-stop is no longer latched; the policy is disabled, not running."""
    return Guard(Mode.DISABLED, Stop.NOT_STARTED, now) if guard.mode is Mode.STOPPED else guard
