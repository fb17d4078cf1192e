# SPDX-License-Identifier: Apache-2.0
"""A data set's parts before they become one: numbered files in OUT.parts, where a stopped run finds them again.

A part is a function of its number and of what OUT.parts/options.json says; another run does not go on with it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

from omnistream.errors import ConfigError, InputError
from omnistream.io.files import write_bytes

OPTIONS = "options.json"


class Tool(Protocol):
    """What parts are made with, a simulator say. Every process has one of its own."""

    def close(self) -> None: ...


AnyTool = TypeVar("AnyTool", bound=Tool)
Work = Callable[[AnyTool, int, Path], None]
"""Makes the part of that number and writes it there, whole or not at all."""


class Parts:
    """Of `target`, which does not exist yet."""

    def __init__(self, target: Path, ending: str, wanted: Mapping[str, Any]) -> None:
        """ending: of the files. wanted: JSON data, all that a part depends on beside its number.

        ConfigError if `target` is there, InputError if parts with other options are.
        """
        if target.exists():
            raise ConfigError(f"{target} exists already; choose another name")
        self.folder = target.with_name(target.name + ".parts")
        self._ending = ending
        self._begin(dict(wanted))

    def path(self, number: int) -> Path:
        """Of the part of that number."""
        return self.folder / f"{number:06d}{self._ending}"

    def make(
        self,
        count: int,
        open_tool: Callable[[], AnyTool],
        work: Work[AnyTool],
        *,
        workers: int,
        progress: Callable[[int, int], None],
    ) -> None:
        """All that are missing of `count`; progress(done, count). With several workers both callables are pickled."""
        missing = [number for number in range(count) if not self.path(number).exists()]
        done = count - len(missing)
        progress(done, count)
        run = self._alone(missing, open_tool, work) if workers <= 1 else self._pool(missing, open_tool, work, workers)
        for _ in run:
            done += 1
            progress(done, count)

    def remove(self) -> None:
        """They are in the data set now."""
        shutil.rmtree(self.folder)

    def _begin(self, wanted: dict[str, Any]) -> None:
        path = self.folder / OPTIONS
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(path, (json.dumps(wanted, indent=2) + "\n").encode())
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != wanted:
            names = [name for name in wanted if found.get(name) != wanted[name]]
            raise InputError(
                f"{self.folder} holds a run with another {', '.join(names)}; expected the same, or another OUT"
            )

    def _alone(self, numbers: list[int], open_tool: Callable[[], AnyTool], work: Work[AnyTool]) -> Iterator[None]:
        if not numbers:
            return
        with closing(open_tool()) as tool:
            for number in numbers:
                work(tool, number, self.path(number))
                yield

    def _pool(
        self, numbers: list[int], open_tool: Callable[[], AnyTool], work: Work[AnyTool], workers: int
    ) -> Iterator[None]:
        spawn = get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_prepare, initargs=(open_tool,)) as pool:
            running: set[Future[None]] = set()
            for number in numbers:
                if len(running) >= 2 * workers:  # a stopped run waits for those that were handed out
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
                running.add(pool.submit(_work_here, work, number, self.path(number)))
            yield from (future.result() for future in running)


_tools: list[Any] = []
"""Of a worker's process: what opens its tool and then, from its first part on, the tool."""


def _prepare(open_tool: Callable[[], Tool]) -> None:
    _tools[:] = [open_tool]


def _work_here(work: Work[Any], number: int, path: Path) -> None:
    if len(_tools) == 1:  # not in `_prepare`: what is raised here reaches the caller
        _tools.append(_tools[0]())
    work(_tools[1], number, path)
