# SPDX-License-Identifier: Apache-2.0
"""Numbers in lines of text. What is wrong is named with its file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError


def read_table(
    path: Path, columns: int, expected: str, *, finite: bool = True
) -> tuple[NDArray[np.float64], list[int]]:
    """Rows [N, columns] of numbers parted by spaces or commas, and the number of each row's line in the file, from 1.

    Empty lines and lines that begin with # are passed over. expected: what a line holds, for the message.
    Raises InputError with file and line; also for numbers that are not finite, unless `finite` is False.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    rows: list[list[float]] = []
    numbers: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            row = [float(word) for word in line.replace(",", " ").split()]
        except ValueError:
            row = []
        if len(row) != columns or (finite and not np.isfinite(row).all()):
            raise InputError(f"{path}: line {number} is {_shown(line)}; expected {columns} numbers: {expected}")
        rows.append(row)
        numbers.append(number)
    return np.array(rows, np.float64).reshape(-1, columns), numbers


def _shown(line: str) -> str:
    return repr(line if len(line) <= 80 else line[:77] + "...")
