# SPDX-License-Identifier: Apache-2.0
"""A simulator's clips on disk: a folder of recordings, or WebDataset shards. The formats are described in docs/data.md.

Both are made clip by clip (shard by shard), each under a temporary name first, so what is there is complete, a
stopped run goes on where it was, and several processes may fill one folder if they take different clips.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from shutil import rmtree
from typing import Any, ClassVar

import numpy as np
import torch
import yaml

from omnistream.errors import ConfigError, InputError
from omnistream.io.files import replacing, write_bytes
from omnistream_sim.worlds.recording import LICENCE, relative_poses, write_clip
from omnistream_sim.worlds.rendering import Clip

HEADER = "dataset.yaml"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """What is written. A data set is these options: writing it again gives the same files. A simulator adds its own
    configuration as a field, its name, and `render`."""

    NAME: ClassVar[str]
    """Of the simulator: `omnistream-sim generate NAME` writes it, shards begin with it."""
    LABELS: ClassVar[tuple[str, ...]] = ()
    """What the simulator knows beyond pictures, depth, poses, intrinsics and a text."""
    BATCH: ClassVar[int] = 8
    """Clips rendered together."""
    PROCESSES: ClassVar[bool] = False
    """Whether several workers must be processes: the simulator holds Python's lock while it renders."""

    clips: int
    frames: int = 16
    size: tuple[int, int] = (128, 128)
    rate: float = 10.0
    seed: int = 0
    labels: tuple[str, ...] = ()
    """Any of `LABELS`."""
    shards: int = 0
    """Clips per WebDataset shard; 0: a folder of recordings."""
    jpeg_quality: int | None = 95
    """Of the recordings; None: PNG. Shards hold raw pixels."""

    def __post_init__(self) -> None:
        for name in ("clips", "frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.shards < 0 or not self.rate > 0 or min(self.size) < 8:
            raise ConfigError(
                f"shards {self.shards}, rate {self.rate}, size {self.size}; expected >= 0, > 0, >= 8 pixels"
            )
        unknown = sorted(set(self.labels) - set(self.LABELS))
        if unknown:
            raise ConfigError(f"label {unknown[0]!r} is unknown; expected some of {', '.join(self.LABELS) or 'none'}")

    @property
    def made_by(self) -> str:
        """The command that writes it."""
        return f"omnistream-sim generate {self.NAME}"

    def render(self, numbers: list[int]) -> Clip:
        """The clips of these numbers, with rgb, depth, text and the labels."""
        raise NotImplementedError


def generate(folder: Path, options: DatasetOptions, *, workers: int = 1, progress: Callable[[int, int], None]) -> int:
    """Write what is missing of the data set; returns how many clips were missing. progress(done, all) counts clips.

    workers: threads or processes that render.

    Raises:
        InputError: the folder holds another data set, or something else.
    """
    _header(folder, options)
    units = list(_missing(folder, options))
    clips = sum(len(numbers) for _, numbers in units)
    done = options.clips - clips
    progress(done, options.clips)
    with _pool(workers, options.PROCESSES) as pool:
        running: dict[Future[None], int] = {}
        for path, numbers in units:
            while len(running) >= 2 * workers:
                done += _finish(running)
                progress(done, options.clips)
            running[pool.submit(_unit, path, numbers, options)] = len(numbers)
        while running:
            done += _finish(running)
            progress(done, options.clips)
    return clips


def _pool(workers: int, processes: bool) -> Executor:
    if processes and workers > 1:
        return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))  # a fork would copy torch's threads
    return ThreadPoolExecutor(workers)


def _finish(running: dict[Future[None], int]) -> int:
    """Wait for one or more units; how many clips they had."""
    finished, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in finished:
        future.result()
    return sum(running.pop(future) for future in finished)


def _header(folder: Path, options: DatasetOptions) -> None:
    """Check that the folder is empty or holds this data set, and say so in it."""
    about = {"format": "omnistream-dataset", "version": VERSION, "made_by": options.made_by, "licence": LICENCE}
    about["options"] = json.loads(json.dumps(asdict(options)))
    path = folder / HEADER
    if path.exists():
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or found.get("options") != about["options"]:
            raise InputError(f"{path} describes another data set; expected the same options, or another folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and has no {HEADER}; choose another folder")
    write_bytes(path, yaml.safe_dump(about, sort_keys=False).encode())


