"""The sheet of an image and its company, with text beside them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

from featviz.io import sheets
from featviz.resample import resize
from featviz.types import Tensor

#: The rows of a sheet, by the names of their images.
ROWS = (("picture", "seeds", "negative", "randomized"), ("top",), ("bottom",))
#: The smallest side of an image on the sheet, and the width of the text, in pixels.
_MIN_SIDE, _TEXT_WIDTH = 112, 460


@dataclasses.dataclass(frozen=True)
class SheetImage:
    """An image (C, *size) with its label, its score and its source."""

    image: Tensor = dataclasses.field(repr=False)
    label: str
    value: float
    source: str | None = None


def draw(company: Mapping[str, Sequence[SheetImage]], lines: Sequence[str]) -> Image.Image:
    """Draw the images, with rendered ones in the first row and dataset images below, and text."""
    rows = [[item for name in names for item in company.get(name, ())] for names in ROWS]
    columns = max(2, len(rows[0]))
    size = tuple(rows[0][0].image.shape[1:])
    images, labels = [], []
    for row in rows:
        if not row:
            continue
        for column in range(columns):
            if column < len(row):
                images.append(_resized(row[column].image, size))
                labels.append(row[column].label)
            else:
                images.append(torch.ones_like(images[0]))
                labels.append("")
    page = sheets.sheet(torch.stack(images), labels, columns=columns)
    return _with_text(page, lines)


def _resized(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return an image in the size of the others, enlarged if it is too small to see."""
    resized = resize(image[None].float(), size, antialias=True)
    factor = math.ceil(_MIN_SIDE / max(1, min(size)))
    if factor > 1 and len(size) == 2:
        resized = F.interpolate(resized, scale_factor=factor, mode="nearest")
    return resized[0].clamp(0, 1)


def _with_text(page: Image.Image, lines: Sequence[str]) -> Image.Image:
    font: Any = ImageFont.load_default(15)
    text = "\n\n".join(sheets.wrap(line, font, _TEXT_WIDTH) for line in lines)
    corner = page.width + 4, 8
    bottom = ImageDraw.Draw(page).multiline_textbbox(corner, text, font=font, spacing=4)[3]
    canvas = Image.new(
        "RGB", (page.width + _TEXT_WIDTH + 16, max(page.height, int(bottom) + 8)), "white"
    )
    canvas.paste(page, (0, 0))
    ImageDraw.Draw(canvas).multiline_text(corner, text, fill="black", font=font, spacing=4)
    return canvas
