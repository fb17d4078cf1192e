# SPDX-License-Identifier: Apache-2.0
"""What is the case in the simulation, as plain data: for tasks, oracles and experts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError

from .layout import BLOCKS, DRAWER_TRAVEL, SLIDER_TRAVEL


@dataclass(frozen=True)
class Pose:
    """Of a block: its centre, and xyzw."""

    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)

    @property
    def yaw(self) -> float:
        """Radians about the vertical, exact while a face lies flat."""
        x, y, z, w = self.quaternion
        return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))

    @property
    def up(self) -> NDArray[np.float64]:
        """The block's z axis [3] in the world."""
        x, y, z, w = self.quaternion
        return np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where things are when an episode begins. What is None is drawn from the seed."""

    blocks: Mapping[str, Pose] | None = None
    """All four; see `BLOCKS`."""
    drawer: float | None = None
    """Metres open."""
    slider: float | None = None
    """Metres from the middle of its rail, along world y."""
    lamp: bool | None = None
    tool: tuple[float, float, float] | None = None
    """Position of the tool, which points down."""

    def __post_init__(self) -> None:
        if self.blocks is not None and set(self.blocks) != set(BLOCKS):
            raise ConfigError(f"start has blocks {sorted(self.blocks)}; expected {sorted(BLOCKS)}")
        limits = {"drawer": (0.0, DRAWER_TRAVEL), "slider": (-SLIDER_TRAVEL / 2, SLIDER_TRAVEL / 2)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"start has {name} {value}; expected {low} .. {high} metres")

    def plain(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_plain(data: Mapping[str, Any]) -> Start:
        """The reverse.

        Raises:
            ConfigError: an unknown field or block.
        """
        unknown = sorted(set(data) - {f.name for f in dataclasses.fields(Start)})
        if unknown:
            raise ConfigError(f"start has {unknown[0]!r}; expected some of blocks, drawer, slider, lamp, tool")
        values = dict(data)
        if values.get("blocks") is not None:
            values["blocks"] = {
                name: pose if isinstance(pose, Pose) else Pose(tuple(pose["position"]), tuple(pose["quaternion"]))
                for name, pose in values["blocks"].items()
            }
        if values.get("tool") is not None:
            values["tool"] = tuple(values["tool"])
        return Start(**values)


@dataclass(frozen=True, kw_only=True)
class State:
    """A moment. Metres, radians, world frame (z up, table top z = 0, the arm's base at the origin)."""

    step: int
    """Control periods since the reset."""
    tool: NDArray[np.float64]
    """[3] between the finger tips."""
    tool_euler: NDArray[np.float64]
    """[3]; (pi, 0, 0) points down with the fingers apart along y, the last turns it about the vertical."""
    target: NDArray[np.float64]
    """[3] where the tool is sent; actions add to it."""
    target_euler: NDArray[np.float64]
    joints: NDArray[np.float64]
    """[7]."""
    opening: float
    """Between the fingers, 0 .. 0.08."""
    blocks: dict[str, Pose]
    drawer: float
    """Open so far: 0 .. DRAWER_TRAVEL."""
    slider: float
    """-SLIDER_TRAVEL / 2 .. SLIDER_TRAVEL / 2, along world y."""
    button: float
    """Pressed so far: 0 .. BUTTON_TRAVEL."""
    lamp: bool
    """Every press of the button switches it."""
    handle: NDArray[np.float64]
    """[3] middle of the drawer's knob: where a gripper takes it."""
    knob: NDArray[np.float64]
    """[3] middle of the slider's knob."""
    button_top: NDArray[np.float64]
    """[3] middle of the button's upper face."""
    contacts: frozenset[tuple[str, str]]
    """Pairs that touch, each in alphabetical order, of: the blocks' colours, left_finger, right_finger, arm, table,
    cabinet, drawer, slider, button, floor, thing."""

    def touch(self, one: str, other: str) -> bool:
        """Whether two touch."""
        return ((one, other) if one < other else (other, one)) in self.contacts

    def grasped(self, name: str) -> bool:
        """Whether both fingers touch it."""
        return self.touch(name, "left_finger") and self.touch(name, "right_finger")

    @property
    def held(self) -> str | None:
        """The block between the fingers."""
        return next((name for name in self.blocks if self.grasped(name)), None)
