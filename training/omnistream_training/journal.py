# SPDX-License-Identifier: Apache-2.0
"""What a run says: one JSON object per line, a line for people with the time that is left, TensorBoard if installed."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from omnistream_training.curve import HELD_OUT, HeldOut, draw_curve


class Journal:
    """Appends to `log.jsonl`; a resumed run goes on in the same file."""

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        if self.path.exists() and not self.path.read_bytes().endswith(b"\n"):
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("\n")  # a line cut off by a kill ends here
        self._writer = _tensorboard(folder) if tensorboard else None

    def write(self, kind: str, step: int, **values: Any) -> None:
        """One line. Numbers go to TensorBoard too."""
        record = {"kind": kind, "step": step, "time": round(time.time(), 1), **values}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, default=_plain) + "\n")
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    self._writer.add_scalar(f"{kind}/{name}", value, step)
            self._writer.flush()

    def say(self, text: str) -> None:
        """A line for people."""
        print(text, file=sys.stderr, flush=True)

    def draw(self, picture: Path, held_out: HeldOut = HELD_OUT) -> None:
        """The curves of what was written, see `draw_curve`."""
        draw_curve(read_journal(self.path) if self.path.exists() else [], picture, held_out)


class SilentJournal(Journal):
    """Of a process that leaves the talking to another."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log.jsonl"

    def write(self, kind: str, step: int, **values: Any) -> None: ...

    def say(self, text: str) -> None: ...

    def draw(self, picture: Path, held_out: HeldOut = HELD_OUT) -> None: ...


def began_by(run: Path) -> str | None:
    """The command that began the run in `run`, None where its journal does not say."""
    path = run / "log.jsonl"
    starts = (line for line in read_journal(path) if line.get("kind") == "start") if path.exists() else iter(())
    return next(starts, {}).get("made_by")


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All complete lines; a last line cut off by a kill is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def duration(seconds: float) -> str:
    """3 h 12 min, 4 min 05 s, 12 s."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        print(f"TensorBoard is not installed ({error}); log.jsonl has the same numbers", file=sys.stderr)
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def processor() -> str:
    """The name of this machine's processor."""
    from omnistream.cli.info import machine

    return str(machine().values["processor"])
