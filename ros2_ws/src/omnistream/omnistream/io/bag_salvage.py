# SPDX-License-Identifier: Apache-2.0
"""What can still be read of a damaged bag file: cut short, without its index, or with bytes that are wrong.

Both readers look like those of `rosbags` as far as `omnistream.io.bag_reader` goes, and say in `lost` what is missing.
mcap is read record by record: a chunk whose checksum is wrong is left out, the rest goes on. sqlite3 is read in the
order of its rows; pages that cannot be read are stepped over.
"""

from __future__ import annotations

import io
import sqlite3
import struct
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnistream.errors import InputError
from omnistream.io.extras import need

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 3, 4, 5, 6, 15
LARGEST_RECORD = 2**31
LARGEST_CHUNK = 2**30
"""Bytes; recorders write chunks of 1 to 16 MiB, and what states more is damaged or hostile."""
STEPS_OVER_DAMAGE = 48


@dataclass
class Connection:
    """One topic of the file."""

    id: int
    topic: str
    msgtype: str
    msgcount: int = 0


@dataclass
class _Scan:
    """What one pass over an mcap file has met."""

    schemas: dict[int, str] = field(default_factory=dict)
    connections: dict[int, Connection] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


class SalvagedMcap:
    """A damaged mcap file. Opening reads it once to learn its topics; InputError if nothing can be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        scan = _Scan()
        self.start_time = 2**63 - 1
        for connection, log_time, _ in _records(path, scan):
            connection.msgcount += 1
            self.start_time = min(self.start_time, log_time)
        self.connections = list(scan.connections.values())
        self.lost = scan.lost
        if not any(connection.msgcount for connection in self.connections):
            raise InputError(f"{path}: no message can be read; {'; '.join(self.lost) or 'it holds none'}")

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """(topic, log time ns, serialised message), in the order of the file."""
        wanted = {connection.id: connection for connection in connections}
        for connection, log_time, data in _records(self.path, _Scan()):
            if connection.id in wanted:
                yield wanted[connection.id], log_time, data

    def close(self) -> None:
        """Nothing is held open."""


def _records(path: Path, scan: _Scan) -> Iterator[tuple[Connection, int, bytes]]:
    """Messages of an mcap file (https://mcap.dev/spec), as far as they go."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(8) != MAGIC:
            scan.lost.append("the file does not begin as mcap does")
            return
        while True:
            at = file.tell()
            head = file.read(9)
            if len(head) < 9:
                scan.lost.append(f"cut short at byte {at}, before the index" if head or at == size else "")
                break
            kind, length = head[0], int.from_bytes(head[1:], "little")
            if kind == _DATA_END:
                break
            whole = at + 9 + length <= size
            if length > LARGEST_RECORD or (not whole and kind not in (_MESSAGE, _CHUNK)):
                scan.lost.append(f"from byte {at} on: {size - at} bytes (a record of type {kind} and {length} bytes)")
                break
            if kind == _CHUNK:
                yield from _chunk(file.read(length), whole, at, scan)
            elif kind in (_SCHEMA, _CHANNEL, _MESSAGE) and whole:
                yield from _record(kind, file.read(length), scan)
            else:
                file.seek(length, io.SEEK_CUR)
            if not whole:
                scan.lost.append(f"cut short within the record at byte {at}")
                break
    scan.lost[:] = [line for line in scan.lost if line]


def _chunk(data: bytes, whole: bool, at: int, scan: _Scan) -> Iterator[tuple[Connection, int, bytes]]:
    """A chunk's messages by log time; those before the damage if it is cut short and not compressed."""
    try:
        _, _, size, checksum, name_length = struct.unpack_from("<QQQII", data)
        name = data[32 : 32 + name_length].decode()
        body = data[40 + name_length :]
        if size > LARGEST_CHUNK:
            raise ValueError(f"states {size} bytes")
        if name:
            body = _decompress(name, body, size)
        if whole and (len(body) != size or (checksum and zlib.crc32(body) != checksum)):
            raise ValueError("wrong checksum")
    except (struct.error, ValueError, RuntimeError, EOFError, MemoryError) as error:
        scan.lost.append(f"a chunk of {len(data)} bytes at byte {at}: {error}")
        return
    found = []
    position = 0
    while position + 9 <= len(body):
        kind, length = body[position], int.from_bytes(body[position + 1 : position + 9], "little")
        position += 9
        if position + length > len(body):
            break
        found += list(_record(kind, body[position : position + length], scan))
        position += length
    yield from sorted(found, key=lambda item: item[1])


def _decompress(name: str, body: bytes, size: int) -> bytes:
    if name == "lz4":
        return bytes(need("lz4.frame", "io", "reading mcap").decompress(body))
    if name == "zstd":
        zstandard: Any = need("zstandard", "io", "reading mcap")
        try:
            return bytes(zstandard.ZstdDecompressor().decompress(body, max_output_size=size))
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
    raise ValueError(f"unknown compression {name!r}")


def _record(kind: int, data: bytes, scan: _Scan) -> Iterator[tuple[Connection, int, bytes]]:
    try:
        if kind == _SCHEMA:
            (number,) = struct.unpack_from("<H", data)
            scan.schemas[number] = _text(data, 2)[0]
        elif kind == _CHANNEL:
            number, schema = struct.unpack_from("<HH", data)
            if number not in scan.connections:
                scan.connections[number] = Connection(number, _text(data, 4)[0], scan.schemas.get(schema, ""))
        elif kind == _MESSAGE:
            number, _, log_time, _ = struct.unpack_from("<HIQQ", data)
            if number in scan.connections:
                yield scan.connections[number], log_time, data[22:]
    except (struct.error, ValueError) as error:
        scan.lost.append(f"a record of type {kind}: {error}")


def _text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", data, at)
    return data[at + 4 : at + 4 + length].decode(), at + 4 + length


class SalvagedSqlite:
    """A damaged sqlite3 bag. InputError if its list of topics cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost: list[str] = []
        self._database = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
        try:
            rows = self._database.execute("SELECT id, name, type FROM topics").fetchall()
        except sqlite3.Error as error:
            self.close()
            raise InputError(f"{path}: its list of topics cannot be read: {error}") from error
        self.connections = [Connection(int(i), str(name), str(type_)) for i, name, type_ in rows]
        by_id = {connection.id: connection for connection in self.connections}
        self.start_time = 2**63 - 1
        for _, topic, log_time, _ in self._rows("NULL", self.lost.append):
            if topic in by_id:
                by_id[topic].msgcount += 1
                self.start_time = min(self.start_time, log_time)

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """(topic, log time ns, serialised message), in the order they were written."""
        wanted = {connection.id: connection for connection in connections}
        for _, topic, log_time, data in self._rows("data", lambda _: None):
            if topic in wanted and isinstance(data, bytes):
                yield wanted[topic], log_time, data

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _rows(self, data: str, lose: Callable[[str], None]) -> Iterator[tuple[int, int, int, Any]]:
        """Rows by number. After damage, go on behind it: one number further, then two, four, ..."""
        query = f"SELECT id, topic_id, timestamp, {data} FROM messages WHERE id > ? ORDER BY id"
        last, step, failures = -1, 1, 0
        before, reason = last, sqlite3.Error()
        while failures < STEPS_OVER_DAMAGE:
            try:
                for row in self._database.execute(query, (last,)):
                    if not all(isinstance(value, int) for value in row[:3]):
                        continue
                    if failures:
                        lose(f"about {row[0] - before} rows after row {before}")
                        failures, step = 0, 1
                    last = row[0]
                    yield row
                break
            except sqlite3.Error as error:
                if not failures:
                    before, reason = last, error
                failures += 1
                last, step = last + step, step * 2
                if last >= 2**62:
                    break
        if failures:
            lose(f"all rows after row {before}: {reason}")


def open_damaged(path: Path) -> SalvagedMcap | SalvagedSqlite:
    """The reader for a storage file that cannot be read as it should; InputError if nothing is left of it."""
    if path.suffix.lower() == ".mcap":
        return SalvagedMcap(path)
    if path.suffix.lower() == ".db3":
        return SalvagedSqlite(path)
    raise InputError(f"{path}: nothing is known about rescuing {path.suffix} files; expected .mcap or .db3")
