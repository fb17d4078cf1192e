# SPDX-License-Identifier: Apache-2.0
"""Which sample a clip number means, and what happens when it cannot be read."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from omnistream.errors import InputError
from omnistream_training.corpus.store import Sample, Samples
from omnistream_training.data.source import HELD_OUT

T = TypeVar("T")
HELD_OUT_EVERY = 50
"""Of so many samples of a folder or shard one, at its end, is kept for evaluation; one at least. Shards of a single
sample are shared out whole: the last of every so many, and the last of all."""
ATTEMPTS = 50
"""Damaged samples in a row, after which it is not the samples that are at fault."""
NAMED = 100
"""Damaged samples that are named; more are only counted."""


@dataclass(frozen=True)
class _Split:
    """Of one group's samples."""

    samples: Sequence[Sample]
    training: Sequence[Sample]
    held_out: Sequence[Sample]


class Sampler:
    """Draws samples by number, the same for the same number."""

    def __init__(self, store: Samples, on_error: Literal["raise", "skip"]) -> None:
        """on_error: what a damaged sample does; a skipped one is named once, and another drawn in its place."""
        self.store = store
        self._on_error = on_error
        self._latest: _Split | None = None
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
                split = self._split(group)
                samples = split.held_out if number >= HELD_OUT else split.training
                if not samples:
                    group = (group + 1) % len(self.store)
                    continue
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

    def _split(self, group: int) -> _Split:
        samples, latest = self.store.samples(group), self._latest
        if latest is None or latest.samples is not samples:  # a store gives the same object while it remembers it
            self._latest = latest = self._parts(samples, group)
        return latest

    def _parts(self, samples: Sequence[Sample], group: int) -> _Split:
        origins = list(dict.fromkeys(sample.origin or sample.name for sample in samples))
        if len(origins) > 1:
            kept = set(origins[-max(1, len(origins) // HELD_OUT_EVERY) :])
            training: list[Sample] = []
            held_out: list[Sample] = []
            for sample in samples:
                (held_out if (sample.origin or sample.name) in kept else training).append(sample)
            return _Split(samples, training, held_out)
        if len(self.store) > 1:
            whole = group % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 or group == len(self.store) - 1
            return _Split(samples, () if whole else samples, samples if whole else ())
        if origins:
            print(f"{self.store.path}: only {origins[0]}; evaluations see what was trained on", file=sys.stderr)
        return _Split(samples, samples, samples)

    def _skip(self, reason: str) -> None:
        if reason in self.damaged:
            return
        self.damaged.add(reason)
        if len(self.damaged) <= NAMED:
            print(f"skipped: {reason}", file=sys.stderr)
