# SPDX-License-Identifier: Apache-2.0
"""Which topics of a bag are training data; apart from the reader, so that a configuration imports no decoders."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BagTopics:
    """Topics of a bag; None: the only one of its kind. A name that the bag does not have is an InputError."""

    image: str | None = None
    """Pictures."""
    depth: str | None = None
    """Depth registered to them."""
    odometry: str | None = None
    """nav_msgs/Odometry."""
