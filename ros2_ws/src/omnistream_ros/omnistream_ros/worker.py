# SPDX-License-Identifier: Apache-2.0
"""One thread beside the ROS executor that does the heavy work: newest item first, older ones told to be superseded.

A subscription callback only calls `put`; the executor stays free for services, parameters and diagnostics. Everything
that touches what the thread works on goes through `call`, between two items, so the work itself needs no locks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Worker(Generic[Item]):
    """Handles items of several sources in turn, all on one thread.

    Args:
        name: of the thread.
        handle: ``handle(source, items)`` with the waiting items of one source, newest first. Normally it uses the first
            that is good and counts the others. It must not raise.
        capacity: items of a source that may wait. More than one, so that a newest item that turns out to be unusable
            does not cost the good one before it.
        evicted: called with (source, item) when a waiting item had to go because there were more than `capacity`.
        stopped: called with (source, item) for each item that waits when the thread is stopped, or comes after that.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[str, list[Item]], None],
        capacity: int = 4,
        evicted: Callable[[str, Item], None] = lambda source, item: None,
        stopped: Callable[[str, Item], None] = lambda source, item: None,
    ) -> None:
        self._name = name
        self._handle = handle
        self._capacity = capacity
        self._evicted = evicted
        self._stopped = stopped
        self._waiting: dict[str, deque[Item]] = {}  # in the order in which sources began to wait
        self._commands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._inline: list[int] = []  # threads that run a command themselves, since the worker's does not run
        self._stop = self._alive = False  # alive: the thread will take one more job, or a look whether there is one
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether the thread is at work, or will be; also after a `stop` that did not wait for the item in hand."""
        return self._alive

    def start(self) -> None:
        """Starts the thread; nothing happens if it runs. One that was told to stop and is still busy goes on."""
        with self._wake:
            self._stop = False
            if self._alive:
                return
            self._alive = True
            # Daemon: a step cannot be interrupted, and must not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Ends the thread after the item in hand, drops what waits. False if still busy after `timeout` seconds."""
        with self._wake:
            self._stop = True
            left = [(source, item) for source, items in self._waiting.items() for item in items]
            self._waiting.clear()
            self._wake.notify_all()
        for source, item in left:
            self._stopped(source, item)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        return not self.running

    def put(self, source: str, item: Item) -> None:
        """Hands over an item; never blocks."""
        old = None
        with self._wake:
            refused = self._stop
            if not refused:
                items = self._waiting.setdefault(source, deque())
                items.append(item)
                if len(items) > self._capacity:
                    old = items.popleft()
                self._wake.notify_all()
        if refused:
            self._stopped(source, item)
        elif old is not None:
            self._evicted(source, old)

    def call(self, function: Callable[[], Result], timeout: float | None = None) -> Result:
        """Runs `function` on the thread, between two items, and returns its result or raises its exception.

        Runs it here and now when the thread is not running, or when called from it: never beside an item in hand.

        Raises:
            TimeoutError: the item in hand took longer than `timeout` seconds; `function` will not run then.
        """
        if self._thread is threading.current_thread():
            return function()
        future = self.post(function)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.cancel():
                raise
            return future.result()  # it had just begun

    def post(self, function: Callable[[], Result]) -> Future[Result]:
        """As `call`, without waiting. When the thread is not running, `function` has run when this returns."""
        future: Future[Result] = Future()
        with self._wake:
            here = threading.get_ident()
            later = self._alive and here not in self._inline  # a command inside of one would wait for itself
            if later:
                self._commands.append((function, future))
                self._wake.notify_all()
            else:
                self._inline.append(here)
        if not later:
            try:
                self._execute(function, future)
            finally:
                with self._wake:
                    self._inline.remove(here)
                    self._wake.notify_all()
        return future

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job()

    def _next(self) -> Callable[[], None] | None:
        with self._wake:
            # A command that began while the thread was stopped ends first: never beside an item.
            self._wake.wait_for(lambda: not self._inline and (self._stop or self._commands or self._waiting))
            if self._commands:  # also when it ends: whoever waits for an answer gets one
                function, future = self._commands.popleft()
                return lambda: self._execute(function, future)
            if self._stop:
                self._alive = False
                return None
            source = next(iter(self._waiting))
            items = list(reversed(self._waiting.pop(source)))
            return lambda: self._handle(source, items)

    @staticmethod
    def _execute(function: Callable[[], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)
