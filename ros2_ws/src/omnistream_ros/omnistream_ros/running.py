# SPDX-License-Identifier: Apache-2.0
"""`run`: the main function of every node executable. SIGINT or SIGTERM ends it with exit code 0 within 5 seconds.

The executor runs in a thread and the main thread only waits, because Python delivers signals to the main thread, and
between bytecodes: there they are always heard, also while a callback is deep inside a library. rclpy's own handlers are
not used, since they invalidate the context at once and with it the last message a node may want to send.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import rclpy
import rclpy.utilities
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from omnistream.errors import OmniStreamError

AnyNode = TypeVar("AnyNode", bound=Node)

SHUTDOWN_SECONDS = 3.0
"""After this the process ends whatever a library is doing; `ros2 launch` sends SIGTERM after 5 s."""


def run(make_node: Callable[[], Node], args: Sequence[str] | None = None, threads: int = 1, help_text: str = "") -> int:
    """Runs the node of `make_node` until a signal comes, or until its event `finished` (if it has one) is set.

    Args:
        make_node: called once rclpy is initialised.
        args: command line without the program's name; default: that of this process.
        threads: of the executor. Callbacks of one callback group never overlap, whatever the number.
        help_text: what --help prints.

    At the end ``node.leaving()`` is called where a node has it, at once, while callbacks may still be at work; when
    they have ended, ``node.stop()``, with the context still valid. After `SHUTDOWN_SECONDS` nothing is waited for.

    Returns:
        The exit code: ``node.exit_code`` where a node has it, else 0; 1 when a callback raised; 2 when a parameter or
        argument was refused, with one sentence.
    """
    words = list(sys.argv[1:] if args is None else args)
    if help_text and {"-h", "--help"} & set(words):
        print(help_text)
        return 0
    signalled: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        signalled.append(number)  # nothing else: a lock here could be one that the main thread holds

    if problem := _initialise(words):
        print(f"error: {problem}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, remember)
    try:
        node: Any = make_node()
    except OmniStreamError as error:
        rclpy.logging.get_logger("omnistream").fatal(str(error))
        rclpy.shutdown()
        return 2
    spinner = Spinner(node, threads)
    finished: threading.Event = getattr(node, "finished", None) or threading.Event()
    while not (signalled or finished.wait(0.05) or not spinner.is_alive()):
        pass
    _deadline(node, spinner)
    if callable(leaving := getattr(node, "leaving", None)):
        leaving()
    # The callback in hand ends in `end` (one thread) or in `stop`, which waits for a transition: or at the deadline.
    spinner.end()
    if callable(stop := getattr(node, "stop", None)):
        stop()
    node.destroy_node()
    rclpy.try_shutdown()
    return 1 if spinner.error else int(getattr(node, "exit_code", 0))


def _initialise(words: list[str]) -> str:
    """`rclpy.init` with these arguments; returns why they are refused, or ''."""
    try:
        rclpy.init(args=words, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # "..., at rcl/arguments.c:415" says nothing to a user
        reason = str(error).removeprefix("failed to initialize rcl: ").split(", at ")[0]
        return f"the ROS arguments are not understood: {' '.join(reason.split())}"
    left = rclpy.utilities.remove_ros_args(args=words)
    if left:
        rclpy.shutdown()
        return f"unknown arguments: {' '.join(left)}; expected --ros-args and then -p, -r, --params-file, ... (--help)"
    return ""


@contextmanager
def spinning(make_node: Callable[[], AnyNode]) -> Iterator[AnyNode]:
    """A node beside the main thread's work: receives in a thread until the block ends. Ctrl-C stays Python's."""
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = make_node()
    spinner = Spinner(node)
    try:
        yield node
    finally:
        spinner.end(timeout=2.0)
        node.destroy_node()
        rclpy.try_shutdown()


class Spinner:
    """A node on an executor in a thread of its own, from now until `end`. Whatever a callback raises ends it too.

    Two things of rclpy 7.1 make this more than ``executor.spin()`` in a thread:

    - It gathers what it will wait for without a lock, and forgets to leave out an event handler that another thread has
      destroyed meanwhile, as lifecycle nodes do when deactivated. It raises InvalidHandle then, before it has waited:
      so it is asked again.
    - Its `shutdown` takes away the guard condition that a `spin` in another thread may be about to use
      (AttributeError). So one of our own wakes that thread, and the executor is shut down when it no longer spins.

    Args:
        node: not on any other executor.
        threads: of the executor. Callbacks of one callback group never overlap, whatever the number.
    """

    def __init__(self, node: Node, threads: int = 1) -> None:
        self.node = node
        self.error: BaseException | None = None
        """What a callback raised."""
        self._executor = (
            SingleThreadedExecutor(context=node.context)
            if threads == 1
            else MultiThreadedExecutor(threads, context=node.context)
        )
        self._executor.add_node(node)
        self._ended = threading.Event()
        self._wake = node.create_guard_condition(lambda: None, callback_group=ReentrantCallbackGroup())
        self._thread = threading.Thread(target=self._run, name=f"spin {node.get_name()}", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """False after `end`, after an error, and when the ROS context was shut down."""
        return self._thread.is_alive()

    def end(self, timeout: float | None = None) -> bool:
        """No callback begins after this; with one thread the one in hand has ended, unless `timeout` seconds pass."""
        self._ended.set()
        if self._thread.is_alive():
            self._wake.trigger()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self.node.context.ok() and not self._ended.is_set():
                self._spin_once()
        except ExternalShutdownException:
            pass
        except BaseException as error:  # reported, then the process ends: a half-dead node is worse
            self.error = error
            self.node.get_logger().fatal("a callback raised:\n" + "".join(traceback.format_exception(error)))
        self._executor.shutdown()

    def _spin_once(self) -> None:
        try:
            self._executor.spin_once()
        except _rclpy.InvalidHandle as error:
            if not _while_gathering(error):
                raise


def _while_gathering(error: BaseException) -> bool:
    """Whether the executor itself raised it, not a callback."""
    trace, names = error.__traceback__, []
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    return "add_to_wait_set" in names


def _deadline(node: Node, spinner: Spinner) -> None:
    """Ends the process hard when an orderly end takes too long, e.g. inside a step of a large model on a slow CPU."""

    def end() -> None:
        node.get_logger().warning(
            f"still busy after {SHUTDOWN_SECONDS:.0f} s: ending without waiting for the current step"
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if spinner.error else 0)

    timer = threading.Timer(SHUTDOWN_SECONDS, end)
    timer.daemon = True
    timer.start()
