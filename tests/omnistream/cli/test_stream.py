# SPDX-License-Identifier: Apache-2.0
"""`omnistream-stream` as a user meets it: files, report, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnistream.cli.interrupt import Interrupt
from omnistream.cli.progress import Progress, clock
from omnistream.cli.stream import main
from omnistream.io.trajectory import read_tum
from omnistream.model.omnistream import OmniStream
from omnistream.stream.session import StreamSession
from omnistream.weights import save_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures of 48x64."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    return images


@pytest.fixture
def weights(tmp_path: Path, make_model: Callable) -> Path:
    path = tmp_path / "weights"
    save_model(make_model("metric"), path, made_by="a test")
    return path


def run(*words: object) -> int:
    try:
        return main(["--threads", "1", *map(str, words)])
    except SystemExit as stop:  # tyro's way of saying wrong usage
        return int(stop.code or 0)


def test_a_run_writes_results_and_a_report(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(folder, "--out", out, "--weights", weights, "--policy", "window:3", "--save", "depth,poses sheet") == 0
    assert len(list((out / "depth").glob("*.png"))) == len(list((out / "depth").glob("*.npy"))) == 6
    stamps, _ = read_tum(out / "poses.txt")
    np.testing.assert_allclose(stamps, np.arange(6) / 30)
    report = json.loads((out / "report.json").read_text())
    assert report["state"] == "done" and report["stepped"] == report["read"] == 6 and report["drops"] == {}
    assert report["cache_slots"] == report["cache_frames"] == 3 and report["cache_bytes"] > 0
    assert list(report["latency_ms"]) == ["read", "preprocess", "backbone", "heads", "write", "frame"]
    assert report["latency_ms"]["frame"]["p99"] >= report["latency_ms"]["backbone"]["p50"] > 0
    assert report["settings"]["policy"] == "window:3" and report["model"]["scale"] == "metric"
    assert report["environment"]["torch"]["version"] and report["environment"]["machine"]["cores usable"] >= 1
    printed = capsys.readouterr().out
    for text in ("6 images in images", "memory  weights", "window:3", "6 streamed of 6 read", "p99", "sheet.png"):
        assert text in printed
    assert printed.index("memory") < printed.index("frames")


def test_without_weights_the_shipped_ones_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--out", tmp_path / "out", "--max-frames", 1, "--size", "64", "--save", "depth") == 0
    printed = capsys.readouterr().out
    assert "shipped default weights, scale metric" in printed
    assert {path.suffix for path in (tmp_path / "out" / "depth").iterdir()} == {
        ".npy",
        ".png",
    }  # metres: millimetres too


def test_events_are_counted(folder: Path, weights: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 48, 3), np.uint8)).save(folder / "4.png")  # another size: the stream starts anew
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:300])
    out = tmp_path / "out"
    options = ("--weights", weights, "--save", "poses", "--on-error", "skip", "--policy", "full:2")
    assert run(folder, "--out", out, *options) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["stepped"] == 5 and report["drops"] == {"unreadable": 1}
    assert report["resets"] == {"stream_full": 1, "size_changed": 2}
    assert any("2.png" in note for note in report["notes"])
    assert len(read_tum(out / "poses.txt")[0]) == 5


def test_an_unreadable_frame_ends_it_but_keeps_what_was_done(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "3.png").write_bytes(b"")
    out = tmp_path / "out"
    assert run(folder, "--out", out, "--weights", weights, "--save", "poses,sheet") == 3
    assert "3.png" in capsys.readouterr().err
    report = json.loads((out / "report.json").read_text())
    assert report["state"] == "failed" and "3.png" in report["error"] and report["stepped"] == 3
    assert len(read_tum(out / "poses.txt")[0]) == 3 and (out / "sheet.png").is_file()


def test_exit_codes_of_wrong_usage(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for words, message in (
        (("--save", "video"), "--save 'video': expected some of depth"),
        (("--save", ""), "--save"),
        (("--size", "big"), "--size 'big': expected a side"),
        (("--size", "30x40"), "multiples of 16"),
        (("--policy", "windows:3"), "windows:3"),
        (("--max-frames", 0), "--max-frames is 0"),
        (("--max-gap", 0), "max_gap"),
        (("--time-base", "clock"), "time-base"),
        (("--threads", 0), "--threads is 0; expected 1 to 1024"),
        (("--threads", 100_000), "--threads is 100000; expected 1 to 1024"),
        (("--rate", 0), "--rate is 0"),
        (("--rate", "nan"), "--rate is nan"),
        (("--topic", "/camera"), "topic is '/camera'"),
        (("--pattern", "*.jpg"), "no image in"),
    ):
        assert run(folder, "--out", out, "--weights", weights, *words) == 2
        assert message in capsys.readouterr().err
    assert run(folder, "--out", "") == 2
    assert "--out is empty" in capsys.readouterr().err
    assert run(folder) == 2 and run() == 2  # --out and INPUT are needed
    assert not out.exists()


def test_exit_codes_of_inputs_checkpoints_and_outputs(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(tmp_path / "nothing.mp4", "--out", out) == 3
    assert "nothing.mp4 does not exist" in capsys.readouterr().err
    assert run("~nobody-of-that-name/video.mp4", "--out", out) == 3
    assert "~nobody-of-that-name/video.mp4 does not exist" in capsys.readouterr().err
    assert run(folder, "--out", out, "--weights", tmp_path / "nowhere") == 4
    assert "nowhere" in capsys.readouterr().err
    assert run(folder, "--out", out, "--weights", weights, "--device", "cuda:77") == 5
    assert run(folder, "--out", out, "--weights", weights, "--engine", "steam") == 5
    (tmp_path / "file").write_text("in the way")
    assert run(folder, "--out", tmp_path / "file" / "out", "--weights", weights) == 6


def test_what_does_not_fit_this_machine_is_one_sentence_and_exit_code_5(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("--policy", "window:99999999999"), ("--size", "99999"), ("--device", "mps")):
        out = tmp_path / words[0].strip("-")
        assert run(folder, "--out", out, "--weights", weights, *words) == 5
        printed = capsys.readouterr().err
        assert printed.startswith("omnistream-stream: ") and printed.strip().count("\n") == 0
        if (report := out / "report.json").exists():
            assert json.loads(report.read_text())["state"] == "failed"


def test_an_error_that_nobody_expected_is_in_the_report(
    folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = StreamSession.step

    def failing(session: StreamSession, *arguments: object, **keywords: object) -> object:
        if session.frames_seen == 2:
            raise RuntimeError("CUDA error: device lost\nCompile with TORCH_USE_CUDA_DSA for more")
        return real(session, *arguments, **keywords)

    monkeypatch.setattr(StreamSession, "step", failing)
    out = tmp_path / "out"
    assert run(folder, "--out", out, "--weights", weights, "--save", "depth") == 5
    assert capsys.readouterr().err.strip() == "omnistream-stream: cannot run here: CUDA error: device lost"
    report = json.loads((out / "report.json").read_text())
    assert (report["state"], report["error"], report["stepped"]) == ("failed", "CUDA error: device lost", 2)
    assert report["cache_frames"] == 2 and report["files"] == ["depth/ (4 files)"]


def test_a_checkpoint_without_what_is_to_be_saved_is_wrong_usage(
    folder: Path, tmp_path: Path, make_model: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = tmp_path / "no heads", tmp_path / "out"
    save_model(OmniStream(replace(make_model("metric").config, heads=None, scale="none")), weights, made_by="a test")
    assert run(folder, "--out", out, "--weights", weights, "--save", "points") == 2
    assert "nothing is left to save: points: left out" in capsys.readouterr().err and not out.exists()


def test_results_never_mix_with_the_input(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other pictures"
    other.mkdir()
    Image.new("RGB", (64, 48)).save(other / "a.JPG")
    before = sorted(tmp_path.rglob("*"))
    for input_, out, message in (
        (folder, folder, "is the input"),
        (folder, folder / ".." / folder.name, "is the input"),
        (f"{folder}/*.png", folder, "holds images, 0.png for one"),
        (folder / "0.png", folder, "holds images"),
        (folder, other, "holds images, a.JPG for one"),
    ):
        assert run(input_, "--out", out, "--weights", weights, "--overwrite") == 2
        assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_packages_are_told_with_exit_code_5(
    folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert run(folder, "--out", tmp_path / "out", "--weights", weights, "--save", "rrd") == 5
    assert 'pip install "omnistream[viz]"' in capsys.readouterr().err


def test_results_are_replaced_only_when_told_and_only_ours(
    folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(folder, "--out", out, "--weights", weights, "--save", "depth") == 0
    again = (folder, "--out", out, "--weights", weights, "--save", "depth", "--max-frames", 2)
    assert run(*again) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert run(*again, "--overwrite") == 0
    assert len(list((out / "depth").glob("*.npy"))) == 2
    (out / "report.json").unlink()
    assert run(*again, "--overwrite") == 2  # whose are they?
    recording = tmp_path / "recording"
    recording.mkdir()
    (recording / "recording.yaml").touch()
    assert run(folder, "--out", recording, "--weights", weights) == 2


@pytest.mark.slow
def test_interrupting_keeps_what_was_done(folder: Path, weights: Path, tmp_path: Path) -> None:
    for number in range(6, 400):
        (folder / f"{number}.png").write_bytes((folder / "0.png").read_bytes())
    out = tmp_path / "out"
    words = [folder, "--out", out, "--weights", weights, "--threads", 1, "--save", "depth,poses,sheet"]
    child = subprocess.Popen([sys.executable, "-m", "omnistream.cli.stream", *map(str, words)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list(out.glob("depth/*.npy"))) < 5:
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130 and b"interrupted" in errors
    report = json.loads((out / "report.json").read_text())
    assert report["state"] == "interrupted" and 0 < report["stepped"] < 400
    assert len(read_tum(out / "poses.txt")[0]) == report["stepped"] and (out / "sheet.png").is_file()


def test_progress_lines() -> None:
    progress = Progress(100)
    progress._count = 25
    assert progress.line(5.0) == "[#####...............] 25/100 frames, 5.0/s, 0:15 left"
    assert Progress(None).line(2.0) == "0 frames, 0.0/s, 0:02"
    assert clock(3723) == "1:02:03" and clock(59.6) == "1:00"


def test_the_second_interrupt_does_not_wait() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        assert not interrupt.wanted
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.wanted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
