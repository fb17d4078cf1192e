# SPDX-License-Identifier: Apache-2.0
"""One parquet file of frames: rows of an episode, read without reading the rest of the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.io.extras import need

MOST_ROWS = 100_000_000
"""A file that states more is not read: a few bytes of a hostile one can claim any number."""

PICTURES_AT_ONCE = 16


class FrameTable:
    """An open file. InputError names it and the column that is damaged, missing or of the wrong type."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrow: Any = need("pyarrow", "io", "reading parquet")
        parquet: Any = need("pyarrow.parquet", "io", "reading parquet")
        try:
            self._file = parquet.ParquetFile(str(path), pre_buffer=False, buffer_size=1 << 20)
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as parquet: {_sentence(error)}") from error
        self.rows = int(self._file.metadata.num_rows)
        if self.rows > MOST_ROWS:
            raise InputError(f"{path}: states {self.rows} rows; expected at most {MOST_ROWS}")
        self.columns = tuple(self._file.schema_arrow.names)
        told = self._file.schema_arrow.metadata or {}
        self.metadata = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in told.items()}
        """What its writer said about the whole."""
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._episodes: dict[int, tuple[int, int]] | None = None

    def span(self, episode: int) -> tuple[int, int]:
        """First row of an episode and the one after its last; InputError if it has none or they lie apart."""
        if self._episodes is None:
            numbers = self.numbers("episode_index", 0, self.rows)
            edges = np.flatnonzero(np.diff(numbers)) + 1
            starts, stops = [0, *edges.tolist()], [*edges.tolist(), len(numbers)]
            self._episodes = {}
            for start, stop in zip(starts, stops, strict=True):
                number = int(numbers[start]) if len(numbers) else -1
                if number in self._episodes:
                    raise InputError(f"{self.path}: rows of episode {number} lie in more than one place")
                self._episodes[number] = (start, stop)
        if episode not in self._episodes:
            raise InputError(f"{self.path}: no rows of episode {episode}")
        return self._episodes[episode]

    def numbers(self, column: str, start: int, stop: int) -> NDArray[Any]:
        """[stop - start] numbers of a column, in its own type; a list of one number counts as the number."""
        data = self._read([column], start, stop).column(column).combine_chunks()
        types = self._arrow.types
        if types.is_list(data.type) or types.is_fixed_size_list(data.type):
            return self._vectors(column, data, 1)[:, 0]
        if not (types.is_integer(data.type) or types.is_floating(data.type) or types.is_boolean(data.type)):
            raise InputError(f"{self.path}: column {column!r} holds {data.type}; expected numbers")
        if data.null_count:
            raise InputError(f"{self.path}: column {column!r} has {data.null_count} empty cells")
        return data.to_numpy(zero_copy_only=False)

    def vectors(self, column: str, start: int, stop: int, dimensions: int) -> NDArray[np.float32]:
        """f32 [stop - start, dimensions]; InputError if cells are empty, of another length, or not finite."""
        data = self._read([column], start, stop).column(column).combine_chunks()
        if dimensions == 1 and (self._arrow.types.is_floating(data.type) or self._arrow.types.is_integer(data.type)):
            rows = self.numbers(column, start, stop)[:, None]
        else:
            rows = self._vectors(column, data, dimensions)
        values = np.ascontiguousarray(rows, np.float32)
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).any(1).sum())
            raise InputError(f"{self.path}: column {column!r} has {bad} rows with NaN or infinity")
        return values

    def pictures(self, column: str, start: int, stop: int) -> Iterator[bytes | None]:
        """Encoded pictures of rows [start, stop), a few in memory at a time."""
        for group, low, high in self._groups(start, stop):
            row = 0
            for batch in self._guarded(column, group):
                first, last = max(low - row, 0), min(high - row, len(batch))
                row += len(batch)
                if first >= last:
                    continue
                cells = batch.column(0).slice(first, last - first)
                kind = cells.type
                if self._arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                    cells = cells.field(kind.get_field_index("bytes"))
                elif not (self._arrow.types.is_binary(kind) or self._arrow.types.is_large_binary(kind)):
                    raise InputError(f"{self.path}: column {column!r} holds {kind}; expected encoded pictures")
                yield from (cell.as_py() for cell in cells)
                if row >= high:
                    break

    def _guarded(self, column: str, group: int) -> Iterator[Any]:
        if column not in self.columns:
            raise InputError(f"{self.path}: no column {column!r}; there are {', '.join(self.columns)}")
        batches = self._file.iter_batches(PICTURES_AT_ONCE, row_groups=[group], columns=[column], use_threads=False)
        while True:
            try:
                batch = next(batches, None)
            except (self._arrow.ArrowException, OSError, ValueError) as error:
                raise InputError(f"{self.path}: column {column!r} is damaged: {_sentence(error)}") from error
            if batch is None:
                return
            yield batch

    def _groups(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(row group, first row in it, row after the last in it) of rows [start, stop)."""
        for group in range(len(self._starts) - 1):
            low, high = int(self._starts[group]), int(self._starts[group + 1])
            if low < stop and high > start:
                yield group, max(start - low, 0), min(stop, high) - low

    def _read(self, columns: Sequence[str], start: int, stop: int) -> Any:
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise InputError(f"{self.path}: no column {missing[0]!r}; there are {', '.join(self.columns)}")
        groups = list(self._groups(start, stop))
        if not groups:
            return self._file.schema_arrow.empty_table().select(columns)
        try:
            table = self._file.read_row_groups([g for g, _, _ in groups], columns=list(columns), use_threads=False)
        except (self._arrow.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{self.path}: columns {list(columns)} are damaged: {_sentence(error)}") from error
        return table.slice(groups[0][1], stop - start)

    def _vectors(self, column: str, data: Any, dimensions: int) -> NDArray[Any]:
        types = self._arrow.types
        if not (types.is_list(data.type) or types.is_fixed_size_list(data.type) or types.is_large_list(data.type)):
            raise InputError(
                f"{self.path}: column {column!r} holds {data.type}; expected lists of {dimensions} numbers"
            )
        if not (types.is_floating(data.type.value_type) or types.is_integer(data.type.value_type)):
            raise InputError(f"{self.path}: column {column!r} holds {data.type}; expected lists of numbers")
        flat = data.flatten()
        if data.null_count or flat.null_count or len(flat) != len(data) * dimensions:
            raise InputError(f"{self.path}: column {column!r}: not every row has {dimensions} numbers")
        if not types.is_fixed_size_list(data.type) and len(data):
            lengths = np.diff(data.offsets.to_numpy())
            if (lengths != dimensions).any():
                raise InputError(f"{self.path}: column {column!r}: not every row has {dimensions} numbers")
        return flat.to_numpy(zero_copy_only=False).reshape(len(data), dimensions)


def read_columns(path: Path, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Whole columns of a small table of metadata, as Python values; those it does not have are left out."""
    table = FrameTable(path)
    try:
        found = table._read([name for name in columns if name in table.columns], 0, table.rows)
        return {name: found.column(name).to_pylist() for name in found.column_names}
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {_sentence(error)}") from error


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
