# SPDX-License-Identifier: Apache-2.0
"""Videos: content, time, and files that are cut off."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omnistream.errors import InputError
from omnistream.io import open_source

pytest.importorskip("av")


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("b.mkv", "mpeg4"), ("c.avi", "mpeg4")])
def test_frames_come_in_order_with_the_times_of_the_file(
    make_video: Callable[..., Path], name: str, codec: str, number_of: Callable
) -> None:
    source = open_source(make_video(name, codec=codec))
    frames = list(source)
    assert [number_of(frame.image) for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.stamp for frame in frames], np.arange(12) / 10, atol=1e-3)
    assert frames[0].image.shape == (48, 64, 3) and frames[0].image.flags.c_contiguous
    assert source.rate == 10 and source.length in (12, None) and name in source.description
    assert [frame.stamp for frame in open_source(make_video(name, codec=codec), rate=4)][:3] == [0, 0.25, 0.5]


def test_files_that_are_cut_off_are_named(make_video: Callable[..., Path]) -> None:
    path = make_video("end.mp4", count=30)  # the table of contents is at the end, and lost
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"end\.mp4: cannot be read as video"):
        open_source(path)
    path = make_video("begin.mp4", count=30, movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError, match=r"begin\.mp4"):
        list(open_source(path))
    source = open_source(path, on_error="skip")
    frames = list(source)
    assert 5 < len(frames) < 30 and source.skipped >= 1 and "begin.mp4" in source.skip_reasons[0]


def test_damage_in_the_middle_costs_only_the_damaged_frames(make_video: Callable[..., Path]) -> None:
    path = make_video("noise.mp4", count=30)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = np.random.default_rng(1).bytes(600)
    path.write_bytes(bytes(data))
    source = open_source(path, on_error="skip")
    frames = list(source)
    assert len(frames) + source.skipped == 30 and len(frames) > 10


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "talk.mp4").write_bytes(b"not a video at all" * 100)
    with pytest.raises(InputError, match=r"talk\.mp4: cannot be read as video"):
        open_source(tmp_path / "talk.mp4")
    (tmp_path / "empty.mkv").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.mkv"):
        open_source(tmp_path / "empty.mkv")
    with pytest.raises(InputError, match=r"give one of the 2 videos or bags inside it: empty\.mkv, talk\.mp4"):
        open_source(tmp_path)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av

    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(InputError, match=r"holds no video, only audio"):
        open_source(path)


@pytest.mark.parametrize(("module", "name"), [("av", "a.mp4"), ("rosbags.rosbag2", "a.mcap")])
def test_missing_libraries_are_named_with_the_install_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # what Python does for a package that is not there
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r'pip install "omnistream\[io\]"'):
        open_source(tmp_path / name)
