"""Measure how a network's activations vary over a dataset, in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.bars import tqdm
from featviz.calibration.image_statistics import chunks
from featviz.errors import FeatvizError
from featviz.io.dataset import Dataset, ImageDataset
from featviz.networks.model import Model
from featviz.objectives.activation_stats import FEWEST, ActivationStats, fit, moments
from featviz.seeds import generator
from featviz.types import LayerInfo, Size, Tensor
from featviz.validation import sides

_CHUNK = 8
#: Images whose moments are kept, a random choice of larger datasets: 270 MB for 16,000 channels.
MOST_IMAGES = 2048


def measure_activations(
    dataset: Dataset,
    model: Model,
    *,
    layers: Sequence[str] | None,
    size: Size | None,
    progress: bool | None,
) -> ActivationStats:
    """Return how the channels' means and deviations vary from image to image, in each layer.

    See :func:`featviz.calibrate`; ``layers`` are the normalization layers, or in a network without
    any the convolutions and linear layers, that have positions.
    """
    shape = model.size if size is None else sides("size", size)
    if isinstance(layers, str):
        layers = [layers]
    names = list(layers) if layers is not None else default_layers(model, shape)
    if not names:
        raise FeatvizError("layers= names no layer to measure")
    axes = {name: _checked(model, name, shape).axis for name in names}
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    draw = generator(0, "calibration")
    count = 0
    source = (item.image(model.channels, shape) for item in ImageDataset(dataset, model.crop))
    for chunk in chunks(tqdm(source, unit="image", progress=progress), _CHUNK):
        with torch.no_grad():
            found = model.activations(chunk.to(model.device), names)
        rows = {name: moments(found[name], axes[name]).cpu() for name in names}
        for name, values in rows.items():
            if not values.isfinite().all():
                raise FeatvizError(
                    f"layer {name!r} is not finite for one of images {count} to "
                    f"{count + len(chunk) - 1}"
                )
        for k in range(len(chunk)):
            place = count
            if count >= MOST_IMAGES:  # Vitter's algorithm R: every image is as likely to be kept
                place = int(torch.randint(count + 1, (), generator=draw))
            for name in names if place < MOST_IMAGES else ():
                kept[name][place : place + 1] = [rows[name][k]]
            count += 1
    if not count:
        raise FeatvizError(f"no images in {str(dataset)!r}")
    if count < FEWEST:
        raise FeatvizError(f"{count} images are too few for statistics: give at least {FEWEST}")
    return ActivationStats({n: fit(torch.stack(kept[n])) for n in names}, shape, count)


def default_layers(model: Model, size: tuple[int, ...]) -> list[str]:
    """Return the layers that are measured by default.

    Raises
    ------
    FeatvizError
        If the network has none with positions.
    """
    table = [info for info in model.layers(size) if info.positions and info.batched]
    # Of a layer that runs several times, or returns several tensors, one would have to be chosen.
    plain = [info for info in table if info.calls == 1 and not set("#[") & set(info.name)]
    for words in (("Norm",), ("Conv", "Linear")):
        names = [info.name for info in plain if any(word in info.type for word in words)]
        if names:
            return names
    raise FeatvizError(
        "the network has no normalization, convolution or linear layer that has positions and runs "
        "once: give layers="
    )


def _checked(model: Model, name: str, size: tuple[int, ...]) -> LayerInfo:
    info = model.layer(name, size)
    if not info.positions:
        raise FeatvizError(
            f"layer {name!r} has no positions to take a deviation over: name an earlier one"
        )
    return info
