# SPDX-License-Identifier: Apache-2.0
"""The run log as a file: in order, bit-exact, never in the way, and readable as far as it goes."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnistream.errors import InputError
from omnistream.io import run_log as runlog
from omnistream.io.run_log import RunLog, read_run_log

NUMBERS = [0.1, -0.0, 5e-324, 1 / 3, 1.7976931348623157e308, -1e-17]


def test_numbers_come_back_bit_by_bit_and_lines_in_order(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "new" / "logs", "policy", {"node": "/policy"})
    log.write("tick", left={"twist": np.array(NUMBERS)}, age=float("nan"))
    threads = [threading.Thread(target=lambda: [log.write("tick", n=n) for n in range(500)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close(hash="abc")
    log.write("tick", n=-1)  # after the end: not written
    run = read_run_log(log.path)
    assert run.header["node"] == "/policy" and run.ended and run.hash == "abc" and not run.lost
    back = run.events[0]
    assert np.array(back["left"]["twist"]).tobytes() == np.array(NUMBERS).tobytes() and np.isnan(back["age"])
    assert sorted(e["n"] for e in run.events[1:-1]) == sorted(list(range(500)) * 3)


def test_two_logs_of_one_second_are_two_files(tmp_path: Path) -> None:
    paths = []
    for _ in range(3):
        log = RunLog(tmp_path, "policy", {})
        log.close()
        paths.append(log.path)
    assert len(set(paths)) == 3


def test_a_disk_that_hangs_or_is_full_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runlog, "WAITING", 10)
    warnings: list[str] = []
    log = RunLog(tmp_path, "policy", {}, warnings.append)
    go = threading.Event()
    write, full = os.write, [True]

    def slow(file: int, data: bytes) -> int:
        go.wait(10)
        if full[0]:
            full[0] = False
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", slow)
    for n in range(200):
        log.write("tick", n=n)
    go.set()
    for _ in range(100):
        log.write("later")
        if warnings:
            break
        threading.Event().wait(0.05)
    log.close()
    run = read_run_log(log.path)
    assert len(warnings) == 1 and "No space left" in warnings[0]
    assert any(event["event"] == "lost" and event["count"] > 100 for event in run.events)
    assert any("could not be written" in line for line in run.lost)


def test_half_a_line_is_taken_back_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(tmp_path, "policy", {})
    write, full, told = os.write, threading.Event(), threading.Event()

    def short(file: int, data: bytes) -> int:
        if told.is_set():
            return write(file, data)
        if full.is_set():
            told.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        full.set()
        return write(file, data[:7])

    monkeypatch.setattr(os, "write", short)
    log.write("tick", n=1)
    assert told.wait(10)
    log.write("tick", n=2)
    log.close(hash="abc")
    run = read_run_log(log.path)
    assert [event["event"] for event in run.events] == ["lost", "tick", "end"] and run.events[1]["n"] == 2
    assert run.lost == ["1 lines before line 2 could not be written"]


@pytest.mark.parametrize("damage", ["{", '"text"', "{}", "\0\0\0"])
def test_a_damaged_line_ends_it(tmp_path: Path, damage: str) -> None:
    log = RunLog(tmp_path, "policy", {})
    for n in range(5):
        log.write("tick", n=n)
    log.close()
    lines = log.path.read_text().splitlines()
    lines[3] = damage
    log.path.write_text("\n".join(lines) + "\n")
    run = read_run_log(log.path)
    assert [event["n"] for event in run.events] == [0, 1]
    assert run.lost == ["line 4 is damaged: it and 3 more are not used"]


@pytest.mark.parametrize("text", ["", "no json\n", "[]\n", '{"format": "other"}\n'])
def test_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match="no run log"):
        read_run_log(path)


def test_killed_is_said(tmp_path: Path) -> None:
    log: Any = RunLog(tmp_path, "policy", {})
    log.write("tick", n=1, hash="a")
    while log.path.read_text().count("\n") < 2:
        threading.Event().wait(0.01)
    run = read_run_log(log.path)
    assert run.hash == "a" and not run.ended and "killed" in run.lost[0]
    log.close()
