# SPDX-License-Identifier: Apache-2.0
"""Which sample a clip number means, and what happens when it cannot be read."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from omnistream.errors import InputError
from omnistream_training.corpus.store import Sample, Samples
from omnistream_training.data.source import HELD_OUT

T = TypeVar("T")
HELD_OUT_SHARE = 0.02
"""Of every folder or shard, its end, kept for evaluation; one sample at least."""
ATTEMPTS = 50
"""Damaged samples in a row, after which it is not the samples that are at fault."""
NAMED = 100
"""Damaged samples that are named; more are only counted."""


class Sampler:
    """Draws samples by number, the same for the same number."""

    def __init__(self, store: Samples, on_error: Literal["raise", "skip"]) -> None:
        """on_error: what a damaged sample does; a skipped one is named once, and another drawn in its place."""
        self.store = store
        self._on_error = on_error
        self.damaged: set[str] = set()
        """Sentences about what was skipped, each of which begins with its name."""

    def draw(self, number: int, near: int, decode: Callable[[Sample, random.Random], T]) -> T:
        """What `decode` makes of the sample of that number.

        near: a number that those read together share. They come from one shard, of which the list of members is then
        read once. Raises InputError for a damaged sample with `on_error="raise"`, or for many in a row.
        """
        draw = random.Random(number)
        group = random.Random(f"group {near}").randrange(len(self.store))  # else the same bits as the sample's
        reason = ""
        for _ in range(ATTEMPTS):
            try:
                samples = self._part(self.store.samples(group), held_out=number >= HELD_OUT)
                if samples:
                    return decode(draw.choice(samples), draw)
            except InputError as error:
                if self._on_error == "raise":
                    raise
                reason = str(error)
                self._skip(reason)
            group = draw.randrange(len(self.store))
        raise InputError(
            f"{self.store.path}: {ATTEMPTS} samples in a row cannot be used; {reason or 'its shards are empty'}"
        )

    def _part(self, samples: Sequence[Sample], held_out: bool) -> Sequence[Sample]:
        if len(samples) < 2:
            return samples
        border = len(samples) - max(1, int(len(samples) * HELD_OUT_SHARE))
        return samples[border:] if held_out else samples[:border]

    def _skip(self, reason: str) -> None:
        if reason in self.damaged:
            return
        self.damaged.add(reason)
        if len(self.damaged) <= NAMED:
            print(f"skipped: {reason}", file=sys.stderr)
