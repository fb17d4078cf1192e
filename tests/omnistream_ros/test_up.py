# SPDX-License-Identifier: Apache-2.0
"""`omnistream-up`: real processes, prefixed output, signals, exit codes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import Image

from omnistream.io.recording_writer import RecordingWriter
from omnistream_ros.testing import Graph
from omnistream_ros.up import main, split_commands

pytestmark = pytest.mark.ros


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    folder = tmp_path / "recording"
    with RecordingWriter(folder, rate=50.0, size=(24, 32)) as writer:
        for index in range(5):
            writer.add(np.full((24, 32, 3), 40 * index, np.uint8))
    return folder


def start(*words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "omnistream_ros.up", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ),
    )  # fmt: skip


def test_commands_are_split_at_plus() -> None:
    words = ["camera", "--ros-args", "-p", "input:=a", "+", "perception", "-x", "+", "camera"]
    assert split_commands(words) == [
        ("camera", ["--ros-args", "-p", "input:=a"]),
        ("perception", ["-x"]),
        ("camera", []),
    ]


@pytest.mark.parametrize("words", [["fly"], ["camera", "+"], ["+", "camera"], ["camera", "+", "+", "camera"]])
def test_what_is_no_command_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(words)
    assert exit_info.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(word in text for word in ("camera", "perception", "demo", "--params-file", "-r from:=to", "Ctrl-C"))
    assert main([]) == 2


def test_parameter_file_prefix_and_exit_code(recording: Path, tmp_path: Path, ros_domain: int) -> None:
    parameters = tmp_path / "camera.yaml"
    parameters.write_text(f"camera:\n  ros__parameters:\n    input: {recording}\n    topic: front/image\n")
    up = start("--domain", ros_domain, "camera", "--ros-args", "--params-file", parameters)
    output, _ = up.communicate(timeout=30)
    assert up.returncode == 0, output
    assert all(line.startswith("[camera] ") for line in output.splitlines()), output
    assert "publishing on /front/image" in output and "end of the recording: 5 images" in output


def test_sigint_ends_all_nodes(recording: Path, ros_domain: int) -> None:
    common = ["--ros-args", "-p", f"input:={recording}", "-p", "loop:=true", "-r"]
    up = start("camera", *common, "__ns:=/left", "+", "camera", *common, "__ns:=/right")
    with Graph(ros_domain) as graph:
        topics = [graph.collect(Image, f"/{side}/camera/image_raw", connect=False) for side in ("left", "right")]
        graph.wait(lambda: all(topics), "images of both cameras", 20.0)
    up.send_signal(signal.SIGINT)
    output, _ = up.communicate(timeout=10)
    assert up.returncode == 0, output
    assert "[camera] " in output and "[camera2] " in output and output.count("stopped: ") == 2


def test_one_failure_stops_the_others_and_is_the_exit_code(recording: Path, ros_domain: int) -> None:
    good = ["camera", "--ros-args", "-p", f"input:={recording}", "-p", "loop:=true"]
    started = time.monotonic()
    up = start(*good, "+", "camera", "--ros-args", "-p", "input:=/nonexistent.mp4")
    output, _ = up.communicate(timeout=30)
    assert up.returncode == 2, output
    assert "[camera2] ended with exit code 2" in output and "does not exist" in output
    assert time.monotonic() - started < 15.0


def test_timeout_is_an_exit_code_too(recording: Path, ros_domain: int) -> None:
    up = start("--timeout", "1.5", "camera", "--ros-args", "-p", f"input:={recording}", "-p", "loop:=true")
    output, _ = up.communicate(timeout=30)
    assert up.returncode == 124 and "--timeout" in output, output
