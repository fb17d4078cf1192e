# SPDX-License-Identifier: Apache-2.0
"""The policy node as it is, with two faults that only its inside can have; started by `bench_policy_node.py`.

SIGUSR1     weights of the network's head are NaN, and at the next one what they were
SIGUSR2     the next inference takes `STALL` seconds longer; prints "stalled at" and the steady time then
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import Any

import torch

from omnistream_policy.node import PolicyNode
from omnistream_ros.running import run

STALL = 0.5
WORDS = "stalled at "


class Faults:
    """Of the node that `make` makes."""

    def __init__(self) -> None:
        self.node: PolicyNode | None = None
        self._weights: torch.Tensor | None = None
        signal.signal(signal.SIGUSR1, self._poison)
        signal.signal(signal.SIGUSR2, self._stall)

    def make(self) -> PolicyNode:
        """For `run`."""
        self.node = PolicyNode(own_process=True)  # as the executable does
        return self.node

    @property
    def _session(self) -> Any:
        assert self.node is not None and self.node._pipeline is not None
        return self.node._pipeline.thinking.session

    @torch.no_grad()
    def _poison(self, _number: int, _frame: FrameType | None) -> None:
        # One tensor is enough, and many take so long that the node has stopped, and the second signal come, meanwhile.
        *_, last = self._session._network.head.parameters()
        if self._weights is not None:
            last.copy_(self._weights)
            self._weights = None
            return
        self._weights = last.clone()
        last.fill_(torch.nan)

    def _stall(self, _number: int, _frame: FrameType | None) -> None:
        session = self._session
        act = type(session).act

        def slow(*words: Any) -> Any:
            del session.act  # once
            print(f"{WORDS}{time.monotonic()}", flush=True)
            time.sleep(STALL)
            return act(session, *words)

        session.act = slow


if __name__ == "__main__":
    code = run(Faults().make, threads=4)
    sys.stdout.flush()
    os._exit(code)
