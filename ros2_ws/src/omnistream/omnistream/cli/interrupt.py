# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C that lets the work at hand be finished."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interrupt:
    """Within this context the first SIGINT or SIGTERM makes `wanted` true; a second one raises KeyboardInterrupt.

    Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[int, signal.Handlers | object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned, it takes

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
