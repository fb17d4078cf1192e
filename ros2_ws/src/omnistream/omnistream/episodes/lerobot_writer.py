# SPDX-License-Identifier: Apache-2.0
"""Writes LeRobot v3. Episodes are appended one step at a time; memory holds the numbers and a few pictures of one.

The folder appears when the writer is closed and never half written: until then it lies beside it under a hidden name.
Every video holds one episode; tables hold many.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistream.contract import Contract
from omnistream.episodes.dataset import Episode, EpisodeInfo
from omnistream.episodes.lerobot_layout import (
    ACTION,
    DATA_PATH,
    FILES_PER_CHUNK,
    PICTURES,
    STAMP,
    STATE,
    VIDEO_PATH,
)
from omnistream.episodes.lerobot_metadata import write_metadata
from omnistream.episodes.lerobot_tables import DataFiles
from omnistream.episodes.pictures import check_picture, encode_jpeg, encode_png
from omnistream.episodes.plans import Plans, write_plans
from omnistream.episodes.statistics import RunningStatistics, image_rows
from omnistream.episodes.video import VideoEncoder
from omnistream.errors import ConfigError, InputError

Storage = Literal["image", "jpeg", "video"]
SPOOL = 32 * 2**20
"""Bytes of encoded pictures per camera that are kept in memory until an episode ends; more go to a temporary file."""
PICTURES_FOR_STATISTICS = 50
"""Per episode and camera, evenly apart: what the mean colour of a set needs."""


class EpisodeWriter:
    """Writes a data set; a context manager that finishes it, or removes it if the block raises.

    storage: "image" (PNG in the tables, without loss), "jpeg" (in the tables, quality 95), "video" (mp4).
    ConfigError if the folder is taken. The contract's statistics are replaced by those of what is written.
    """

    def __init__(
        self,
        folder: str | Path,
        contract: Contract,
        *,
        storage: Storage = "image",
        codec: str = "libx264",
        robot: str = "unknown",
    ) -> None:
        if storage not in ("image", "jpeg", "video"):
            raise ConfigError(f"storage is {storage!r}; expected image, jpeg or video")
        self.folder = Path(folder).expanduser()
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ConfigError(f"{self.folder} exists already; choose another name")
        self._partial = self.folder.with_name(f".{self.folder.name}-{os.getpid()}.partial")
        shutil.rmtree(self._partial, ignore_errors=True)
        self.contract, self._storage, self._codec, self._robot = contract, storage, codec, robot
        self._features = _features(contract, storage)
        self._partial.mkdir(parents=True)
        self._data = DataFiles(self._partial, DATA_PATH)
        self._rows: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._frames = 0
        self._open: _Open | None = None
        self._closed = False
        self._totals = self._new_statistics()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @property
    def episodes(self) -> int:
        """Whole episodes written so far."""
        return len(self._rows)

    @property
    def frames(self) -> int:
        """Steps of the whole episodes written so far."""
        return self._frames

    @property
    def is_open(self) -> bool:
        """Whether an episode was begun and not yet ended."""
        return self._open is not None

    def begin(self, instruction: str, *, source: str = "") -> None:
        """Start an episode. source: where it comes from, for reports."""
        if self._open is not None:
            raise ConfigError("begin() called twice; end() or discard() the episode before")
        if self._closed:
            raise ConfigError(f"{self.folder} is finished; no episode can be added")
        self._open = _Open(instruction, source, self._new_statistics())
        for camera in self.contract.cameras:
            if self._storage == "video":
                path = self._partial / VIDEO_PATH.format(video_key=PICTURES + camera.name, **_place(len(self._rows)))
                path.parent.mkdir(parents=True, exist_ok=True)
                self._open.videos[camera.name] = (
                    VideoEncoder(path, self.contract.rate, camera.height, camera.width, self._codec),
                    path,
                )
            else:
                self._open.pictures[camera.name] = _Spool()

    def add(
        self,
        state: ArrayLike,
        action: ArrayLike,
        images: Mapping[str, NDArray[np.uint8]],
        *,
        stamp: float | None = None,
    ) -> None:
        """Add one control period: state [S], action [A], a picture u8 [H, W, 3] per camera of the contract.

        stamp: seconds, increasing; None: step / rate. InputError names what does not fit the contract; the step is
        then not added.
        """
        episode = self._need_open()
        t = len(episode.stamps)
        values = {
            STATE: _vector(state, len(self.contract.state), f"step {t}: state"),
            ACTION: _vector(action, len(self.contract.action.dimensions), f"step {t}: action"),
        }
        at = t / self.contract.rate if stamp is None else float(stamp)
        if not np.isfinite(at) or (episode.stamps and at <= episode.stamps[-1]):
            raise InputError(f"step {t}: stamp is {at} s; expected more than {episode.stamps[-1] if t else '-inf'}")
        if set(images) != {camera.name for camera in self.contract.cameras}:
            expected = [camera.name for camera in self.contract.cameras]
            raise InputError(f"step {t}: pictures of {sorted(images)}; the contract has {expected}")
        checked = {
            c.name: check_picture(images[c.name], c.height, c.width, f"step {t}: picture of {c.name!r}")
            for c in self.contract.cameras
        }
        encode: Callable[[NDArray[np.uint8]], bytes] = encode_png if self._storage == "image" else encode_jpeg
        for name, image in checked.items():
            if self._storage == "video":
                episode.videos[name][0].add(image)
            else:
                episode.pictures[name].add(encode(image))
            episode.sample(name, t, image)
        episode.states.append(values[STATE])
        episode.actions.append(values[ACTION])
        episode.stamps.append(at)

    def end(self, *, success: bool | None = None) -> EpisodeInfo:
        """Finish the episode and write it. InputError if it has no step."""
        episode = self._need_open()
        length, number = len(episode.stamps), len(self._rows)
        if length == 0:
            self.discard()
            raise InputError(f"episode {number} has no step; discard() drops one")
        for encoder, _ in episode.videos.values():
            encoder.close()
        task = self._tasks.setdefault(episode.instruction, len(self._tasks))
        place = self._data.append(self._columns(episode, number, task), self._features, length)
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": [episode.instruction],
            "length": length,
            "data/chunk_index": place[0],
            "data/file_index": place[1],
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + length,
            "success": success,
            "source": episode.source,
        }
        for name in episode.videos:
            key, (chunk, file) = PICTURES + name, (number // FILES_PER_CHUNK, number % FILES_PER_CHUNK)
            row |= {f"videos/{key}/chunk_index": chunk, f"videos/{key}/file_index": file}
            row |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": length / self.contract.rate}
        for key, rows in episode.rows().items():
            episode.statistics[key].add(rows)
            self._totals[key].add(rows)
        row["stats"] = {name: s.arrays() for name, s in episode.statistics.items() if s.count}
        self._rows.append(row)
        self._frames += length
        self._open = None
        episode.close()
        return EpisodeInfo(number, length, episode.instruction, success, episode.source)

    def discard(self) -> None:
        """Drop the episode that was begun."""
        episode, self._open = self._need_open(), None
        episode.close()
        for encoder, path in episode.videos.values():
            encoder.close()
            path.unlink(missing_ok=True)

    def add_plans(self, plans: Plans) -> None:
        """Write plans.parquet, of all episodes at once, replacing those that were given before."""
        write_plans(self._partial, plans)

    def close(self) -> None:
        """Finish the data set. An episode that was begun and not ended is dropped. ConfigError if there is none."""
        if self._closed:
            return
        if self._open is not None:
            self.discard()
        if not self._rows:
            self.abort()
            raise ConfigError(f"{self.folder}: no episode was written")
        self._closed = True
        self._data.close()
        self.contract = dataclasses.replace(
            self.contract,
            state_statistics=self._totals[STATE].statistics() if STATE in self._totals else None,
            action_statistics=self._totals[ACTION].statistics(),
        )
        totals = {name: s.arrays() for name, s in self._totals.items() if s.count}
        write_metadata(
            self._partial, self.contract, self._features, self._rows, list(self._tasks), totals, robot=self._robot
        )
        if self.folder.exists():
            self.folder.rmdir()  # it is empty
        self._partial.rename(self.folder)

    def abort(self) -> None:
        """Remove everything that was written."""
        if self._open is not None:
            self.discard()
        self._closed = True
        self._data.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _need_open(self) -> _Open:
        if self._open is None:
            raise ConfigError("no episode is open; call begin() first")
        return self._open

    def _new_statistics(self) -> dict[str, RunningStatistics]:
        found = {STATE: len(self.contract.state), ACTION: len(self.contract.action.dimensions)}
        found |= {PICTURES + camera.name: 3 for camera in self.contract.cameras}
        return {name: RunningStatistics(size) for name, size in found.items() if size}

    def _columns(self, episode: _Open, number: int, task: int) -> dict[str, Any]:
        n = len(episode.stamps)
        columns: dict[str, Any] = {
            ACTION: np.stack(episode.actions),
            STAMP: np.array(episode.stamps, np.float64),
            "timestamp": (np.arange(n) / self.contract.rate).astype(np.float32),
            "frame_index": np.arange(n),
            "episode_index": np.full(n, number),
            "index": np.arange(self._frames, self._frames + n),
            "task_index": np.full(n, task),
        }
        if self.contract.state:
            columns[STATE] = np.stack(episode.states)
        return columns | {PICTURES + name: spool.get for name, spool in episode.pictures.items()}


def write_episode(writer: EpisodeWriter, episode: Episode) -> EpisodeInfo:
    """Copy an episode of any source; its pictures are decoded and encoded anew."""
    writer.begin(episode.instruction, source=episode.info.source)
    try:
        streams = {camera: episode.frames(camera) for camera in episode.cameras}
        for t in range(len(episode)):
            images = {camera: next(stream) for camera, stream in streams.items()}
            writer.add(episode.state[t], episode.action[t], images, stamp=float(episode.stamps[t]))
    except BaseException:
        writer.discard()
        raise
    return writer.end(success=episode.success)


class _Spool:
    """Encoded pictures of one camera, in memory up to a size, then in a temporary file."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SPOOL)  # noqa: SIM115  # closed by close()
        self._edges = [0]

    def add(self, data: bytes) -> None:
        self._file.seek(self._edges[-1])
        self._file.write(data)
        self._edges.append(self._edges[-1] + len(data))

    def get(self, index: int) -> bytes:
        self._file.seek(self._edges[index])
        return self._file.read(self._edges[index + 1] - self._edges[index])

    def close(self) -> None:
        self._file.close()


