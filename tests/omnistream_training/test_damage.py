# SPDX-License-Identifier: Apache-2.0
"""Damage in a data set: what is wrong is named with its file (and line), and skipped and counted, or stops, as told.

Every case goes through both readers, that of training and that of evaluation, in both modes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omnistream.errors import InputError
from omnistream.io.recording_writer import RecordingWriter
from omnistream_training.data.folder import FolderSource
from omnistream_training.data.source import ClipRequest
from omnistream_training.evaluation.findings import summary
from omnistream_training.evaluation.protocols import RECORDINGS
from omnistream_training.evaluation.run import Plan, survey_all
from tests.omnistream_training.scenes import intrinsics, plane_depth, pose

SIZE, FRAMES = (48, 64), 12
EYE = torch.eye(3, dtype=torch.float64)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two recordings, good and bad; nothing is wrong with either yet."""
    for name in ("bad", "good"):
        K = intrinsics(SIZE)
        poses = torch.stack([pose(EYE, (0.05 * t, 0.002 * t * t, 0)) for t in range(FRAMES)])
        depth = plane_depth(poses, K, SIZE, 2.0).numpy().astype(np.float32)
        with RecordingWriter(tmp_path / name, rate=30.0, size=SIZE, K=K.numpy(), jpeg_quality=None) as writer:
            for t in range(FRAMES):
                image = np.full((*SIZE, 3), 8 * t, np.uint8)
                writer.add(image, depth=depth[t], T_world_camera=poses[t].numpy())
    return tmp_path


def damaged_picture(bad: Path) -> None:
    path = bad / "rgb" / "000003.png"
    path.write_bytes(path.read_bytes()[:60])


def damaged_depth(bad: Path) -> None:
    (bad / "depth" / "000003.png").write_bytes(b"no picture")


def missing_frame(bad: Path) -> None:
    (bad / "rgb" / "000003.png").unlink()
    (bad / "stamps.txt").unlink(missing_ok=True)


def wrong_intrinsics(bad: Path) -> None:
    header = bad / "recording.yaml"
    lines = header.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.lstrip().startswith("K:"))
    header.write_text("\n".join([*lines[:row], "  K: [57.6, 0, x]", "  was:", *lines[row + 1 :]]) + "\n")


def nan_depth(bad: Path) -> None:
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(bad / "depth" / "000003.png")  # 0 is read as NaN


CASES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "damaged picture": (damaged_picture, r"000003\.png", "1 skipped"),
    "damaged depth": (damaged_depth, r"000003\.png: cannot be read as a depth image", "1 skipped"),
    "missing frame": (missing_frame, r"1 frame\(s\) missing between 000002\.png and 000004\.png", "1 missing"),
    "wrong intrinsics line": (
        wrong_intrinsics,
        r"recording\.yaml: line \d+: camera\.K is \[57\.6, 0, 'x'\]",
        "refused",
    ),
    "NaN depth": (nan_depth, r"000003\.png: its depth has no finite value", "1 with empty depth"),
}


def training(data: Path, on_error: str) -> FolderSource:
    return FolderSource([str(data / "bad"), str(data / "good")], (32, 32), 30.0, on_error)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES)
def test_training_stops(data: Path, case: str) -> None:
    damage, words, _ = CASES[case]
    training(data, "raise")  # sound data stop nothing
    damage(data / "bad")
    with pytest.raises(InputError, match=words):
        training(data, "raise")


@pytest.mark.parametrize("case", CASES)
def test_training_skips_counts_and_goes_on(data: Path, case: str) -> None:
    damage, words, counted = CASES[case]
    damage(data / "bad")
    source = training(data, "skip")
    report = "\n".join(source.report_lines())
    assert counted in report
    assert re.search(words, report)
    batch = source.read(ClipRequest(numbers=range(20), frames=3, size=(32, 32)))
    assert batch.depth.isfinite().any() and batch.images.isfinite().all()
    grey = (batch.images[:, :, 0].flatten(2).median(-1).values * 255 / 8).round()
    at = batch.T_world_camera[:, :, 0, 3]
    assert torch.allclose(at, 0.05 * grey, atol=1e-4)  # every picture still has its own pose
    assert torch.allclose(batch.times.float(), (grey - grey[:, :1]), atol=1e-3)  # and its own time


def evaluation(data: Path, on_error: str, out: str):  # type: ignore[no-untyped-def]
    rules = dataclasses.replace(RECORDINGS, sequences=("bad", "good"))
    return survey_all(Plan(data=data, out=data / out, protocol=rules, lengths=(FRAMES,), on_error=on_error))  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES)
def test_evaluation_stops(data: Path, case: str) -> None:
    damage, words, _ = CASES[case]
    evaluation(data, "stop", "sound")
    damage(data / "bad")
    with pytest.raises(InputError, match=words.replace("its depth has no finite value", ".*no finite value")):
        evaluation(data, "stop", "stopped")


@pytest.mark.parametrize("case", CASES)
def test_evaluation_skips_counts_and_goes_on(data: Path, case: str) -> None:
    damage, _, _ = CASES[case]
    damage(data / "bad")
    outcome = evaluation(data, "skip", "skipped")
    counts = summary(outcome.findings)["counts"]
    kind = {"wrong intrinsics line": "sequence", "NaN depth": "depth"}.get(case, "frame")
    assert counts[kind] == 1
    frames = {found.name: (found.frames, found.depth_frames) for found in outcome.surveys}
    assert frames["good"] == (FRAMES, FRAMES)
    expected = {"wrong intrinsics line": None, "NaN depth": (FRAMES, FRAMES - 1)}.get(case, (FRAMES - 1, FRAMES - 1))
    assert frames.get("bad") == expected
