# SPDX-License-Identifier: Apache-2.0
"""TFRecord files without TensorFlow: length, checksum of the length, data, checksum of the data.

The checksums are CRC-32C (Castagnoli), masked (tensorflow/core/lib/hash/crc32c.h, lib/io/record_writer.cc).
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError

LARGEST_RECORD = 2**31
LANES = 1024
"""Stretches of a buffer whose checksums are computed side by side."""


@dataclass(frozen=True)
class Record:
    """Where a record's data lie."""

    offset: int
    length: int


class TFRecordFile:
    """An open file, mapped into memory: only what is looked at is read. `lost` says what could not be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost: list[str] = []
        self.records: list[Record] = []
        try:
            with path.open("rb") as file:
                self._bytes: mmap.mmap | bytes = (
                    mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
                )
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error}") from error
        self._index()

    def _index(self) -> None:
        at, size = 0, len(self._bytes)
        while at < size:
            head = self._bytes[at : at + 12]
            if len(head) < 12:
                self.lost.append(f"cut short at byte {at}, within a record's head")
                return
            length, checksum = struct.unpack("<QI", head)
            if masked(crc32c(head[:8])) != checksum or length > LARGEST_RECORD:
                self.lost.append(f"from byte {at} on: {size - at} bytes (the checksum of a record's length is wrong)")
                return
            if at + 16 + length > size:
                self.lost.append(f"cut short within record {len(self.records)}: {size - at - 12} of {length} bytes")
                return
            self.records.append(Record(at + 12, length))
            at += 16 + length

    def data(self, number: int, *, check: bool = True) -> memoryview:
        """A record's bytes. InputError if its checksum is wrong; check=False leaves that out."""
        record = self.records[number]
        end = record.offset + record.length
        view = memoryview(self._bytes)[record.offset : end]
        if check and masked(crc32c(view)) != struct.unpack("<I", self._bytes[end : end + 4])[0]:
            raise InputError(f"{self.path}: record {number} at byte {record.offset} has a wrong checksum")
        return view


def write_record(file: BinaryIO, data: bytes) -> None:
    """Append one record."""
    head = struct.pack("<Q", len(data))
    file.write(head + struct.pack("<I", masked(crc32c(head))) + data + struct.pack("<I", masked(crc32c(data))))


def masked(checksum: int) -> int:
    """As TensorFlow stores it, so that checksums of data that hold checksums stay independent."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C. Long buffers are cut into lanes that numpy goes through together, a hundred megabytes a second."""
    values = np.frombuffer(data, np.uint8)
    table = _table()
    length = len(values) // LANES if len(values) >= 64 * LANES else 0
    state = np.zeros(LANES, np.uint32)
    state[0] = 0xFFFFFFFF
    crc = 0xFFFFFFFF
    if length:
        for column in np.ascontiguousarray(values[: length * LANES].reshape(LANES, length).T):
            state = table[(state ^ column) & 0xFF] ^ (state >> 8)
        # A lane's checksum, moved on by the bytes after it, adds to the whole: checksums are linear.
        matrix = _moved_by(length)
        while len(state) > 1:
            state = _apply(matrix, state[0::2]) ^ state[1::2]
            matrix = _apply(matrix, matrix)
        crc = int(state[0])
    plain = table.tolist()
    for byte in values[length * LANES :].tolist():
        crc = plain[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1).astype(np.uint32)
    return table


@cache
def _moved_by(length: int) -> NDArray[np.uint32]:
    """[32]: what `length` zero bytes make of each bit of a state."""
    matrix = np.uint32(1) << np.arange(32, dtype=np.uint32)
    step = _table()[matrix & 0xFF] ^ (matrix >> 8)
    while length:
        if length & 1:
            matrix = _apply(step, matrix)
        step = _apply(step, step)
        length >>= 1
    return matrix


def _apply(matrix: NDArray[np.uint32], states: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The map that takes bit i to matrix[i], of each state."""
    out = np.zeros_like(states)
    for bit in range(32):
        out ^= np.where(states >> np.uint32(bit) & 1, matrix[bit], np.uint32(0)).astype(np.uint32)
    return out
