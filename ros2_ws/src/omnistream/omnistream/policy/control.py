# SPDX-License-Identifier: Apache-2.0
"""From chunks to commands, one control tick after the other: plan, guard and limits together, without ROS.

    control = Control(settings)
    control.start(now, position)
    control.adopt(chunk.actions, stamp)          # whenever the network has an answer
    command = control.tick(time, now, facts)     # every period; says what leaves: a move, a stop, or nothing

Deterministic: the same calls give the same commands, live and in a replay. Not thread safe; the caller has one lock.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.contract import Contract
from omnistream.errors import ConfigError
from omnistream.policy import guard as guards
from omnistream.policy.chunks import Blend, Plan, action_at, extend
from omnistream.policy.guard import Facts, Gates, Guard, Mode, Stop
from omnistream.policy.safety import Limited, Limits, Motion, Refused, Wish, at_rest, held, limit, ramp_at

MODES = ("delta", "velocity", "absolute")
FOLLOW = 0.2
"""Share of the difference between a tick and the grid of ticks by which the grid is moved: ticks may be slowed or
hastened a little (see `omnistream.policy.phase`), and one that is late does not count as a slower clock."""


@dataclass(frozen=True, kw_only=True)
class ControlSettings:
    """What a controller was configured with."""

    contract: Contract
    """Of the policy."""
    limits: Limits
    """Of the arm dimensions in SI units, and of the contract's grippers; its period is that of the control loop."""
    scale: tuple[float, ...]
    """SI units per unit of the contract, per arm dimension (0.02 where 1 means 0.02 m)."""
    gates: Gates = field(default_factory=Gates)
    blend: Blend = field(default_factory=Blend)
    ramp: float = 1.0
    """Seconds from standing to full speed after each start."""
    integrate: bool = False
    """Whether places are commanded: each goes on from the last one then, not from where the arm has got to."""

    def __post_init__(self) -> None:
        action = self.contract.action
        if action.mode not in MODES:
            raise ConfigError(
                f"the action's mode is {action.mode!r}; a robot is commanded in one of {', '.join(MODES)}"
            )
        if self.limits.size != len(action.arm) or len(self.scale) != len(action.arm):
            raise ConfigError(
                f"limits of {self.limits.size} and scales of {len(self.scale)} dimensions; the action's arm has "
                f"{len(action.arm)}"
            )
        if any(not (math.isfinite(factor) and factor != 0) for factor in self.scale):
            raise ConfigError(f"action scales are {self.scale}; expected finite numbers other than 0")
        if not 0 <= self.ramp < math.inf:
            raise ConfigError(f"ramp is {self.ramp}; expected seconds, 0 or more")


@dataclass(frozen=True, kw_only=True, eq=False)
class Command:
    """What leaves at a tick."""

    kind: Literal["move", "stop", "none"]
    """stop: stand still, now; none: nothing leaves."""
    tick: int
    reason: Stop = Stop.NONE
    """Of a stop."""
    detail: str = ""
    """What there is to look at, in a sentence."""
    velocity: NDArray[np.float64]
    """[N] SI units per second; zeros for a stop."""
    target: NDArray[np.float64] | None
    """[N] SI; where the arm is to be at the end of the period; None where no place is known, or none is meant."""
    grippers: tuple[float, ...] = ()
    """In the contract's values; empty before the first."""
    step: float = 0.0
    """Seconds that the command moves for."""
    stamp: float | None = None
    """Of the images behind it, s."""
    clamps: Counter[str] = field(default_factory=Counter)

    def in_units(self, settings: ControlSettings) -> NDArray[np.float64]:
        """[A] as the contract's action: what a simulator or a data set of this contract understands.

        A stop is zero for deltas and velocities, and the last target for absolute actions (NaN where none is known).
        """
        action = settings.contract.action
        scale = np.array(settings.scale)
        values = np.zeros(len(action.dimensions))
        arm = list(action.arm)
        if action.mode == "absolute":
            values[arm] = np.nan if self.target is None else self.target / scale
        else:
            values[arm] = self.velocity * (self.step if action.mode == "delta" else 1.0) / scale
        for gripper, value in zip(action.grippers, self.grippers, strict=False):
            values[gripper.index] = value
        return values


