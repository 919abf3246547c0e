"""What surrounds a warped image: random spots, or its own blurred surroundings."""

from __future__ import annotations

from typing import Any

import kornia.geometry.transform as kornia_transform
import torch
from torch.nn import functional as F

from featviz.errors import FeatvizError
from featviz.resample import resize
from featviz.transforms.random_fields import spots
from featviz.types import Tensor

#: Fills that differ from draw to draw.
RANDOM_FILLS = ("spots", "blur")
#: Cells per side to which ``blur`` reduces the surroundings, and the deviation of their colours.
_CELLS, _SD = 7, 0.15


def onto_background(
    images: Tensor, matrix: Tensor, out: tuple[int, ...], starts: Tensor, fill: str
) -> Tensor:
    """Warp images (B, C, H, W) onto ``fill``, one slice of the normal numbers per sample."""
    if len(out) != 2:
        raise FeatvizError(f"pad with {fill} takes images (H, W); use fill=border")
    options: dict[str, Any] = {"align_corners": True}
    warped = kornia_transform.warp_affine(images, matrix, out, padding_mode="zeros", **options)
    with torch.no_grad():
        inside = images.new_ones(len(images), 1, *images.shape[2:])
        coverage = kornia_transform.warp_affine(
            inside, matrix, out, padding_mode="zeros", **options
        )
        channels = images.shape[1]
        if fill == "blur":
            around = kornia_transform.warp_affine(
                images.detach(), matrix, out, padding_mode="reflection", **options
            )
            cells = F.adaptive_avg_pool2d(around, _CELLS)
            cells += spots(starts, channels, (_CELLS, _CELLS), images, sd=_SD) - 0.5
            background = resize(cells.clamp_(0, 1), out)
        else:
            background = spots(starts, channels, out, images)
        background.mul_(1 - coverage)
    return warped + background
