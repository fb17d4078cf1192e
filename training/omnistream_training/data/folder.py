# SPDX-License-Identifier: Apache-2.0
"""Recordings as a source: a robot's own, a benchmark's, or a data set that a simulator wrote.

Whatever `omnistream.io.open_source` opens will do: a recording folder of ours, TUM RGB-D, 7-Scenes; with labels also a
rosbag2 (`bag_rgbd`), ScanNet and folders laid out like it (`rgbd_folder`), Sintel, KITTI depth, BONN, TartanAir and
Virtual KITTI 2 (`layouts`). A directory that is none of these is
searched for recordings one and two levels down.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from omnistream.errors import InputError
from omnistream.io.recording import HEADER
from omnistream.io.tum_folder import LIST
from omnistream_training.data.bag_topics import BagTopics
from omnistream_training.data.batch import ClipBatch, resize
from omnistream_training.data.layouts import layout_sequences
from omnistream_training.data.packed import Pack, PackReport, open_pack
from omnistream_training.data.rgbd_folder import is_rgbd_folder
from omnistream_training.data.source import HELD_OUT, ClipRequest

HELD_OUT_SHARE = 0.1
"""Of every recording's frames, its end, kept for evaluation; of recordings too short for that, whole ones."""


class FolderSource:
    """Clips from recordings, chosen by frames: a long recording is drawn from more often."""

    def __init__(
        self,
        folders: Sequence[str],
        size: tuple[int, int],
        nominal_rate: float,
        on_error: Literal["raise", "skip"] = "skip",
        topics: BagTopics | None = None,
        held_out_frames: int = 2,
    ) -> None:
        """held_out_frames: length of held-out clips; a recording whose end has no room for one is not cut."""
        self._rate = nominal_rate
        self._size = size
        self.reports: list[PackReport] = []
        self.refused: list[str] = []
        """Recordings that could not be opened at all, with the reason (`on_error="skip"`)."""
        self._packs: list[Pack] = []
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "omnistream" / "packed"
        for recording in [found for folder in folders for found in find_recordings(Path(folder).expanduser())]:
            try:
                pack = open_pack(recording, size, cache, on_error, topics)
            except InputError as error:
                if on_error == "raise":
                    raise
                self.refused.append(str(error))
                continue
            self._packs.append(pack)
            self.reports.append(pack.report)
        if not self._packs:
            raise InputError("no recording can be read: " + "; ".join(self.refused or map(str, folders)))
        self._borders = _borders([(len(pack.stamps), pack.segments) for pack in self._packs], held_out_frames)
        frames = sum(report.frames for report in self.reports)
        self.description = f"{len(self._packs)} recordings, {frames} frames"
        if self.refused:
            self.description += f", {len(self.refused)} refused"
        for line in self.report_lines():
            print(line, file=sys.stderr)

    def report_lines(self) -> list[str]:
        """What was read and what was not, with files and reasons."""
        lines = [report.line() for report in self.reports]
        lines += [f"    skipped: {reason}" for report in self.reports for reason in report.reasons]
        return lines + [f"refused: {reason}" for reason in self.refused]

    def digest(self) -> str:
        """Changes with the recordings that could be opened, and with the names and sizes of their files."""
        words = (f"{pack.report.name} {pack.digest}\n" for pack in self._packs)
        return hashlib.sha256("".join(words).encode()).hexdigest()[:16]

    def read(self, request: ClipRequest) -> ClipBatch:
        """Clips at `request.size`, which must not be larger than the packed size's scale; see `ClipSource`."""
        clips = [self._clip(number, request) for number in request.numbers]
        batch = ClipBatch.cat(clips)
        return batch.to(request.device) if request.device != "cpu" else batch

    def _clip(self, number: int, request: ClipRequest) -> ClipBatch:
        draw = random.Random(number)
        held_out = number >= HELD_OUT
        step, windows = self._windows(request.frames, request.stride, held_out)
        pack_index, first, stop = draw.choices(windows, weights=[stop - first for _, first, stop in windows])[0]
        pack, start = self._packs[pack_index], draw.randrange(first, stop)
        rows = slice(start, start + (request.frames - 1) * step[pack_index] + 1, step[pack_index])
        images = torch.from_numpy(np.array(pack.rgb[rows])).permute(0, 3, 1, 2)
        stamps = pack.stamps[rows]
        K = np.array(pack.K[rows])
        same = np.isfinite(K).all() and np.allclose(K, K[:1], rtol=1e-3)  # a zooming lens has no single K
        return resize(
            ClipBatch(
                images=images[None].float() / 255,
                depth=torch.from_numpy(np.array(pack.depth[rows]).astype(np.float32))[None],
                T_world_camera=torch.from_numpy(np.array(pack.poses[rows]))[None],
                K=torch.from_numpy(K[0] if same else np.full((3, 3), np.nan, np.float32))[None],
                times=torch.from_numpy((stamps - stamps[0]) * self._rate)[None],
            ),
            request.size,
        )

    def _windows(self, frames: int, stride: int, held_out: bool) -> tuple[dict[int, int], list[tuple[int, int, int]]]:
        """Step in frames per pack, and (pack, first, stop) ranges of possible first frames.

        A recording too short for the stride is stepped through more slowly rather than left out.
        """
        steps: dict[int, int] = {}
        windows: list[tuple[int, int, int]] = []
        for index, pack in enumerate(self._packs):
            wanted = max(1, round(stride * pack.rate / self._rate))
            segments = _side(pack.segments, self._borders[index], held_out)
            longest = _longest(segments)
            if longest < frames:
                continue
            steps[index] = min(wanted, (longest - 1) // max(frames - 1, 1)) if frames > 1 else wanted
            span = (frames - 1) * steps[index]
            windows += [(index, a, b - span) for a, b in segments if b - a > span]
        if not windows:
            which = "held-out part" if held_out else "part for training"
            raise InputError(f"no recording has {frames} frames without a pause in its {which}")
        return steps, windows


def _borders(recordings: Sequence[tuple[int, tuple[tuple[int, int], ...]]], clip: int) -> list[int]:
    """First held-out frame of each recording, of which frames and segments are given.

    One whose last tenth has no room for a clip of that many frames is either trained on whole or held out whole: the
    last of every ten such, and one at least where nothing else is held out. An only one is cut nevertheless.
    """
    borders = [int(frames * (1 - HELD_OUT_SHARE)) for frames, _ in recordings]
    short = [
        i for i, (_, segments) in enumerate(recordings) if _longest(_side(segments, borders[i], held_out=True)) < clip
    ]
    if len(recordings) == 1:
        frames = recordings[0][0]
        return [max(frames - clip, frames // 2)] if short else borders
    whole = set(short[9::10])
    if len(short) == len(recordings) and not whole:
        whole = {max(short, key=lambda i: (_longest(recordings[i][1]) >= clip, i))}
    for i in short:
        borders[i] = 0 if i in whole else recordings[i][0]
    return borders


def _side(segments: Sequence[tuple[int, int]], border: int, held_out: bool) -> list[tuple[int, int]]:
    """What of the segments lies on that side of the border; empty ones may be among them."""
    return [(max(a, border), b) if held_out else (a, min(b, border)) for a, b in segments]


def _longest(segments: Sequence[tuple[int, int]]) -> int:
    return max((b - a for a, b in segments), default=0)


def find_recordings(folder: Path) -> list[Path]:
    """`folder` itself if it is a recording, else those of a known data set in it (`layouts`), else the recordings one
    and two levels down, in order."""
    known = layout_sequences(folder)
    if known:
        return known
    if not folder.is_dir() or _is_recording(folder):
        return [folder]
    inside = [path for path in sorted(folder.glob("*")) + sorted(folder.glob("*/*")) if path.is_dir()]
    return [path for path in inside if _is_recording(path)] or [folder]


def _is_recording(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (HEADER, LIST, "metadata.yaml")) or is_rgbd_folder(folder)