class Control:
    """See the module. Times: `time` is ROS time in s (chunks and ticks), `now` steady time in s (deadlines, ramps)."""

    def __init__(self, settings: ControlSettings) -> None:
        self.settings = settings
        self.guard = Guard()
        self.plan = Plan()
        self.clamps: Counter[str] = Counter()
        self.stops: Counter[str] = Counter()
        self.drops: Counter[str] = Counter()
        self.ticks = self.moves = self.stop_commands = 0
        self.tick_now = 0
        """Number of the newest tick."""
        self.last: Command | None = None
        """That left, of any kind but none."""
        self._motion = at_rest(settings.limits)
        self._stamps: dict[int, float] = {}
        """Start tick of a chunk -> stamp of its images."""
        self._origin: float | None = None
        self._last_tick: int | None = None
        self._first = True

    # ---------------------------------------------------------------- permission

    @property
    def running(self) -> bool:
        """Whether commands that move may leave."""
        return self.guard.mode is Mode.RUNNING

    def start(self, now: float, position: ArrayLike | None = None) -> None:
        """Permit to move. position: [N] SI, where the arm is. ConfigError while the e-stop is latched."""
        before = self.guard
        self.guard = guards.started(before, now)
        if self.guard is not before:
            self._rest(position)
            self.forget()

    def stop(self, reason: Stop, now: float) -> Command:
        """Stand still until the next start; the command to send for that, at once.

        It names a place only if it was running: where an arm was told to be some time ago is no place to go now.
        """
        moved = self.running
        self._set(guards.disabled(self.guard, reason, now))
        return self._stopped(reason, moved)

    def estop(self, now: float) -> Command:
        """As `stop`, latched."""
        moved = self.running
        self._set(guards.estopped(self.guard, now))
        return self._stopped(Stop.ESTOP, moved)

    def clear(self, now: float) -> None:
        """Unlatch the e-stop; a start is still needed."""
        self.guard = guards.cleared(self.guard, now)

    def hold(self, reason: Stop, now: float) -> Command | None:
        """Between two ticks (a watchdog): a stop command if it was running."""
        if not self.running:
            return None
        self._set(guards.checked(self.guard, reason, now))
        return self._stopped(reason)

    # ---------------------------------------------------------------- what is planned

    def forget(self) -> None:
        """Drop all planned actions: a new instruction, a reset, another episode."""
        self.plan = Plan()
        self._stamps.clear()

    def rebase(self) -> None:
        """The ROS clock jumped: what was planned is forgotten, and ticks are counted anew from the next one."""
        self.forget()
        self._origin = self._last_tick = None
        self.tick_now = 0

    def tick_of(self, stamp: float) -> int:
        """The first tick at or after a stamp."""
        if self._origin is None:
            return 0
        return math.ceil((stamp - self._origin) / self.settings.limits.period - 1e-6)

    def share_of(self, stamp: float) -> float | None:
        """Where a stamp falls between the tick before it and the next: 0 .. 1; None before the first tick."""
        return None if self._origin is None else (stamp - self._origin) / self.settings.limits.period % 1.0

    def adopt(self, actions: NDArray[np.floating], stamp: float) -> tuple[int, int] | None:
        """Plan a chunk [K, A] that was predicted from images of `stamp`; (start tick, tick of arrival).

        None where it is refused, which is counted: not finite, not of this contract, overtaken, from the future.
        """
        if not math.isfinite(stamp):
            self.drops["not_finite"] += 1
            return None
        start = self.tick_of(stamp)
        arrived = max(self.tick_now, start)
        width = len(self.settings.contract.action.dimensions)
        if start > self.tick_now + 2:
            self.drops["future"] += 1
            return None
        if np.ndim(actions) != 2 or np.shape(actions)[1] != width or not np.isfinite(actions).all():
            self.drops["not_finite"] += 1
            return None
        plan = extend(self.plan, actions, start=start, now=arrived)
        if plan is self.plan:
            self.drops["overtaken"] += 1
            return None
        self.plan = plan
        self._stamps = {chunk.start: self._stamps.get(chunk.start, stamp) for chunk in plan.chunks} | {start: stamp}
        return start, arrived

    # ---------------------------------------------------------------- every period

    def tick(self, time: float, now: float, facts: Facts, measured: ArrayLike | None = None) -> Command:
        """What leaves now. measured: [N] where the arm is, where that is known; for commands of velocity."""
        settings, limits = self.settings, self.settings.limits
        if self._origin is None or self._last_tick is None:
            self._origin, self._last_tick = time, -1
        tick = round((time - self._origin) / limits.period)
        self._origin += FOLLOW * (time - self._origin - tick * limits.period)
        elapsed = (tick - self._last_tick) * limits.period
        self._last_tick = self.tick_now = tick
        self.ticks += 1
        grippers = tuple(g.index for g in settings.contract.action.grippers)
        action = action_at(self.plan, tick, grippers=grippers, blend=settings.blend)
        found = guards.finding(replace(facts, planned=facts.planned and action is not None), settings.gates)
        was_running = self.running
        self._set(guards.checked(self.guard, found, now))
        if not self.running or action is None:
            return self._stopped(self.guard.reason) if was_running else self._still(tick)
        if not was_running:
            self._rest(measured if measured is not None else self._motion.position)
        try:
            limited = self._limited(action, elapsed, now, measured)
        except Refused as error:
            self.last = replace(self.stop(Stop(error.reason), now), detail=str(error))
            return self.last
        self._first = False
        self._motion = limited.motion
        self.clamps += limited.clamps
        self.moves += 1
        self.last = Command(
            kind="move",
            tick=tick,
            velocity=limited.motion.velocity,
            target=limited.motion.position,
            grippers=limited.grippers,
            step=limited.step,
            stamp=self._stamp_at(tick),
            clamps=limited.clamps,
        )
        return self.last

    def _limited(self, action: NDArray[np.float64], elapsed: float, now: float, measured: ArrayLike | None) -> Limited:
        settings, limits = self.settings, self.settings.limits
        arm = action[list(settings.contract.action.arm)] * np.array(settings.scale)
        told = action[[g.index for g in settings.contract.action.grippers]]
        mode = settings.contract.action.mode
        wish = Wish(
            velocity=None if mode == "absolute" else arm * (1 / limits.period if mode == "delta" else 1.0),
            target=arm if mode == "absolute" else None,
            grippers=told,
        )
        # Targets go on from the last target, not from where the arm has got to: it always lags a little.
        follow = None if mode == "absolute" or settings.integrate else measured
        ramp = ramp_at(now - self.guard.since + limits.period, settings.ramp)
        return limit(limits, self._motion, wish, elapsed=elapsed, ramp=ramp, measured=follow, first=self._first)

    def _stopped(self, reason: Stop, moved: bool = True) -> Command:
        self._motion = held(self._motion)
        self.stop_commands += 1
        self.last = Command(
            kind="stop",
            tick=self.tick_now,
            reason=reason,
            velocity=np.zeros(self.settings.limits.size),
            target=self._motion.position if moved else None,
            grippers=self._kept(),
        )
        return self.last

    def _still(self, tick: int) -> Command:
        """Nothing leaves; it has been told to stand still already."""
        return Command(
            kind="none",
            tick=tick,
            reason=self.guard.reason,
            velocity=np.zeros(self.settings.limits.size),
            target=self._motion.position,
        )

    def _rest(self, position: ArrayLike | None) -> None:
        self._motion = at_rest(self.settings.limits, position, self._motion)
        self._first = True

    def _set(self, guard: Guard) -> None:
        if guard.mode is not self.guard.mode and guard.mode is not Mode.RUNNING:
            self.stops[str(guard.reason)] += 1
        self.guard = guard

    def _kept(self) -> tuple[float, ...]:
        """What the grippers were last told; they stay so at a stop: what is held is not dropped."""
        values = []
        for (value_open, value_closed), opened in zip(self.settings.limits.grippers, self._motion.opened, strict=True):
            if opened is None:
                return ()
            values.append(value_open if opened else value_closed)
        return tuple(values)

    def _stamp_at(self, tick: int) -> float | None:
        reaching = [chunk.start for chunk in self.plan.chunks if chunk.start <= tick < chunk.end]
        return self._stamps.get(reaching[-1]) if reaching else None

    @property
    def motion(self) -> Motion:
        """What was commanded last."""
        return self._motion
