"""Several baselines for one image, over which an attribution is averaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from featviz.attribution.baselines import BASELINES, baseline
from featviz.errors import FeatvizError, did_you_mean
from featviz.io.dataset import ImageDataset
from featviz.seeds import generator
from featviz.types import Tensor

#: Standard deviation of ``noise``, and how many images ``noise``, ``uniform`` and ``data`` are.
NOISE_SD = 0.2
COUNT = 8
_DRAWN = ("noise", "uniform", "data")


def baseline_sets(spec: Any, images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Return the baselines of each image, (B, N, C, *size), for images (B, C, *size).

    ``spec`` is one baseline, a list of them, or a text such as ``black, blur, uniform:4``. Besides
    those of :func:`featviz.attribution.baselines.baseline` there are

    ``noise:8``
        Copies of the image with Gaussian noise of standard deviation 0.2, clipped to [0, 1].
    ``uniform:8``
        Images of uniform noise in [0, 1].
    ``data:FOLDER:8``
        Images of a folder, evenly spaced in its order; all, if there are fewer.

    Noise is drawn from each image's own seed. [Sturmfels2020]_

    Raises
    ------
    FeatvizError
        For an unknown baseline, a bad count, or a folder without images.
    """
    if isinstance(spec, str):
        items: Sequence[Any] = [word.strip() for word in spec.split(",")]
    else:
        items = spec if isinstance(spec, (list, tuple)) else [spec]
    if not items:
        raise FeatvizError("give at least one baseline")
    return torch.cat([_expanded(item, images, seeds) for item in items], 1)


def are_several(spec: Any) -> bool:
    """Return whether ``spec`` stands for more than one baseline, or for drawn ones."""
    if isinstance(spec, str):
        return "," in spec or spec.partition(":")[0] in _DRAWN
    return isinstance(spec, (list, tuple))


def _expanded(item: Any, images: Tensor, seeds: Sequence[int]) -> Tensor:
    kind = item.partition(":")[0] if isinstance(item, str) else None
    if kind not in _DRAWN:
        if isinstance(item, str) and kind not in BASELINES:
            hint = did_you_mean(item, (*BASELINES, *_DRAWN))
            known = ", ".join([*BASELINES, "noise:8", "uniform:8", "data:FOLDER:8"])
            try:
                item = float(item)
            except ValueError:
                raise FeatvizError(
                    f"no baseline {item!r}: use {known}, a number or a tensor{hint}"
                ) from None
        return baseline(item, images)[:, None]
    rest, count = item.partition(":")[2], COUNT
    if kind != "data" or rest.rpartition(":")[2].isdecimal():
        rest, number = rest.rpartition(":")[::2]
        count = _count(item, number) if number else COUNT
    if kind == "data":
        return _from_folder(rest, count, images)
    if rest:
        raise FeatvizError(f"baseline {item!r}: {kind} takes a count, {kind}:{COUNT}")
    drawn = []
    for image, seed in zip(images, seeds, strict=True):
        rng, shape = generator(seed, f"baseline {kind}"), (count, *image.shape)
        if kind == "uniform":
            drawn.append(torch.rand(shape, generator=rng))
        else:
            noise = torch.randn(shape, generator=rng).to(image)
            drawn.append((image + NOISE_SD * noise).clamp(0, 1))
    return torch.stack(drawn).to(images)


def _count(item: str, number: str) -> int:
    if not number.isdecimal() or not 1 <= int(number) <= 10_000:
        raise FeatvizError(f"baseline {item!r}: the count must be from 1 to 10000")
    return int(number)


def _from_folder(folder: str, count: int, images: Tensor) -> Tensor:
    if not folder:
        raise FeatvizError("the baseline data needs a folder: data:FOLDER, or data:FOLDER:8")
    items = list(ImageDataset(Path(folder)))
    count = min(count, len(items))
    chosen = [items[i * len(items) // count] for i in range(count)]
    shape = tuple(images.shape[2:])
    found = torch.stack([item.image(images.shape[1], shape) for item in chosen])
    return found.to(images).expand(len(images), *found.shape)
