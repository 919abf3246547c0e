"""Line charts, drawn with Pillow."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFont

from featviz.errors import FeatvizError
from featviz.types import Tensor

#: Colour-blind-safe line colours (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def lines(values: Tensor, *, width: int = 560, height: int = 280, label: str = "") -> Image.Image:
    """Draw the columns of ``values`` (steps, B) as lines over the steps; NaN is left out.

    Raises
    ------
    FeatvizError
        If there is no finite value.
    """
    finite = values[values.isfinite()]
    if not finite.numel():
        raise FeatvizError("there are no finite values to plot")
    low, high = finite.min().item(), finite.max().item()
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    left, top, right, bottom = 64, 24, width - 16, height - 28
    draw.rectangle((left, top, right, bottom), outline="#bbbbbb")
    steps = max(len(values) - 1, 1)
    span = high - low or 1.0
    for i, column in enumerate(values.T.tolist()):
        points = [
            (left + (right - left) * step / steps, bottom - (bottom - top) * (v - low) / span)
            for step, v in enumerate(column)
            if torch.isfinite(torch.tensor(v))
        ]
        draw.line(points, fill=COLOURS[i % len(COLOURS)], width=2)
    font = ImageFont.load_default(12)
    for text, y in ((f"{high:.3g}", top), (f"{low:.3g}", bottom)):
        draw.text((left - 6, y), text, fill="black", font=font, anchor="rm")
    draw.text((left, bottom + 6), "0", fill="black", font=font)
    draw.text((right, bottom + 6), f"step {len(values) - 1}", fill="black", font=font, anchor="ra")
    draw.text((left, 4), label, fill="black", font=font)
    return page
