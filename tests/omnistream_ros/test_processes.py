# SPDX-License-Identifier: Apache-2.0
"""Child processes: output, exit codes, signals, and the end of the parent."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omnistream_ros.processes import ChildProcess, ProcessGroup, stop_all

STUBBORN = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('ready'); time.sleep(60)"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which tests/… can drop modules for children."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}


def module(folder: Path, name: str, text: str) -> str:
    (folder / f"{name}.py").write_text(text)
    return name


def wait_for_line(child: ChildProcess, line: str) -> None:
    end = time.monotonic() + 20.0
    while line not in child.lines():
        assert time.monotonic() < end and child.returncode is None, f"no line {line!r} in:\n{child.tail()}"
        time.sleep(0.02)


def test_output_is_prefixed_and_kept(tmp_path: Path, env: dict[str, str]) -> None:
    name = module(
        tmp_path, "talker", "import sys; print('out', *sys.argv[1:]); print('err', file=sys.stderr); sys.exit(3)"
    )
    echo = io.StringIO()
    child = ChildProcess("talker", name, ["a", "b c"], env=env, echo=echo)
    assert child.wait(20.0) == 3
    assert set(child.tail().splitlines()) == {"out a b c", "err"}
    assert "[talker] out a b c\n" in echo.getvalue()


def test_sigint_first_then_harder(tmp_path: Path, env: dict[str, str]) -> None:
    polite = ChildProcess(
        "polite", module(tmp_path, "polite", STUBBORN.replace("SIG_IGN", "default_int_handler")), env=env
    )
    stubborn = ChildProcess("stubborn", module(tmp_path, "stubborn", STUBBORN), env=env)
    for child in (polite, stubborn):
        wait_for_line(child, "ready")
    assert stop_all([polite, stubborn], grace=1.0) == 128 + signal.SIGTERM
    assert polite.returncode == 128 + signal.SIGINT and "KeyboardInterrupt" in polite.tail()


def test_group_names_the_one_that_failed_and_stops_the_rest(tmp_path: Path, env: dict[str, str]) -> None:
    with ProcessGroup(grace=1.0) as group:
        other = group.start("other", module(tmp_path, "other", STUBBORN), env=env)
        failing = group.start("failing", module(tmp_path, "failing", "raise SystemExit('no camera')"), env=env)
        assert failing.wait(20.0) == 1
        assert group.failed() is failing and failing.tail() == "no camera"
    assert other.returncode is not None


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux'")
def test_children_end_with_a_parent_that_is_killed(tmp_path: Path, env: dict[str, str]) -> None:
    module(tmp_path, "sleeper", "import time; print('ready', flush=True); time.sleep(60)")
    parent = subprocess.Popen(
        [sys.executable, "-c", "import sys, time\nfrom omnistream_ros.processes import ChildProcess\n"
         "child = ChildProcess('c', 'sleeper')\nwhile 'ready' not in child.lines(): time.sleep(0.01)\n"
         "print(child.pid, flush=True); time.sleep(60)"],
        env=env, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    end = time.monotonic() + 10.0
    while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < end, "the child outlived its parent"
        time.sleep(0.02)
