# SPDX-License-Identifier: Apache-2.0
"""From the values of an observation to what a policy is given: the state vector, the action vector, pictures."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnistream.sync.actions import Step
from omnistream.sync.aligner import Observation
from omnistream.sync.mapping import Mapping


def state_vector(mapping: Mapping, observation: Observation) -> NDArray[np.float32]:
    """[S] of the contract, from an observation whose values of state streams are vectors."""
    parts = [observation.values[mapping.stream_name(i)] for i in range(len(mapping.state))]
    return np.concatenate(parts, dtype=np.float32) if parts else np.zeros(0, np.float32)


def action_vector(mapping: Mapping, step: Step) -> NDArray[np.float32]:
    """[A] of the contract: changes or values of the state first, then the commands.

    A change of an angle is the short way round.
    """
    vectors: list[NDArray[np.floating]] = []
    if mapping.action.from_state:
        assert step.next is not None  # the pairer was asked for it
        dimensions = mapping.state_dimensions()
        names = [dimension.name for dimension in dimensions]
        chosen = [names.index(name) for name in mapping.action.from_state]
        after = state_vector(mapping, step.next)[chosen].astype(np.float64)
        if mapping.action.mode == "delta":
            after -= state_vector(mapping, step.observation)[chosen]
            angles = np.array([dimensions[i].unit == "rad" for i in chosen])
            after[angles] = (after[angles] + math.pi) % (2 * math.pi) - math.pi
        vectors.append(after)
    vectors += [step.commands[str(i)] for i in range(len(mapping.action.parts))]
    return np.concatenate(vectors, dtype=np.float32)


def fit_picture(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """u8 [H, W, 3] resized to [height, width, 3]: averaged where it shrinks, bilinear where it grows."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=None))
