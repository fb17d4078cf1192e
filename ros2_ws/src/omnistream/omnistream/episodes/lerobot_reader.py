# SPDX-License-Identifier: Apache-2.0
"""Data sets in LeRobot's format, v3 and v2.1, without lerobot: pyarrow for the tables, PyAV for the videos."""

from __future__ import annotations

import itertools
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Contract
from omnistream.episodes.dataset import Episode, EpisodeDataset, EpisodeInfo
from omnistream.episodes.lerobot_layout import ACTION, STAMP, STATE, Layout, contract_of, read_layout
from omnistream.episodes.parquet import FrameTable, read_columns
from omnistream.episodes.pictures import check_picture, decode_picture
from omnistream.episodes.video import read_video
from omnistream.errors import InputError
from omnistream.io.files import natural_key

OPEN_FILES = 4


def open_dataset(path: str | Path, contract: Contract | None = None) -> LeRobotDataset:
    """Open a data set in LeRobot's format.

    contract: for a foreign set, which cannot state frame, units and gripper sign; its sizes must fit.
    Episodes whose files are not there are left out and named in `lost`. InputError if nothing can be read.
    """
    return LeRobotDataset(Path(path).expanduser(), contract)


@dataclass(frozen=True)
class _Place:
    """Where an episode is stored."""

    number: int
    """episode_index in the files."""
    table: Path
    videos: dict[str, tuple[Path, float]]
    """camera -> file, seconds into it."""
    rows: int
    """Of the whole episode."""
    first: int = 0
    """Row of the episode at which this part of it begins."""