def _missing(folder: Path, options: DatasetOptions) -> Iterator[tuple[Path, list[int]]]:
    """Units of work: where to write, and which clips."""
    step = options.shards or options.BATCH
    for first in range(0, options.clips, step):
        numbers = list(range(first, min(first + step, options.clips)))
        if options.shards:
            path = folder / "shards" / f"{options.NAME}-{first // step:06d}.tar"
            if not path.exists():
                yield path, numbers
            continue
        numbers = [n for n in numbers if not clip_folder(folder, n).exists()]
        if numbers:
            yield folder, numbers


def clip_folder(folder: Path, number: int) -> Path:
    """Where a clip lies: a thousand per folder."""
    return folder / f"{number // 1000:04d}" / f"{number:07d}"


def _unit(path: Path, numbers: list[int], options: DatasetOptions) -> None:
    """Render and write some clips."""
    torch.set_num_threads(1)
    if options.shards:
        _shard(path, numbers, options)
        return
    clip = options.render(numbers)
    for i, number in enumerate(numbers):
        final = clip_folder(path, number)
        partial = final.with_name(f".{final.name}.partial")
        rmtree(partial, ignore_errors=True)
        write_clip(
            partial,
            clip,
            i,
            rate=options.rate,
            description=clip.text[i],
            made_by=f"{options.made_by} --seed {options.seed}, clip {number}",
            jpeg_quality=options.jpeg_quality,
        )
        if options.labels:
            with replacing(partial / "labels.npz") as temporary:
                np.savez_compressed(temporary, **_labels(clip, i, options), names=json.dumps(clip.names[i]))
        partial.replace(final)


def _shard(path: Path, numbers: list[int], options: DatasetOptions) -> None:
    """One tar of clips: NUMBER.npz (arrays) and NUMBER.txt (what is seen)."""
    with replacing(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for first in range(0, len(numbers), options.BATCH):
            some = numbers[first : first + options.BATCH]
            clip = options.render(some)
            for i, number in enumerate(some):
                _member(tar, f"{number:09d}.npz", _npz(clip, i, options))
                _member(tar, f"{number:09d}.txt", clip.text[i].encode())


def _member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # time and owner stay zero: the same clips give the same bytes
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _labels(clip: Clip, index: int, options: DatasetOptions) -> dict[str, Any]:
    """The extra arrays of a clip: half precision is enough for directions and motion."""
    arrays = {name: getattr(clip, name)[index].cpu().numpy() for name in options.labels}
    return {name: a.astype(np.uint8 if name == "ids" else np.float16) for name, a in arrays.items()}


def _npz(clip: Clip, index: int, options: DatasetOptions) -> bytes:
    assert clip.rgb is not None and clip.depth is not None
    buffer = io.BytesIO()
    np.savez(
        buffer,
        rgb=clip.rgb[index].cpu().numpy(),
        depth=clip.depth[index].cpu().numpy().astype(np.float16),
        T_world_camera=relative_poses(clip.T_world_camera[index].cpu().numpy()).astype(np.float32),
        K=clip.K[index].cpu().numpy(),
        stamps=clip.stamps.numpy(),
        **_labels(clip, index, options),
    )
    return buffer.getvalue()


def read_shard(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and arrays ("text" among them) of every clip of a shard, in order.

    Raises:
        InputError: the file is not a complete shard.
    """
    try:
        with tarfile.open(path) as tar:
            sample: dict[str, Any] = {}
            for member in tar:
                key, _, kind = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                data = file.read()
                if kind == "npz":
                    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                        sample = {name: arrays[name] for name in arrays.files}
                elif kind == "txt":
                    yield key, {**sample, "text": data.decode()}
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not a complete shard: {error}") from error


class Progress:
    """Prints how far a run is, how fast and how long it will take, at most twice a second.

    frames: that each unit has; None where they differ, for a rate in units.
    """

    def __init__(self, write: Callable[[str], object], unit: str = "clips", frames: int | None = None) -> None:
        self._write, self._unit, self._frames = write, unit, frames
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        """Count to `done` of `total`."""
        now = time.monotonic()
        if self._first is None:
            self._first = done
        if now - self._last < 0.5 and done < total:
            return
        self._last = now
        seconds, made = max(now - self._start, 1e-3), done - self._first
        rate = made / seconds
        speed = f"{rate:.1f} {self._unit}/s" if self._frames is None else f"{rate * self._frames:.0f} frames/s"
        text = f"\r{done}/{total} {self._unit}, {speed}"
        if made > 0 and done < total:
            text += f", {duration((total - done) * seconds / made)} left"
        self._write(f"{text:<70}" + ("\n" if done == total else ""))


def duration(seconds: float) -> str:
    """1 h 05 min, 3 min 20 s, 12 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
