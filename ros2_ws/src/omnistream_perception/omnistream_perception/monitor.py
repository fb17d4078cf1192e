# SPDX-License-Identifier: Apache-2.0
"""What is known of one camera's stream for status and diagnostics: counters, rates, latencies, and their judgement."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from omnistream.stream.gate import DropReason, ResetReason
from omnistream_ros.diagnostics import Level, Report
from omnistream_ros.latency import LatencyWindow, RateWindow

STAGES = ("preprocess", "backbone", "heads", "publish", "total")
RATE_TOLERANCE = 0.2
"""Share by which the input rate may differ from the expected one before diagnostics warn."""

UNUSABLE = frozenset(
    {
        DropReason.ENCODING,
        DropReason.MALFORMED,
        DropReason.NOT_FINITE,
        DropReason.EQUAL_STAMP,
        DropReason.STEP_FAILED,
        DropReason.PUBLISH_FAILED,
    }
)
"""Drops that nobody asked for: diagnostics warn of them."""
LOG_PERIOD = 10.0
"""Seconds between two log lines of one reason."""


class Monitor:
    """Of one camera, from configure to cleanup. Written by the executor and the worker thread.

    Args:
        warn: where the first drop of each reason, and then one line per `LOG_PERIOD`, is logged.
    """

    def __init__(self, warn: Callable[[str], object]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self.arrivals = RateWindow()
        self.latencies = {stage: LatencyWindow() for stage in STAGES}
        self.received = 0
        self.processed = 0
        self.drops: Counter[DropReason] = Counter()
        self.identical = 1
        """Images in a row with the same bytes, the last one included."""
        self.frame_id = ""
        self.reset_reason = ResetReason.NONE
        self.reset_stamp_ns = 0
        self._active_since = time.monotonic()
        self._logged: dict[DropReason, float] = {}
        self._reported: Counter[DropReason] = Counter()

    def activated(self) -> None:
        """The node became active: from now on images are expected."""
        self._active_since = time.monotonic()
        self.arrivals.clear()
        self.identical = 1

    def arrived(self) -> None:
        """An image reached the node."""
        self.received += 1
        self.arrivals.tick()

    def dropped(self, reason: DropReason, detail: str = "") -> None:
        """An image was not processed."""
        with self._lock:
            self.drops[reason] += 1
            now = time.monotonic()
            count = self.drops[reason]
            if reason not in UNUSABLE or now - self._logged.get(reason, -LOG_PERIOD) < LOG_PERIOD:
                return
            self._logged[reason] = now
        self._warn(f"image dropped ({reason}, {count} so far): {detail}")

    def drop_counts(self) -> dict[str, int]:
        """By reason; those that occurred."""
        with self._lock:
            return {str(reason): count for reason, count in sorted(self.drops.items())}

    def was_reset(self, reason: ResetReason, stamp_ns: int) -> None:
        """The stream forgot everything."""
        self.reset_reason, self.reset_stamp_ns = reason, stamp_ns

    def model_replaced(self) -> None:
        """Another model, or another window, has other latencies."""
        for window in self.latencies.values():
            window.clear()

    def silence(self) -> float:
        """Seconds without an image, counted from activation while there was none."""
        return min(self.arrivals.age(), time.monotonic() - self._active_since)

    def input_report(self, parameters: Mapping[str, Any], topic: str, active: bool) -> Report:
        """Of what arrives: lost camera, wrong rate, frozen pictures, unusable images."""
        rate, expected = self.arrivals.rate(), parameters["nominal_rate"]
        counts = self.drop_counts()
        values = {"topic": topic, "rate": rate, "expected_rate": expected, "received": self.received}
        values |= {f"dropped_{reason}": count for reason, count in counts.items()}
        new = self._new_drops()
        if not active:
            return Report.ok("not active", **values)
        if self.silence() > parameters["stale_after"]:
            return Report(Level.ERROR, f"no image on {topic} for {self.silence():.1f} s", values)
        findings = []
        if self.identical >= parameters["frozen_after"]:
            findings.append((Level.WARN, f"the last {self.identical} images have the same bytes: frozen camera?"))
        if rate and abs(rate - expected) > RATE_TOLERANCE * expected:
            findings.append((Level.WARN, f"images arrive at {rate:.1f} Hz; expected {expected:g} (nominal_rate)"))
        if new:
            listed = ", ".join(f"{count} {reason}" for reason, count in new.items())
            findings.append((Level.WARN, f"unusable images since the last report: {listed}"))
        return Report.worst(findings, f"{rate:.1f} Hz", **values)

    def stream_report(self, parameters: Mapping[str, Any], active: bool, **values: Any) -> Report:
        """Of what is made of it: latency against the budget."""
        budget = parameters["latency_budget"]
        total = self.latencies["total"].summary()
        values |= {"processed": self.processed, "latency_budget_ms": budget}
        for stage, window in self.latencies.items():
            latency = window.summary()
            values |= {f"{stage}_p50_ms": latency.p50, f"{stage}_p99_ms": latency.p99}
        if not active or not self.processed:
            return Report.ok("nothing processed yet" if active else "not active", **values)
        findings = []
        if total.p50 > budget:
            findings.append((Level.ERROR, f"half of the images take over {total.p50:.0f} ms; the budget is {budget:g}"))
        elif total.p99 > budget:
            findings.append((Level.WARN, f"1 image in 100 takes over {total.p99:.0f} ms; the budget is {budget:g}"))
        return Report.worst(findings, f"{total.p50:.1f} ms", **values)

    def _new_drops(self) -> dict[DropReason, int]:
        with self._lock:
            new = {reason: self.drops[reason] - self._reported[reason] for reason in sorted(UNUSABLE)}
            self._reported = Counter(self.drops)
        return {reason: count for reason, count in new.items() if count}
