# SPDX-License-Identifier: Apache-2.0
"""What the features of known RLDS sets mean, with their source; a file cannot say it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Action, Dimension, Gripper
from omnistream.errors import ConfigError, InputError


@dataclass(frozen=True, kw_only=True)
class RldsProtocol:
    """One kind of set. Keys are below steps/; of several the first that is there is taken."""

    name: str
    rate: float | None = None
    """Hz; None: the user says it."""
    state: tuple[str, ...] = ("observation/state", "observation/proprio")
    actions: tuple[str, ...] = ("action",)
    """Joined in this order."""
    instruction: tuple[str, ...] = ("language_instruction", "observation/natural_language_instruction")
    cameras: tuple[str, ...] = ()
    """Below observation/; empty: all that hold pictures."""
    state_dimensions: tuple[Dimension, ...] | None = None
    action: Action | None = None
    drop_first: bool = False
    """The first step is left out."""
    relabel: int = 0
    """So many action dimensions become the change of the state until the next step; the last step is left out."""
    binarise: int | None = None
    """Action dimension whose values between open and closed become the next one that is either."""


_POSE = tuple(Dimension(name, "m") for name in "xyz") + tuple(Dimension(n, "rad") for n in ("roll", "pitch", "yaw"))
_MOVES = tuple(Dimension(f"d{d.name}", d.unit) for d in _POSE)

BRIDGE = RldsProtocol(
    # openvla/openvla c8f03f4, prismatic/vla/datasets/rlds/oxe/{configs,transforms}.py, "bridge_orig": the first step is
    # all zero; movements are computed anew from the state; the gripper is a command, 1 open, 0 closed.
    name="bridge",
    rate=5.0,
    cameras=("image_0",),
    state_dimensions=(*_POSE, Dimension("gripper", "1")),
    action=Action((*_MOVES, Dimension("gripper", "1")), "delta", "base_link", (Gripper(6, 1.0, 0.0),)),
    drop_first=True,
    relabel=6,
    binarise=6,
)
BRIDGE_OXE = RldsProtocol(
    # The Open-X copy, with rt-1-x's action names: openvla/openvla 3ea4096, the same files, "bridge_oxe": as above, but
    # the gripper's command is a truth value already. Nobody has read the set itself with this: features are as there.
    name="bridge_oxe",
    rate=5.0,
    actions=("action/world_vector", "action/rotation_delta", "action/open_gripper"),
    cameras=("image",),
    state_dimensions=(*_POSE, Dimension("gripper", "1")),
    action=Action((*_MOVES, Dimension("gripper", "1")), "delta", "base_link", (Gripper(6, 1.0, 0.0),)),
    drop_first=True,
    relabel=6,
)
PLAIN = RldsProtocol(name="plain")
PROTOCOLS = {protocol.name: protocol for protocol in (BRIDGE, BRIDGE_OXE, PLAIN)}


def rlds_protocol(name: str) -> RldsProtocol:
    """By name; ConfigError lists those there are."""
    if name not in PROTOCOLS:
        raise ConfigError(f"RLDS protocol is {name!r}; expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def relabelled(
    protocol: RldsProtocol, state: NDArray[np.float32], action: NDArray[np.float32], where: str
) -> tuple[NDArray[np.float32], slice]:
    """Actions [T, A] as the protocol makes them, and which of the T steps are kept."""
    action = action.copy()
    n, kept = protocol.relabel, slice(1 if protocol.drop_first else 0, len(action))
    if n:
        if state.shape[1] < n or action.shape[1] < n:
            raise InputError(f"{where}: state of {state.shape[1]}, action of {action.shape[1]} numbers; expected {n}")
        change = np.diff(state[:, :n].astype(np.float64), axis=0)
        angles = [i for i, d in enumerate((protocol.state_dimensions or ())[:n]) if d.unit == "rad"]
        change[:, angles] = (change[:, angles] + math.pi) % (2 * math.pi) - math.pi  # 3.1 to -3.1 is no full turn
        action[:-1, :n] = change
        kept = slice(kept.start, len(action) - 1)
    if protocol.binarise is not None:
        action[:, protocol.binarise] = binarised(action[:, protocol.binarise])
    return action, kept


def binarised(gripper: NDArray[np.float32]) -> NDArray[np.float32]:
    """[T] in 0..1: above 0.95 open, below 0.05 closed, between the two what it becomes next (or was, at the end)."""
    decided = np.where(gripper > 0.95, 1.0, np.where(gripper < 0.05, 0.0, np.nan))
    known = np.flatnonzero(~np.isnan(decided))
    if len(known) == 0:
        return (gripper > 0.5).astype(np.float32)
    following = np.searchsorted(known, np.arange(len(gripper))).clip(max=len(known) - 1)
    return decided[known[following]].astype(np.float32)
