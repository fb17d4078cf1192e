# SPDX-License-Identifier: Apache-2.0
"""Films of episodes, and a contact sheet of them.

A filmed episode leaves videos/episode_00012.mp4 and strips/00012.png, a row of moments of it; the sheet is made of the
strips, so it is whole after a run that was stopped and went on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from omnistream.io.extras import need
from omnistream.io.files import replacing, temporary_path
from omnistream.io.page import BACKGROUND, GREY, WHITE, fit, plain

from .protocols import Observation
from .records import EpisodeRecord

MOMENTS = 8
CELL = (160, 160)
GREEN, RED = (110, 210, 130), (235, 110, 100)
FPS = 30
HEIGHT = 256
"""Of a film, pixels."""


def view(observation: Observation) -> NDArray[np.uint8]:
    """Static and gripper camera side by side, [HEIGHT, W, 3]; sides are even, as video codecs want them."""
    names = ("rgb_static", "rgb_gripper")
    pictures = [Image.fromarray(observation[name]) for name in names if name in observation]  # type: ignore[literal-required]
    sized = [picture.resize((2 * round(picture.width * HEIGHT / picture.height / 2), HEIGHT)) for picture in pictures]
    return np.concatenate([np.asarray(picture) for picture in sized], axis=1)


class EpisodePictures:
    """Collects one episode. Memory is bounded: frames go into the encoder, of the moments every n-th is kept."""

    def __init__(self, folder: Path, index: int) -> None:
        """InputError with the line to install it if PyAV is missing."""
        self._av = need("av", "io", "writing videos")
        self._video = folder / "videos" / f"episode_{index:05d}.mp4"
        self._strip = folder / "strips" / f"{index:05d}.png"
        self._video.parent.mkdir(parents=True, exist_ok=True)
        self._part = temporary_path(self._video)
        self._container: Any = None
        self._stream: Any = None
        self._moments: list[Image.Image] = []
        self._every, self._count = 1, 0
        self._latest: Image.Image | None = None

    def add(self, observation: Observation, instruction: str, step: int) -> None:
        """One more frame."""
        picture = _with_text(view(observation), f"{instruction}  [{step}]")
        if self._container is None:
            self._container = self._av.open(str(self._part), "w")
            self._stream = self._container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "23"})
            self._stream.width, self._stream.height = picture.shape[1], picture.shape[0]
            self._stream.pix_fmt = "yuv420p"
        frame = self._av.VideoFrame.from_ndarray(picture, format="rgb24")
        self._container.mux(self._stream.encode(frame))
        self._latest = Image.fromarray(observation["rgb_static"])
        if self._count % self._every == 0:
            self._moments.append(self._latest)
            if len(self._moments) >= 4 * MOMENTS:
                self._moments, self._every = self._moments[::2], 2 * self._every
        self._count += 1

    def save(self, record: EpisodeRecord) -> None:
        """Finish the film and draw the strip."""
        if self._latest is None:
            return
        self._container.mux(self._stream.encode())
        self._container.close()
        self._part.replace(self._video)
        wanted = np.linspace(0, len(self._moments) - 1, MOMENTS - 1).round().astype(int)
        with replacing(self._strip) as temporary:
            _strip([*(self._moments[i] for i in wanted), self._latest], record).save(temporary)

    def drop(self) -> None:
        """Forget a film whose episode did not come to its end."""
        try:
            if self._container is not None:
                self._container.close()
        finally:
            self._part.unlink(missing_ok=True)


class Film:
    """The pictures of an episode that goes on without them: on a full disk there is a reason instead of a film."""

    def __init__(self, folder: Path, index: int) -> None:
        """InputError with the line to install it if PyAV is missing."""
        self._folder, self._index = folder, index
        self._pictures: EpisodePictures | None = None
        self._problem = ""
        self._try(self._begin)

    def add(self, observation: Observation, instruction: str, step: int) -> None:
        """One more frame, as long as that works."""
        if (pictures := self._pictures) is not None:
            self._try(lambda: pictures.add(observation, instruction, step))

    def save(self, record: EpisodeRecord) -> str:
        """Finish it; '' or why there is none."""
        if (pictures := self._pictures) is not None:
            self._try(lambda: pictures.save(record))
        return self._problem

    def drop(self) -> None:
        """Forget it."""
        if self._pictures is not None:
            with contextlib.suppress(OSError, need("av", "io", "writing videos").FFmpegError):
                self._pictures.drop()
        self._pictures = None

    def _begin(self) -> None:
        self._pictures = EpisodePictures(self._folder, self._index)

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (OSError, need("av", "io", "writing videos").FFmpegError) as error:
            self._problem = f"no film of episode {self._index}: {error}"
            self.drop()


def contact_sheet(folder: Path, title: str, rows: int = 12) -> Path | None:
    """Write folder/sheet.png of the first strips; None if there are none."""
    strips = [Image.open(path) for path in sorted((folder / "strips").glob("*.png"))[:rows]]
    if not strips:
        return None
    width = max(strip.width for strip in strips)
    page = Image.new("RGB", (width, 40 + sum(strip.height for strip in strips)), BACKGROUND)
    ImageDraw.Draw(page).text((8, 10), plain(title), WHITE, font=ImageFont.load_default(18))
    top = 40
    for strip in strips:
        page.paste(strip, (0, top))
        top += strip.height
    with replacing(folder / "sheet.png") as temporary:
        page.save(temporary, optimize=True)
    return folder / "sheet.png"


def _strip(moments: Sequence[Image.Image], record: EpisodeRecord) -> Image.Image:
    strip = Image.new("RGB", (MOMENTS * (CELL[0] + 4), CELL[1] + 30), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(14)
    draw.text((8, 5), f"{record.index}", GREY, font=font)
    left = 60.0
    for done in record.done:
        text = plain(f"{done.instruction} ({done.steps})")
        draw.text((left, 5), text, GREEN if done.solved else RED, font=font)
        left += draw.textlength(text, font=font) + 16
    for column, moment in enumerate(moments):
        strip.paste(fit(moment, CELL), (column * (CELL[0] + 4), 26))
    return strip


def _with_text(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).text((6, 4), plain(text), WHITE, font=ImageFont.load_default(13), stroke_width=1,
                               stroke_fill=(0, 0, 0))  # fmt: skip
    return np.asarray(image)
