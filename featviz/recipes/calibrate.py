"""Measure the colours and the spectrum of a data set, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from featviz import images as _images
from featviz.errors import FeatvizError
from featviz.param.stats import Stats
from featviz.resample import resize
from featviz.types import Size, Tensor

_CHUNK = 32


def calibrate(
    dataset: Iterable[Any] | str | Path,
    *,
    size: Size = 224,
    channels: int = 3,
    progress: bool = False,
) -> Stats:
    """Return the mean, colour covariance and spectrum of images, for ``Fourier(stats=…)``.

    One streaming pass; memory does not grow with the number of images. Images are cropped about
    the centre to the aspect of ``size`` and resized to it; floats in [0, 1].

    The spectrum is the root mean squared magnitude (not the mean one, which could not be had in
    the same pass as the colours), of images whose mean is taken out and whose borders are faded
    by a Hann window, so that their edges do not count as structure.

    Parameters
    ----------
    dataset
        A folder of pictures, or anything that yields tensors (C, *size), PIL pictures, paths, or
        tuples that start with one of these (as ``torch.utils.data`` data sets do).
    size
        The size to measure at.
    channels
        The number of channels; pictures are read as gray (1) or RGB (3).
    progress
        Show a progress bar on a terminal.

    Raises
    ------
    FeatvizError
        If there is no image, or one has another number of channels.
    """
    from tqdm.auto import tqdm

    shape = (size, size) if isinstance(size, int) else tuple(size)
    axes = tuple(range(-len(shape), 0))
    window = torch.ones(shape, dtype=torch.float64)
    for axis, side in enumerate(shape):
        hann = torch.hann_window(side, periodic=False, dtype=torch.float64) if side > 2 else None
        if hann is not None:
            window *= hann.view(-1, *(1,) * (len(shape) - 1 - axis))
    window /= window.square().mean().sqrt()
    first = torch.zeros(channels, dtype=torch.float64)
    second = torch.zeros(channels, channels, dtype=torch.float64)
    half = (*shape[:-1], shape[-1] // 2 + 1)
    cross = torch.zeros(channels, channels, *half, dtype=torch.complex128)
    count = pixels = 0
    source = _items(dataset, channels, shape)
    for chunk in _chunks(tqdm(source, unit="image", disable=None if progress else True)):
        batch = chunk.double()
        rows = batch.flatten(2)
        first += rows.sum((0, 2))
        second += torch.einsum("bcp,bdp->cd", rows, rows)
        centred = (batch - rows.mean(2).view(*batch.shape[:2], *(1,) * len(shape))) * window
        spectrum = torch.fft.rfftn(centred, dim=axes, norm="ortho")
        cross += torch.einsum("bc...,bd...->cd...", spectrum, spectrum.conj())
        count += len(batch)
        pixels += rows.shape[0] * rows.shape[2]
    if not count:
        raise FeatvizError(f"no images in {str(dataset)!r}")
    mean = first / pixels
    covariance = second / pixels - torch.outer(mean, mean)
    stats = Stats(mean.float(), covariance.float(), torch.zeros(0), shape, count)
    white = torch.linalg.inv(stats.root.double()).to(cross.dtype)
    power = torch.einsum("ec,cd...,ed->e...", white, cross / count, white).real
    return Stats(mean.float(), covariance.float(), power.clamp_min(0).sqrt().float(), shape, count)


def _chunks(source: Iterable[Tensor]) -> Iterator[Tensor]:
    kept: list[Tensor] = []
    for image in source:
        kept.append(image)
        if len(kept) == _CHUNK:
            yield torch.stack(kept)
            kept = []
    if kept:
        yield torch.stack(kept)


def _items(dataset: Any, channels: int, shape: tuple[int, ...]) -> Iterator[Tensor]:
    if isinstance(dataset, (str, Path)):
        dataset = picture_files(dataset)
    for item in dataset:
        yield as_image(item[0] if isinstance(item, (tuple, list)) else item, channels, shape)


def picture_files(folder: str | Path) -> list[Path]:
    """Return all pictures below a folder, in order of their names.

    Raises
    ------
    FeatvizError
        If there is no such folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FeatvizError(f"no folder {str(folder)!r} of images")
    kinds = Image.registered_extensions()
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in kinds and p.is_file())
    if not found:
        raise FeatvizError(f"no pictures in {str(folder)!r}")
    return found


def as_image(item: Any, channels: int, shape: tuple[int, ...]) -> Tensor:
    """Return one image of a data set as floats (C, *size) in [0, 1], cropped and resized."""
    if isinstance(item, (str, Path)):
        return _images.read(item, channels, shape)[0]
    if isinstance(item, Image.Image):
        pixels = np.asarray(item.convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255
        image = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).movedim(-1, 0)
    else:
        image = torch.as_tensor(item)
        if not image.is_floating_point():
            image = image.float() / 255
    if image.ndim != len(shape) + 1 or image.shape[0] != channels:
        raise FeatvizError(f"image of shape {tuple(image.shape)}, expected ({channels}, *{shape})")
    if tuple(image.shape[1:]) != shape:
        scale = min(side / new for side, new in zip(image.shape[1:], shape, strict=True))
        for axis, new in enumerate(shape):
            side = image.shape[axis + 1]
            keep = min(side, max(1, round(new * scale)))
            image = image.narrow(axis + 1, (side - keep) // 2, keep)
        image = resize(image[None], shape, antialias=True)[0]
    return image
