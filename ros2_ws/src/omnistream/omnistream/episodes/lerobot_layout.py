# SPDX-License-Identifier: Apache-2.0
"""Where LeRobot's format keeps things, v3 and v2.1 (huggingface/lerobot: src/lerobot/datasets/utils.py).

meta/info.json            rate, features, templates of paths
meta/episodes/...parquet  v3: one row per episode        meta/episodes.jsonl   v2.1
meta/tasks.parquet        v3: the instructions           meta/tasks.jsonl      v2.1, and some v3 sets
data/...parquet           one row per frame              videos/.../*.mp4
meta/omnistream_contract.yaml   ours; other readers pass over it
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnistream.contract import Action, Camera, Contract, Dimension, load_contract
from omnistream.errors import ContractError, InputError

INFO = "meta/info.json"
CONTRACT = "meta/omnistream_contract.yaml"
STATE, ACTION, PICTURES, STAMP = "observation.state", "action", "observation.images.", "stamp"
"""Names of features. `stamp` is ours: seconds, float64; `timestamp` is frame number / rate by definition."""

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
FILES_PER_CHUNK = 1000

V2_DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"

_FIELD = re.compile(r"\{(\w+)(?::0?(\d+)d)?\}")


@dataclass(frozen=True)
class Feature:
    """A column of the data, or a camera."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def is_picture(self) -> bool:
        """Kept as video or as pictures in cells."""
        return self.dtype in ("image", "video")

    @property
    def camera(self) -> str:
        """The camera's name in the contract."""
        return self.name.removeprefix(PICTURES)

    def size(self) -> tuple[int, int]:
        """Height and width of a picture; InputError if the shape says neither."""
        if len(self.shape) == 3 and self.shape[2] in (1, 3) and self.names[:1] != ("channels",):
            return self.shape[0], self.shape[1]
        if len(self.shape) == 3 and self.shape[0] in (1, 3):
            return self.shape[1], self.shape[2]
        raise InputError(f"feature {self.name!r} has shape {list(self.shape)}; expected height, width and 3 channels")


@dataclass(frozen=True)
class Layout:
    """info.json, checked."""

    root: Path
    major: int
    """2 or 3."""
    version: str
    rate: float
    features: dict[str, Feature]
    data_path: str
    video_path: str
    chunk: int
    """v2: episodes per folder."""

    @property
    def pictures(self) -> dict[str, Feature]:
        """By camera name."""
        return {feature.camera: feature for feature in self.features.values() if feature.is_picture}

    def file(self, template: str, **values: int | str) -> Path:
        """The path that a template of info.json gives; InputError if it leads out of the data set."""

        def put(match: re.Match[str]) -> str:
            name, digits = match[1], match[2]
            if name not in values:
                raise InputError(f"{self.root / INFO}: path {template!r} asks for {name!r}; known: {sorted(values)}")
            return f"{values[name]:0{digits}d}" if digits else str(values[name])

        relative = Path(_FIELD.sub(put, template))
        if relative.is_absolute() or ".." in relative.parts or "\0" in str(relative):
            raise InputError(f"{self.root / INFO}: path {str(relative)!r} leads out of the data set")
        return self.root / relative


