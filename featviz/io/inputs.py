"""Input images in any form: files, Pillow images, arrays, tensors, lists; and masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image

from featviz.errors import FeatvizError
from featviz.io import decode, images
from featviz.resample import resize
from featviz.types import Tensor
from featviz.validation import fits_memory, sides

#: One image, or a batch of equal size: a file, a Pillow image, an array or a tensor.
ImageLike: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor
#: How far resampling may push values out of [0, 1].
ROUNDING = 1e-3


def read_image(image: ImageLike, channels: int, what: str, axes: int = 2) -> Tensor:
    """Return an image as floats (B, C, *spatial) in [0, 1] on the CPU, at its own size.

    Tensors and arrays have ``axes`` spatial axes and may be a batch. Arrays of bytes are divided by
    255, and an array may have its channels last.

    Raises
    ------
    FeatvizError
        If it cannot be read, or has an unsupported type, shape or range, with a hint.
    """
    if isinstance(image, (str, Path)):
        return images.read(image, channels)
    if isinstance(image, Image.Image):
        return decode.from_pil(image, channels)
    if isinstance(image, np.ndarray):
        image = _from_array(image, channels, axes)
    if not isinstance(image, torch.Tensor):
        type_name = type(image).__name__
        raise FeatvizError(
            f"{what} must be a file, a Pillow image, an array or a float tensor, not {type_name}"
        )
    if image.layout != torch.strided:
        raise FeatvizError(f"{what} must be a dense tensor: call to_dense()")
    if not image.is_floating_point():
        raise FeatvizError(f"{what} must be floats in [0, 1], not {image.dtype}: divide by 255")
    if image.is_inference():  # such a tensor takes no part in gradients
        image = image.clone()
    batch = image.detach().float().cpu()
    batch = batch if batch.ndim == axes + 2 else batch[None]
    if batch.ndim != axes + 2 or batch.shape[1] != channels or 0 in batch.shape:
        size = {1: "L", 2: "H, W", 3: "D, H, W"}.get(axes, "*size")
        raise FeatvizError(
            f"{what} must have shape (B, {channels}, {size}), not {tuple(image.shape)}"
        )
    low, high = batch.aminmax()
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # also for NaN
        raise FeatvizError(f"{what} must be in [0, 1], not from {low:.3g} to {high:.3g}: scale it")
    return batch if low >= 0 and high <= 1 else batch.clamp(0, 1)


def _from_array(array: np.ndarray, channels: int, axes: int) -> Tensor:
    """Return an array as a tensor with channels first, bytes as floats in [0, 1]."""
    if array.dtype == np.uint8:
        array = array.astype(np.float32) / 255
    if array.ndim == axes and channels == 1:
        array = array[None]
    channel_axis = array.ndim - axes - 1  # where it should be
    if channel_axis in (0, 1) and array.shape[channel_axis] != channels == array.shape[-1]:
        array = np.moveaxis(array, -1, channel_axis)
    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except TypeError:
        raise FeatvizError(f"an array of {array.dtype} cannot be an image") from None


def read_images(
    image: ImageLike | Sequence[ImageLike],
    channels: int,
    own: tuple[int, ...],
    what: str,
    *,
    size: tuple[int, ...] | None = None,
    crop: float = 1.0,
) -> Tensor:
    """Return one or several images as floats (B, C, *size) in [0, 1], as a network expects them.

    A file or Pillow image is centre-cropped to the aspect ratio of ``size`` and resized (bilinear,
    antialiased), as in :func:`featviz.examples`; by default ``size`` is the network's ``own``, and
    the central fraction ``crop`` of each side is kept, as the network's preprocessing has it. An
    array or tensor is resized only if ``size`` is given, and is not cropped.

    Raises
    ------
    FeatvizError
        If one cannot be read or has an unsupported type, shape or range, or their sizes differ.
    """
    if isinstance(image, (list, tuple)):
        if not image:
            raise FeatvizError(f"{what}: give at least one")
        batches = [read_images(item, channels, own, what, size=size, crop=crop) for item in image]
        if len({tuple(batch.shape[1:]) for batch in batches}) > 1:
            raise FeatvizError(f"{what}: several of different sizes; choose one with size=")
        return torch.cat(batches)
    size = None if size is None else sides("size", size)
    if size is not None:
        fits_memory(what, (channels, *size))
        if len(size) != len(own):
            raise FeatvizError(f"size {size} does not fit a network of size {own}")
    target_size = own if size is None else size
    if isinstance(image, (str, Path, Image.Image)) and len(own) != 2:
        raise FeatvizError(f"{what} of a network of size {own} must be a float tensor")
    if isinstance(image, (str, Path)):
        return images.read(image, channels, target_size, crop)
    if isinstance(image, Image.Image):
        return decode.from_pil(image, channels, target_size, crop)
    batch = read_image(image, channels, what, len(own))  # type: ignore[arg-type]
    return batch if size is None else resize(batch, size, antialias=True).clamp(0, 1)


def read_mask(mask: ImageLike, size: tuple[int, int], batch: int) -> Tensor:
    """Return a mask as floats (1 or B, 1, *size) in [0, 1].

    Raises
    ------
    FeatvizError
        As :func:`read_image`, or if there are several but not one for each of ``batch`` images.
    """
    if isinstance(mask, torch.Tensor) and mask.ndim == 2:
        mask = mask[None, None]
    masks = read_image(mask, 1, "mask")
    if len(masks) not in (1, batch):
        raise FeatvizError(f"{len(masks)} masks for {batch} images")
    return resize(masks, size, antialias=True).clamp_(0, 1)
