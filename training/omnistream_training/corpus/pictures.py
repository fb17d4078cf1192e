# SPDX-License-Identifier: Apache-2.0
"""Single pictures, about which nothing else is known, as clips of one frame."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from omnistream.errors import InputError
from omnistream.io.frames import Frame
from omnistream.io.pixels import PICTURE_FORMATS, UNREADABLE, pillow_to_rgb
from omnistream_training.corpus.sampling import Sampler
from omnistream_training.corpus.store import Part, Sample, Store
from omnistream_training.data.batch import ClipBatch
from omnistream_training.data.packed import fit
from omnistream_training.data.source import ClipRequest

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "ppm")


class PictureSource:
    """Pictures of a folder or of shards, see `ClipSource`."""

    def __init__(self, path: str, on_error: Literal["raise", "skip"] = "skip") -> None:
        self.store = Store(Path(path).expanduser(), EXTENSIONS)
        self.sampler = Sampler(self.store, on_error)
        self.description = f"pictures: {self.store.description}"

    def read(self, request: ClipRequest) -> ClipBatch:
        """Clips of one frame. InputError for longer ones."""
        if request.frames != 1:
            raise InputError(f"{self.store.path} holds pictures; clips of {request.frames} frames were asked for")

        def decode(sample: Sample, _: random.Random) -> NDArray[np.uint8]:
            part = sample.first(EXTENSIONS)
            assert part is not None
            return read_picture(part, request.size)

        near = request.numbers[0]
        images = np.stack([self.sampler.draw(number, near, decode) for number in request.numbers])
        return unlabelled(images[:, None], torch.zeros(len(images), 1, dtype=torch.float64)).to(request.device)


def read_picture(part: Part, size: tuple[int, int], *, squeeze: bool = False) -> NDArray[np.uint8]:
    """RGB [H, W, 3] at `size`, upright, scaled to cover it and cut; InputError names what is no picture.

    squeeze: all of it, at the expense of its shape: what is said about its places stays true.
    """
    data = part.read()
    try:
        with Image.open(io.BytesIO(data), formats=PICTURE_FORMATS) as picture:
            image = pillow_to_rgb(ImageOps.exif_transpose(picture))
    except InputError as error:
        raise InputError(f"{part.name}: {error}") from error
    except UnidentifiedImageError as error:  # whose words name a buffer's address
        raise InputError(f"{part.name}: cannot be read as an image: no known format") from error
    except UNREADABLE as error:
        raise InputError(f"{part.name}: cannot be read as an image: {error}") from error
    if squeeze:
        return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    return fit(Frame(image=image, stamp=0.0, index=0, name=part.name), size)[0]


def unlabelled(images: NDArray[np.uint8], times: torch.Tensor) -> ClipBatch:
    """Clips [B, T, H, W, 3] with nothing known but the pictures and when they were taken."""
    clips, frames, height, width = images.shape[:4]
    return ClipBatch(
        images=torch.from_numpy(images).permute(0, 1, 4, 2, 3).float() / 255,
        depth=torch.full((clips, frames, height, width), torch.nan),
        T_world_camera=torch.full((clips, frames, 4, 4), torch.nan),
        K=torch.full((clips, 3, 3), torch.nan),
        times=times,
    )
