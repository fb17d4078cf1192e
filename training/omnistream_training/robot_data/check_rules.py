# SPDX-License-Identifier: Apache-2.0
"""What `omnistream-data check` calls wrong, and how far is too far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Every threshold. Errors make the command's exit status 1; warnings do not."""

    rate: float = 0.05
    """Relative difference between the contract's rate and the stamps': error."""
    jitter: float = 0.25
    """95th percentile of |step - period| over the period: warning."""
    gap: float = 1.5
    """Periods between two stamps of one episode that count as a gap."""
    gaps: float = 0.01
    """Share of steps that may be gaps: above, error."""
    shortest: float = 1.0
    """Seconds; shorter episodes: warning."""
    spread: float = 1e-4
    """q99 - q01 of an action below which it cannot be normalised: warning."""
    outlier: float = 5.0
    """Distance beyond q01 and q99, in widths between them, at which a value is an outlier: warning."""
    impossible: float = 1e6
    """|value| in SI units that no robot has: error."""
    saturated: float = 0.05
    """Share of values exactly at the extreme of a dimension that is no gripper: warning."""
    idle: float = 0.3
    """Share of idle steps: warning (a policy learns to stand still)."""
    still: float = 0.02
    """An action below this share of its usual size (q99 of |.|) is no motion."""
    frozen: float = 0.05
    """Share of pictures equal to the one before, bit by bit, while the robot moves: warning."""
    frozen_run: float = 1.0
    """Seconds of such pictures in a row: error."""
    dark: float = 8.0
    """Mean brightness of 255 below which a picture is black: warning; above 255 minus it: white."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    severity: Severity
    rule: str
    """rate, jitter, gap, ..."""
    where: str
    """"episode 3", "action gripper", "camera front", "data set"."""
    message: str
    """A sentence with the value and what was expected."""