@dataclass
class _Open:
    """The episode being written."""

    instruction: str
    source: str
    statistics: dict[str, RunningStatistics]
    states: list[NDArray[np.float32]] = field(default_factory=list)
    actions: list[NDArray[np.float32]] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    pictures: dict[str, _Spool] = field(default_factory=dict)
    videos: dict[str, tuple[VideoEncoder, Path]] = field(default_factory=dict)
    _samples: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    _every: int = 1

    def sample(self, camera: str, t: int, image: NDArray[np.uint8]) -> None:
        """Keep every n-th picture's colours; n doubles when there are too many."""
        if t % self._every:
            return
        kept = self._samples.setdefault(camera, [])
        kept.append(image_rows(image))
        if len(kept) >= 2 * PICTURES_FOR_STATISTICS and camera == list(self._samples)[-1]:
            self._samples = {name: rows[::2] for name, rows in self._samples.items()}
            self._every *= 2

    def rows(self) -> dict[str, NDArray[Any]]:
        """What statistics are taken over, by feature."""
        found: dict[str, NDArray[Any]] = {ACTION: np.stack(self.actions)}
        if self.states[0].size:
            found[STATE] = np.stack(self.states)
        return found | {PICTURES + name: np.concatenate(rows) for name, rows in self._samples.items()}

    def close(self) -> None:
        for spool in self.pictures.values():
            spool.close()


