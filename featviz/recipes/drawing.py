"""What the recipes' pages are drawn from: tinted photographs, framed pictures, their places."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont

from featviz.io import images, sheets
from featviz.io.plots import COLOURS
from featviz.resample import resize
from featviz.types import Tensor

#: Colours of parts and groups; all but black of the colour-blind-safe ones, and three more.
PALETTE = (*COLOURS[:-1], "#8a6d3b", "#6a3d9a", "#b2df8a")
#: How much of the photograph's contrast and colour remains where nothing acts.
_FAINT = 0.45
#: Rounds in which places are moved apart, and the part of the way back to the anchor in each.
_ROUNDS, _PULL = 400, 0.02


class Page(abc.ABC):
    """A result of a recipe, drawn on one page."""

    @abc.abstractmethod
    def sheet(self) -> Image.Image:
        """Return the page as a Pillow image."""

    def save(self, path: str | Path) -> list[Path]:
        """Write the page to an image file and return its path in a list.

        Raises
        ------
        FeatvizError
            If the file cannot be written.
        """
        return [images.save(self.sheet(), path)]

    def _repr_png_(self) -> bytes:
        return images.png_bytes(self.sheet())


def colour(index: int) -> str:
    """Return the colour of a part or group."""
    return PALETTE[index % len(PALETTE)]


def font(size: int) -> Any:
    return ImageFont.load_default(size)


def tint(photo: Tensor, maps: Tensor, colours: Sequence[str]) -> Tensor:
    """Return a photo (C, H, W) in pale gray, tinted where ``maps`` (N, *grid) in [0, 1] are high.

    Overlapping colours mix in proportion to their maps.
    """
    size = tuple(photo.shape[1:])
    heat = resize(maps[None].float(), size)[0].clamp(0, 1)
    gray = photo.mean(0, keepdim=True).expand(3, -1, -1) * _FAINT + (1 - _FAINT)
    hues = torch.tensor([ImageColor.getrgb(c) for c in colours]) / 255
    total = heat.sum(0)
    mixed = torch.einsum("nhw,nc->chw", heat, hues) / total.clamp_min(1e-6)
    strength = heat.amax(0) * 0.85
    # Multiplied, so that the photograph's details stay visible below the colour.
    shaded = photo.mean(0, keepdim=True) * 0.7 + 0.3
    return gray.lerp(mixed * shaded, strength)


def tile(image: Tensor, side: int) -> Image.Image:
    """Return an image (C, H, W) in a square of ``side`` pixels."""
    return sheets.to_pil(image).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def framed(picture: Image.Image, shade: str, width: int = 4) -> Image.Image:
    """Return the picture within a frame of one colour."""
    framed_size = (picture.width + 2 * width, picture.height + 2 * width)
    page = Image.new("RGB", framed_size, shade)
    page.paste(picture, (width, width))
    return page


def apart(
    anchors: Sequence[tuple[float, float]],
    sides: Sequence[float],
    bounds: tuple[float, float],
    gap: float = 6,
) -> list[tuple[float, float]]:
    """Return centres (x, y) near their anchors at which squares do not overlap, within bounds.

    Overlapping squares are pushed apart along the line between them; afterwards each is pulled a
    little towards its anchor, until the last rounds, in which they are only pushed.
    """
    home, limit = np.array(anchors, dtype=float), np.array(bounds, dtype=float)
    half = np.array(sides, dtype=float) / 2 + gap / 2
    # Equal anchors would have no direction to be pushed in: a fixed spiral tells them apart.
    turns = np.arange(len(home))
    spiral = np.stack([np.cos(turns * 2.4), np.sin(turns * 2.4)], 1) * np.sqrt(turns)[:, None]
    where = home + spiral * half.mean() / 2
    for step in range(_ROUNDS):
        if step < _ROUNDS * 3 // 4:
            where += (home - where) * _PULL
        for i in range(len(where)):
            for j in range(i):
                difference = where[i] - where[j]
                overlap = float((half[i] + half[j] - np.abs(difference)).min())
                if overlap > 0:
                    push = difference / max(float(np.linalg.norm(difference)), 1e-9) * overlap / 2
                    where[i] += push
                    where[j] -= push
        where = np.clip(where, half[:, None], np.maximum(limit - half[:, None], half[:, None]))
    return [(float(x), float(y)) for x, y in where]


def peak(map_: Tensor) -> tuple[float, float]:
    """Return where a map (h, w) is highest as fractions (x, y) of width and height."""
    smooth = torch.nn.functional.avg_pool2d(map_[None, None], 3, 1, 1, count_include_pad=False)
    y, x = divmod(int(smooth.argmax()), map_.shape[1])
    return (x + 0.5) / map_.shape[1], (y + 0.5) / map_.shape[0]


def text(words: str, width: int, size: int = 15, *, centred: bool = False) -> Image.Image:
    """Return words, wrapped, on a page of ``width`` pixels."""
    face = font(size)
    lines = sheets.wrap(words, face, width)
    ascent, descent = face.getmetrics()
    high = (lines.count("\n") + 1) * (ascent + descent + 3) + 4
    page = Image.new("RGB", (width, high), "white")
    place, anchor = ((width / 2, 3), "ma") if centred else ((0, 3), "la")
    align = "center" if centred else "left"
    draw = ImageDraw.Draw(page)
    draw.multiline_text(place, lines, "black", face, anchor=anchor, align=align, spacing=3)
    return page


def captioned(picture: Image.Image, words: str, size: int = 15) -> Image.Image:
    """Return the picture above its caption, centred."""
    return column([picture, text(words, picture.width, size, centred=True)], gap=0)


def row(
    pictures: Sequence[Image.Image], gap: int = 12, align: str = "top", background: str = "white"
) -> Image.Image:
    """Return pictures side by side; ``align`` is ``top`` or ``bottom``."""
    high = max(p.height for p in pictures)
    page = Image.new("RGB", (sum(p.width + gap for p in pictures) - gap, high), background)
    x = 0
    for picture in pictures:
        page.paste(picture, (x, high - picture.height if align == "bottom" else 0))
        x += picture.width + gap
    return page


def column(pictures: Sequence[Image.Image], gap: int = 12, margin: int = 0) -> Image.Image:
    """Return pictures below each other, centred, within a margin."""
    wide = max(p.width for p in pictures)
    high = sum(p.height + gap for p in pictures) - gap
    page = Image.new("RGB", (wide + 2 * margin, high + 2 * margin), "white")
    y = margin
    for picture in pictures:
        page.paste(picture, (margin + (wide - picture.width) // 2, y))
        y += picture.height + gap
    return page
