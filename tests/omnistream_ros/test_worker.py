# SPDX-License-Identifier: Apache-2.0
"""The hand-over between callbacks and the worker thread: newest first, nothing lost without being told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from omnistream_ros.worker import Worker


class Recorder:
    """Handles items slowly: each waits for `go`."""

    def __init__(self) -> None:
        self.handled: list[tuple[str, list[int]]] = []
        self.evicted: list[tuple[str, int]] = []
        self.stopped: list[tuple[str, int]] = []
        self.busy, self.go = threading.Event(), threading.Semaphore(0)
        self.worker: Worker[int] = Worker(
            "test",
            self.handle,
            3,
            evicted=lambda source, item: self.evicted.append((source, item)),
            stopped=lambda source, item: self.stopped.append((source, item)),
        )

    def handle(self, source: str, items: list[int]) -> None:
        self.busy.set()
        self.go.acquire()
        self.handled.append((source, items))

    def wait(self, count: int) -> None:
        end = time.monotonic() + 5
        while len(self.handled) < count:
            assert time.monotonic() < end, self.handled
            time.sleep(0.001)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    recorder.worker.start()
    yield recorder
    for _ in range(100):
        recorder.go.release()
    assert recorder.worker.stop(5)


def test_waiting_items_come_newest_first_and_the_oldest_goes_when_they_are_too_many(recorder: Recorder) -> None:
    recorder.worker.put("a", 0)
    assert recorder.busy.wait(5)
    for item in range(1, 6):
        recorder.worker.put("a", item)
    recorder.go.release(2)
    recorder.wait(2)
    assert recorder.handled == [("a", [0]), ("a", [5, 4, 3])]
    assert recorder.evicted == [("a", 1), ("a", 2)]


def test_a_busy_source_does_not_starve_another(recorder: Recorder) -> None:
    recorder.worker.put("a", 0)
    assert recorder.busy.wait(5)
    for item in range(1, 4):
        recorder.worker.put("a", item)
        recorder.worker.put("b", item)
        recorder.go.release()
        recorder.wait(item)
    assert "b" in [source for source, _ in recorder.handled]


def test_a_call_runs_between_two_items_on_the_worker_thread(recorder: Recorder) -> None:
    recorder.worker.put("a", 0)
    assert recorder.busy.wait(5)
    recorder.worker.put("a", 1)
    recorder.go.release(2)
    seen = recorder.worker.call(lambda: (len(recorder.handled), threading.current_thread().name), timeout=5)
    assert seen == (1, "test")  # after the item in hand, before the one that waits
    recorder.wait(2)


def test_a_call_raises_what_the_function_raises_and_the_worker_lives_on(recorder: Recorder) -> None:
    with pytest.raises(ZeroDivisionError):
        recorder.worker.call(lambda: 1 / 0, timeout=5)
    assert recorder.worker.call(lambda: 7, timeout=5) == 7


def test_a_call_that_waits_too_long_is_never_run(recorder: Recorder) -> None:
    ran = []
    recorder.worker.put("a", 0)
    assert recorder.busy.wait(5)
    with pytest.raises(TimeoutError):
        recorder.worker.call(lambda: ran.append(1), timeout=0.05)
    recorder.go.release()
    recorder.wait(1)
    assert recorder.worker.call(lambda: list(ran), timeout=5) == []


def test_without_a_thread_calls_run_here_and_items_wait_for_nobody() -> None:
    recorder = Recorder()
    assert recorder.worker.call(lambda: threading.current_thread() is threading.main_thread())
    assert recorder.worker.stop()
    recorder.worker.put("a", 1)
    recorder.worker.start()
    assert recorder.worker.stop(5)
    assert recorder.handled == []


def test_it_can_be_started_again_and_stopping_twice_is_fine(recorder: Recorder) -> None:
    for _ in range(3):
        assert recorder.worker.stop(5) and recorder.worker.stop(5)
        assert not recorder.worker.running
        recorder.worker.start()
        recorder.worker.start()
        assert recorder.worker.call(lambda: 1, timeout=5) == 1


def test_started_again_while_the_old_item_is_in_hand_it_goes_on(recorder: Recorder) -> None:
    """A step outlived `stop`: the next start must not find a thread that is about to end, and leave it at that."""
    recorder.worker.put("a", 0)
    assert recorder.busy.wait(5)
    assert not recorder.worker.stop(0.01)
    recorder.worker.put("a", 1)  # nobody is to handle it
    recorder.worker.start()
    recorder.worker.put("a", 2)
    recorder.go.release(2)
    recorder.wait(2)
    assert recorder.handled == [("a", [0]), ("a", [2])]
    assert recorder.stopped == [("a", 1)]


def test_a_call_never_runs_beside_an_item_that_outlived_a_stop(recorder: Recorder) -> None:
    recorder.worker.put("a", 0)
    assert recorder.busy.wait(5)
    assert not recorder.worker.stop(0.01)
    future = recorder.worker.post(lambda: len(recorder.handled))
    assert not future.done()
    recorder.go.release()
    assert future.result(5) == 1
    assert recorder.worker.stop(5)


def test_stopping_answers_those_who_wait(recorder: Recorder) -> None:
    recorder.worker.put("a", 0)
    assert recorder.busy.wait(5)
    future = recorder.worker.post(lambda: 3)
    threading.Timer(0.05, recorder.go.release).start()
    assert recorder.worker.stop(5)
    assert future.result(1) == 3


def test_items_that_wait_or_come_when_it_stops_are_told_of(recorder: Recorder) -> None:
    recorder.worker.put("a", 0)
    assert recorder.busy.wait(5)
    recorder.worker.put("a", 1)
    recorder.worker.put("b", 2)
    recorder.go.release()
    assert recorder.worker.stop(5)
    recorder.worker.put("a", 3)
    assert recorder.handled == [("a", [0])]
    assert recorder.stopped == [("a", 1), ("b", 2), ("a", 3)]


def test_a_command_that_began_while_it_was_stopped_is_not_run_beside_an_item() -> None:
    recorder = Recorder()
    began, go_on = threading.Event(), threading.Event()

    def command() -> None:
        began.set()
        go_on.wait(5)
        recorder.worker.call(lambda: None, 5)  # another inside of it, while the thread is there

    caller = threading.Thread(target=recorder.worker.call, args=(command,))
    caller.start()
    assert began.wait(5)
    recorder.worker.start()
    recorder.worker.put("a", 0)
    assert not recorder.busy.wait(0.2), "the item waits for the command"
    go_on.set()
    assert recorder.busy.wait(5)
    caller.join(5)
    recorder.go.release(5)
    assert recorder.worker.stop(5)
