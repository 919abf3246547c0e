"""Contact sheets: images in a grid with labels."""

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


def to_pil(image: Tensor) -> Image.Image:
    """Convert one image (C, H, W) in [0, 1], C = 1, 3 or 4, to 8 bits; rounds, then clips.

    Raises
    ------
    FeatvizError
        For another number of axes or channels: such data has no agreed colours.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3, 4):
        raise FeatvizError(
            f"cannot draw shape {tuple(image.shape)} as an image: it takes 1, 3 or 4 channels "
            "(C, H, W); save the tensor with torch.save or numpy instead"
        )
    values = (image.detach().float().cpu() * 255).round_().clamp_(0, 255).to(torch.uint8).numpy()
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[values.shape[0]]
    pixels = values[0] if mode == "L" else np.moveaxis(values, 0, 2)
    return Image.fromarray(np.ascontiguousarray(pixels), mode)


def sheet(
    images: Tensor, labels: Sequence[str], *, columns: int | None = None, gap: int = 8
) -> Image.Image:
    """Lay images (B, C, H, W) out in a grid, each above its label; one alone has no label.

    Labels that are too long for the width of an image are wrapped.
    """
    pictures = [to_pil(image) for image in images]
    if len(pictures) == 1:
        return pictures[0]
    columns = columns or min(len(pictures), max(4, math.ceil(math.sqrt(len(pictures)))))
    columns = min(columns, len(pictures))
    width, height = pictures[0].size
    font: Any = ImageFont.load_default(max(10, min(16, width // 14)))
    texts = [wrap(label, font, width) for label in labels]
    ascent, descent = font.getmetrics()
    line = ascent + descent + 2
    caption = line * max(text.count("\n") + 1 for text in texts) + 4
    rows = math.ceil(len(pictures) / columns)
    page = Image.new(
        "RGBA" if pictures[0].mode == "RGBA" else "RGB",
        (columns * (width + gap) + gap, rows * (height + caption + gap) + gap),
        "white",
    )
    draw = ImageDraw.Draw(page)
    for index, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        x = gap + index % columns * (width + gap)
        y = gap + index // columns * (height + caption + gap)
        page.paste(picture, (x, y))
        draw.multiline_text((x, y + height + 2), text, fill="black", font=font, spacing=2)
    return page


def wrap(text: str, font: Any, width: int) -> str:
    """Break a label into lines, between words where it can and within them where it must."""
    lines = [""]
    for word in re.split(r"(?<=[ ,])", text):
        if font.getlength((lines[-1] + word).rstrip()) > width and lines[-1]:
            lines.append("")
        for character in word:
            if font.getlength(lines[-1] + character) > width and lines[-1].strip():
                lines.append("")
            lines[-1] += character
    return "\n".join(line.strip() for line in lines)
