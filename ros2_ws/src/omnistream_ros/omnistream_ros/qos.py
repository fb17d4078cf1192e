# SPDX-License-Identifier: Apache-2.0
"""Quality of service by name, so that it can be a string parameter of each topic: ``sensor``, ``reliable:1``, ...

The names follow REP-2003: sensor data is best effort, maps and calibration are latched, commands keep the last one.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

MAX_DEPTH = 1000

# name -> (reliable, transient local, depth)
_PROFILES: dict[str, tuple[bool, bool, int]] = {
    "sensor": (False, False, 5),  # images and other streams, both ends of REP-2003 sensor data
    "reliable": (True, False, 10),  # results that must arrive
    "command": (True, False, 1),  # newest only
    "latched": (True, True, 1),  # late joiners get the last one: status, calibration
}

QOS_NAMES: tuple[str, ...] = tuple(_PROFILES)


def qos_profile(text: str) -> QoSProfile:
    """The profile that `text` names: a name of `QOS_NAMES`, with ``:depth`` for another queue depth (``sensor:1``).

    Raises:
        ValueError: unknown name, or a depth that is not within 1..1000.
    """
    name, _, depth_text = text.partition(":")
    if name not in _PROFILES:
        raise ValueError(f"QoS profile is {text!r}; expected one of {', '.join(QOS_NAMES)}, optionally with :depth")
    reliable, latched, depth = _PROFILES[name]
    if ":" in text:
        if not depth_text.isdecimal() or not 1 <= int(depth_text) <= MAX_DEPTH:
            raise ValueError(f"QoS profile {text!r} has depth {depth_text!r}; expected 1..{MAX_DEPTH}")
        depth = int(depth_text)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def qos_problem(text: str) -> str | None:
    """Why `text` is not a QoS profile; None when it is one. For parameter validation."""
    try:
        qos_profile(text)
    except ValueError as error:
        return str(error)
    return None
