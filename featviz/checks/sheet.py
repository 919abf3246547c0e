"""An image in its company on one sheet, with text beside."""

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

#: The rows of a sheet, and what stands in them.
ROWS = (("picture", "seeds", "negative", "randomized"), ("top",), ("bottom",))
#: The least side of an image on the sheet, and the width of the text, in pixels.
_LEAST, _TEXT = 112, 460


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image (C, *size) with its label, the unit's value and where it comes from."""

    image: Tensor = dataclasses.field(repr=False)
    label: str
    value: float
    source: str | None = None


def draw(company: Mapping[str, Sequence[Shown]], lines: Sequence[str]) -> Image.Image:
    """Lay the images out, one row for those that were made and one for images at either end."""
    rows = [[shown for name in names for shown in company.get(name, ())] for names in ROWS]
    columns = max(2, len(rows[0]))
    size = tuple(rows[0][0].image.shape[1:])
    pictures, labels = [], []
    for row in rows:
        if not row:
            continue
        for place in range(columns):
            if place < len(row):
                pictures.append(_fitted(row[place].image, size))
                labels.append(row[place].label)
            else:
                pictures.append(torch.ones_like(pictures[0]))
                labels.append("")
    page = sheets.sheet(torch.stack(pictures), labels, columns=columns)
    return _beside(page, lines)


def _fitted(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return an image in the size of the others, enlarged where it is too small to be seen."""
    fitted = resize(image[None].float(), size, antialias=True)
    factor = math.ceil(_LEAST / max(1, min(size)))
    if factor > 1 and len(size) == 2:
        fitted = F.interpolate(fitted, scale_factor=factor, mode="nearest")
    return fitted[0].clamp(0, 1)


def _beside(page: Image.Image, lines: Sequence[str]) -> Image.Image:
    font: Any = ImageFont.load_default(15)
    text = "\n\n".join(sheets.wrap(line, font, _TEXT) for line in lines)
    place = page.width + 4, 8
    low = ImageDraw.Draw(page).multiline_textbbox(place, text, font=font, spacing=4)[3]
    whole = Image.new("RGB", (page.width + _TEXT + 16, max(page.height, int(low) + 8)), "white")
    whole.paste(page, (0, 0))
    ImageDraw.Draw(whole).multiline_text(place, text, fill="black", font=font, spacing=4)
    return whole
