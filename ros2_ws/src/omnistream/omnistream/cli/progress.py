# SPDX-License-Identifier: Apache-2.0
"""One line of progress on stderr: rewritten in place on a terminal, now and then a new one in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Counts steps towards `total` (None: unknown); a context manager that ends the line."""

    def __init__(self, total: int | None, noun: str = "frames", stream: TextIO | None = None) -> None:
        self._total, self._noun = total, noun
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._every = 0.1 if self._terminal else 10.0
        self._begin = self._shown = time.monotonic()
        self._count = self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()

    def step(self) -> None:
        """One more is done."""
        self._count += 1
        now = time.monotonic()
        if now - self._shown >= self._every:
            self._shown = now
            line = self.line(now - self._begin)
            self._stream.write(f"\r{line:<{self._width}}" if self._terminal else f"{line}\n")
            self._stream.flush()
            self._width = len(line)

    def line(self, seconds: float) -> str:
        """The line after `seconds`."""
        rate = self._count / seconds if seconds > 0 else 0.0
        if not self._total:
            return f"{self._count} {self._noun}, {rate:.1f}/s, {clock(seconds)}"
        left = clock((self._total - self._count) / rate) if rate else "?"
        share = self._count / self._total
        bar = ("#" * round(20 * share)).ljust(20, ".")
        return f"[{bar}] {self._count}/{self._total} {self._noun}, {rate:.1f}/s, {left} left"


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
