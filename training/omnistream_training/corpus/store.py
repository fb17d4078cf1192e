# SPDX-License-Identifier: Apache-2.0
"""Samples: files that belong together because their names are equal up to the first dot.

    a folder      kitchen/0001.jpg  kitchen/0001.txt                       searched with everything below it
    shards        000000.tar, 000001.tar, ...: a WebDataset; or one .tar     members 0001.jpg, 0001.json, ...

Any sample can be read at any time, which is what makes a batch a function of the step number. A shard's list of members
is read once, when the first of its samples is drawn, and only headers are: reading it costs a seek per member.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from omnistream.errors import InputError
from omnistream.io.files import write_bytes

VERSION = 1


class Part(Protocol):
    """One file of a sample."""

    @property
    def name(self) -> str:
        """For people: a path, or a shard and a member."""
        ...

    def read(self) -> bytes:
        """The content. InputError if it cannot be read."""
        ...


@dataclass(frozen=True)
class Sample:
    """Files by extension, lower case and without the dot: jpg, json, txt; seg.png where a name has two."""

    name: str
    parts: Mapping[str, Part]
    origin: str = ""
    """What it shares with other samples, a picture say: no training sample has the origin of a held-out one. Empty: it
    shares nothing."""

    def first(self, extensions: Sequence[str]) -> Part | None:
        """The part with one of these extensions, None if there is none."""
        return next((self.parts[extension] for extension in extensions if extension in self.parts), None)


@dataclass(frozen=True)
class FilePart:
    """A file on disk."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True)
class ShardPart:
    """A member of a tar, uncompressed, where it lies."""

    shard: Path
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.shard}: {self.member}"

    def read(self) -> bytes:
        try:
            with open(self.shard, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror or error}") from error
        if len(data) != self.size:
            raise InputError(f"{self.name}: {len(data)} bytes of {self.size}; the shard is cut short")
        return data


class Samples(Protocol):
    """What samples are drawn from, in groups."""

    path: Path
    description: str

    def __len__(self) -> int: ...

    def samples(self, group: int) -> Sequence[Sample]: ...

    def digest(self) -> str: ...


class Store:
    """The samples of a folder, or of shards, that have a file with one of the wanted extensions."""

    def __init__(self, path: Path, wanted: Sequence[str]) -> None:
        """wanted: extensions, lower case. InputError if there is nothing to be found."""
        self.path = path
        self._wanted = tuple(wanted)
        shards = sorted(path.glob("*.tar")) if path.is_dir() else [path] if path.suffix == ".tar" else []
        if not path.exists():
            raise InputError(f"{path} does not exist; expected a folder of files, or of .tar shards")
        self.shards: list[Path] = shards
        self._groups: list[Path] = shards or [path]
        if not shards:
            count = len(self.samples(0))
            if not count:
                raise InputError(f"{path} has no .tar shards, and no file that ends with {', '.join(wanted)}")
            self.description = f"{count} samples in {path}"
        else:
            self.description = f"{len(shards)} shards in {path}"

    def __len__(self) -> int:
        """Groups of samples: shards, or the one group of a folder."""
        return len(self._groups)

    def samples(self, group: int) -> Sequence[Sample]:
        """Of one group, in plain order; none in a shard without any. InputError names a shard that is damaged."""
        if self.shards:
            shard = self.shards[group]
            try:
                stat = shard.stat()
            except OSError as error:
                raise InputError(f"{shard}: cannot be read: {error.strerror or error}") from error
            return _shard_samples(shard, stat.st_size, stat.st_mtime_ns, self._wanted)
        return _folder_samples(self.path, self._wanted)

    def digest(self) -> str:
        """Changes with the names and sizes of shards, or the names of a folder's samples."""
        sha = hashlib.sha256()
        for shard in self.shards:
            sha.update(f"{shard.name} {shard.stat().st_size}\n".encode())
        for sample in () if self.shards else self.samples(0):
            sha.update(f"{sample.name}\n".encode())
        return sha.hexdigest()[:16]


@functools.lru_cache(maxsize=32)
def _shard_samples(shard: Path, size: int, changed: int, wanted: tuple[str, ...]) -> tuple[Sample, ...]:
    """size, changed: of the shard, which may be mended while a run goes on."""
    parts: dict[str, dict[str, Part]] = {}
    for member, offset, length in _members(shard, f"{size} {changed}"):
        key, extension = _split(member)
        parts.setdefault(key, {})[extension] = ShardPart(shard, member, offset, length)
    return _kept(parts, wanted)


def _members(shard: Path, version: str) -> list[tuple[str, int, int]]:
    """Name, offset and size of each file in a shard; remembered in ~/.cache/omnistream/shards, where that can be."""
    key = hashlib.sha256(f"{VERSION} {shard.resolve()} {version}".encode()).hexdigest()
    index = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "omnistream" / "shards" / key[:32]
    with contextlib.suppress(OSError, ValueError, TypeError):  # none yet, or damaged: the shard itself is read
        return [(str(name), int(offset), int(size)) for name, offset, size in json.loads(index.read_bytes())]
    try:
        with tarfile.open(shard, "r:") as tar:
            files = (m for m in tar if m.isfile() and not Path(m.name).name.startswith("."))
            found = [(member.name, member.offset_data, member.size) for member in files]
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{shard}: cannot be read as an uncompressed tar: {error}") from error
    with contextlib.suppress(OSError):  # a home that cannot be written to costs time, not the run
        write_bytes(index, json.dumps(found).encode())
    return found


@functools.lru_cache(maxsize=16)
def _folder_samples(folder: Path, wanted: tuple[str, ...]) -> tuple[Sample, ...]:
    parts: dict[str, dict[str, Part]] = {}
    for path in folder.rglob("*") if folder.is_dir() else (folder,):
        if path.is_file() and not path.name.startswith("."):
            key, extension = _split(str(path.relative_to(folder.parent)))
            parts.setdefault(key, {})[extension] = FilePart(path)
    return _kept(parts, wanted)


def _kept(parts: dict[str, dict[str, Part]], wanted: Sequence[str]) -> tuple[Sample, ...]:
    found = (Sample(key, parts[key]) for key in sorted(parts))
    return tuple(sample for sample in found if sample.first(wanted) is not None)


def _split(name: str) -> tuple[str, str]:
    """a/b.seg.PNG -> a/b, seg.png."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()
