# SPDX-License-Identifier: Apache-2.0
"""Workers on several machines, through Ray (extra `ray`). Same events, same results as `pool.run_pool`.

The run's folder is written by the machine that runs the command; films need a folder that all machines share.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from omnistream.cli.report import one_sentence
from omnistream.io.extras import need

from .pool import THREADS, PoolOptions
from .protocols import Episode, EvaluationError
from .worker import Beat, Event, Failed, Ready, Work, Worker

POLL_S = 2.0


class RayWorker:
    """The actor: a `Worker` in a thread of its own, and a counter that another thread can read.

    Ray may call an actor's methods from any thread, but OpenGL draws only in the one that made its context.
    """

    def __init__(self, work: Work) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._worker = self._thread.submit(Worker, work).result()
        self._steps = 0

    def describe(self) -> dict[str, Any]:
        """As Worker.describe."""
        return self._thread.submit(self._worker.describe).result()

    def run(self, episode: Episode) -> Event:
        """One episode."""
        try:
            return self._thread.submit(self._worker.run, episode, self._beat).result()
        except Exception as error:
            return Failed(episode.index, one_sentence(error))

    def steps(self) -> int:
        """Control periods so far."""
        return self._steps

    def _beat(self, beat: Beat) -> None:
        self._steps += beat.steps


@dataclass
class _Member:
    """An actor as the driver sees it."""

    actor: Any
    pending: Any
    """What it is computing: its description first, then episodes."""
    episode: Episode | None = None
    steps: int = 0
    seen: float = field(default_factory=time.monotonic)


def run_ray(work: Work, episodes: Sequence[Episode], options: PoolOptions) -> Iterator[Event]:
    """As `run_pool`, on the Ray cluster that RAY_ADDRESS names, or on this machine without one.

    Raises:
        EvaluationError: no worker could be started, or (MissingExtra) Ray is not installed.
    """
    ray = need("ray", "ray", "spreading an evaluation over machines")
    began = not ray.is_initialized()
    # A policy given as module:name is looked up where this process looks.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    variables = dict.fromkeys(THREADS, str(options.threads)) | {"PYTHONPATH": path}
    if began:
        ray.init(log_to_driver=False, include_dashboard=False, runtime_env={"env_vars": variables})
    actor_class = ray.remote(num_cpus=options.threads, max_concurrency=2)(RayWorker)
    waiting, members, tries, ever_ready = deque(episodes), list[_Member](), dict[int, int](), False
    try:
        while waiting or members:
            busy = sum(member.episode is not None for member in members)
            while len(members) < min(options.workers, busy + len(waiting)):
                actor = actor_class.remote(work)
                members.append(_Member(actor, actor.describe.remote()))
            done, _ = ray.wait([member.pending for member in members], timeout=POLL_S)
            for member in [member for member in members if member.pending in done]:
                episode, reason = member.episode, ""
                try:
                    value = ray.get(member.pending)
                except ray.exceptions.RayError as error:
                    reason = f"a worker ended: {_last_line(error)}"
                    members.remove(member)
                    if episode is None and (not ever_ready or tries.get(-1, 0) >= 3):
                        raise EvaluationError(reason) from error
                else:
                    ever_ready = True
                    yield Ready(value) if isinstance(value, dict) else value
                    if waiting and not isinstance(value, Failed):  # see `pool._Member.spent`
                        member.episode, member.seen = waiting.popleft(), time.monotonic()
                        member.pending = member.actor.run.remote(member.episode)
                    else:
                        ray.kill(member.actor)
                        members.remove(member)
                if reason:
                    yield from _again(episode, reason, tries, waiting, options)
            for member in list(members):
                if member.episode is not None:
                    yield from _alive(ray, member)
                silent = time.monotonic() - member.seen
                if silent <= options.hang_s:
                    continue
                ray.kill(member.actor)
                members.remove(member)
                if member.episode is None and (not ever_ready or tries.get(-1, 0) >= 3):
                    cpus = f"{ray.cluster_resources().get('CPU', 0):g} CPUs, a worker needs {options.threads}"
                    raise EvaluationError(f"a worker did not start within {silent:.0f} s; the cluster has {cpus}")
                reason = f"it gave no sign of life for {silent:.0f} s"
                yield from _again(member.episode, reason, tries, waiting, options)
    finally:
        for member in members:
            ray.kill(member.actor)
        if began:
            ray.shutdown()


def _last_line(error: BaseException) -> str:
    """Ray's messages are a remote traceback, with the error at its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _again(
    episode: Episode | None, reason: str, tries: dict[int, int], waiting: deque[Episode], options: PoolOptions
) -> Iterator[Event]:
    """Queue an episode whose worker was lost once more, or give it up."""
    index = -1 if episode is None else episode.index
    tries[index] = tries.get(index, 0) + 1
    if episode is None:
        return
    if tries[index] <= options.retries:
        waiting.appendleft(episode)
    else:
        yield Failed(index, reason)


def _alive(ray: Any, member: _Member) -> Iterator[Event]:
    """Ask for the counter; a worker whose counter moves lives."""
    try:
        steps = ray.get(member.actor.steps.remote(), timeout=1.0)
    except ray.exceptions.RayError:  # dead, or too busy to say: the first is seen in `pending`, the second in time
        return
    if steps != member.steps and member.episode is not None:
        yield Beat(member.episode.index, steps - member.steps)
        member.steps, member.seen = steps, time.monotonic()
