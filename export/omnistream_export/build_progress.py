# SPDX-License-Identifier: Apache-2.0
"""What TensorRT is doing while it builds: one line on stderr, rewritten on a terminal, a new one at times in a log."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, TextIO

from omnistream.cli.interrupt import Interrupt
from omnistream.cli.progress import clock
from omnistream.engines.tensorrt_api import TensorRT

LOG_SECONDS = 10.0
TERMINAL_SECONDS = 0.1


class BuildProgress:
    """Phases of one build, nested: `static: Building > Timing 12/80, 0:41`. Called from several threads."""

    def __init__(self, name: str, interrupt: Interrupt, stream: TextIO | None = None) -> None:
        self._name, self._interrupt = name, interrupt
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._lock = threading.Lock()
        self._phases: dict[str, list[int]] = {}
        self._begin = time.monotonic()
        self._shown = self._begin if not self._terminal else 0.0
        self._width = 0

    def start(self, phase: str, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            self._phases[phase] = [0, steps]
            self._show()

    def step(self, phase: str, index: int) -> bool:
        """Step `index` of a phase is done. False asks TensorRT to give up."""
        with self._lock:
            if phase in self._phases:
                self._phases[phase][0] = index + 1
            self._show()
        return not self._interrupt.wanted

    def finish(self, phase: str) -> None:
        """A phase ends."""
        with self._lock:
            self._phases.pop(phase, None)

    def close(self) -> None:
        """Remove the line from a terminal."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()

    def line(self, seconds: float) -> str:
        """The line after `seconds`."""
        phases = " > ".join(f"{name} {done}/{steps}" for name, (done, steps) in self._phases.items())
        return f"{self._name}: {phases or 'building'}, {clock(seconds)}"

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._shown < (TERMINAL_SECONDS if self._terminal else LOG_SECONDS):
            return
        self._shown = now
        line = self.line(now - self._begin)
        self._stream.write(f"\r{line:<{self._width}}" if self._terminal else f"{line}\n")
        self._stream.flush()
        self._width = len(line) if self._terminal else 0


def make_monitor(trt: TensorRT, progress: BuildProgress) -> Any:
    """An instance of TensorRT's IProgressMonitor that reports to `progress`; it must outlive the build."""
    base: Any = trt.IProgressMonitor

    class Monitor(base):
        def __init__(self) -> None:
            base.__init__(self)  # pybind11 wants it spelled out

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()
