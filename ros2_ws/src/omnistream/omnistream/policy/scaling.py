# SPDX-License-Identifier: Apache-2.0
"""Actions between the robot's units and what the network predicts: [-1, 1] for movements, open or closed for grippers.

Pure numpy; training and robot use the same object, which the checkpoint stores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Contract
from omnistream.errors import ConfigError

Method = Literal["none", "quantile", "range"]
Still = Literal["refuse", "hold"]

SMALLEST_RANGE = 1e-4
"""Of a dimension, in its own unit: what moves less is noise that scaling would blow up to full size."""
FULL_SIZE = 0.1
"""Method `none` refuses movements of which none ever reaches this: they are in metres or radians."""
TOLERANCE = 1e-3
"""Beyond [-1, 1], for method `none`."""


@dataclass(frozen=True, kw_only=True)
class ActionScaling:
    """`low` and `high` of each movement become -1 and 1; then +-`squeeze` becomes +-1.

    Where `low` equals `high` the dimension is held: it is 0 for the network and that value for the robot.
    """

    arm: tuple[int, ...]
    """Columns of the action vector that move."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    grippers: tuple[tuple[int, float, float], ...] = ()
    """(column, value that opens, value that closes)."""
    squeeze: float = 1.0
    """VLM4VLA clips scaled actions to +-0.65 and stretches that to +-1; 1 leaves them."""

    def __post_init__(self) -> None:
        if not len(self.arm) == len(self.low) == len(self.high):
            raise ConfigError(f"scaling has {len(self.arm)} columns, {len(self.low)} low, {len(self.high)} high")
        if not 0 < self.squeeze <= 1:
            raise ConfigError(f"scaling.squeeze is {self.squeeze}; expected above 0, up to 1")
        for low, high in zip(self.low, self.high, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and (high == low or high - low >= SMALLEST_RANGE)):
                raise ConfigError(f"scaling has a range from {low} to {high}; expected at least {SMALLEST_RANGE}")
        columns = sorted((*self.arm, *(column for column, _, _ in self.grippers)))
        if columns != list(range(len(columns))):
            raise ConfigError(f"scaling covers the columns {columns}; expected each from 0 once")

    @property
    def size(self) -> int:
        """Length of an action vector."""
        return len(self.arm) + len(self.grippers)

    def normalise(self, actions: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """actions [..., A] in the robot's units -> movements [..., arm] clipped to [-1, 1], grippers [..., G]: 1 open,
        0 closed."""
        values = np.asarray(actions, np.float64)
        if values.shape[-1] != self.size:
            raise ConfigError(f"actions have {values.shape[-1]} dimensions; expected {self.size}")
        arm = np.clip(self._scaled(values), -1, 1) / self.squeeze
        grippers = [(values[..., i] - closed) / (opened - closed) > 0.5 for i, opened, closed in self.grippers]
        state = np.stack(grippers, -1) if grippers else np.zeros((*values.shape[:-1], 0))
        return np.clip(arm, -1, 1).astype(np.float32), state.astype(np.float32)

    def restore(self, arm: NDArray[np.floating], opened: NDArray[np.floating]) -> NDArray[np.float64]:
        """Inverse for what was not clipped. opened [..., G]: above 0.5 the gripper opens."""
        low, high = np.array(self.low), np.array(self.high)
        moves = np.asarray(arm, np.float64) * self.squeeze
        actions = np.empty((*moves.shape[:-1], self.size))
        actions[..., list(self.arm)] = (moves + 1) / 2 * (high - low) + low
        for number, (column, on, off) in enumerate(self.grippers):
            actions[..., column] = np.where(np.asarray(opened)[..., number] > 0.5, on, off)
        return actions

    def clipped(self, actions: NDArray[np.floating]) -> NDArray[np.float64]:
        """[arm] share of values that `normalise` clips: what the network can never learn to say."""
        values = np.asarray(actions, np.float64).reshape(-1, self.size)
        return (np.abs(self._scaled(values)) > self.squeeze + 1e-6).mean(0)

    def _scaled(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """[..., A] -> [..., arm], before clipping; 0 where a dimension is held."""
        low, high = np.array(self.low), np.array(self.high)
        width = np.where(high > low, high - low, np.inf)
        return np.where(high > low, 2 * (values[..., list(self.arm)] - low) / width - 1, 0.0)


def scaling_from(
    contract: Contract, method: Method, *, squeeze: float = 1.0, unscaled: tuple[str, ...] = (), still: Still = "refuse"
) -> ActionScaling:
    """From the action statistics in a contract.

    method: `none`: movements are in [-1, 1] already; `quantile`: the 1st and 99th percentile become -1 and 1 (OpenVLA);
    `range`: minimum and maximum do.
    unscaled: names of dimensions to which `none` applies whatever the method.
    still: what becomes of a dimension that hardly moves in the data: refused by name, or held at its mean.
    Raises ConfigError where the statistics are missing, or `none` finds values beyond 1, or all of them near 0.
    """
    if method not in ("none", "quantile", "range"):
        raise ConfigError(f"scaling method is {method!r}; expected 'none', 'quantile' or 'range'")
    statistics = contract.action_statistics
    if statistics is None:
        raise ConfigError("the contract has no action statistics; expected those of the training data")
    unknown = sorted(set(unscaled) - set(contract.action_names))
    if unknown:
        raise ConfigError(f"unscaled names {', '.join(unknown)}; the action has {', '.join(contract.action_names)}")
    extremes = (max(abs(statistics.minimum[i]), abs(statistics.maximum[i])) for i in contract.action.arm)
    largest = max(extremes, default=1.0)
    if method == "none" and largest < FULL_SIZE:
        raise ConfigError(f"no movement exceeds {largest:.4g}; scaling 'none' expects -1 to 1: use range or quantile")
    low, high = [], []
    for i in contract.action.arm:
        name = contract.action_names[i]
        least, most = statistics.minimum[i], statistics.maximum[i]
        if method == "none" or name in unscaled:
            if least < -1 - TOLERANCE or most > 1 + TOLERANCE:
                raise ConfigError(
                    f"action {name!r} goes from {least:.4g} to {most:.4g}; scaling 'none' expects -1 to 1: use quantile"
                )
            bounds = (-1.0, 1.0)
        else:
            bounds = (statistics.q01[i], statistics.q99[i]) if method == "quantile" else (least, most)
            if not bounds[1] - bounds[0] >= SMALLEST_RANGE:
                if still != "hold":
                    raise ConfigError(
                        f"action {name!r} goes from {bounds[0]:.6g} to {bounds[1]:.6g} ({method}); expected a range of "
                        f"at least {SMALLEST_RANGE}: it hardly moves in these data. Hold it (still: hold), or name "
                        "it in `unscaled`"
                    )
                bounds = (statistics.mean[i], statistics.mean[i])
        low.append(bounds[0])
        high.append(bounds[1])
    return ActionScaling(
        arm=contract.action.arm,
        low=tuple(low),
        high=tuple(high),
        grippers=tuple((g.index, g.open, g.closed) for g in contract.action.grippers),
        squeeze=squeeze,
    )
