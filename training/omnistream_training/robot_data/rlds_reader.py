# SPDX-License-Identifier: Apache-2.0
"""RLDS data sets (Bridge, Open-X) without TensorFlow: one tf.train.Example per episode in TFRecord files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Action, Camera, Contract, Dimension, load_contract
from omnistream.episodes.dataset import Episode, EpisodeDataset, EpisodeInfo
from omnistream.episodes.lerobot_layout import read_json
from omnistream.episodes.pictures import check_picture, decode_picture
from omnistream.errors import ConfigError, InputError
from omnistream.io.files import natural_key
from omnistream_training.robot_data.example import Example
from omnistream_training.robot_data.rlds_protocols import PROTOCOLS, RldsProtocol, relabelled, rlds_protocol
from omnistream_training.robot_data.tfrecord import TFRecordFile

CONTRACT = "omnistream_contract.yaml"
STEPS, SEEN = "steps/", "steps/observation/"
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG")


@dataclass(frozen=True)
class _Place:
    file: TFRecordFile
    record: int


class RldsDataset(EpisodeDataset):
    """One split of a set; opened by `open_rlds`."""

    def __init__(
        self, path: Path, files: list[Path], protocol: RldsProtocol, rate: float | None, contract: Contract | None
    ) -> None:
        self.path, self._protocol = str(path), protocol
        self._places: list[_Place] = []
        infos: list[EpisodeInfo] = []
        lost: list[str] = []
        first: Example | None = None
        for name in files:
            file = TFRecordFile(name)
            for number in range(len(file.records)):
                where = f"{name.name}: record {number}"
                try:
                    example = Example(file.data(number, check=False), where)
                    length = self._length(example) - protocol.drop_first - bool(protocol.relabel)
                    if length < 1:
                        raise InputError(f"{where}: no step is left")
                    info = EpisodeInfo(len(infos), length, self._instruction(example), self._success(example), where)
                except InputError as error:
                    lost.append(str(error))
                    continue
                first = first or example
                infos.append(info)
                self._places.append(_Place(file, number))
            lost += [f"{name.name}: {line}" for line in file.lost]
        if first is None:
            raise InputError(f"{path}: no episode can be read; {lost[0] if lost else 'the files are empty'}")
        self.infos, self.lost = infos, tuple(lost)
        self._keys = {key.removeprefix(SEEN): key for key in _pictures(first)}
        self.contract = contract or self._make_contract(first, rate)
        missing = [camera.name for camera in self.contract.cameras if camera.name not in self._keys]
        if missing:
            raise InputError(f"{path}: no pictures of {missing[0]!r}; there are {sorted(self._keys)}")
        self.description = (
            f"RLDS ({protocol.name}): {len(infos)} episodes, {self.frames} frames at {self.contract.rate:g} Hz, "
            + ", ".join(f"{c.name} {c.width}x{c.height}" for c in self.contract.cameras)
        )

    def read_episode(self, info: EpisodeInfo) -> Episode:
        """See `EpisodeDataset`."""
        place = self._places[info.index]
        where = f"{place.file.path}: record {place.record}"
        example = Example(place.file.data(place.record), where)
        total = self._length(example)
        action = np.concatenate([self._matrix(example, key, total) for key in self._action_keys(example)], axis=1)
        state = self._state(example, total)
        action, kept = relabelled(self._protocol, state, action, where)
        state, action = state[kept], action[kept]
        if not (np.isfinite(state).all() and np.isfinite(action).all()):
            raise InputError(f"{where}: state or action has NaN or infinity")

        def read(camera: str, start: int, stop: int) -> Iterator[NDArray[np.uint8]]:
            spec, key = self.contract.camera(camera), self._keys[camera]
            cells = example.bytes_list(key)
            if len(cells) != total:
                raise InputError(f"{where}: {len(cells)} pictures of {key!r} for {total} steps")
            for t in range(start, stop):
                at = f"{where}: {key}, step {t + kept.start}"
                yield check_picture(decode_picture(bytes(cells[t + kept.start]), at), spec.height, spec.width, at)

        stamps = np.arange(len(action)) / self.contract.rate
        return Episode(info, state, action, stamps, tuple(c.name for c in self.contract.cameras), read)

    # -------------------------------------------------------------------------------------------- features

    def _length(self, example: Example) -> int:
        if f"{STEPS}is_first" in example.names:
            return len(example.integers(f"{STEPS}is_first"))
        pictures = _pictures(example)
        if not pictures:
            raise InputError(f"neither {STEPS}is_first nor pictures; there are {', '.join(example.names)}")
        return len(example.bytes_list(pictures[0]))

    def _instruction(self, example: Example) -> str:
        for key in self._protocol.instruction:
            if STEPS + key in example.names and (texts := example.bytes_list(STEPS + key)):
                return bytes(texts[0]).decode(errors="replace").strip()
        return ""

    def _success(self, example: Example) -> bool | None:
        if "episode_metadata/success" not in example.names:
            return None
        values = example.integers("episode_metadata/success")
        return bool(values[0]) if len(values) and values[0] >= 0 else None

    def _action_keys(self, example: Example) -> list[str]:
        keys = [STEPS + key for key in self._protocol.actions]
        missing = [key for key in keys if key not in example.names]
        if missing:
            raise InputError(f"{self.path}: no feature {missing[0]!r}; there are {', '.join(example.names)}")
        return keys

    def _state(self, example: Example, total: int) -> NDArray[np.float32]:
        for key in self._protocol.state:
            if STEPS + key in example.names:
                return self._matrix(example, STEPS + key, total)
        return np.zeros((total, 0), np.float32)

    def _matrix(self, example: Example, key: str, total: int) -> NDArray[np.float32]:
        values = example.floats(key)
        if total == 0 or len(values) % total:
            raise InputError(f"{self.path}: {key!r} has {len(values)} numbers for {total} steps")
        return values.reshape(total, -1)

    def _make_contract(self, example: Example, rate: float | None) -> Contract:
        protocol = self._protocol
        if rate is None and protocol.rate is None:
            raise ConfigError(f"{self.path}: RLDS does not say its rate; give it in Hz, or a contract")
        total = self._length(example)
        counts = sum(self._matrix(example, key, total).shape[1] for key in self._action_keys(example))
        width = self._state(example, total).shape[1]
        action = protocol.action or Action(tuple(Dimension(f"action_{i}") for i in range(counts)))
        state = protocol.state_dimensions or tuple(Dimension(f"state_{i}") for i in range(width))
        if len(action.dimensions) != counts or len(state) != width:
            found = f"{counts} action and {width} state dimensions"
            expected = f"{len(action.dimensions)} and {len(state)}"
            raise InputError(f"{self.path}: {found}; protocol {protocol.name!r} has {expected}")
        cameras = []
        for name in protocol.cameras or sorted(self._keys):
            if name not in self._keys:
                raise InputError(f"{self.path}: no pictures of {name!r}; there are {sorted(self._keys)}")
            image = decode_picture(bytes(example.bytes_list(self._keys[name])[0]), f"{self.path}: {name}")
            cameras.append(Camera(name, image.shape[0], image.shape[1]))
        return Contract(rate=rate or protocol.rate or 0.0, cameras=tuple(cameras), state=state, action=action)


def _pictures(example: Example) -> list[str]:
    """Features of the observation that hold JPEG or PNG."""
    found = []
    for name in example.names:
        if name.startswith(SEEN) and example.kind(name) == "bytes":
            cells = example.bytes_list(name)
            if cells and bytes(cells[0][:4]).startswith(_MAGIC):
                found.append(name)
    return found


def is_rlds(path: Path) -> bool:
    """Whether `path` is the folder of an RLDS set's version, or one above it."""
    return bool(_version_folder(path))


