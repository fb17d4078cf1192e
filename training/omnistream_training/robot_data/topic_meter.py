# SPDX-License-Identifier: Apache-2.0
"""What is counted of each topic while a bag is read: rate, jitter, gaps, and how stamps relate to the log."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from omnistream.sync.ticker import LATE


class TopicMeter:
    """One topic; sixteen bytes a message."""

    def __init__(self, name: str, type_: str) -> None:
        self.name, self.type = name, type_
        self.bytes = 0
        self.damaged = 0
        """Messages that could not be decoded."""
        self.unsuited = 0
        """Messages without the fields that were asked for."""
        self.unstamped = 0
        """Messages with an empty stamp; the log's time was taken."""
        self.reason = ""
        """Why the first one could not be used."""
        self._stamps = array("q")
        self._arrivals = array("q")

    def add(self, stamp: int, arrival: int, size: int) -> None:
        """Count a message: stamp and arrival in ns, size in bytes."""
        self._stamps.append(stamp)
        self._arrivals.append(arrival)
        self.bytes += size

    def refuse(self, error: Exception, *, damaged: bool) -> None:
        """Count a message that could not be used."""
        if damaged:
            self.damaged += 1
        else:
            self.unsuited += 1
        self.reason = self.reason or str(error)

    @property
    def newest(self) -> tuple[int, int] | None:
        """Stamp and arrival of the last message that counted, ns."""
        return (self._stamps[-1], self._arrivals[-1]) if self._stamps else None

    @property
    def count(self) -> int:
        """Messages."""
        return len(self._stamps)

    def report(self) -> dict[str, Any]:
        """Numbers for the report; times in seconds."""
        stamps, arrivals = np.array(self._stamps, np.int64), np.array(self._arrivals, np.int64)
        found: dict[str, Any] = {"type": self.type, "messages": self.count, "megabytes": round(self.bytes / 1e6, 3)}
        for name in ("damaged", "unsuited", "unstamped", "reason"):
            if getattr(self, name):
                found[name] = getattr(self, name)
        if len(stamps) > 1:
            steps = np.diff(np.sort(stamps)).astype(np.float64) / 1e9
            period = float(np.median(steps))
            found |= {
                "rate": round(1 / period, 3) if period > 0 else None,
                "jitter": round(float(np.percentile(np.abs(steps - period), 95)), 6),
                "longest_gap": round(float(steps.max()), 4),
                "gaps": int((steps > LATE * period).sum()),
                "out_of_order": int((np.diff(stamps) < 0).sum()),
                "repeated": int((steps == 0).sum()),
                "stamp_to_log": round(float(np.median((arrivals - stamps) / 1e9)), 4),
            }
        return found
