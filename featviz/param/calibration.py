"""Measure the colours and the spectrum of a dataset, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from featviz.errors import FeatvizError
from featviz.io.dataset import Dataset, ImageDataset, as_image
from featviz.param.stats import Stats
from featviz.types import Size, Tensor

_CHUNK = 32


def calibrate(
    dataset: Dataset,
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
        A folder of images, or anything that yields tensors (C, *size), PIL images, paths, or
        tuples that start with one of these (as ``torch.utils.data`` datasets do).
    size
        The size to measure at.
    channels
        The number of channels; images are read as gray (1) or RGB (3).
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
    source = (as_image(item.given, channels, shape) for item in ImageDataset(dataset))
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
