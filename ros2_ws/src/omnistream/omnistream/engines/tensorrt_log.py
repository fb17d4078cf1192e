# SPDX-License-Identifier: Apache-2.0
"""TensorRT's messages: into Python's logging, and the last errors kept to say why a call returned nothing."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Protocol

from omnistream.engines.tensorrt_api import TensorRT

log = logging.getLogger("tensorrt")

LEVELS = {"INTERNAL_ERROR": logging.CRITICAL, "ERROR": logging.ERROR, "WARNING": logging.WARNING}
"""By severity; what TensorRT calls INFO is a line for every kernel it tries."""
KEPT = 4


class MessageLog(Protocol):
    """Where TensorRT's messages go."""

    def reasons(self) -> str:
        """The last errors; a hint where there were none."""
        ...


def make_logger(trt: TensorRT) -> MessageLog:
    """An instance of TensorRT's ILogger. It must outlive whatever was made with it."""
    base: Any = trt.ILogger

    class Logger(base):
        def __init__(self) -> None:
            base.__init__(self)  # pybind11 wants it spelled out
            self._errors: deque[str] = deque(maxlen=KEPT)

        def log(self, severity: Any, message: str) -> None:
            level = LEVELS.get(severity.name, logging.DEBUG)
            log.log(level, "%s", message)
            if level >= logging.ERROR:
                self._errors.append(message.strip())

        def reasons(self) -> str:
            text = "; ".join(self._errors) or "TensorRT gave no reason"
            self._errors.clear()
            return text

    logger: MessageLog = Logger()
    return logger