def _features(contract: Contract, storage: Storage) -> dict[str, dict[str, Any]]:
    """As info.json lists them."""

    def vector(names: tuple[str, ...]) -> dict[str, Any]:
        return {"dtype": "float32", "shape": [len(names)], "names": list(names)}

    found: dict[str, dict[str, Any]] = {}
    if contract.state:
        found[STATE] = vector(contract.state_names)
    found[ACTION] = vector(contract.action_names)
    for camera in contract.cameras:
        found[PICTURES + camera.name] = {
            "dtype": "video" if storage == "video" else "image",
            "shape": [camera.height, camera.width, 3],
            "names": ["height", "width", "channels"],
        }
    for name, dtype in (
        (STAMP, "float64"),
        ("timestamp", "float32"),
        ("frame_index", "int64"),
        ("episode_index", "int64"),
        ("index", "int64"),
        ("task_index", "int64"),
    ):
        found[name] = {"dtype": dtype, "shape": [1], "names": None}
    return found


def _vector(values: ArrayLike, size: int, where: str) -> NDArray[np.float32]:
    vector = np.asarray(values, np.float32)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise InputError(f"{where} is {vector.tolist()}; expected {size} finite numbers")
    return vector.copy()


def _place(number: int) -> dict[str, int]:
    return {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}
