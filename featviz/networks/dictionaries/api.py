"""``fv.dictionary``: learn the features of a layer from images."""

from __future__ import annotations

import torch

from featviz.errors import FeatvizError
from featviz.io.dataset import Dataset, ImageDataset
from featviz.io.dataset_batches import read_batches, warn_of_skipped
from featviz.networks import devices
from featviz.networks.coercion import as_model
from featviz.networks.dictionaries.dictionary import Dictionary
from featviz.networks.dictionaries.training import train
from featviz.networks.model import Model
from featviz.process_state import shielded
from featviz.seeds import generator
from featviz.types import Tensor
from featviz.validation import positive_int, whole


@shielded
def dictionary(
    model: Model | str,
    layer: str,
    images: Dataset,
    *,
    features: int | None = None,
    k: int = 16,
    steps: int = 2000,
    positions: int = 64,
    seed: int = 0,
    batch_size: int = 8,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> Dictionary:
    """Train a sparse autoencoder on the activations of a layer, and return its dictionary.

    Each activation (of a position) is the sum of at most ``k`` of ``features`` directions, which
    often mean more than single units do: a TopK autoencoder. [Gao2024]_
    ``dictionary.attach(model)`` makes the features a layer, which is rendered, searched and mapped
    like any other. ``notes`` has ``explained``, the fraction of the variance of these activations
    that the sums explain, and ``used``, the fraction of the features that occur in one of them.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    layer
        The layer; its activations are held in memory, ``positions`` of each image.
    images
        A folder, or any iterable of images, as for :func:`featviz.examples`; read once.
    features
        The number of features; by default four for each unit of the layer.
    k
        The features of one activation.
    steps
        Updates, of 1,024 activations each.
    positions
        Positions drawn from each image, where the layer has positions.
    seed
        For the positions, the initial directions and the batches.
    batch_size
        Images of a forward pass.
    device
        ``cuda``, ``auto``, …; by default where the model is.
    progress
        Show a progress bar of the images; None, the default: in interactive sessions.

    Raises
    ------
    FeatvizError
        If the layer or the images do not exist, there are fewer activations than features, or a
        number is out of its range.
    """
    model = as_model(model, "dictionary")
    model = model.on(devices.resolve(device, model.device))
    info = model.layer(layer)
    count = 4 * info.units if features is None else positive_int("features", features)
    steps, positions = positive_int("steps", steps), positive_int("positions", positions)
    k = whole("k", k, 1, count)
    seed = whole("seed", seed, 0, 2**63 - 1)
    rows = gather(model, layer, images, positions, positive_int("batch_size", batch_size), seed,
                  progress=progress)  # fmt: skip
    if len(rows) < count:
        raise FeatvizError(
            f"{len(rows)} activations are fewer than the {count} features: give more images or "
            "positions, or fewer features"
        )
    made = train(rows, count, k, steps, seed)
    made.layer = layer
    made.notes |= {"model": model.name, "activations": len(rows)}
    return made


def gather(
    model: Model,
    layer: str,
    images: Dataset,
    positions: int,
    batch_size: int,
    seed: int,
    *,
    progress: bool | None = None,
) -> Tensor:
    """Return activations (N, units) of a layer: ``positions`` of each image, or all it has."""
    dataset = ImageDataset(images, model.crop)
    axis, source = model.layer(layer).axis, generator(seed, "positions")
    kept: list[Tensor] = []
    skipped: dict[str, str] = {}
    seen = 0
    batches = read_batches(
        dataset, model.channels, model.size, batch_size, skipped=skipped, progress=progress
    )
    for batch in batches:
        seen += len(batch)
        stacked = torch.stack([image for _, image in batch.values()]).to(model.device)
        with torch.no_grad():
            found = model.activations(stacked, layer)[layer].movedim(axis, -1).float()
        for rows in found.flatten(1, -2) if found.ndim > 2 else found[:, None]:
            drawn = torch.randperm(len(rows), generator=source)[:positions].to(rows.device)
            kept.append(rows[drawn])
    warn_of_skipped(skipped, seen)
    if not kept:
        raise FeatvizError("there are no images")
    rows = torch.cat(kept)
    if not rows.isfinite().all():
        raise FeatvizError(f"activations of {layer!r} are not finite")
    return rows
