# SPDX-License-Identifier: Apache-2.0
"""The contact sheet's page, drawn with Pillow: header, grid of cells, footer with legends and the camera path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

BOX = (288, 288)
"""Width of a cell and its greatest height, pixels; pictures are fitted into it."""
GAP, MARGIN, HEADER, FOOTER = 10, 28, 124, 204
BACKGROUND, PANEL = (17, 19, 23), (26, 29, 35)
WHITE, GREY, FAINT, ACCENT, AMBER = (
    (238, 240, 243),
    (150, 157, 168),
    (70, 76, 86),
    (92, 200, 190),
    (244, 190, 90),
)


def plain(text: str) -> str:
    """Text that Pillow's built-in font can draw: other characters become ?."""
    return text.replace("→", "->").replace("×", "x").encode("cp1252", "replace").decode("cp1252")


def fit(picture: Image.Image, box: tuple[int, int]) -> Image.Image:
    """Resized to touch the box (width, height) from inside."""
    factor = min(box[0] / picture.width, box[1] / picture.height)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC)


class Page:
    """A page of `rows` rows and named columns; `image` is the picture so far."""

    def __init__(
        self, columns: Sequence[str], rows: int, cell_height: int, title: str, subtitle: str, warn: bool
    ) -> None:
        """warn: the subtitle is one, and gets a warning's colour."""
        self.columns, self._cell_height = list(columns), cell_height
        width = 2 * MARGIN + len(columns) * (BOX[0] + GAP) - GAP
        self._bottom = HEADER + rows * (cell_height + GAP)
        self.image = Image.new("RGB", (width, self._bottom + FOOTER), BACKGROUND)
        self._draw = ImageDraw.Draw(self.image)
        self._text((MARGIN, 22), self._shorten(title, 26, width - 2 * MARGIN), 26, WHITE)
        self._text((MARGIN, 58), self._shorten(subtitle, 15, width - 2 * MARGIN), 15, AMBER if warn else GREY)
        for column in columns:
            x = self._x(column)
            self._text((x, HEADER - 30), column, 16, WHITE)
            self._draw.line([(x, HEADER - 8), (x + BOX[0] - 1, HEADER - 8)], fill=FAINT)

    def cell(
        self, row: int, column: str, content: Image.Image | NDArray[np.uint8], size: tuple[int, int], label: str = ""
    ) -> None:
        """Put a picture, or an array [h, w, 3], into a cell at `size` (width, height), centred; `label` goes on top.

        All pictures of a row get the size of its image: they show the same field of view. Patches stay square-edged.
        """
        picture = Image.fromarray(content) if isinstance(content, np.ndarray) else content
        if picture.size != size:
            coarse = picture.width * 3 < size[0]
            picture = picture.resize(size, Image.Resampling.NEAREST if coarse else Image.Resampling.BICUBIC)
        x, y = self._x(column), HEADER + row * (self._cell_height + GAP)
        self._draw.rectangle([x, y, x + BOX[0] - 1, y + self._cell_height - 1], fill=PANEL)
        left, top = x + (BOX[0] - size[0]) // 2, y + (self._cell_height - size[1]) // 2
        self.image.paste(picture, (left, top))
        if label:
            self._label(left, top, label)

    def _label(self, x: int, y: int, text: str) -> None:
        """Small text on a dark, see-through tag in a picture's upper left corner."""
        box = self._draw.textbbox((0, 0), plain(text), font=_font(13))
        size = (int(box[2]) + 14, 22)
        tag = Image.new("RGB", size, BACKGROUND)
        mask = Image.new("L", size, 0)
        ImageDraw.Draw(mask).rounded_rectangle([-6, -6, size[0] - 1, size[1] - 1], 5, fill=190)
        self.image.paste(tag, (x, y), mask)
        self._text((x + 7, y + 3), text, 13, WHITE)

    def legend(self, column: str, table: NDArray[np.uint8], limits: tuple[float, float], unit: str, note: str) -> None:
        """A colour bar under a column. Depth tables run from near to far, logarithmically; others from 0 up."""
        x, y, width = self._x(column), self._bottom + 16, BOX[0]
        is_depth = limits[0] > 0
        ramp = np.repeat((table[::-1] if is_depth else table)[None], 14, axis=0)
        self.image.paste(Image.fromarray(ramp).resize((width, 14), Image.Resampling.BILINEAR), (x, y))
        for place in (0.0, 0.5, 1.0):
            low, high = limits
            value = low * (high / low) ** place if is_depth else low + (high - low) * place
            text = (f"{value:.3g}{unit}" if is_depth else f"{value:.0%}") + ("+" if not is_depth and place == 1 else "")
            at = x + place * (width - 1)
            self._draw.line([(at, y + 14), (at, y + 19)], fill=GREY)
            self._text((at, y + 22), text, 13, WHITE, anchor=("la", "ma", "ra")[round(place * 2)])
        self._text((x, y + 46), note, 13, GREY)

    def note(self, column: str, text: str) -> None:
        """Grey lines under a column."""
        self._text((self._x(column), self._bottom + 14), text, 13, GREY)

    def path(
        self,
        column: str,
        positions: Sequence[NDArray[np.float64]],
        reference: Sequence[NDArray[np.float64]],
        unit: str,
        to_fit: bool,
    ) -> None:
        """The camera's way seen from above under a column: x to the right, z (forward) up, start at the ring.

        positions and reference [N] of [3], both seen from where they start; a unit that is not the reference's makes
        the first be drawn `to_fit`: as large as the reference.
        """
        x, y, width, height = self._x(column), self._bottom + 14, BOX[0], FOOTER - 98
        self._draw.rounded_rectangle([x, y, x + width - 1, y + height], 6, fill=PANEL)
        own, true = _seen_from_above(positions), _seen_from_above(reference)
        factor = _extent(true) / _extent(own) if to_fit and len(true) > 1 and len(own) > 1 else 1.0
        points = np.concatenate([own * factor, true])
        if len(points):
            low, high = points.min(axis=0), points.max(axis=0)
            extent = float(max((high - low)[0] / (width - 40), (high - low)[1] / (height - 30), 1e-9))
            centre = np.array([x + width / 2, y + height / 2])
            for path, colour, thickness in ((true, GREY, 2), (own * factor, ACCENT, 2)):
                pixels = [(float(a), float(b)) for a, b in (path - (low + high) / 2) / extent + centre]
                if len(pixels) > 1:
                    self._draw.line(pixels, fill=colour, width=thickness, joint="curve")
                for ex, ey in pixels[-1:]:
                    self._draw.ellipse([ex - 4, ey - 4, ex + 4, ey + 4], fill=colour)
            sx, sy = -(low + high) / 2 / extent + centre
            self._draw.ellipse([sx - 5, sy - 5, sx + 5, sy + 5], outline=WHITE, width=2)
        text = f"camera path from above, {_length(positions):.3g}{unit} long"
        if factor != 1.0:
            text += f", times {factor:.3g} to fit"
        self._text((x, y + height + 8), text, 13, ACCENT)
        if len(reference) > 1:
            self._text((x, y + height + 26), f"reference path, {_length(reference):.3g} m long", 13, GREY)

    def _x(self, column: str) -> int:
        return MARGIN + self.columns.index(column) * (BOX[0] + GAP)

    def _shorten(self, text: str, size: int, width: int) -> str:
        while len(text) > 8 and self._draw.textlength(plain(text), font=_font(size)) > width:
            text = text[:-8].rstrip() + " ..."
        return text

    def _text(
        self, place: tuple[float, float], text: str, size: int, colour: tuple[int, int, int], anchor: str | None = None
    ) -> None:
        self._draw.text(place, plain(text), font=_font(size), fill=colour, anchor=anchor)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _length(positions: Sequence[NDArray[np.float64]]) -> float:
    """Length of the way through positions [N] of [3]; rounding errors of a still camera are not told as a way."""
    length = float(np.linalg.norm(np.diff(np.array(positions), axis=0), axis=1).sum()) if len(positions) > 1 else 0.0
    return length if length > 1e-9 else 0.0


def _seen_from_above(positions: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """[M, 2] x and -z of those that are finite: what goes right, and what goes down the picture."""
    points = np.array(positions, np.float64).reshape(-1, 3)[:, [0, 2]] * (1, -1)
    return points[np.isfinite(points).all(axis=1)]


def _extent(points: NDArray[np.float64]) -> float:
    """How far points [M, 2] reach from the origin."""
    return max(float(np.linalg.norm(points, axis=1).max()), 1e-9)
