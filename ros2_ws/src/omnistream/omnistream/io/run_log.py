# SPDX-License-Identifier: Apache-2.0
"""The log of a live run: everything that decided what left for the robot, in the order in which it happened.

One JSON object a line (JSON Lines), only ever appended, whole lines at a time; numbers are written so that they are
read back bit for bit. The first line is the header; then, by `event`:

    instruct    text                                   what to do from now on
    forget_frames                                      the stream begins anew
    think       number, stamp, inputs, state, asked, result, chunk, ms
                an inference: inputs is {camera: [stamp in ns, CRC-32 of its bytes]}, stamp that of the first camera;
                asked is the control tick at which a prediction was wanted, null where only the stream went on; chunk is
                the start of the SHA-256 of what was predicted
    adopt       number, start, arrived                 the prediction `number` is planned from tick start on
    forget      clock                                  planned actions are dropped; clock: ticks are counted anew
    start, stop, estop, clear, hold                    permission; reason, and where the arm was
    tick        stamp, now, tick, facts, at, left      a control period: what was known, and what left
    failed      as tick, detail                        a control period that ended in an error
    unlocked    a stop could not wait for the lock: lines about it may be out of order
    lost        count                                  so many lines could not be written
    end         messages, hash                         the log was closed

stamp: ROS time in ns; now: steady time in s; at: where the arm was measured. left: what left, as in
`omnistream.policy.outbox`; hash: over all that left until then.

A perception node writes

    image       camera, stamp, crc, frame_id, K, lens, want, reset, result
                an image that was stepped: reset says why the stream began anew before it, lens what was undistorted,
                want which heads ran, result is the SHA-256 of what came out
    failed      camera, stamp, size, frame_id, K, reset, detail
                an image that could not be stepped; the gate has seen it, and `reset` happened
    forget_frames, replaced     camera                 the stream begins anew; goes on with other weights or memory
    end         hash                                   {camera: SHA-256 over the results}
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omnistream.errors import InputError

FORMAT, VERSION = "omnistream-run-log", 1
SUFFIX = ".jsonl"
WAITING = 20_000
"""Lines that may wait for the disk: minutes at 20 Hz; more are counted and left out."""
BATCH = 0.2
"""Seconds between two writes; what a killed process leaves is that much shorter."""
_END = object()


class RunLog:
    """Writes a run log from a thread of its own: whoever logs never waits for a disk, and a full one stops no robot.

    Args:
        folder: made if missing; the file is named by `name` and the time.
        header: parameters and identities, see `read_run_log`.
        warn: told once, when lines cannot be written.

    OSError where the file cannot be made.
    """

    def __init__(
        self, folder: Path, name: str, header: Mapping[str, Any], warn: Callable[[str], object] = lambda _: None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._warn = warn
        self._queue: queue.Queue[Any] = queue.Queue(WAITING)
        self._lost, self._closed = 0, False
        self.path, self._file = _new_file(folder, name)
        first = {"format": FORMAT, "version": VERSION, "began": datetime.now(UTC).isoformat(timespec="seconds")}
        self._write([_line(first | dict(header))])
        self._thread = threading.Thread(target=self._run, name="run log", daemon=True)
        self._thread.start()

    def write(self, event: str, **fields: Any) -> None:
        """Append an event; never blocks, never raises. Takes 30 us; no other thread holds the caller up."""
        if self._closed:
            return
        try:
            self._queue.put_nowait(_line({"event": event} | fields))
        except Exception:  # the queue is full, or a value is not to be written: no reason to stop a robot
            self._lost += 1

    def close(self, **fields: Any) -> None:
        """Write what waits, then the event `end` with `fields`."""
        self.write("end", **fields)
        self._closed = True
        try:
            self._queue.put(_END, timeout=1.0)
        except queue.Full:  # the disk hangs; so would we
            return
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            batch = [self._queue.get()]
            pause.wait(BATCH if batch[0] is not _END and self._queue.empty() else 0)
            while not self._queue.empty():
                batch.append(self._queue.get())
            ended = any(line is _END for line in batch)
            lines = [line for line in batch if line is not _END]
            before, self._lost = self._lost, 0
            if before:
                lines.insert(0, _line({"event": "lost", "count": before}))
            if not self._write(lines):
                self._lost += before + len(lines) - bool(before)
            if ended:
                os.close(self._file)
                return

    def _write(self, lines: list[bytes]) -> bool:
        """Whether they were written. If not, none is, nor a part of one: what comes later would not be read."""
        data, written = b"".join(lines), 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError as error:
            if written:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            self._warn(f"{self.path}: the run log has a hole: {error}")
            self._warn = lambda _: None
            return False
        return True


def circumstances() -> dict[str, Any]:
    """What decides about bits beside code, weights and inputs: for a header."""
    import numpy
    import torch

    import omnistream
    from omnistream.cli import info

    return {
        "software": {"omnistream": omnistream.__version__, "torch": torch.__version__, "numpy": numpy.__version__},
        "machine": {
            "processor": info.machine().values["processor"],
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        },
    }


def _new_file(folder: Path, name: str) -> tuple[Path, int]:
    stem = f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for number in range(1000):
        path = folder / f"{stem}{f'-{number}' if number else ''}{SUFFIX}"
        try:
            return path, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue
    raise FileExistsError(f"{folder}: no free name for a run log {stem}")


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, default=_plain, separators=(",", ":")).encode() + b"\n"


def _plain(value: Any) -> Any:
    return value.tolist()  # arrays and numbers of numpy


@dataclass(frozen=True)
class RecordedRun:
    """A run log that was read."""

    path: Path
    header: dict[str, Any]
    """format, version, began; node, parameters, topics, identities of weights, software, machine."""
    events: list[dict[str, Any]]
    lost: list[str] = field(default_factory=list)
    """Sentences: what is missing of it."""

    @property
    def ended(self) -> bool:
        """Whether the node closed it; it did not where it was killed."""
        return bool(self.events) and self.events[-1]["event"] == "end"

    @property
    def hash(self) -> str | None:
        """Of all that left, as far as the log goes; None where nothing ever did."""
        return next((event["hash"] for event in reversed(self.events) if event.get("hash")), None)


def read_run_log(path: Path) -> RecordedRun:
    """InputError where it is none, or of a newer version. What is damaged further on ends it, with a sentence."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    header = _object(lines[0])
    if header is None or header.get("format") != FORMAT:
        raise InputError(f"{path} is no run log; expected a first line with format {FORMAT!r}")
    if not isinstance(header.get("version"), int) or header["version"] > VERSION:
        raise InputError(f"{path} is a run log of version {header.get('version')!r}; this program reads {VERSION}")
    events: list[dict[str, Any]] = []
    lost: list[str] = []
    for number, line in enumerate(lines[1:], 2):
        if not line and number == len(lines):
            break
        event = _object(line)
        if event is None or not isinstance(event.get("event"), str):
            left = len(lines) - number - 1
            lost.append(f"line {number} is damaged: it and {left} more are not used")
            break
        if event["event"] == "lost":
            lost.append(f"{event.get('count')} lines before line {number} could not be written")
        events.append(event)
    run = RecordedRun(path, header, events, lost)
    if not run.ended and not lost:
        lost.append("the node was killed, or is still at work: up to a second may be missing at its end")
    return run


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
