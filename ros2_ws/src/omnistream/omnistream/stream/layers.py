# SPDX-License-Identifier: Apache-2.0
"""What a stream hands on to others: final patches, and with them patches of the blocks that its heads look at.

A name says which: "patches", or "patches+taps:0,2" where a patch's vector [D * 3] is that of the last block, then those
of the taps 0 and 2 (0: the shallowest that the checkpoint's heads read).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import InputError
from omnistream.stream.result import StepResult

PATCHES = "patches"
_TAPS = PATCHES + "+taps:"


def layer_name(taps: Sequence[int]) -> str:
    """Of final patches with these taps beside them."""
    return _TAPS + ",".join(map(str, taps)) if taps else PATCHES


def taps_in(layer: str) -> tuple[int, ...]:
    """The inverse of `layer_name`; InputError for another name."""
    numbers = layer.removeprefix(_TAPS).split(",") if layer.startswith(_TAPS) else []
    if (layer != PATCHES and not numbers) or not all(number.isascii() and number.isdigit() for number in numbers):
        raise InputError(f"features are of layer {layer!r}; expected {PATCHES!r}, or such as {layer_name((0, 2))!r}")
    return tuple(map(int, numbers))


def layers_of(result: StepResult, taps: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Patches [rows, columns, D * (1 + taps)] and CLS of the same length, which has zeros in the place of taps."""
    if not taps:
        return result.features, result.cls
    features = np.concatenate([result.features, *(result.taps[tap] for tap in taps)], -1)
    cls = np.zeros(features.shape[-1], np.float32)
    cls[: len(result.cls)] = result.cls
    return features, cls
