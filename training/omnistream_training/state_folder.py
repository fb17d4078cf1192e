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
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException  # a BaseException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from omnistream.errors import CheckpointError
from omnistream_training.distributed import Processes

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
        be read; what `accept` raises passes through.
        """
        reasons = []
        for step in reversed(self.steps()):
            path = self.path(step)
            try:
                plain, sizes = _contents(path)
            except Exception as error:  # a damaged pickle raises anything
                reasons.append(self._set_aside(path, error))
                continue
            if plain.get("version") != VERSION:
                raise CheckpointError(f"{path} has version {plain.get('version')!r}; this release reads {VERSION}")
            tensors = accept(plain, sizes)
            try:
                _read(path, tensors)
            except (Exception, CheckpointException) as error:  # so does a damaged tensor
                reasons.append(self._set_aside(path, error))
                continue
            return True
        if reasons:
            raise CheckpointError("no usable training state: " + "; ".join(reasons))
        return False

    def _set_aside(self, path: Path, error: BaseException) -> str:
        reason = f"{path} is damaged ({type(error).__name__}: {str(error)[:200]})"
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
        raise CheckpointError(f"{path} cannot be read: {type(error).__name__}: {str(error)[:200]}") from error
    return plain, tensors


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
