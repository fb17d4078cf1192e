# SPDX-License-Identifier: Apache-2.0
"""Resizing where values must not be mixed: depth across edges, NaN into its neighbours, colours of points."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value", bound=np.generic)


def nearest_resize(array: NDArray[Value], size: tuple[int, int]) -> NDArray[Value]:
    """[H, W, ...] -> [h, w, ...]: the value at each new pixel's centre; size is (h, w)."""
    if array.shape[:2] == size:
        return array
    rows = ((np.arange(size[0]) + 0.5) * array.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * array.shape[1] / size[1]).astype(int)
    return array[rows[:, None], columns[None, :]]
