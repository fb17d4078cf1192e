# SPDX-License-Identifier: Apache-2.0
"""Checks of stamps, states, actions and words. All of it fits in memory: a million steps of 16 numbers are 64 MB."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Contract
from omnistream.episodes import Episode
from omnistream_training.robot_data.check_rules import Finding, Limits

SHOWN = 3
"""Episodes that a message names."""


class NumberChecks:
    """Takes episodes, then says what is wrong with their numbers."""

    def __init__(self, contract: Contract, limits: Limits) -> None:
        self._contract, self._limits = contract, limits
        self.states: list[NDArray[np.float32]] = []
        self.actions: list[NDArray[np.float32]] = []
        self._steps: list[NDArray[np.float64]] = []
        self._infos: list[Any] = []

    def add(self, episode: Episode) -> None:
        """Take an episode's numbers."""
        self.states.append(episode.state)
        self.actions.append(episode.action)
        self._steps.append(np.diff(episode.stamps))
        self._infos.append(episode.info)

    def findings(self) -> Iterator[Finding]:
        """All rules, over all episodes."""
        yield from self._time()
        yield from self._words()
        yield from self._values("state", self._contract.state_names, self.states, frozenset())
        grippers = frozenset(gripper.index for gripper in self._contract.action.grippers)
        yield from self._values("action", self._contract.action_names, self.actions, grippers)
        yield from self._grippers()
        yield from self._idling()
        yield from self._twins()
        missing = self._contract.unspecified
        if missing:
            text = f"not stated: {', '.join(missing[:6])}{', ...' if len(missing) > 6 else ''}; a robot needs it stated"
            yield Finding("warning", "contract", "data set", text)

    def numbers(self) -> dict[str, Any]:
        """For the report."""
        steps = np.concatenate(self._steps) if self._steps else np.zeros(0)
        lengths = [len(state) for state in self.states]
        successes = [info.success for info in self._infos]
        found: dict[str, Any] = {
            "episodes": len(lengths),
            "steps": int(sum(lengths)),
            "episode_length": {"min": min(lengths), "median": float(np.median(lengths)), "max": max(lengths)},
            "rate": float(1 / np.median(steps)) if len(steps) else None,
            "jitter_p95": float(np.percentile(np.abs(steps - np.median(steps)), 95)) if len(steps) else None,
            "longest_step": float(steps.max()) if len(steps) else None,
            "instructions": len({info.instruction for info in self._infos}),
            "success": {"yes": successes.count(True), "no": successes.count(False), "unknown": successes.count(None)},
            "idle": self._idle_share(),
        }
        for kind, names, rows in (
            ("state", self._contract.state_names, self.states),
            ("action", self._contract.action_names, self.actions),
        ):
            values = np.concatenate(rows).astype(np.float64)
            table = {}
            for i, name in enumerate(names):
                column = values[:, i]
                q01, q50, q99 = np.percentile(column, (1, 50, 99))
                low, high = float(column.min()), float(column.max())
                table[name] = {
                    "min": low,
                    "q01": q01,
                    "median": q50,
                    "q99": q99,
                    "max": high,
                    "std": float(column.std()),
                }
            found[kind] = table
        return found

    # -------------------------------------------------------------------------------------------- rules

    def _time(self) -> Iterator[Finding]:
        limits, period = self._limits, 1 / self._contract.rate
        steps = np.concatenate(self._steps) if self._steps else np.zeros(0)
        if len(steps):
            rate = float(1 / np.median(steps))
            if abs(rate / self._contract.rate - 1) > limits.rate:
                yield Finding(
                    "error",
                    "rate",
                    "data set",
                    f"{rate:.3f} Hz by its stamps; the contract says {self._contract.rate:g}",
                )
            jitter = float(np.percentile(np.abs(steps - np.median(steps)), 95)) / period
            if jitter > limits.jitter:
                text = (
                    f"stamps jitter by {jitter:.0%} of a period (95th percentile); expected at most {limits.jitter:.0%}"
                )
                yield Finding("warning", "jitter", "data set", text)
            late = int((steps > limits.gap * period).sum())
            if late:
                where = [i for i, found in enumerate(self._steps) if (found > limits.gap * period).any()]
                text = f"{late} gaps of up to {steps.max():.3f} s in {_episodes(where)}"
                yield Finding("error" if late > limits.gaps * len(steps) else "warning", "gap", "data set", text)
        short = [i for i, state in enumerate(self.states) if len(state) * period < limits.shortest]
        if short:
            yield Finding(
                "warning", "short", "data set", f"{len(short)} shorter than {limits.shortest:g} s: {_episodes(short)}"
            )

    def _words(self) -> Iterator[Finding]:
        empty = [i for i, info in enumerate(self._infos) if not info.instruction]
        if empty:
            yield Finding(
                "warning", "instruction", "data set", f"{len(empty)} without an instruction: {_episodes(empty)}"
            )

    def _values(
        self, kind: str, names: tuple[str, ...], rows: list[NDArray[np.float32]], grippers: frozenset[int]
    ) -> Iterator[Finding]:
        limits = self._limits
        if not names or not rows:
            return
        values = np.concatenate(rows).astype(np.float64)
        owner = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
        for i, name in enumerate(names):
            column, where = values[:, i], f"{kind} {name}"
            huge = np.abs(column) > limits.impossible
            if huge.any():
                text = f"|value| up to {np.abs(column).max():.3g} in {_episodes(np.unique(owner[huge]))}"
                yield Finding("error", "range", where, text)
                continue
            q01, q99 = np.percentile(column, (1, 99))
            width = q99 - q01
            if width < limits.spread:
                if kind == "action":
                    text = f"hardly changes: 98 % of the values lie within {width:.2g}; it cannot be normalised"
                    yield Finding("warning", "constant", where, text)
                continue
            if i in grippers:
                continue
            beyond = np.maximum(q01 - column, column - q99) > limits.outlier * width
            if beyond.any():
                far = column[beyond][np.abs(column[beyond] - np.median(column)).argmax()]
                text = f"{int(beyond.sum())} outliers, up to {far:.4g} (98 % lie in {q01:.4g} to {q99:.4g}), in "
                yield Finding("warning", "outlier", where, text + _episodes(np.unique(owner[beyond])))
            if kind == "action":
                for edge, value in (("greatest", column.max()), ("smallest", column.min())):
                    share = float((column == value).mean())
                    if share > limits.saturated and value != 0:
                        text = f"{share:.0%} of the values are the {edge}, {value:.4g}: cut off?"
                        yield Finding("warning", "saturation", where, text)

    def _grippers(self) -> Iterator[Finding]:
        for gripper in self._contract.action.grippers:
            name = self._contract.action_names[gripper.index]
            column = np.concatenate([action[:, gripper.index] for action in self.actions])
            low, high = sorted((gripper.open, gripper.closed))
            slack = 0.05 * (high - low)
            outside = int(((column < low - slack) | (column > high + slack)).sum())
            if outside:
                text = f"{outside} commands outside {low:g} to {high:g} ({column.min():.4g} to {column.max():.4g})"
                yield Finding("error", "gripper", f"action {name}", f"{text}: is the contract's sign or scale right?")

    def _idling(self) -> Iterator[Finding]:
        share = self._idle_share()
        if share > self._limits.idle:
            text = f"{share:.0%} of the steps command no motion; cut pauses out, or a policy learns to stand still"
            yield Finding("warning", "idle", "data set", text)

    def _idle_share(self) -> float:
        idle = self.idle()
        return float(np.concatenate(idle).mean()) if idle else 0.0

    def idle(self) -> list[NDArray[np.bool_]]:
        """Per episode [T]: whether the action asks for no motion of arm and gripper."""
        arm = list(self._contract.action.arm)
        grippers = [gripper.index for gripper in self._contract.action.grippers]
        changes = [np.abs(np.diff(action, axis=0, append=action[-1:])) for action in self.actions]
        moving = self._contract.action.mode in ("delta", "velocity")  # else: a target that stays where it is
        moves = [np.abs(a)[:, arm] if moving else c[:, arm] for a, c in zip(self.actions, changes, strict=True)]
        if not moves or not arm:
            return []
        usual = np.percentile(np.concatenate(moves), 99, axis=0)
        still = [(move <= np.maximum(self._limits.still * usual, 1e-9)).all(1) for move in moves]
        return [s & (c[:, grippers] == 0).all(1) for s, c in zip(still, changes, strict=True)]

    def _twins(self) -> Iterator[Finding]:
        same: dict[bytes, list[int]] = defaultdict(list)
        for i, (state, action) in enumerate(zip(self.states, self.actions, strict=True)):
            same[hashlib.sha256(state.tobytes() + action.tobytes()).digest()].append(i)
        for numbers in same.values():
            if len(numbers) > 1:
                yield Finding("warning", "repeated", "data set", f"the same numbers in {_episodes(numbers)}")


def _episodes(numbers: Any) -> str:
    listed = [str(int(n)) for n in numbers]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"episode{'s' if len(listed) > 1 else ''} {', '.join(listed[:SHOWN])}{more}"
