"""Gather a layer's activations at a few random positions of each image of a dataset."""

from __future__ import annotations

import dataclasses

import torch

from featviz.errors import FeatvizError
from featviz.io.dataset import Dataset, ImageDataset
from featviz.io.dataset_batches import read_batches, warn_of_skipped
from featviz.networks.model import Model
from featviz.optim.batching import evaluated_together
from featviz.optim.collecting import logits_layer
from featviz.process_state import shielded
from featviz.recipes.layer_gradients import on_grid
from featviz.seeds import generator
from featviz.types import Tensor
from featviz.validation import positive_int


@dataclasses.dataclass(frozen=True)
class Gathered:
    """Activations (N, K) of a layer, each from one position of one image.

    ``images`` (N,) counts in ``names``, ``positions`` (N, axes) is on the layer's grid, and
    ``classes`` (N,) is what the network predicts for the image, -1 if it has no class logits.
    """

    vectors: Tensor
    images: Tensor
    positions: Tensor
    classes: Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.vectors)


@shielded
def gather(
    model: Model,
    images: Dataset,
    layer: str,
    *,
    per_image: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Gathered:
    """Return the activations of ``layer`` at ``per_image`` random positions of each image.

    The dataset is read once. Memory grows with the number of positions, not with the images': a
    million positions of 112 channels take 450 MB. An image's positions depend on ``seed`` and on
    its place in the dataset only.

    Raises
    ------
    FeatvizError
        If there are no images that can be read, or the layer has no positions.
    """
    positive_int("per_image", per_image)
    model.layer(layer)
    dataset = ImageDataset(images, model.crop)
    logits = logits_layer(model, model.size)
    skipped: dict[str, str] = {}
    rows: dict[str, list[Tensor]] = {"vectors": [], "images": [], "positions": [], "classes": []}
    names: list[str] = []
    size = evaluated_together(model.device, batch_size)
    batches = read_batches(
        dataset, model.channels, model.size, size, skipped=skipped, progress=progress
    )
    for batch in batches:
        found = model.activations(
            torch.stack([image for _, image in batch.values()]).to(model.device),
            [layer] if logits is None else [layer, logits],
        )
        units = on_grid(model, model.layer(layer), found[layer], model.size)
        classes = [-1] * len(batch)
        if logits is not None:
            classes = found[logits].reshape(len(batch), -1).argmax(1).tolist()
        items = [item for item, _ in batch.values()]
        for item, activation, predicted in zip(items, units, classes, strict=True):
            grid = activation.shape[1:]
            random = generator(seed + item.index, "sampled positions")
            flat = torch.randperm(grid.numel(), generator=random)[:per_image]
            rows["vectors"].append(activation.flatten(1)[:, flat].T)
            rows["images"].append(torch.full((len(flat),), len(names)))
            rows["positions"].append(torch.stack(torch.unravel_index(flat, grid), 1))
            rows["classes"].append(torch.full((len(flat),), predicted))
            names.append(item.name)
    warn_of_skipped(skipped, len(names))
    if not names:
        raise FeatvizError("there are no images in the dataset")
    return Gathered(**{key: torch.cat(parts) for key, parts in rows.items()}, names=names)