def _version_folder(path: Path) -> Path | None:
    for folder in (path, *sorted((p for p in path.iterdir() if p.is_dir()), key=natural_key)) if path.is_dir() else ():
        if any(folder.glob("*.tfrecord*")):
            return folder
    return None


def open_rlds(
    path: Path,
    *,
    split: str = "train",
    protocol: str = "auto",
    rate: float | None = None,
    contract: Contract | None = None,
    cameras: tuple[str, ...] | None = None,
) -> RldsDataset:
    """Open one split of an RLDS set.

    protocol: what its features mean, one of `PROTOCOLS`; "auto": by the set's name, else "plain".
    rate: Hz, where the protocol does not know it. cameras: those to take, by their names below observation/.
    Damaged records are left out and named in `lost`. InputError if none can be read.
    """
    folder = _version_folder(path)
    if folder is None:
        raise InputError(f"{path}: no *.tfrecord* files here or one level below")
    files = sorted(folder.glob("*.tfrecord*"), key=natural_key)
    chosen = [file for file in files if f"-{split}." in file.name]
    if not chosen:
        raise InputError(f"{folder}: no files of split {split!r}; there are {', '.join(f.name for f in files[:8])}")
    rules = _auto(folder, contract) if protocol == "auto" else rlds_protocol(protocol)
    if cameras is not None:
        rules = replace(rules, cameras=cameras)
    if contract is None and (folder / CONTRACT).is_file():
        contract = load_contract(folder / CONTRACT)
        rules = PROTOCOLS["plain"] if protocol == "auto" else rules
    return RldsDataset(folder, chosen, rules, rate, contract)


def _auto(folder: Path, contract: Contract | None) -> RldsProtocol:
    info = folder / "dataset_info.json"
    name = read_json(info).get("name") if info.is_file() and contract is None else None
    return PROTOCOLS["bridge" if name in ("bridge_dataset", "bridge_orig") else "plain"]
