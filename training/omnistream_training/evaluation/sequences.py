# SPDX-License-Identifier: Apache-2.0
"""A sequence to evaluate: a name, and a `FrameSource` to read it from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omnistream.io.frames import FrameSource


@dataclass(frozen=True)
class Opened:
    """A source, and what was seen to be missing when it was opened."""

    source: FrameSource
    missing: tuple[str, ...] = ()
    """Messages, one per hole in the numbering of the frames."""


@dataclass(frozen=True)
class SequenceRef:
    """Opens when it is its turn: one damaged sequence does not keep the others from being evaluated."""

    name: str
    open: Callable[[], Opened]
    """Raises InputError naming the file (and line) that is wrong."""
