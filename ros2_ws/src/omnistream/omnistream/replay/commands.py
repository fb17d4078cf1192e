# SPDX-License-Identifier: Apache-2.0
"""Commands that a bag recorded live, beside those of the replay: what was really published, not what a log says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.io.bag_reader import BagReader
from omnistream.policy.intake import stamp_of
from omnistream.replay.track import Sent

TYPES = (
    "geometry_msgs/msg/TwistStamped",
    "geometry_msgs/msg/PoseStamped",
    "trajectory_msgs/msg/JointTrajectory",
    "std_msgs/msg/Float64MultiArray",
    "std_msgs/msg/Float64",
)


def recorded_commands(path: Path, topics: Mapping[str, str], sent: Sequence[Sent]) -> dict[str, dict[str, int]]:
    """Output -> how many messages of it are in the bag, and how many of those are equal bit by bit to the replay's.

    topics: output -> topic. Messages with a stamp are compared with what left at that stamp, others in their order; a
    recorder may have missed some.
    """
    found: dict[str, dict[str, int]] = {}
    with BagReader(path, salvage=True) as bag:
        known = {topic.name for topic in bag.topics if topic.type in TYPES and topic.count}
        for output, name in topics.items():
            if name not in known:
                continue
            made = [(one.stamp, one.left[output]) for one in sent if output in one.left]
            counts = {"in_bag": 0, "equal": 0}
            at = 0
            by_stamp: dict[int, list[NDArray[np.float64]]] = {}
            for stamp, values in made:
                by_stamp.setdefault(stamp, []).append(values)
            for topic, _, data in bag.raw_messages([name]):
                try:
                    message = bag.decode(topic, data)
                except InputError:
                    continue
                counts["in_bag"] += 1
                try:
                    values = numbers(message)
                except InputError:  # of somebody else on this topic
                    continue
                stamp = stamp_of(message) if hasattr(message, "header") else 0
                if stamp:
                    counts["equal"] += any(_same(values, other) for other in by_stamp.get(stamp, ()))
                    continue
                match = next((i for i in range(at, len(made)) if _same(values, made[i][1])), None)
                if match is not None:
                    counts["equal"], at = counts["equal"] + 1, match + 1
            found[output] = counts
    return found


def numbers(message: Any) -> NDArray[np.float64]:
    """Of a command, as in `omnistream.policy.outbox`. InputError for a trajectory whose points are not all alike."""
    if hasattr(message, "twist"):
        linear, angular = message.twist.linear, message.twist.angular
        return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
    if hasattr(message, "pose"):
        p, q = message.pose.position, message.pose.orientation
        return np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
    if hasattr(message, "points"):
        seconds = [point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in message.points]
        rows = [[*p.positions, *p.velocities, s] for p, s in zip(message.points, seconds, strict=True)]
        if len({len(row) for row in rows}) > 1:
            lengths = [(len(point.positions), len(point.velocities)) for point in message.points]
            raise InputError(f"points have {lengths} positions and velocities; expected the same numbers in each")
        return np.array(rows, np.float64)
    return np.atleast_1d(np.asarray(message.data, np.float64))


def _same(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Bit by bit; but for the last column of trajectories, which is rounded to nanoseconds in a message."""
    if one.ndim == 2 and one.shape == other.shape:
        return bool(np.array_equal(one[:, :-1], other[:, :-1]) and np.allclose(one[:, -1], other[:, -1], 0, 1e-9))
    return one.shape == other.shape and one.tobytes() == other.tobytes()
