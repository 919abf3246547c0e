"""Network dissection: which segmentation a unit agrees with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch

from featviz.attribution.cam_layers import maps_in_batches
from featviz.attribution.labelled_images import checked_images
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.process_state import shielded
from featviz.resample import resize
from featviz.types import Tensor

#: The fraction of the positions of all images where a unit counts as active, as in the paper.
QUANTILE = 0.005


@dataclasses.dataclass(frozen=True)
class Dissection:
    """The agreement of the units of a layer with concepts. [Bau2017]_.

    Attributes
    ----------
    concepts
        The names of the concepts.
    iou
        (units, concepts): over all images, the intersection of where the unit is active with the
        concept's masks, divided by the union.
    thresholds
        (units,): the activation above which a unit counts as active.
    """

    concepts: tuple[str, ...]
    iou: Tensor
    thresholds: Tensor

    def best(self, least: float = 0.04) -> dict[int, tuple[str, float]]:
        """Return the concept and IoU of each unit that detects one with at least ``least``."""
        values, indices = self.iou.max(1)
        rows = zip(values.tolist(), indices.tolist(), strict=True)
        return {u: (self.concepts[k], v) for u, (v, k) in enumerate(rows) if v >= least}


@shielded
def dissect(
    model: Model,
    layer: str,
    images: Tensor,
    masks: Mapping[str, Tensor],
    *,
    quantile: float = QUANTILE,
) -> Dissection:
    """Compare where the units of ``layer`` are active with segmentations of the images.

    A unit is active where its map, resized linearly to the image, exceeds the value that it
    exceeds at a fraction ``quantile`` of the positions of all images. All activations of the layer
    are held in memory.

    Parameters
    ----------
    images
        (B, C, *size) in [0, 1].
    masks
        For each concept, (B, *size), true where it is.
    quantile
        Between 0 and 1.

    Raises
    ------
    FeatvizError
        If a mask does not fit the images, there are none, the quantile is out of range, or the
        layer has no maps.
    """
    images = checked_images(model, images)
    size = tuple(images.shape[2:])
    if not 0 < quantile < 1:
        raise FeatvizError(f"quantile must be between 0 and 1, not {quantile}")
    if not masks:
        raise FeatvizError("dissection needs the masks of at least one concept")
    for name, mask in masks.items():
        if tuple(mask.shape) != (len(images), *size):
            raise FeatvizError(
                f"masks of {name!r} have shape {tuple(mask.shape)}, not {(len(images), *size)}"
            )
    maps = torch.cat([some.float().cpu() for some in maps_in_batches(model, layer, images)])
    by_unit = maps.transpose(0, 1).flatten(1)
    rank = min(by_unit.shape[1], max(1, round((1 - quantile) * by_unit.shape[1])))
    thresholds = by_unit.kthvalue(rank, dim=1).values
    concepts = torch.stack([mask > 0 for mask in masks.values()])
    both = torch.zeros(maps.shape[1], len(masks), dtype=torch.float64)
    active_total = torch.zeros(maps.shape[1], dtype=torch.float64)
    limit = thresholds.view(1, -1, *(1 for _ in size))
    for i in range(len(images)):
        active = (resize(maps[i : i + 1], size) > limit).flatten(2)[0].double()
        both += active @ concepts[:, i].flatten(1).double().T
        active_total += active.sum(1)
    areas = concepts.flatten(1).double().sum(1)
    union = active_total[:, None] + areas[None] - both
    iou = torch.where(union > 0, both / union.clamp_min(1), 0.0)
    return Dissection(tuple(masks), iou, thresholds)
