"""Octave sizes of a dream, and preservation of the original's colours."""

from __future__ import annotations

from featviz.errors import FeatvizError
from featviz.types import Tensor

#: The smallest allowed side of an octave, in pixels.
SMALLEST = 4
#: The weights of red, green and blue in luminance (ITU-R BT.709).
_LUMINANCE = (0.2126, 0.7152, 0.0722)
#: Keeps the ratio of luminances finite for black: half an 8-bit level.
_BLACK = 1 / 510


def octave_sizes(size: tuple[int, int], octaves: int, scale: float) -> list[tuple[int, int]]:
    """Return the sizes (H, W) of the octaves, from the smallest to ``size``.

    Raises
    ------
    FeatvizError
        If a side of the smallest octave would be less than :data:`SMALLEST` pixels.
    """
    sizes = []
    for k in reversed(range(octaves)):
        height, width = (round(side / scale**k) for side in size)
        if min(height, width) < SMALLEST:
            raise FeatvizError(
                f"the smallest of {octaves} octaves would have {height} x {width} pixels: "
                "use fewer octaves or a larger image"
            )
        sizes.append((height, width))
    return sizes


def recolored(original: Tensor, dreamed: Tensor) -> Tensor:
    """Return the original (B, 3, H, W) with the luminance of the dream, clipped to [0, 1]."""
    weights = original.new_tensor(_LUMINANCE).view(1, 3, 1, 1)
    before, after = ((x * weights).sum(1, keepdim=True) for x in (original, dreamed))
    return (original * ((after + _BLACK) / (before + _BLACK))).clamp_(0, 1)
