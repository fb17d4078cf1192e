# SPDX-License-Identifier: Apache-2.0
"""A run's folder: run.json says what is run, episodes.jsonl holds what is finished, one line each.

A line is written whole and flushed to the disk before the next episode counts as finished, so a run that was killed
loses what was not finished and nothing else. A last line without its end is dropped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from omnistream.errors import InputError
from omnistream.io.files import write_bytes

from .protocols import EvaluationError
from .records import EpisodeRecord

RUN, EPISODES = "run.json", "episodes.jsonl"
LOGS = "logs"
"""Of workers. They may be there before the run is: of one that could not start."""


class Store:
    """The folder of one run."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """Open or begin a run.

        identity: everything that decides the numbers, plain data. A run in the folder must have the same.

        Raises:
            InputError: the folder holds another run, or a damaged one, or something else.
        """
        self.folder = folder
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._path = folder / EPISODES
        path = folder / RUN
        if path.exists():
            self._check(path)
        elif folder.exists() and any(entry.name != LOGS for entry in folder.iterdir()):
            raise InputError(f"{folder} is not empty and has no {RUN}; choose another folder")
        else:
            folder.mkdir(parents=True, exist_ok=True)
        self.records = self._read()

    def confirm(self, description: dict[str, Any]) -> None:
        """Once it is known, what the workers found (simulator, policy): the same as before, or it is another run."""
        description = json.loads(json.dumps(description))
        path = self.folder / RUN
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))["found"]
            if before != description:
                raise InputError(f"{path}: {_difference(before, description)}; choose another folder")
            return
        text = json.dumps({"format": "omnistream-evaluation", "version": 1} | {"run": self.identity}
                          | {"found": description}, indent=2)  # fmt: skip
        write_bytes(path, f"{text}\n".encode())

    @property
    def description(self) -> dict[str, Any]:
        """What the workers found; empty before the first was ready."""
        path = self.folder / RUN
        return json.loads(path.read_text(encoding="utf-8"))["found"] if path.exists() else {}

    def add(self, record: EpisodeRecord) -> None:
        """Keep a finished episode. EvaluationError if it cannot be written; then nothing of it is left in the file."""
        line = json.dumps(record.to_json(), separators=(",", ":")) + "\n"
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if self._path.exists():
                os.truncate(self._path, size)
            raise EvaluationError(
                f"{self._path}: {error}; {len(self.records)} finished episodes are kept. Make room, then run it again"
            ) from error
        self.records[record.index] = record

    def _check(self, path: Path) -> None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            before = found["run"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no run of ours: {error!r}; choose another folder") from error
        if before != self.identity:
            raise InputError(f"{path} is another run: {_difference(before, self.identity)}; choose another folder")

    def _read(self) -> dict[int, EpisodeRecord]:
        records: dict[int, EpisodeRecord] = {}
        if not self._path.exists():
            return records
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) != len(data):
            os.truncate(self._path, len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                record = EpisodeRecord.from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self._path}: line {number} is damaged: {error!r}; delete the line") from error
            records[record.index] = record
        return records


def _difference(before: Any, now: Any, name: str = "") -> str:
    """The first difference of two plain values, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    return f"{name} was {before!r}, now {now!r}"
