"""Contact sheets: grids of images with labels."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from featviz.errors import FeatvizError
from featviz.types import Tensor

#: Where a label may be broken, from best to worst. The dot of 0.5 is not that of blocks.5.
_BREAKS = (r"(?<=[ ,])", r"(?<=:)", r"(?<=[A-Za-z])(?=\.)|(?=\.[A-Za-z])|(?<=\w_)|(?<=/)")


def to_pil(image: Tensor) -> Image.Image:
    """Convert one image (C, H, W) in [0, 1], C = 1, 3 or 4, to 8 bits; rounds, then clips.

    Raises
    ------
    FeatvizError
        If the number of axes or channels differs: such data has no standard colours.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3, 4):
        raise FeatvizError(
            f"cannot draw shape {tuple(image.shape)} as an image: it needs 1, 3 or 4 channels "
            "(C, H, W); save the tensor with torch.save or numpy instead"
        )
    values = (image.detach().float().cpu() * 255).round_().clamp_(0, 255).to(torch.uint8).numpy()
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[values.shape[0]]
    pixels = values[0] if mode == "L" else np.moveaxis(values, 0, 2)
    return Image.fromarray(np.ascontiguousarray(pixels), mode)


def sheet(
    images: Tensor, labels: Sequence[str], *, columns: int | None = None, gap: int = 8
) -> Image.Image:
    """Lay out images (B, C, H, W) in a grid, each above its label; a single image has no label.

    Labels that are wider than an image are wrapped; each row is as high as its longest label needs.
    """
    tiles = [to_pil(image) for image in images]
    if len(tiles) == 1:
        return tiles[0]
    columns = columns or min(len(tiles), max(4, math.ceil(math.sqrt(len(tiles)))))
    columns = min(columns, len(tiles))
    width, height = tiles[0].size
    font: Any = ImageFont.load_default(max(10, min(16, width // 14)))
    texts = [wrap(label, font, width) for label in labels]
    ascent, descent = font.getmetrics()
    line_height = ascent + descent + 2
    captions = [
        line_height * max(text.count("\n") + 1 for text in texts[start : start + columns]) + 4
        for start in range(0, len(texts), columns)
    ]
    page = Image.new(
        "RGBA" if tiles[0].mode == "RGBA" else "RGB",
        (columns * (width + gap) + gap, len(captions) * (height + gap) + sum(captions) + gap),
        "white",
    )
    draw = ImageDraw.Draw(page)
    for index, (tile, text) in enumerate(zip(tiles, texts, strict=True)):
        x = gap + index % columns * (width + gap)
        row = index // columns
        y = gap + row * (height + gap) + sum(captions[:row])
        page.paste(tile, (x, y))
        draw.multiline_text((x, y + height + 2), text, fill="black", font=font, spacing=2)
    return page


def wrap(text: str, font: Any, width: int) -> str:
    """Break a label into lines of at most ``width`` pixels.

    Between words where possible; otherwise after the colons of an objective, then at the dots,
    underscores and slashes of a name, and only in the last resort within a word or number.
    """
    lines = [""]
    for piece in _pieces(text, font, width, _BREAKS):
        if lines[-1] and font.getlength((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece.lstrip() if not lines[-1] else piece
    return "\n".join(line.rstrip() for line in lines)


def _pieces(text: str, font: Any, width: int, breaks: Sequence[str]) -> list[str]:
    """Split a text at the first kind of break, and what is still too wide at the next ones."""
    if not breaks:
        return list(text)
    parts = [part for part in re.split(breaks[0], text) if part]
    fits = [font.getlength(part.rstrip()) <= width for part in parts]
    return [
        piece
        for part, whole in zip(parts, fits, strict=True)
        for piece in ([part] if whole else _pieces(part, font, width, breaks[1:]))
    ]
