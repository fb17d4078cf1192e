# SPDX-License-Identifier: Apache-2.0
"""The line that tells a waiting person how far it is, how good, and for how long still."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from omnistream.cli.progress import clock


class LiveLine:
    """Rewritten in place on a terminal; in a log, a new line every ten seconds."""

    def __init__(self, total: int, done: int, noun: str, stream: TextIO | None = None) -> None:
        """done: finished before; they do not count for the speed."""
        self._total, self._before, self._noun = total, done, noun
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._every = 0.25 if self._terminal else 10.0
        self._begin = time.monotonic()
        self._shown = -1e9 if self._terminal else self._begin
        self._steps = self._width = 0

    def show(self, done: int, score: str, steps: int = 0) -> None:
        """done: finished in all; score: a few words; steps: control periods since the last call."""
        self._steps += steps
        now = time.monotonic()
        if now - self._shown < self._every:
            return
        self._shown = now
        line = self.line(done, score, now - self._begin)
        self._stream.write(f"\r{line:<{self._width}}" if self._terminal else f"{line}\n")
        self._stream.flush()
        self._width = len(line)

    def say(self, text: str) -> None:
        """A line that stays."""
        self.end()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def line(self, done: int, score: str, seconds: float) -> str:
        """The line after `seconds`."""
        made = done - self._before
        left = clock((self._total - done) * seconds / made) if made and seconds > 0 else "?"
        rate = self._steps / seconds if seconds > 0 else 0.0
        bar = ("#" * round(20 * done / self._total)).ljust(20, ".")
        words = f", {score}" if score else ""
        return f"[{bar}] {done}/{self._total} {self._noun}{words}, {rate:.1f} steps/s, {left} left"

    def end(self) -> None:
        """Wipe the line from a terminal."""
        if self._terminal and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