def read_layout(root: Path) -> Layout:
    """Read meta/info.json. InputError names the file, the field, the value and what was expected."""
    path = root / INFO
    if not path.is_file():
        hint = "a writer that was stopped before it was finished leaves none" if (root / "data").is_dir() else "none"
        raise InputError(f"{root}: no LeRobot data set: {INFO} is missing ({hint})")
    data = read_json(path)
    version = data.get("codebase_version")
    match = re.fullmatch(r"v?([23])\.(\d+)(?:\.\d+)?", version) if isinstance(version, str) else None
    if match is None:
        raise InputError(f"{path}: codebase_version is {version!r}; supported: v3.0, v2.1, v2.0")
    major = int(match[1])
    rate = data.get("fps")
    if (
        not isinstance(rate, (int, float))
        or isinstance(rate, bool)
        or not math.isfinite(rate)
        or not 0 < rate <= 10_000
    ):
        raise InputError(f"{path}: fps is {rate!r}; expected Hz above 0")
    features = data.get("features")
    if not isinstance(features, dict):
        raise InputError(f"{path}: features is {type(features).__name__}; expected a mapping")
    templates = []
    for name, usual in (
        ("data_path", DATA_PATH if major == 3 else V2_DATA_PATH),
        ("video_path", VIDEO_PATH if major == 3 else V2_VIDEO_PATH),
    ):
        value = data.get(name) or usual
        if not isinstance(value, str):
            raise InputError(f"{path}: {name} is {value!r}; expected text")
        templates.append(value)
    chunk = data.get("chunks_size", 1000)
    if type(chunk) is not int or chunk < 1:
        raise InputError(f"{path}: chunks_size is {chunk!r}; expected an integer above 0")
    known = {name: _feature(path, name, value) for name, value in features.items()}
    return Layout(root, major, str(version), float(rate), known, templates[0], templates[1], chunk)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping; InputError names it if it does not."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds a {type(data).__name__}; expected a mapping")
    return data


def _feature(path: Path, name: str, value: Any) -> Feature:
    if not isinstance(value, dict) or not isinstance(value.get("dtype"), str):
        raise InputError(f"{path}: feature {name!r} is {value!r}; expected dtype and shape")
    shape = value.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n <= 2**20 for n in shape):
        raise InputError(f"{path}: feature {name!r} has shape {shape!r}; expected a list of sizes")
    return Feature(name, value["dtype"], tuple(shape), tuple(_flat(value.get("names"))))


def _flat(names: Any) -> list[str]:
    """LeRobot writes a list, a list in a list, or {"motors": [...]}."""
    if isinstance(names, str):
        return [names]
    if isinstance(names, dict):
        if all(type(position) is int for position in names.values()):
            return [str(name) for name, _ in sorted(names.items(), key=lambda item: item[1])]
        names = list(names.values())
    return [text for item in names for text in _flat(item)] if isinstance(names, list) else []


# ------------------------------------------------------------------------------------------------ contract


def contract_of(layout: Layout) -> Contract:
    """The contract beside the data, checked against the features; for a foreign set what its features say of it."""
    path = layout.root / CONTRACT
    if not path.is_file():
        return _foreign(layout)
    contract = load_contract(path)
    found, stated = _foreign(layout), contract
    pairs = (
        ("rate", stated.rate, found.rate),
        ("state", len(stated.state), len(found.state)),
        ("action", len(stated.action.dimensions), len(found.action.dimensions)),
        ("cameras", sorted(stated.cameras, key=str), sorted(found.cameras, key=str)),
    )
    for name, ours, theirs in pairs:
        if ours != theirs:
            raise ContractError(f"{path}: {name} is {ours}, but {INFO} says {theirs}")
    return contract


def _foreign(layout: Layout) -> Contract:
    if ACTION not in layout.features:
        raise InputError(f"{layout.root}: no feature {ACTION!r}; there are {sorted(layout.features)}")
    cameras = tuple(Camera(name, *feature.size()) for name, feature in sorted(layout.pictures.items()))
    action = Action(_dimensions(layout.root, layout.features[ACTION]))
    state = layout.features.get(STATE)
    names = () if state is None else _dimensions(layout.root, state)
    return Contract(rate=layout.rate, cameras=cameras, state=names, action=action)


def _dimensions(root: Path, feature: Feature) -> tuple[Dimension, ...]:
    if len(feature.shape) > 1:
        raise InputError(f"{root}: feature {feature.name!r} has shape {list(feature.shape)}; expected one number of it")
    (count,) = feature.shape or (1,)
    names = feature.names
    if len(names) != count or len(set(names)) != count:
        names = tuple(f"{feature.name.rpartition('.')[2]}_{i}" for i in range(count))
    return tuple(Dimension(name) for name in names)
