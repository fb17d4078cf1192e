# SPDX-License-Identifier: Apache-2.0
"""Frames that are missing from a folder of numbered pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path


def numbering_gaps(paths: Sequence[Path]) -> tuple[str, ...]:
    """A message for every hole in the numbers that the file names end with: frame_0006.png, then frame_0008.png.

    Where most names are k apart, as in every tenth frame of a recording, k is no hole.
    """
    digits = [re.findall(r"\d+", path.name.split(".")[0]) for path in paths]
    if not all(digits) or len(paths) < 2:
        return ()
    steps = [int(b[-1]) - int(a[-1]) for a, b in pairwise(digits)]
    step, times = Counter(steps).most_common(1)[0]
    usual = step if step > 0 and times > 1 and times > len(steps) / 2 else 1
    return tuple(
        f"{before}: {found // usual - 1} frame(s) missing between {before.name} and {after.name}"
        for (before, after), found in zip(pairwise(paths), steps, strict=True)
        if found // usual > 1
    )
