# SPDX-License-Identifier: Apache-2.0
"""The tables of frames of LeRobot v3: many episodes to a file, a new file when one has grown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from omnistream.episodes.lerobot_layout import FILES_PER_CHUNK
from omnistream.io.extras import need

FILE_BYTES = 100 * 2**20
ROWS_WITH_PICTURES = 64
"""Rows to a row group where cells hold pictures: what a reader has to hold at once."""


class DataFiles:
    """Appends episodes to data/chunk-*/file-*.parquet."""

    def __init__(self, root: Path, template: str) -> None:
        self._root, self._template = root, template
        self._arrow: Any = need("pyarrow", "io", "writing data sets")
        self._parquet: Any = need("pyarrow.parquet", "io", "writing data sets")
        self._writer: Any = None
        self._number = -1
        self._path = root

    def append(self, columns: dict[str, Any], features: dict[str, dict[str, Any]], length: int) -> tuple[int, int]:
        """Write an episode; returns the chunk's and the file's index.

        columns: arrays of `length` rows; for pictures a function from row to bytes, called when the row is written.
        """
        schema = self._schema(features)
        if self._writer is None or self._path.stat().st_size >= FILE_BYTES:
            self._next(schema)
        pictures = [name for name in schema.names if callable(columns[name])]
        size = ROWS_WITH_PICTURES if pictures else length
        for start in range(0, length, size):
            rows = range(start, min(start + size, length))
            cells = [self._cells(columns[name], rows, schema.field(name).type) for name in schema.names]
            self._writer.write_table(self._arrow.Table.from_arrays(cells, schema=schema), row_group_size=size)
        return self._number // FILES_PER_CHUNK, self._number % FILES_PER_CHUNK

    def close(self) -> None:
        """Finish the file that is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _next(self, schema: Any) -> None:
        self.close()
        self._number += 1
        chunk, file = divmod(self._number, FILES_PER_CHUNK)
        self._path = self._root / self._template.format(chunk_index=chunk, file_index=file)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        plain = [field.name for field in schema if self._arrow.types.is_struct(field.type)]
        compression = {name: "none" if name in plain else "snappy" for name in _leaf_names(schema, plain)}
        self._writer = self._parquet.ParquetWriter(
            str(self._path), schema, compression=compression, use_dictionary=False
        )

    def _schema(self, features: dict[str, dict[str, Any]]) -> Any:
        pa = self._arrow
        scalars = {"float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64()}
        fields = []
        for name, feature in features.items():
            if feature["dtype"] == "video":
                continue
            if feature["dtype"] == "image":
                kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            elif feature["names"] is None:
                kind = scalars[feature["dtype"]]
            else:
                kind = pa.list_(scalars[feature["dtype"]], feature["shape"][0])
            fields.append(pa.field(name, kind))
        return pa.schema(fields)

    def _cells(self, column: Any, rows: range, kind: Any) -> Any:
        pa = self._arrow
        if callable(column):
            return pa.array([{"bytes": column(row), "path": None} for row in rows], kind)
        part = np.ascontiguousarray(column[rows.start : rows.stop])
        if part.ndim == 2:
            return pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), part.shape[1])
        return pa.array(part, kind)


def _leaf_names(schema: Any, structs: list[str]) -> list[str]:
    """Names as parquet counts columns; pictures are compressed already, and their leaves are left alone."""
    return [name for name in schema.names if name not in structs] + structs
