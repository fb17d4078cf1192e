# SPDX-License-Identifier: Apache-2.0
"""Numbered parts: made once, found again, by one process or several; Ctrl-C says how to go on."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest

from omnistream.errors import ConfigError, InputError
from omnistream_sim.command_line import resumable
from omnistream_sim.parts import Parts


class Pen:
    """Writes; says when it is opened and closed."""

    def __init__(self, diary: Path, works: bool = True) -> None:
        self._diary = diary
        self._say("opened" if works else "refused")
        if not works:
            raise ConfigError("no ink")

    def close(self) -> None:
        self._say("closed")

    def write(self, number: int, path: Path) -> None:
        if number == 7:
            raise InputError("part 7 cannot be made")
        path.write_text(f"{number} by {os.getpid()}")

    def _say(self, word: str) -> None:
        with self._diary.open("a") as file:
            file.write(f"{word}\n")


def silent(done: int, total: int) -> None:
    """No progress."""


@pytest.mark.parametrize("workers", [1, 2])
def test_parts_are_made_once_and_found_again(tmp_path: Path, workers: int) -> None:
    counts: list[tuple[int, int]] = []
    pen = partial(Pen, tmp_path / "diary")
    parts = Parts(tmp_path / "set", ".txt", {"seed": 3})
    parts.make(3, pen, Pen.write, workers=workers, progress=lambda *now: counts.append(now))
    assert counts == [(0, 3), (1, 3), (2, 3), (3, 3)]
    first = [parts.path(n).read_text() for n in range(3)]
    assert [text.split()[0] for text in first] == ["0", "1", "2"]
    assert all((str(os.getpid()) in text) == (workers == 1) for text in first)
    again = Parts(tmp_path / "set", ".txt", {"seed": 3})
    again.make(5, pen, Pen.write, workers=1, progress=silent)
    assert [again.path(n).read_text() for n in range(3)] == first and again.path(4).exists()
    opened = (tmp_path / "diary").read_text().split().count("opened")
    again.make(5, pen, Pen.write, workers=workers, progress=silent)
    assert (tmp_path / "diary").read_text().split().count("opened") == opened, "nothing is missing: nothing is opened"
    again.remove()
    assert not again.folder.exists()


def test_other_options_and_a_target_that_is_there_are_refused(tmp_path: Path) -> None:
    Parts(tmp_path / "set", ".txt", {"seed": 3, "noise": 0.1})
    assert json.loads((tmp_path / "set.parts" / "options.json").read_text()) == {"seed": 3, "noise": 0.1}
    with pytest.raises(InputError, match=r"set\.parts holds a run with another noise; expected the same"):
        Parts(tmp_path / "set", ".txt", {"seed": 3, "noise": 0.2})
    (tmp_path / "set").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        Parts(tmp_path / "set", ".txt", {"seed": 3, "noise": 0.1})


@pytest.mark.parametrize("workers", [1, 2])
def test_what_fails_reaches_the_caller_and_what_was_made_stays(tmp_path: Path, workers: int) -> None:
    parts = Parts(tmp_path / "set", ".txt", {})
    with pytest.raises(InputError, match="part 7 cannot be made"):
        parts.make(8, partial(Pen, tmp_path / "diary"), Pen.write, workers=workers, progress=silent)
    assert all(parts.path(n).exists() for n in range(7))
    if workers == 1:
        assert (tmp_path / "diary").read_text().split() == ["opened", "closed"]
    with pytest.raises(ConfigError, match="no ink"):
        parts.make(9, partial(Pen, tmp_path / "diary", False), Pen.write, workers=workers, progress=silent)


def test_a_stop_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, resumable():
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    assert "run the same command again to go on" in capsys.readouterr().err
