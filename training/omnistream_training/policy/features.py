# SPDX-License-Identifier: Apache-2.0
"""Frozen features of a data set on disk: computed once, checked by hash, and gone on with after a kill.

CACHE/<key>/
    features.json   what they are features of: backbone, data set, camera, size, memory; the key is its hash
    tokens.npy      float16 [frames, 1 + patches, D], all episodes after one another
    done.jsonl      {"episode": 3, "sha256": ...} for each that is complete

Another backbone, precision, normalisation, image size or cache policy, or a data set in which a byte changed, has
another key.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from omnistream.episodes import Episode, EpisodeDataset
from omnistream.errors import ConfigError, InputError
from omnistream.model.layers import narrow_products
from omnistream.model.omnistream import OmniStream
from omnistream.policy.config import VisionConfig
from omnistream.policy.vision import BackboneInput, feature_size, grid_of, pixel_tokens, stream_tokens, tapped_blocks
from omnistream.stream.preprocess import network_size, preprocess
from omnistream.weights.identity import model_hash
from omnistream_training.journal import duration

VERSION = 2
EPISODES_AT_ONCE = 16
"""Streams that run side by side."""
HEADROOM = 64 * 2**20
"""Bytes that stay free on the disk."""


@dataclass(frozen=True)
class FeatureTable:
    """Features of one camera of one data set, read as they are asked for."""

    tokens: NDArray[np.float16]
    """[frames, 1 + patches, D], a memory map."""
    grid: tuple[int, int]

    def read(self, rows: Sequence[int]) -> NDArray[np.float16]:
        """[len(rows), 1 + patches, D], copied."""
        if isinstance(self.tokens, np.memmap) and hasattr(os, "posix_fadvise"):
            size = self.tokens[0].nbytes
            with open(str(self.tokens.filename), "rb") as file:
                for row in rows:  # all are asked for before the first is waited for: several times faster from a disk
                    start = self.tokens.offset + row * size
                    os.posix_fadvise(file.fileno(), start, size, os.POSIX_FADV_WILLNEED)
        return np.stack([self.tokens[row] for row in rows])


class FeatureCache:
    """The features of one data set under one backbone."""

    def __init__(
        self,
        root: Path,
        vision: VisionConfig,
        model: OmniStream | None,
        *,
        device: str = "cpu",
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        """precision: of the backbone's products, as `TorchEngine`'s dtype; what is kept is float16 either way."""
        self.root, self.vision, self.device = root, vision, torch.device(device)
        self.dim, self.patch = feature_size(vision, None if model is None else model.config)
        self.precision = precision
        self._model = model
        self._hash = None if model is None or vision.source == "pixels" else model_hash(model.backbone)
        if self._hash is not None and model is not None:
            self._backbone = model.backbone.to(self.device).eval()
            if precision == "bfloat16":  # the caller's model stays as it is
                self._backbone = copy.deepcopy(self._backbone)
                narrow_products(self._backbone, torch.bfloat16)

    def table(
        self,
        dataset: EpisodeDataset,
        dataset_hash: str,
        camera: str,
        *,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
        stop: Callable[[], bool] = lambda: False,
    ) -> FeatureTable | None:
        """The features of `camera`, computed now where they are not there yet; None if `stop()` said so.

        Raises InputError for pictures that cannot be read, ConfigError if the disk is too small.
        """
        told = dataset.contract.camera(camera)
        grid = grid_of(told.height, told.width, self.vision, self.patch)
        lengths = [info.length for info in dataset.infos]
        shape = (sum(lengths), 1 + grid[0] * grid[1], self.dim)
        meta = {
            "version": VERSION,
            "backbone": self._hash,
            "dataset": dataset_hash,
            "camera": camera,
            "image_size": self.vision.side(told.height, told.width),
            "source": self.vision.source,
            "stream": self.vision.stream if self._hash else None,
            "precision": self.precision if self._hash else None,
            **self._input(),
            "lengths": lengths,
            "shape": list(shape),
        }
        key = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:16]
        folder = self.root / key
        tokens, done = self._open(folder, meta, shape)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        missing = [i for i in range(len(lengths)) if i not in done]
        begin, computed = time.monotonic(), 0
        frames = sum(lengths[i] for i in missing)
        if missing:
            say(f"features of {camera!r}: {frames} frames of {len(missing)} episodes to compute, into {folder}")
        for group in _groups(missing, lengths):
            if stop():
                return None
            for episode, block in self._compute(dataset, group, camera):
                tokens[starts[episode] : starts[episode + 1]] = block
                tokens.flush()
                _append(folder / "done.jsonl", {"episode": episode, "sha256": _digest(block)})
                computed += len(block)
            spent = time.monotonic() - begin
            say(
                f"features of {camera!r}: {computed} of {frames} frames, {computed / spent:.0f} frames/s, "
                f"{duration(spent / computed * (frames - computed))} left"
            )
        del tokens
        return FeatureTable(np.load(folder / "tokens.npy", mmap_mode="r"), grid)

    def _input(self) -> dict[str, object]:
        """What the hash of the backbone says nothing about."""
        if self._hash is None or self._model is None:
            return {}
        return dataclasses.asdict(BackboneInput.of(self.vision, self._model.config))

    def _open(self, folder: Path, meta: dict[str, Any], shape: tuple[int, ...]) -> tuple[np.memmap, set[int]]:
        """The table, writable, and the episodes in it that are whole."""
        path = folder / "tokens.npy"
        if not (folder / "features.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            needed, free = 2 * int(np.prod(shape)) + HEADROOM, shutil.disk_usage(folder).free
            if needed > free:
                raise ConfigError(
                    f"features of {meta['camera']!r} take {needed / 2**30:.1f} GiB, {self.root} has "
                    f"{free / 2**30:.1f}; choose another --cache, a smaller image_size or fewer cameras"
                )
            np.lib.format.open_memmap(path, "w+", np.float16, shape).flush()  # type: ignore[no-untyped-call]
            (folder / "features.json").write_text(json.dumps(meta, indent=2) + "\n")  # last: the table is there
        try:
            tokens = np.lib.format.open_memmap(path, "r+")  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}); delete {folder} and start again") from error
        if tokens.shape != shape or tokens.dtype != np.float16:
            raise InputError(f"{path} is {tokens.dtype} {tokens.shape}; expected float16 {shape}; delete {folder}")
        if (folder / "done.jsonl").exists() and not (folder / "done.jsonl").read_bytes().endswith(b"\n"):
            with (folder / "done.jsonl").open("a", encoding="utf-8") as file:
                file.write("\n")  # a line cut off by a kill ends here
        starts = np.concatenate([[0], np.cumsum(meta["lengths"])])
        done: set[int] = set()
        for record in _records(folder / "done.jsonl"):
            episode = record["episode"]
            if _digest(tokens[starts[episode] : starts[episode + 1]]) == record["sha256"]:
                done.add(episode)
        return tokens, done

    def _compute(
        self, dataset: EpisodeDataset, group: Sequence[int], camera: str
    ) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Episodes of similar length, one stream each, side by side."""
        episodes = [dataset[i] for i in group]
        told = dataset.contract.camera(camera)
        side = self.vision.side(told.height, told.width)
        if self._hash is None:
            for i, episode in zip(group, episodes, strict=True):
                yield i, np.stack([pixel_tokens(image, side) for image in episode.frames(camera)])
        else:
            size = network_size(told.height, told.width, side, self.patch)
            yield from zip(group, self._stream(episodes, camera, size), strict=True)

    def _stream(self, episodes: list[Episode], camera: str, size: tuple[int, int]) -> list[NDArray[np.float16]]:
        assert self._model is not None
        config = self._model.config
        blocks = tapped_blocks(self.vision, config)
        stream = self._backbone.stream(self.vision.stream, camera_token=config.camera_token)
        readers = [episode.frames(camera) for episode in episodes]
        rows: list[list[NDArray[np.float16]]] = [[] for _ in episodes]
        frame = torch.zeros(len(episodes), 3, *size)
        for t in range(max(len(episode) for episode in episodes)):
            for j, episode in enumerate(episodes):
                if t < len(episode):  # one that has ended goes on with its last picture; nobody looks
                    frame[j] = preprocess(next(readers[j]), size, config)[0]
            out = stream.step(frame.to(self.device))
            taps = [out.hidden[block][:, 0, -out.patches.shape[2] :] for block in blocks]
            seen = stream_tokens(out.cls[:, 0], out.patches[:, 0], taps)
            for j, episode in enumerate(episodes):
                if t < len(episode):
                    rows[j].append(seen[j])
        return [np.stack(row) for row in rows]


def _groups(episodes: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Episodes of similar length together."""
    ordered = sorted(episodes, key=lambda i: (lengths[i], i))
    for first in range(0, len(ordered), EPISODES_AT_ONCE):
        yield ordered[first : first + EPISODES_AT_ONCE]


def _digest(block: NDArray[np.float16]) -> str:
    return hashlib.sha256(np.ascontiguousarray(block).tobytes()).hexdigest()


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; one that a kill cut off is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue
