# SPDX-License-Identifier: Apache-2.0
"""From a camera image to the backbone's input: checked, resized on a pixel budget, normalised."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from omnistream.errors import ConfigError, InputError
from omnistream.model.config import ModelConfig


def network_size(height: int, width: int, image_size: int | tuple[int, int], patch: int = 16) -> tuple[int, int]:
    """(h, w) the network runs at, multiples of `patch`.

    image_size: an exact (h, w), or a side s: about s * s pixels in the image's own aspect ratio, so that 640 x 480
    becomes 256 x 192 for s = 224.
    """
    if isinstance(image_size, int):
        if image_size < patch:
            raise ConfigError(f"image_size is {image_size}; expected at least {patch} (one patch)")
        ratio = math.sqrt(height / width)
        sides = (image_size * ratio, image_size / ratio)
        h, w = (max(1, math.floor(side / patch + 0.5)) * patch for side in sides)
        return h, w
    h, w = image_size
    if h % patch or w % patch or min(h, w) < patch:
        raise ConfigError(f"image_size is {h} x {w} (height x width); expected multiples of {patch}")
    return h, w


def kept_small(image_size: int, height: int, width: int) -> int:
    """The pixel budget of an image that is not to be enlarged to `image_size`."""
    return min(image_size, round(math.sqrt(height * width)))


def check_image(image: np.ndarray) -> None:
    """Raise InputError unless `image` is uint8 [H, W, 3] and not empty."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"image is {found}; expected a numpy uint8 array [height, width, 3] in RGB order")
    if 0 in image.shape:
        raise InputError(f"image is empty: {image.shape}")


def preprocess(image: np.ndarray, size: tuple[int, int], config: ModelConfig) -> Tensor:
    """uint8 [H, W, 3] RGB -> float32 [1, 3, h, w], normalised.

    Resized in uint8 on the CPU, antialiased, whatever the engine's device: all engines get the same pixels.
    """
    writable = np.require(image, requirements=("C", "W"))  # views of message bytes are not, and torch warns of those
    pixels = torch.from_numpy(writable).permute(2, 0, 1)[None]
    if pixels.shape[-2:] != size:
        pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(values)[:, None, None] * 255 for values in (config.mean, config.std))
    return (pixels.float().contiguous() - mean) / std
