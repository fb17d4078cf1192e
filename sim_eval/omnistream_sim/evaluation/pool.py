# SPDX-License-Identifier: Apache-2.0
"""Workers on one machine: a process each, so that a crash or a hang of a simulator costs one episode's time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from omnistream.cli.report import one_sentence
from omnistream.errors import ConfigError

from .protocols import Episode, EvaluationError
from .store import LOGS
from .worker import Beat, Event, Failed, Finished, Ready, Work, Worker

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """How the work is spread. How many workers there are changes no result."""

    workers: int = 1
    hang_s: float = 300.0
    """A worker that gives no sign of life for so long is ended."""
    retries: int = 1
    """How often an episode is tried again after its worker crashed or hung."""
    threads: int = 1
    """Of numerical libraries, per worker. Sums depend on it in the last bit: it is part of what a run is."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.threads < 1 or self.retries < 0 or not self.hang_s > 0:
            raise ConfigError(
                f"workers {self.workers}, threads {self.threads}, retries {self.retries}, hang_s {self.hang_s}; "
                "expected >= 1, >= 1, >= 0, > 0"
            )


@dataclass
class _Member:
    """A worker process as the parent sees it."""

    number: int
    process: BaseProcess
    connection: Connection
    log: Path
    said: int = 0
    """Bytes that an earlier run left in the log."""
    episode: Episode | None = None
    ready: bool = False
    spent: bool = False
    """An episode failed in it. Nobody knows what a simulator or a GPU is worth after that: another takes over."""
    closed: bool = False
    """Its end of the pipe is gone, and everything that was in it has been read."""
    seen: float = field(default_factory=time.monotonic)


def run_pool(work: Work, episodes: Sequence[Episode], options: PoolOptions) -> Iterator[Event]:
    """Run episodes; yields events as they come, in no fixed order. Closing the generator ends all workers.

    Raises:
        EvaluationError: no worker could be started (no simulator, no renderer, no policy), with the first one's reason.
    """
    waiting = deque(episodes)
    tries: dict[int, int] = {}
    members: list[_Member] = []
    ever_ready, started = False, 0
    try:
        while waiting or any(member.episode for member in members):
            busy = sum(member.episode is not None for member in members)
            while len(members) < min(options.workers, busy + len(waiting)):
                members.append(_start(started, work, options))
                started += 1
            for member in members:
                if member.ready and member.episode is None and waiting:
                    _give(member, waiting)
            wait([member.connection for member in members], timeout=0.2)
            for member in list(members):
                for event in _messages(member):
                    ever_ready = ever_ready or isinstance(event, Ready)
                    yield event
                reason = _trouble(member, options)
                if reason is None and not member.spent:
                    continue
                members.remove(member)
                _end(member)
                if reason is None:
                    continue
                if not member.ready:
                    if not ever_ready:
                        raise EvaluationError(reason)
                    tries[-1] = tries.get(-1, 0) + 1  # a replacement that does not come up
                    if tries[-1] > 3:
                        raise EvaluationError(reason)
                elif (episode := member.episode) is not None:
                    tries[episode.index] = tries.get(episode.index, 0) + 1
                    if tries[episode.index] <= options.retries:
                        waiting.appendleft(episode)
                    else:
                        yield Failed(episode.index, reason)
    finally:
        for member in members:
            _end(member)


def run_here(work: Work, episodes: Sequence[Episode]) -> Iterator[Event]:
    """The same in this process: for a debugger, and where processes cannot be started. A crash ends everything."""
    beats: list[Event] = []
    worker = Worker(work)
    try:
        yield Ready(worker.describe())
        for episode in episodes:
            try:
                event: Event = worker.run(episode, beats.append)
            except Exception as error:
                event = Failed(episode.index, one_sentence(error))
            yield from beats
            beats.clear()
            yield event
    finally:
        worker.close()


def _start(number: int, work: Work, options: PoolOptions) -> _Member:
    context = multiprocessing.get_context("spawn")  # simulators and torch do not survive a fork
    ours, theirs = context.Pipe()
    log = work.folder / LOGS / f"worker_{number}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    said = log.stat().st_size if log.exists() else 0
    process = context.Process(target=_work, args=(theirs, work, log), name=f"worker {number}", daemon=True)
    with _environment(dict.fromkeys(THREADS, str(options.threads))):
        process.start()
    theirs.close()
    return _Member(number, process, ours, log, said)


def _give(member: _Member, waiting: deque[Episode]) -> None:
    member.episode = waiting.popleft()
    member.seen = time.monotonic()
    with contextlib.suppress(OSError):  # a dead worker is found, and its episode taken back, in `_trouble`
        member.connection.send(member.episode)


def _messages(member: _Member) -> Iterator[Event]:
    """What a worker has sent since."""
    try:
        while member.connection.poll():
            event = member.connection.recv()
            member.seen = time.monotonic()
            if isinstance(event, Ready):
                member.ready = True
            elif isinstance(event, (Finished, Failed)):
                member.episode = None
                member.spent = isinstance(event, Failed)
            yield event
    except (EOFError, OSError):
        member.closed = True
        member.process.join(timeout=5)  # it is going down; `_trouble` says how


def _trouble(member: _Member, options: PoolOptions) -> str | None:
    """Why a worker is of no more use; None while it is."""
    where = f" in episode {member.episode.index}" if member.episode else "" if member.ready else " at its start"
    silent = time.monotonic() - member.seen
    if member.closed:
        code = member.process.exitcode
        how = f"was ended by {signal.Signals(-code).name}" if code and code < 0 else f"ended with {code}"
        return f"worker {member.number} {how}{where}: {_last_line(member)} (all of it: {member.log})"
    if silent > options.hang_s and (member.episode or not member.ready):
        return f"worker {member.number} gave no sign of life for {silent:.0f} s{where}; its log: {member.log}"
    return None


def _end(member: _Member) -> None:
    if member.process.is_alive() and member.ready and member.episode is None:
        with contextlib.suppress(OSError):
            member.connection.send(None)
        member.process.join(timeout=5)
    if member.process.is_alive():
        member.process.terminate()
        member.process.join(timeout=2)
    if member.process.is_alive():
        member.process.kill()
        member.process.join()
    member.connection.close()


def _last_line(member: _Member) -> str:
    try:
        text = member.log.read_bytes()[member.said :].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"


def _work(connection: Connection, work: Work, log: Path) -> None:
    """The worker process. What it and its libraries print goes to the log, C code included."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        worker = Worker(work)
        send(connection, Ready(worker.describe()))
    except Exception as error:
        traceback.print_exc()
        print(one_sentence(error), file=sys.stderr, flush=True)
        raise SystemExit(1) from error
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent went away
        while (episode := connection.recv()) is not None:
            try:
                event: Event = worker.run(episode, lambda beat: send(connection, beat))
            except BrokenPipeError:
                raise
            except Exception as error:
                traceback.print_exc()
                event = Failed(episode.index, one_sentence(error))
            send(connection, event)
    worker.close()


def send(connection: Connection, event: Ready | Beat | Finished | Failed) -> None:
    """One event to the parent."""
    connection.send(event)


@contextlib.contextmanager
def _environment(values: dict[str, Any]) -> Iterator[None]:
    """Variables that a child process is to start with."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
