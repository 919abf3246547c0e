"""How much each channel and each position of a layer contributes to an objective on an image."""

from __future__ import annotations

import dataclasses

import torch

from featviz.errors import FeatvizError
from featviz.io.inputs import ImageLike, read_images
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.objectives import Objective, channel
from featviz.objectives import objective as as_objective
from featviz.process_state import shielded
from featviz.recipes.layer_gradients import attribute_batch
from featviz.types import Tensor


@dataclasses.dataclass(frozen=True)
class Part:
    """A side of a channel that speaks for an objective.

    ``objective`` raises the channel, or lowers it if ``sign`` is -1, ``share`` is its fraction of
    all positive evidence in the layer, and ``map`` (*grid) is where it acts, zero or more.
    """

    objective: Objective
    channel: int
    sign: int
    share: float
    map: Tensor = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class LayerAttribution:
    """The contributions of a layer's activations to an objective. [Olah2018]_.

    Attributes
    ----------
    image
        (C, H, W), as the network saw it.
    objective, layer
        The objective's text and the layer's name.
    value, baseline_value
        The objective's value, and what it is with the layer on the baseline.
    activations, maps
        (K, *grid): the layer's activations, less those on the baseline, and their contributions.
    """

    image: Tensor
    objective: str
    layer: str
    value: float
    baseline_value: float
    activations: Tensor
    maps: Tensor

    @property
    def delta(self) -> float:
        """The sum of the contributions less the difference that they explain, 0 at best."""
        return float(self.maps.sum()) - (self.value - self.baseline_value)

    @property
    def channels(self) -> Tensor:
        """(K,): the contribution of each channel, summed over positions."""
        return self.maps.flatten(1).sum(1)

    @property
    def positions(self) -> Tensor:
        """(*grid): the contribution of each position, summed over channels."""
        return self.maps.sum(0)

    def strongest(self, k: int) -> list[Part]:
        """Return the ``k`` sides of channels that contribute most, strongest first.

        Layers without a ReLU at their end have negative activations: a channel may contribute
        where it is low. Each channel therefore has two sides, and only a positive total counts.
        """
        above = torch.where(self.activations > 0, self.maps, 0.0)
        sides = torch.stack([above, self.maps - above])
        totals = sides.flatten(2).sum(2).clamp_min(0)
        whole = float(totals.sum())
        if not whole > 0:
            raise FeatvizError(f"nothing in layer {self.layer!r} speaks for {self.objective}")
        parts = []
        for index in totals.flatten().topk(min(k, totals.numel())).indices.tolist():
            side, unit = divmod(index, len(self.maps))
            if not totals[side, unit] > 0:
                break
            goal = channel(self.layer, unit) if side == 0 else -channel(self.layer, unit)
            share = float(totals[side, unit]) / whole
            map_ = sides[side, unit].clamp_min(0)
            parts.append(Part(goal, unit, 1 - 2 * side, share, map_))
        return parts


@shielded
def layer_attribution(
    model: Model | str,
    image: ImageLike,
    objective: Objective | str,
    layer: str,
    *,
    baseline: ImageLike | None = None,
    points: int = 16,
) -> LayerAttribution:
    """Return how much each activation of ``layer`` contributes to ``objective``.

    The contributions are the activations times the objective's gradient by them, as in the paper,
    averaged while the layer goes from the baseline to its activations in a straight line: layer
    integrated gradients, which sum to the objective's change. Any objective of a later layer does:
    a class logit, or with ``fv.neuron(…)`` a unit. [Olah2018]_, [Sundararajan2017]_.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    image
        One image: a file, a Pillow image, an array or a tensor (C, *size) in [0, 1].
    objective
        An objective or its text.
    layer
        A layer with positions: maps (C, *grid), or the patch tokens of a transformer.
    baseline
        An image whose activations count as nothing; by default nothing is zero.
    points
        Points of the line. 1 is its end only: activation times gradient, linear contributions.

    Raises
    ------
    FeatvizError
        If there is not exactly one image, the layer has no positions, or the objective does not
        depend on it.
    """
    model = as_model(model, "layer_attribution")
    goal = as_objective(objective)
    photo = single(image, model, "image")
    nothing = None
    if baseline is not None:
        nothing = single(baseline, model, "baseline")
        if nothing.shape != photo.shape:
            shapes = [tuple(images.shape[1:]) for images in (nothing, photo)]
            raise FeatvizError(f"the baseline has shape {shapes[0]}, the image {shapes[1]}")
    found = attribute_batch(model, photo, goal, layer, nothing, points)
    return LayerAttribution(
        photo[0],
        str(goal),
        layer,
        float(found.values[0]),
        float(found.baseline_values[0]),
        found.activations[0],
        (found.activations * found.slopes)[0],
    )


def single(image: ImageLike, model: Model, what: str) -> Tensor:
    """Return one image as (1, C, *size) on the CPU; raise :class:`FeatvizError` for several."""
    images = read_images(image, model.channels, model.size, what, crop=model.crop)
    if len(images) != 1:
        raise FeatvizError(f"{what}: give one, not {len(images)}")
    return images
