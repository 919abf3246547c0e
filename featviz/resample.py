"""Linear resampling of signals, images and volumes."""

from __future__ import annotations

from torch.nn import functional as F

from featviz.types import Tensor

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def resize(
    values: Tensor, size: tuple[int, ...], *, antialias: bool = False, align_corners: bool = False
) -> Tensor:
    """Resample (B, C, *spatial) linearly to ``size``; return inputs of that size unchanged.

    ``antialias`` filters images that are downsampled; signals and volumes have no such filter.
    """
    if tuple(values.shape[2:]) == size:
        return values
    mode = _MODES[len(size)]
    smooth = antialias and mode == "bilinear"
    return F.interpolate(values, size, mode=mode, align_corners=align_corners, antialias=smooth)
