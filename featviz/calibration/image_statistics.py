"""Measure the colour and spectrum statistics of a dataset, in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from featviz.bars import tqdm
from featviz.errors import FeatvizError
from featviz.io.dataset import Dataset, ImageDataset
from featviz.param.stats import Stats
from featviz.process_state import shielded
from featviz.types import Size, Tensor
from featviz.validation import fits_memory, positive_int, sides

_CHUNK = 32


@shielded
def calibrate(
    dataset: Dataset,
    *,
    size: Size = 224,
    channels: int = 3,
    progress: bool | None = None,
) -> Stats:
    """Return the mean, colour covariance and spectrum of a dataset, for ``Fourier(stats=…)``.

    One streaming pass; memory does not grow with the number of images. Images are centre-cropped to
    the aspect ratio of ``size`` and resized to it; floats in [0, 1].

    The spectrum is the root-mean-square magnitude (the mean magnitude cannot be computed in the
    same pass as the colours) of images whose mean is subtracted and whose borders are faded by a
    Hann window, so that their edges do not count as structure.

    Parameters
    ----------
    dataset
        A folder of images, or any iterable of tensors (C, *size), PIL images, paths, or tuples that
        start with one of these (as ``torch.utils.data`` datasets yield).
    size
        The size to measure at.
    channels
        The number of channels; images are read as gray (1) or RGB (3).
    progress
        Show a progress bar on a terminal.

    Raises
    ------
    FeatvizError
        If there are no images, all are of one colour, or one has a different number of channels.
    """
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
    for chunk in _chunks(tqdm(source, unit="image", progress=progress)):
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


def _chunks(source: Iterable[Tensor]) -> Iterator[Tensor]:
    chunk: list[Tensor] = []
    for image in source:
        chunk.append(image)
        if len(chunk) == _CHUNK:
            yield torch.stack(chunk)
            chunk = []
    if chunk:
        yield torch.stack(chunk)
