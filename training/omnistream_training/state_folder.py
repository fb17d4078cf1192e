# SPDX-License-Identifier: Apache-2.0
"""States of a run on disk by torch.distributed.checkpoint (DCP): each process writes the parts that it holds, and any
number of processes reads them.

    RUN/state/step_00001500/    .metadata and *.distcp (DCP), run.json (plain data); appears whole or not at all
    RUN/state/step_00001750/    the newest; one that cannot be read is set aside as *.damaged and the one before taken

DCP's metadata is a pickle: go on with runs that you trust only. Weights to pass on are in RUN/weights, which is none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException  # a BaseException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from omnistream.errors import CheckpointError
from omnistream_training.distributed import Processes

T = TypeVar("T")
VERSION = 2
PLAIN = "run.json"
Sizes = Mapping[str, tuple[torch.Size, torch.dtype]]
"""Shape and number format of stored tensors, by name."""


class StateFolder:
    """The states of one run."""

    def __init__(self, folder: Path, processes: Processes, *, keep_last: int = 2, keep_every: int = 0) -> None:
        self.folder, self._processes = folder, processes
        self._keep_last, self._keep_every = keep_last, keep_every

    def steps(self) -> list[int]:
        """Of the states that are there, in order."""
        found = (re.fullmatch(r"step_(\d+)", path.name) for path in self.folder.glob("step_*"))
        return sorted(int(match[1]) for match in found if match)

    def none_yet(self) -> bool:
        """Whether the run begins here. CheckpointError where there were states, all of which turned out damaged."""
        aside = sorted(path.name for path in self.folder.glob("step_*.damaged"))
        if aside and not self.steps():
            raise CheckpointError(
                f"{self.folder} has no usable state, only {', '.join(aside)}; remove them to begin the run anew"
            )
        return not self.steps()

    def path(self, step: int) -> Path:
        """Of the state after `step` steps."""
        return self.folder / f"step_{step:08d}"

    def save(self, step: int, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Write a state, all processes together, and let go of old ones. Nothing happens where it is there already.

        tensors: by name; of sharded ones each process passes its part. plain: JSON data, the first process's counts.
        """
        target = self.path(step)
        if target.exists():
            return
        partial = target.with_name(target.name + ".partial")
        if self._processes.first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self._processes.wait()
        with _quiet():
            dcp.save(dict(tensors), checkpoint_id=partial)
        if self._processes.first:
            with open(partial / PLAIN, "w", encoding="utf-8") as file:
                json.dump({"version": VERSION, **plain}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
            _sync(self.folder)
            self._prune()
        self._processes.wait()

    def load(self, accept: Callable[[Mapping[str, Any], Sizes], dict[str, Tensor]]) -> bool:
        """Read the newest state that can be read, into the tensors that `accept(plain, sizes)` gives for its names.

        Returns whether there was any. Raises CheckpointError, naming every state and what is wrong with it, if none can
        be read, and where a disk, a network or memory failed: that is no damage. What `accept` raises passes through.
        """
        reasons = []
        for step in reversed(self.steps()):
            path = self.path(step)
            contents, reason = self._try(path, lambda: _contents(path))  # noqa: B023
            if contents is None:
                reasons.append(reason)
                continue
            plain, sizes = contents
            if plain.get("version") != VERSION:
                raise CheckpointError(f"{path} has version {plain.get('version')!r}; this release reads {VERSION}")
            tensors = accept(plain, sizes)
            _, reason = self._try(path, lambda: _read(path, tensors))  # noqa: B023
            if not reason:
                return True
            reasons.append(reason)
        if reasons:
            raise CheckpointError("no usable training state: " + "; ".join(reasons))
        return False

    def _try(self, path: Path, read: Callable[[], T]) -> tuple[T | None, str]:
        """What `read` makes of a state and "", or None and what is wrong with it; then it has been set aside.

        All processes find the same. Raises CheckpointError where the state may be whole, and only reading it failed.
        """
        result: T | None = None
        error: BaseException | None = None
        try:
            result = read()
        except (Exception, CheckpointException) as caught:  # a damaged pickle or tensor raises anything
            error = _cause(caught)
        if not self._processes.any(error is not None):
            return result, ""
        words = "another process failed" if error is None else f"{type(error).__name__}: {str(error)[:200]}"
        if self._processes.any(error is not None and _may_pass(error)):
            raise CheckpointError(
                f"{path} cannot be read now ({words}); it may be whole, and stays. Start again when that is mended, or "
                "move it away to go on from the state before"
            )
        return None, self._set_aside(path, f"{path} is damaged ({words})")

    def _set_aside(self, path: Path, reason: str) -> str:
        self._processes.wait()
        if self._processes.first:
            print(reason, file=sys.stderr)
            aside = path.with_name(path.name + ".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(path, aside)
        self._processes.wait()
        return reason

    def _prune(self) -> None:
        for step in self.steps()[: -self._keep_last]:
            if not self._keep_every or step % self._keep_every:
                shutil.rmtree(self.path(step))
        for partial in self.folder.glob("step_*.partial"):  # of a process that was killed
            shutil.rmtree(partial)


def read_state(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Plain data and whole tensors of one state, in this process alone. CheckpointError if it cannot be read."""
    try:
        plain, sizes = _contents(path)
        tensors = {name: torch.zeros(size, dtype=dtype) for name, (size, dtype) in sizes.items()}
        _read(path, tensors)
    except (Exception, CheckpointException) as error:
        cause = _cause(error)
        raise CheckpointError(f"{path} cannot be read: {type(cause).__name__}: {str(cause)[:200]}") from error
    return plain, tensors


def _cause(error: BaseException) -> BaseException:
    """What DCP wraps: of all processes, an error that may pass before others."""
    causes = [cause for cause, _ in error.failures.values()] if isinstance(error, CheckpointException) else []
    return next((cause for cause in causes if _may_pass(cause)), causes[0] if causes else error)


def _may_pass(error: BaseException) -> bool:
    """Whether a state that gave it may be whole: files are there, but could not be opened or held in memory."""
    passing = (OSError, MemoryError, torch.OutOfMemoryError)
    return isinstance(error, passing) and not isinstance(error, FileNotFoundError)


def _contents(path: Path) -> tuple[dict[str, Any], Sizes]:
    plain = json.loads((path / PLAIN).read_text(encoding="utf-8"))
    stored = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    kept = {name: entry for name, entry in stored.items() if isinstance(entry, TensorStorageMetadata)}
    return plain, {name: (entry.size, entry.properties.dtype) for name, entry in kept.items()}


def _read(path: Path, tensors: dict[str, Tensor]) -> None:
    if tensors:
        with _quiet():
            dcp.load(dict(tensors), checkpoint_id=path)


@contextmanager
def _quiet() -> Iterator[None]:
    """DCP warns a single process that it is alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _sync(folder: Path) -> None:
    """So that a rename survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
