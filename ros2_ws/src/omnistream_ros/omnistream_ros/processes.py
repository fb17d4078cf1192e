# SPDX-License-Identifier: Apache-2.0
"""Child processes whose output is prefixed and remembered, and which never outlive the one that started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, TextIO

from omnistream_ros._child import PARENT_VARIABLE

_ECHO_LOCK = threading.Lock()


class ChildProcess:
    """One Python module run as a process of its own session.

    A session of its own means that Ctrl-C in the terminal reaches only the parent, which then forwards it once.
    Stdout and stderr are merged, each line is echoed with a prefix, and the last ones are kept for an error report.

    Args:
        name: the prefix, for people.
        module: what `python -m` runs.
        args: its arguments.
        env: the whole environment of the child; None: that of this process.
        echo: where prefixed lines go; None: nowhere.
        keep: how many last lines are remembered.
    """

    def __init__(
        self,
        name: str,
        module: str,
        args: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        echo: TextIO | None = None,
        keep: int = 200,
    ) -> None:
        self.name = name
        self._interrupted = False
        self._lines: deque[str] = deque(maxlen=keep)
        self._echo = echo
        child_env = dict(os.environ if env is None else env)
        child_env["PYTHONUNBUFFERED"] = "1"
        child_env[PARENT_VARIABLE] = str(os.getpid())
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "omnistream_ros._child", module, *args],
            env=child_env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit code in the shell's sense (128 + signal for a killed process), or None while it runs."""
        code = self._popen.poll()
        return 128 - code if code is not None and code < 0 else code

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits up to `timeout` seconds; returns the exit code, or None when it is still running."""
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(timeout=1.0)  # the last lines
        return self.returncode

    def send(self, signum: int) -> None:
        """Sends a signal, if the process still runs."""
        if self._popen.poll() is None:
            self._interrupted = self._interrupted or signum == signal.SIGINT
            self._popen.send_signal(signum)

    @property
    def failed(self) -> bool:
        """Whether it has ended badly. Ending by the SIGINT that we sent is what we asked for, also where the
        interpreter, just ending by itself, had nobody left to handle it."""
        by_sigint = self._interrupted and self.returncode in (130, -signal.SIGINT)
        return bool(self.returncode) and not by_sigint

    def tail(self, count: int = 15) -> str:
        """The last `count` lines of its output."""
        return "\n".join(list(self._lines)[-count:])

    def lines(self) -> list[str]:
        """The remembered lines of its output, oldest first."""
        return list(self._lines)

    def _read(self) -> None:
        assert self._popen.stdout is not None  # PIPE was asked for
        for line in self._popen.stdout:
            line = line.rstrip("\n")
            self._lines.append(line)
            if self._echo is not None:
                with _ECHO_LOCK:
                    print(f"[{self.name}] {line}", file=self._echo, flush=True)


def stop_all(children: Iterable[ChildProcess], grace: float = 5.0) -> int:
    """Asks all children to end (SIGINT), insists (SIGTERM), then kills; returns the worst exit code.

    Args:
        children: started processes, ended ones included.
        grace: seconds that they are given to end by themselves after SIGINT; half of it again after SIGTERM.
    """
    children = list(children)
    for signum, patience in ((signal.SIGINT, grace), (signal.SIGTERM, grace / 2), (signal.SIGKILL, 5.0)):
        running = [child for child in children if child.returncode is None]
        for child in running:
            child.send(signum)
        deadline = time.monotonic() + patience
        for child in running:
            child.wait(max(0.0, deadline - time.monotonic()))
    return max((child.wait(0.0) or 0 for child in children), default=0)


def leave(code: int) -> NoReturn:
    """Ends this process now, its output flushed, without taking the interpreter down.

    For a process in which DDS, torch and the viewer's library have met, and which has nothing left to do: on a busy
    machine one such teardown in eight ended in a jump to nowhere, and a good run in exit code 139.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ros_parameters(**values: object) -> list[str]:
    """Values as -p arguments; JSON is YAML, which is what ROS reads, and quotes what needs it."""
    return ["--ros-args", *(word for name, value in values.items() for word in ("-p", f"{name}:={json.dumps(value)}"))]


class ProcessGroup:
    """Children that are stopped together when the `with` block ends, however it ends."""

    def __init__(self, grace: float = 5.0) -> None:
        self.children: list[ChildProcess] = []
        self._grace = grace

    def start(self, name: str, module: str, args: Sequence[str] = (), **options: Any) -> ChildProcess:
        """Starts one more child; see `ChildProcess`."""
        child = ChildProcess(name, module, args, **options)
        self.children.append(child)
        return child

    def failed(self) -> ChildProcess | None:
        """The first child that has ended badly."""
        return next((child for child in self.children if child.failed), None)

    def stop(self) -> int:
        """Stops all; returns the worst exit code."""
        return stop_all(self.children, self._grace)

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
