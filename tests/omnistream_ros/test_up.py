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
from omnistream_ros.nodes import NODES, NodeModule
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


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def test_commands_are_split_at_plus() -> None:
    words = ["camera", "--ros-args", "-p", "input:=a", "+", "perception", "-x", "+", "camera"]
    assert split_commands(words) == [
        ("camera", ["--ros-args", "-p", "input:=a"]),
        ("perception", ["-x"]),
        ("camera", []),
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["camera", "+", "demo"],
        ["demo", "+", "camera"],
        ["--domain", "500", "camera"],
        ["fly"],
        ["camera", "+"],
        ["+", "camera"],
        ["camera", "+", "+", "camera"],
    ],
)
def test_what_is_no_command_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(words)
    assert exit_info.value.code == 2
    assert "expected" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--timeout", "5"], ["--network", "robot"], ["--network", "keep"]])
def test_options_that_mean_nothing_to_the_demo_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([*words, "demo"])
    assert exit_info.value.code == 2
    assert "only --domain" in capsys.readouterr().err


def test_the_domain_is_handed_on_to_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--domain", "500", "demo"])
    assert "--domain: invalid choice: 500" in capsys.readouterr().err


def test_a_node_whose_package_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(NODES, "camera", NodeModule("no_such_package.node", ""))
    assert main(["camera"]) == 1
    assert "camera is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("node", ["camera", "perception"])
def test_what_a_node_takes_and_what_it_refuses(node: str, tmp_path: Path) -> None:
    """One process after the other, without a graph: none of these gets as far as that."""
    code, output = finish(start(node, "--help"))
    assert code == 0
    assert all(word in output for word in ("--params-file", "image" if node == "camera" else "image_topic", "default"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\n")
    for words, named in (
        (["--bogus"], "--bogus"),
        (["--ros-args", "--bogus"], "--bogus"),
        (["--ros-args", "-p", "nonsense"], "nonsense"),
        (["--ros-args", "--params-file", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--ros-args", "--params-file", broken], "broken.yaml"),
    ):
        code, output = finish(start(node, *words))
        assert code == 2 and "Traceback" not in output, output
        last = output.splitlines()[-1]
        assert last.startswith(f"[{node}] error: ") and named in last, output


def test_a_node_that_cannot_start_ends_everything(ros_domain: int) -> None:
    """Without a lifecycle manager nobody would mend it."""
    code, output = finish(start("perception", "--ros-args", "-p", "weights:=/nowhere"))
    assert code == 1 and "/nowhere does not exist" in output, output


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
