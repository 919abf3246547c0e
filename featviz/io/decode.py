"""Convert Pillow images of every mode to floats in [0, 1]."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps

from featviz.errors import FeatvizError
from featviz.types import Tensor


def from_pil(
    picture: Image.Image, channels: int, size: tuple[int, ...] | None = None, crop: float = 1.0
) -> Tensor:
    """Return a Pillow image as floats (1, C, H, W) in [0, 1], C = 1 (gray) or 3 (RGB).

    EXIF orientation is applied, transparency is shown on white, and 16-bit gray is scaled to
    [0, 1]. With ``size`` (H, W) the image is centre-cropped to that aspect ratio, of which the
    central fraction ``crop`` of each side is kept, and resized (bilinear, antialiased).

    Raises
    ------
    FeatvizError
        If ``channels`` is neither 1 nor 3, or the range of the values is unknown.
    """
    if channels not in (1, 3):
        raise FeatvizError(f"an image file has 1 or 3 channels, not {channels}: give a tensor")
    upright = ImageOps.exif_transpose(picture)
    high_depth = upright.mode.startswith(("I", "F"))
    if high_depth:
        upright = _unit_range(upright)
    else:
        if upright.has_transparency_data:  # show transparency on white
            upright = upright.convert("RGBA")
            background = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(background, upright)
        upright = upright.convert("L" if channels == 1 else "RGB")
    if size is not None:
        border = (1 - crop) / 2
        upright = ImageOps.fit(upright, (size[1], size[0]), Image.Resampling.BILINEAR, border)
    pixels = torch.from_numpy(np.array(upright)).reshape(upright.height, upright.width, -1)
    pixels = pixels.movedim(-1, 0)[None]
    if high_depth:
        return pixels.expand(-1, channels, -1, -1).contiguous()
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def _unit_range(image: Image.Image) -> Image.Image:
    """Return a gray image of 16 or 32 bits as floats in [0, 1]."""
    values = np.asarray(image).astype(np.float32)
    if not image.mode.startswith("F"):
        values /= 65535
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also for NaN
        raise FeatvizError(
            f"an image of mode {image.mode} has values that are neither 16 bits nor in [0, 1]: "
            "scale it first, and give a tensor"
        )
    return Image.fromarray(values)
