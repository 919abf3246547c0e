"""Measure the colour and spectrum statistics of a dataset, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from featviz.bars import tqdm
from featviz.errors import FeatvizError
from featviz.io.dataset import Dataset, ImageDataset
from featviz.param.stats import Stats
from featviz.types import Size, Tensor
from featviz.validation import fits_memory, positive_int, sides

_CHUNK = 32


def measure_images(dataset: Dataset, *, size: Size, channels: int, progress: bool | None) -> Stats:
    """Return the mean, colour covariance and spectrum of images; see :func:`featviz.calibrate`."""
    shape, channels = sides("size", size), positive_int("channels", channels, 4096)
    # The spectrum of each pair of channels, in double precision.
    fits_memory("the spectrum of images", (2 * channels, channels, *shape))
    axes = tuple(range(-len(shape), 0))
    window = torch.ones(shape, dtype=torch.float64)
    for axis, side in enumerate(shape):
        hann = torch.hann_window(side, periodic=False, dtype=torch.float64) if side > 2 else None
        if hann is not None:
            window *= hann.view(-1, *(1,) * (len(shape) - 1 - axis))
    window /= window.square().mean().sqrt()
    totals = torch.zeros(channels, dtype=torch.float64)
    products = torch.zeros(channels, channels, dtype=torch.float64)
    half_shape = (*shape[:-1], shape[-1] // 2 + 1)
    cross_spectrum = torch.zeros(channels, channels, *half_shape, dtype=torch.complex128)
    count = pixels = 0
    source = (item.image(channels, shape) for item in ImageDataset(dataset))
    for chunk in chunks(tqdm(source, unit="image", progress=progress), _CHUNK):
        batch = chunk.double()
        rows = batch.flatten(2)
        totals += rows.sum((0, 2))
        products += torch.einsum("bcp,bdp->cd", rows, rows)
        centred = (batch - rows.mean(2).view(*batch.shape[:2], *(1,) * len(shape))) * window
        spectrum = torch.fft.rfftn(centred, dim=axes, norm="ortho")
        cross_spectrum += torch.einsum("bc...,bd...->cd...", spectrum, spectrum.conj())
        count += len(batch)
        pixels += rows.shape[0] * rows.shape[2]
    if not count:
        raise FeatvizError(f"no images in {str(dataset)!r}")
    mean = totals / pixels
    covariance = products / pixels - torch.outer(mean, mean)
    if not covariance.diagonal().max() > 1e-9:  # rounding leaves 1e-16
        raise FeatvizError(
            f"all {count} images have one and the same colour: nothing can be measured from them"
        )
    stats = Stats(mean.float(), covariance.float(), torch.zeros(0), shape, count)
    whitening = torch.linalg.inv(stats.root.double()).to(cross_spectrum.dtype)
    power = torch.einsum("ec,cd...,ed->e...", whitening, cross_spectrum / count, whitening).real
    return Stats(mean.float(), covariance.float(), power.clamp_min(0).sqrt().float(), shape, count)


def chunks(source: Iterable[Tensor], count: int) -> Iterator[Tensor]:
    """Yield images (B, C, *size), ``count`` at a time."""
    chunk: list[Tensor] = []
    for image in source:
        chunk.append(image)
        if len(chunk) == count:
            yield torch.stack(chunk)
            chunk = []
    if chunk:
        yield torch.stack(chunk)
