# SPDX-License-Identifier: Apache-2.0
"""The contract: the meaning of every number that a policy reads or writes.

The normalisation of pictures is not in it: it belongs to the backbone, whose hash is (`omnistream.weights.model_hash`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from omnistream.errors import ContractError

UNSPECIFIED = "unspecified"
"""Value of a unit, frame or mode that a foreign data set does not state. Commands for a robot need it stated."""

UNITS = ("m", "rad", "m/s", "rad/s", "N", "Nm", "1", UNSPECIFIED)
MODES = ("delta", "absolute", "velocity", UNSPECIFIED)
"""delta: change per control period; absolute: a target; velocity: change per second."""


@dataclass(frozen=True)
class Camera:
    """One camera as the policy sees it."""

    name: str
    height: int
    """Pixels."""
    width: int
    """Pixels."""

    def __post_init__(self) -> None:
        _check_name("camera", self.name)
        for side in (self.height, self.width):
            if type(side) is not int or not 1 <= side <= 16384:
                raise ContractError(f"camera {self.name!r} is {self.height}x{self.width}; expected 1 to 16384 pixels")


@dataclass(frozen=True)
class Dimension:
    """One number of a state or an action."""

    name: str
    unit: str = UNSPECIFIED

    def __post_init__(self) -> None:
        _check_name("dimension", self.name)
        if self.unit not in UNITS:
            raise ContractError(f"dimension {self.name!r} has unit {self.unit!r}; expected one of {', '.join(UNITS)}")


@dataclass(frozen=True)
class Gripper:
    """Which dimension of the action commands a gripper (always as an absolute target), and its sign."""

    index: int
    open: float
    """Value that opens it."""
    closed: float
    """Value that closes it."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.open) and math.isfinite(self.closed)) or self.open == self.closed:
            raise ContractError(f"gripper opens at {self.open} and closes at {self.closed}; expected two finite values")


@dataclass(frozen=True)
class Action:
    """The action vector."""

    dimensions: tuple[Dimension, ...]
    mode: str = UNSPECIFIED
    """Of all dimensions but the grippers; one of `MODES`."""
    frame: str = UNSPECIFIED
    """TF frame in which Cartesian numbers are expressed; "joints" for joint space."""
    grippers: tuple[Gripper, ...] = ()

    def __post_init__(self) -> None:
        _check_unique("action", [dimension.name for dimension in self.dimensions])
        if not self.dimensions:
            raise ContractError("action has no dimensions; expected at least one")
        if self.mode not in MODES:
            raise ContractError(f"action has mode {self.mode!r}; expected one of {', '.join(MODES)}")
        if not self.frame:
            raise ContractError(f"action has an empty frame; expected a TF frame, 'joints' or {UNSPECIFIED!r}")
        indices = [gripper.index for gripper in self.grippers]
        if len(set(indices)) != len(indices) or any(not 0 <= i < len(self.dimensions) for i in indices):
            raise ContractError(f"grippers have indices {indices}; expected distinct ones below {len(self.dimensions)}")

    @property
    def arm(self) -> tuple[int, ...]:
        """Indices of the dimensions that are no gripper."""
        taken = {gripper.index for gripper in self.grippers}
        return tuple(i for i in range(len(self.dimensions)) if i not in taken)


@dataclass(frozen=True)
class Statistics:
    """Of one vector over a data set; every tuple has one number per dimension."""

    count: int
    """Frames they were taken over."""
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    q01: tuple[float, ...]
    """The 1st percentile."""
    q99: tuple[float, ...]

    def __post_init__(self) -> None:
        rows = [getattr(self, field.name) for field in fields(self) if field.name != "count"]
        if type(self.count) is not int or self.count < 1:
            raise ContractError(f"statistics are over {self.count!r} frames; expected at least one")
        if len({len(row) for row in rows}) != 1:
            raise ContractError(f"statistics have lengths {sorted({len(row) for row in rows})}; expected one length")
        if not all(math.isfinite(value) for row in rows for value in row):
            raise ContractError("statistics hold NaN or infinity; expected finite numbers")


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a data set, a checkpoint, a simulator and a robot must agree on."""

    rate: float
    """Control rate, Hz."""
    cameras: tuple[Camera, ...]
    """The first is the one that a policy with one camera uses."""
    state: tuple[Dimension, ...]
    """Proprioception; may be empty."""
    action: Action
    state_statistics: Statistics | None = None
    action_statistics: Statistics | None = None
    backbone: str | None = None
    """Hash of the backbone a checkpoint was trained on; None in a data set."""

    def __post_init__(self) -> None:
        if not (isinstance(self.rate, (int, float)) and math.isfinite(self.rate) and 0 < self.rate <= 10_000):
            raise ContractError(f"rate is {self.rate!r}; expected Hz above 0")
        _check_unique("cameras", [camera.name for camera in self.cameras])
        _check_unique("state", [dimension.name for dimension in self.state])
        for name, found, expected in (
            ("state", self.state_statistics, len(self.state)),
            ("action", self.action_statistics, len(self.action.dimensions)),
        ):
            if found is not None and len(found.mean) != expected:
                raise ContractError(f"{name} statistics have {len(found.mean)} dimensions; expected {expected}")

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state's dimensions."""
        return tuple(dimension.name for dimension in self.state)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the action's dimensions."""
        return tuple(dimension.name for dimension in self.action.dimensions)

    def camera(self, name: str) -> Camera:
        """By name; ContractError lists those there are."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise ContractError(f"no camera {name!r}; there are {[camera.name for camera in self.cameras]}")

    @property
    def unspecified(self) -> tuple[str, ...]:
        """What is not stated, and must be before a robot is commanded: "action.mode", "action.frame", units."""
        found = [f"action.{name}" for name in ("mode", "frame") if getattr(self.action, name) == UNSPECIFIED]
        units = [dimension.name for dimension in self.action.dimensions if dimension.unit == UNSPECIFIED]
        return (*found, *(f"unit of action {name}" for name in units))


def _check_name(kind: str, name: str) -> None:
    if not isinstance(name, str) or not name or not name.isprintable() or len(name) > 200:
        raise ContractError(f"{kind} is named {name!r}; expected printable text")


def _check_unique(where: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ContractError(f"{where}: {', '.join(map(repr, twice))} named twice")