class LeRobotDataset(EpisodeDataset):
    """See `open_dataset`. Can be sent to other processes; each opens the files anew."""

    def __init__(self, path: Path, contract: Contract | None = None) -> None:
        self.path = str(path)
        self._layout = layout = read_layout(path)
        self.contract = contract or contract_of(layout)
        if contract is not None:
            _check_fits(path, contract, contract_of(layout))
        rows = _rows_v3(layout) if layout.major == 3 else _rows_v2(layout)
        present: dict[Path, bool] = {}
        infos: list[EpisodeInfo] = []
        lost: list[str] = []
        self._places: list[_Place] = []
        self._tables: OrderedDict[Path, FrameTable] = OrderedDict()
        for place, info, tasks in rows:
            files = [place.table, *(file for file, _ in place.videos.values())]
            missing = [file for file in files if not present.setdefault(file, file.is_file())]
            if missing:
                lost.append(f"episode {place.number}: {missing[0].relative_to(path)} is missing")
                continue
            try:
                parts = [(place, info)] if tasks < 2 else self._parts(place, info)
            except InputError as error:
                lost.append(f"episode {place.number} has {tasks} instructions: {error}")
                continue
            for part, told in parts:
                index = len(infos)
                infos.append(replace(told, index=index, number=None if part.number == index else part.number))
                self._places.append(part)
        if not infos:
            raise InputError(f"{path}: no episode can be read; {lost[0] if lost else 'the table of episodes is empty'}")
        self.infos, self.lost = infos, tuple(lost)
        cameras = ", ".join(f"{c.name} {c.width}x{c.height}" for c in self.contract.cameras) or "no camera"
        kinds = "/".join(sorted({feature.dtype for feature in layout.pictures.values()}))
        self.description = (
            f"LeRobot {layout.version}: {len(infos)} episodes, {self.frames} frames at {layout.rate:g} Hz, "
            f"{cameras}{f' ({kinds})' if kinds else ''}" + (f"; {len(lost)} episodes missing" if lost else "")
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tables": OrderedDict()}

    def read_episode(self, info: EpisodeInfo) -> Episode:
        """See `EpisodeDataset`."""
        place = self._places[info.index]
        table = self._table(place.table)
        start, stop = table.span(place.number)
        if stop - start != place.rows:
            raise InputError(
                f"{place.table}: episode {place.number} has {stop - start} rows; its metadata says {place.rows}"
            )
        start, stop = start + place.first, start + place.first + info.length
        dimensions = len(self.contract.state)
        state = table.vectors(STATE, start, stop, dimensions) if dimensions else np.zeros((stop - start, 0), np.float32)
        action = table.vectors(ACTION, start, stop, len(self.contract.action.dimensions))
        success = info.success
        ends = place.first + info.length == place.rows
        if success is None and ends and "next.success" in table.columns:
            success = bool(table.numbers("next.success", start, stop)[-1])

        def read(camera: str, first: int, last: int) -> Iterator[NDArray[np.uint8]]:
            return self._pictures(place, camera, first, last)

        cameras = tuple(camera.name for camera in self.contract.cameras)
        return Episode(replace(info, success=success), state, action, self._stamps(table, start, stop), cameras, read)

    def _parts(self, place: _Place, info: EpisodeInfo) -> list[tuple[_Place, EpisodeInfo]]:
        """One for each stretch of frames with one instruction. Whether it was done is known of the last."""
        table, names = self._table(place.table), instructions_of(self._layout)
        start, stop = table.span(place.number)
        told = table.numbers("task_index", start, stop)
        edges = [0, *(np.flatnonzero(np.diff(told)) + 1).tolist(), len(told)]
        found = []
        for first, last in itertools.pairwise(edges):
            number = int(told[first])
            if number not in names:
                raise InputError(f"{place.table}: task_index {number} is not among the tasks in meta")
            part = replace(info, length=last - first, instruction=names[number], success=None)
            part = replace(part, source=f"{info.source}, frames {first} to {last - 1}")
            found.append((replace(place, first=first), part))
        found[-1] = (found[-1][0], replace(found[-1][1], success=info.success))
        return found

    def _stamps(self, table: FrameTable, start: int, stop: int) -> NDArray[np.float64]:
        if STAMP in table.columns:
            return table.numbers(STAMP, start, stop).astype(np.float64)
        return np.arange(stop - start) / self._layout.rate  # `timestamp` is the same, rounded to 32 bits

    def _pictures(self, place: _Place, camera: str, first: int, last: int) -> Iterator[NDArray[np.uint8]]:
        spec = self.contract.camera(camera)
        if camera in place.videos:
            file, begin = place.videos[camera]
            span = (place.first + first, place.first + last)
            for t, image in enumerate(read_video(file, begin, self._layout.rate, *span), first):
                yield check_picture(image, spec.height, spec.width, f"{file}: picture {t}")
            return
        table = self._table(place.table)
        row = table.span(place.number)[0] + place.first
        column = self._layout.pictures[camera].name
        for t, data in enumerate(table.pictures(column, row + first, row + last), first):
            where = f"{place.table}: {column} of episode {place.number}, picture {t}"
            yield check_picture(decode_picture(data, where), spec.height, spec.width, where)

    def _table(self, path: Path) -> FrameTable:
        if path not in self._tables:
            self._tables[path] = FrameTable(path)
            if len(self._tables) > OPEN_FILES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(path)
        return self._tables[path]


def _check_fits(path: Path, given: Contract, found: Contract) -> None:
    for name, ours, theirs in (
        ("rate", given.rate, found.rate),
        ("state", len(given.state), len(found.state)),
        ("action", len(given.action.dimensions), len(found.action.dimensions)),
        ("cameras", set(given.cameras) - set(found.cameras), set()),
    ):
        if ours != theirs:
            raise InputError(f"{path}: the contract given says {name} {ours}; the data set says {theirs}")


# ------------------------------------------------------------------------------------------------ table of episodes


def instructions_of(layout: Layout) -> dict[int, str]:
    """task_index -> text, of the data set's tables of tasks; InputError names the one that cannot be read."""
    meta = layout.root / "meta"
    if (meta / "tasks.parquet").is_file():
        table = read_columns(meta / "tasks.parquet", ["task_index", "task", "__index_level_0__"])
        texts = table.get("task") or table.get("__index_level_0__") or []  # the index of a table of pandas
        rows = list(zip(table.get("task_index") or [], texts, strict=False))
    else:
        rows = [(row.get("task_index"), row.get("task")) for _, row in _json_lines(meta / "tasks.jsonl")]
    return {number: text for number, text in rows if isinstance(number, int) and isinstance(text, str)}


def _rows_v3(layout: Layout) -> Iterator[tuple[_Place, EpisodeInfo, int]]:
    files = sorted((layout.root / "meta" / "episodes").glob("chunk-*/file-*.parquet"), key=natural_key)
    if not files:
        raise InputError(f"{layout.root}: no meta/episodes/chunk-*/file-*.parquet; the table of episodes is missing")
    videos = {name: f.name for name, f in layout.pictures.items() if f.dtype == "video"}
    per_video = ("chunk_index", "file_index", "from_timestamp")
    needed = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    needed += [f"videos/{key}/{part}" for key in videos.values() for part in per_video]
    for file in files:
        table = read_columns(file, [*needed, "tasks", "success", "source"])
        missing = [name for name in needed if name not in table]
        if missing:
            raise InputError(f"{file}: no column {missing[0]!r}")
        for i in range(len(table["length"])):
            row = {name: values[i] for name, values in table.items()}
            for name in needed:
                if isinstance(row[name], bool) or not isinstance(row[name], (int, float)) or row[name] < 0:
                    raise InputError(f"{file}: {name} of row {i} is {row[name]!r}; expected a number from 0")
            place = _Place(
                int(row["episode_index"]),
                layout.file(
                    layout.data_path, chunk_index=int(row["data/chunk_index"]), file_index=int(row["data/file_index"])
                ),
                {
                    name: (
                        layout.file(
                            layout.video_path,
                            video_key=key,
                            chunk_index=int(row[f"videos/{key}/chunk_index"]),
                            file_index=int(row[f"videos/{key}/file_index"]),
                        ),
                        float(row[f"videos/{key}/from_timestamp"]),
                    )
                    for name, key in videos.items()
                },
                int(row["length"]),
            )
            yield place, _info(row), len(_tasks(row))


def _rows_v2(layout: Layout) -> Iterator[tuple[_Place, EpisodeInfo, int]]:
    file = layout.root / "meta" / "episodes.jsonl"
    videos = {name: f.name for name, f in layout.pictures.items() if f.dtype == "video"}
    for line, row in _json_lines(file):
        number, length = row.get("episode_index"), row.get("length")
        if type(number) is not int or type(length) is not int or number < 0 or length < 0:
            raise InputError(f"{file}: line {line}: episode_index {number!r}, length {length!r}; expected two integers")
        values = {"episode_chunk": number // layout.chunk, "episode_index": number}
        places = {name: (layout.file(layout.video_path, video_key=key, **values), 0.0) for name, key in videos.items()}
        yield _Place(number, layout.file(layout.data_path, **values), places, length), _info(row), len(_tasks(row))


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise InputError(f"{path}: line {number} holds a {type(row).__name__}; expected a mapping")
                    yield number, row
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as lines of JSON: {error}") from error


def _tasks(row: dict[str, Any]) -> list[Any]:
    tasks = row.get("tasks") or []
    return [tasks] if isinstance(tasks, str) else list(tasks)


def _info(row: dict[str, Any]) -> EpisodeInfo:
    tasks = _tasks(row)
    success = row.get("success")
    number = int(row["episode_index"])
    return EpisodeInfo(
        index=number,
        length=int(row["length"]),
        instruction=str(tasks[0]) if tasks else "",
        success=success if isinstance(success, bool) else None,
        source=str(row.get("source") or f"episode {number}"),
    )
