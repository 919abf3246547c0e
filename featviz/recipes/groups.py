"""Neuron groups: a layer's activations as a few directions, each with a map and a picture."""

from __future__ import annotations

import dataclasses

import torch
from PIL import Image

from featviz.errors import FeatvizError
from featviz.io.inputs import ImageLike, read_images
from featviz.networks.coercion import as_model
from featviz.networks.model import Model
from featviz.objectives import Objective, direction
from featviz.optim.result import Result
from featviz.optim.settings import Settings
from featviz.optim.settings_keywords import SettingsKeywords
from featviz.options import takes
from featviz.recipes import drawing
from featviz.recipes.factorization import nmf
from featviz.recipes.layer_gradients import attribute_batch, layer_activations
from featviz.rendering.api import render
from featviz.seeds import expand
from featviz.types import Seed, Tensor, Unpack
from featviz.validation import positive_int

#: The side of the photographs and of the pictures on the page, in pixels.
_SIDE, _SMALL = 320, 168
#: The power of the cosine in the groups' objectives: a picture of this direction and no other.
_COSINE_POWER = 1


@dataclasses.dataclass(frozen=True)
class NeuronGroups(drawing.Page):
    """Directions that together make up the activations of a layer. [Olah2018]_.

    Attributes
    ----------
    images
        (B, C, H, W), as the network saw them.
    layer
        The layer's name.
    directions
        (K, units): one for each group, of norm 1.
    maps
        (B, K, *grid): how much of the group is at each position, zero or more.
    effects
        (K,): the share of each group in an objective, summed over images, or None without one.
    explained
        The fraction of the activations' sum of squares that the groups explain.
    rendered
        A picture of each group.
    """

    images: Tensor
    layer: str
    directions: Tensor
    maps: Tensor
    effects: Tensor | None
    explained: float
    rendered: Result

    def sheet(self) -> Image.Image:
        """Draw each photograph in the groups' colours, and each group with its map and picture."""
        shades = [drawing.colour(k) for k in range(len(self.directions))]
        scale = self.maps.flatten(2).amax((0, 2)).clamp_min(1e-12)
        heat = self.maps / scale.reshape(1, -1, *(1 for _ in self.maps.shape[2:]))
        rows = []
        for image, maps in zip(self.images, heat, strict=True):
            all_groups = drawing.tint(image, maps, shades)
            rows.append(drawing.row([drawing.tile(p, _SIDE) for p in (image, all_groups)]))
        alone = []
        for k, shade in enumerate(shades):
            where = [
                drawing.framed(drawing.tile(drawing.tint(i, m[k : k + 1], [shade]), _SMALL), shade)
                for i, m in zip(self.images, heat, strict=True)
            ]
            picture = drawing.framed(drawing.tile(self.rendered.images[k], _SMALL), shade)
            text = f"group {k + 1}"
            if self.effects is not None:
                text += f": {float(self.effects[k]):+.2g}"
            alone.append(drawing.column([*where, drawing.captioned(picture, text)], 6))
        return drawing.column([*rows, drawing.row(alone)], 16, 16)


@takes(Settings)
def neuron_groups(
    model: Model | str,
    images: ImageLike,
    layer: str,
    *,
    k: int = 6,
    objective: Objective | str | None = None,
    settings: Settings | None = None,
    seed: Seed = 0,
    device: str | None = None,
    progress: bool | None = None,
    **options: Unpack[SettingsKeywords],
) -> NeuronGroups:
    """Factor the activations of ``layer`` into ``k`` groups, and render each.

    The activations at all positions of all images are a matrix, which non-negative factorization
    splits into k directions and how much of each is where. Negative activations, which layers
    without a ReLU at their end have, count as units of their own. [Olah2018]_.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`, or the name of a network.
    images
        One or several photographs of the same size.
    layer
        A layer with positions.
    k
        The number of groups.
    objective
        Adds the effect of each group on an objective of a later layer: its part of the activations
        times the objective's gradient, averaged as in :func:`layer_attribution`.
    settings
        How the pictures are optimized; keyword arguments override its fields.
    seed, device, progress
        As in :func:`featviz.render`; the factorization's start uses the first seed.

    Raises
    ------
    FeatvizError
        If the layer has no positions, or fewer than ``k`` of them, or is zero everywhere.
    """
    model = as_model(model, "neuron_groups")
    positive_int("k", k)
    photos = read_images(images, model.channels, model.size, "images", crop=model.crop)
    activations, slopes = layer_activations(model, photos, layer), None
    if objective is not None:
        slopes = attribute_batch(model, photos, objective, layer).slopes
    units, grid = activations.shape[1], activations.shape[2:]
    rows = activations.movedim(1, -1).reshape(-1, units)
    if k > min(len(rows), 2 * units):
        raise FeatvizError(
            f"layer {layer!r} has {len(rows)} positions of {units} units: too few for {k} groups"
        )
    amounts, parts = nmf(torch.cat([rows, -rows], 1).clamp_min(0), k, seed=expand(seed, k)[0])
    signed = (parts[:, :units] - parts[:, units:]).float()
    norms = signed.norm(dim=1, keepdim=True).clamp_min(1e-12)
    amounts, signed = amounts.float() * norms[:, 0], signed / norms
    left = rows - amounts @ signed
    maps = amounts.T.reshape(k, len(photos), *grid).movedim(0, 1)
    effects = None
    if slopes is not None:
        by_group = slopes.movedim(1, -1).reshape(-1, units) @ signed.T
        effects = (amounts * by_group).sum(0)
    rendered = render(
        model,
        [direction(layer, vector, cosine_power=_COSINE_POWER) for vector in signed],
        settings=settings,
        seed=seed,
        device=device,
        progress=progress,
        **options,
    )
    explained = 1 - float(left.square().sum() / rows.square().sum())
    return NeuronGroups(photos, layer, signed, maps, effects, explained, rendered)
