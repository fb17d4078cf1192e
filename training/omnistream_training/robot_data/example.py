# SPDX-License-Identifier: Apache-2.0
"""tf.train.Example without protobuf: a map from names to lists of bytes, floats or integers.

    Example { Features features = 1 }    Features { map<string, Feature> feature = 1 }
    Feature { oneof: BytesList = 1, FloatList = 2, Int64List = 3 }, each { repeated value = 1 }

Reading slices memory and decodes what is asked for. Every length is checked against the bytes that are there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError

Value = Sequence[bytes] | NDArray[np.float32] | NDArray[np.int64]
_BYTES, _FLOATS, _INTEGERS = 1, 2, 3
_KINDS = {_BYTES: "bytes", _FLOATS: "floats", _INTEGERS: "integers"}


class Example:
    """A parsed record. InputError names the feature that is damaged, missing or of another kind."""

    def __init__(self, data: memoryview, where: str) -> None:
        self._where = where
        self._features: dict[str, memoryview] = {}
        for number, features in self._fields(data, "the record"):
            if number != 1 or not isinstance(features, memoryview):
                continue
            for _, entry in self._fields(features, "the map"):
                if not isinstance(entry, memoryview):
                    raise InputError(f"{where}: the map of features is damaged")
                parts = {key: value for key, value in self._fields(entry, "a feature") if isinstance(value, memoryview)}
                try:
                    self._features[bytes(parts[1]).decode()] = parts.get(2, memoryview(b""))
                except (KeyError, UnicodeDecodeError) as error:
                    raise InputError(f"{where}: a feature has no readable name") from error

    @property
    def names(self) -> list[str]:
        """All features, sorted."""
        return sorted(self._features)

    def kind(self, name: str) -> str:
        """bytes, floats, integers, or empty; empty too where there is no such feature."""
        feature = self._features.get(name, memoryview(b""))
        return next((_KINDS.get(number, "unknown") for number, _ in self._fields(feature, name)), "empty")

    def bytes_list(self, name: str) -> list[memoryview]:
        """The values of a feature of bytes."""
        values = [value for _, value in self._values(name, _BYTES)]
        if not all(isinstance(value, memoryview) for value in values):
            raise InputError(f"{self._where}: feature {name!r} is damaged")
        return values  # type: ignore[return-value]  # as was just checked

    def floats(self, name: str) -> NDArray[np.float32]:
        """[n]; integers and booleans are converted."""
        if self.kind(name) == "integers":
            return self.integers(name).astype(np.float32)
        parts = [value for _, value in self._values(name, _FLOATS)]
        if not all(isinstance(part, memoryview) and len(part) % 4 == 0 for part in parts):
            raise InputError(f"{self._where}: feature {name!r} is damaged")
        return np.frombuffer(b"".join(parts), "<f4")  # type: ignore[arg-type]  # as was just checked

    def integers(self, name: str) -> NDArray[np.int64]:
        """[n]."""
        found: list[int] = []
        for wire, value in self._values(name, _INTEGERS):
            if wire == 0 and isinstance(value, int):
                found.append(value)
            elif isinstance(value, memoryview):
                at = 0
                while at < len(value):
                    number, at = self._varint(value, at, name)
                    found.append(number)
        return np.array(found, np.uint64).astype(np.int64)

    def _values(self, name: str, kind: int) -> Iterator[tuple[int, memoryview | int]]:
        """(wire type, value) of the list in a feature."""
        if name not in self._features:
            raise InputError(f"{self._where}: no feature {name!r}; there are {', '.join(self.names)}")
        for number, values in self._fields(self._features[name], name):
            if number != kind or not isinstance(values, memoryview):
                raise InputError(f"{self._where}: feature {name!r} holds {_KINDS.get(number)}; expected {_KINDS[kind]}")
            for _, value in self._fields(values, name):
                yield (0 if isinstance(value, int) else 2), value

    def _fields(self, data: memoryview, name: str) -> Iterator[tuple[int, memoryview | int]]:
        """(field number, value) of a message: bytes, or an integer."""
        at, end = 0, len(data)
        while at < end:
            key, at = self._varint(data, at, name)
            wire = key & 7
            if wire == 0:
                number, at = self._varint(data, at, name)
                yield key >> 3, number
                continue
            if wire == 2:
                length, at = self._varint(data, at, name)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise InputError(f"{self._where}: {name!r} is damaged: wire type {wire}")
            if length > end - at:
                raise InputError(f"{self._where}: {name!r} is cut short: {end - at} of {length} bytes")
            yield key >> 3, data[at : at + length]
            at += length

    def _varint(self, data: memoryview, at: int, name: str) -> tuple[int, int]:
        result = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                break
            byte = data[at]
            at += 1
            result |= (byte & 127) << shift
            if byte < 128:
                return result & 0xFFFFFFFFFFFFFFFF, at
        raise InputError(f"{self._where}: {name!r} is damaged: a number without an end")


def encode_example(features: Mapping[str, Value]) -> bytes:
    """The bytes of an Example; arrays of floats and integers, or sequences of bytes."""
    entries = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, _feature(value))) for name, value in features.items()
    )
    return _field(1, entries)


def _feature(value: Value) -> bytes:
    if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating):
        return _field(_FLOATS, _field(1, value.astype("<f4").tobytes()))
    if isinstance(value, np.ndarray):
        return _field(_INTEGERS, _field(1, b"".join(_number(int(x) & 0xFFFFFFFFFFFFFFFF) for x in value.reshape(-1))))
    return _field(_BYTES, b"".join(_field(1, item) for item in value))


def _field(number: int, data: bytes) -> bytes:
    return _number(number << 3 | 2) + _number(len(data)) + data


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + struct.pack("B", value)
