# SPDX-License-Identifier: Apache-2.0
"""The node as a process: how it ends, and how it refuses its command line."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from omnistream.io.recording_writer import RecordingWriter
from omnistream_msgs.msg import StreamStatus
from omnistream_ros import images
from omnistream_ros.demo_sources import missing_physics
from omnistream_ros.processes import ros_parameters
from omnistream_ros.testing import Graph

MODULE = "omnistream_perception.node"

# The real executable, with an engine whose step holds the worker for a minute as a large model on a slow CPU would.
SLOW = """
import sys, time
from omnistream.engines.torch_engine import TorchEngine
step, calls = TorchEngine.step, []
def slow(self, *args):
    calls.append(1)
    if len(calls) > 2:   # the two of the warm-up
        print("STEPPING", flush=True)
        time.sleep(60)
    return step(self, *args)
TorchEngine.step = slow
from omnistream_perception.node import main
sys.exit(main())
"""


@pytest.fixture
def launch() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process whose output can be read line by line; kills it at the end if it is still there."""
    started = []

    def launch(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.wait()


def wait_until_active(graph: Graph, process: subprocess.Popen[str], seconds: float = 20) -> None:
    """Fails with the output of the process when that does not become active."""
    states = graph.collect(StreamStatus, "/perception/status", "latched", connect=False)
    try:
        active = (StreamStatus.STATE_ACTIVE, StreamStatus.STATE_STALE)  # stale: discovery took longer than a second
        graph.wait(lambda: states and states[-1].state in active, "the node to be active", seconds)
    except AssertionError as error:
        process.kill()
        raise AssertionError(f"{error}; its output:\n{process.communicate()[0]}") from None


def wait_for_line(process: subprocess.Popen[str], text: str) -> threading.Event:
    """An event that is set when the process has printed a line with `text`."""
    seen = threading.Event()

    def read() -> None:
        while line := process.stdout.readline():
            if text in line:
                seen.set()

    threading.Thread(target=read, daemon=True).start()
    return seen


def ending(process: subprocess.Popen[str], number: int) -> tuple[int, float]:
    """Sends the signal; returns the exit code and the seconds it took."""
    start = time.monotonic()
    process.send_signal(number)
    return process.wait(10), time.monotonic() - start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_in_a_step_ends_with_zero_within_five_seconds(
    ros_domain: int, launch: Any, weights: dict[str, str], number: int
) -> None:
    process = launch("-c", SLOW, *ros_parameters(weights=weights["metric"], image_topic="/image"))
    with Graph(ros_domain) as graph:
        wait_until_active(graph, process)
        image = images.image_message(np.zeros((64, 64, 3), np.uint8), Header(frame_id="camera"))
        stepping = wait_for_line(process, "STEPPING")
        while not stepping.wait(0.1):  # the first may be lost: one end of a topic knows of the other before the other
            assert process.poll() is None
            graph.publish(Image, "/image", image)
        code, seconds = ending(process, number)
    assert code == 0
    assert seconds < 5


def test_idle_node_ends_at_once(ros_domain: int, launch: Any, weights: dict[str, str]) -> None:
    process = launch("-m", MODULE, *ros_parameters(weights=weights["metric"], image_topic="/image"))
    with Graph(ros_domain) as graph:
        wait_until_active(graph, process)
        code, seconds = ending(process, signal.SIGINT)
    assert code == 0
    assert seconds < 5
    assert "Traceback" not in process.stdout.read()


def test_refused_parameter_ends_with_two_and_one_sentence(ros_domain: int, launch: Any) -> None:
    process = launch("-m", MODULE, *ros_parameters(policy="yesterday"))
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 2
    assert "policy" in output and "'yesterday'" in output and "Traceback" not in output


def commands_of_readme() -> list[list[str]]:
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    lines = re.findall(r"^    (omnistream-up .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_the_command_lines_of_the_readme_start(ros_domain: int, launch: Any, tmp_path: Path) -> None:
    recording = tmp_path / "my_recording"
    with RecordingWriter(recording, rate=30.0, size=(48, 64)) as writer:
        writer.add(np.zeros((48, 64, 3), np.uint8))
    commands = commands_of_readme()
    assert {words[0] for words in commands} == {"perception", "camera", "simulator"}
    for words in commands:
        if words[0] == "simulator" and missing_physics():
            continue
        words = [word.replace("my_recording/", str(recording)) for word in words]
        process = launch("-m", "omnistream_ros.up", *words)
        if words[0] == "camera":
            output = process.communicate(timeout=30)[0]
            assert process.returncode == 0 and "1 images" in output, output
            continue
        with Graph(ros_domain) as graph:
            wait_until_active(graph, process, seconds=60)
        assert ending(process, signal.SIGINT)[0] == 0


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_threads_of_the_model_sleep_while_they_wait_unless_the_user_says_otherwise(own: str | None) -> None:
    """OpenMP itself tells what it was loaded with."""
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | {"OMP_DISPLAY_ENV": "TRUE"}
    if own is not None:
        env["OMP_WAIT_POLICY"] = own
    program = f"import {MODULE}; import torch; torch.ones(10).sum()"
    told = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True).stderr
    assert f"OMP_WAIT_POLICY = '{own or 'PASSIVE'}'" in told, told


def test_misspelt_parameter_is_reported(ros_domain: int, launch: Any, weights: dict[str, str]) -> None:
    process = launch("-m", MODULE, *ros_parameters(weight=weights["metric"], autostart=False))
    assert wait_for_line(process, "did you mean 'weights'?").wait(20)
    assert ending(process, signal.SIGINT)[0] == 0


def test_the_parameter_file_of_the_bringup_package_starts_the_node(
    ros_domain: int, launch: Any, weights: dict[str, str]
) -> None:
    root = Path(__file__).resolve().parents[2]
    file = root / "ros2_ws/src/omnistream_bringup/config/perception.yaml"
    words = ["--ros-args", "--params-file", str(file), "-p", f"weights:={weights['metric']}"]
    process = launch("-m", MODULE, *words)
    with Graph(ros_domain) as graph:
        wait_until_active(graph, process)
    assert ending(process, signal.SIGINT)[0] == 0
    assert "none of that name" not in process.stdout.read()
