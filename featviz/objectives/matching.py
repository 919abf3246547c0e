"""Matching a reference: features, statistics and style of an image, or the network's own.

Each is higher the better the match: a negative distance, or a similarity.
"""

from __future__ import annotations

import dataclasses
import re

import torch
from torch import nn

from featviz.errors import UnitError
from featviz.objectives import reference
from featviz.objectives.base import Objective
from featviz.objectives.directions import LEAST_COSINE
from featviz.objectives.reduction import EPSILON
from featviz.objectives.reference import Picture
from featviz.objectives.scene import IMAGE, Scene, Score, Target
from featviz.objectives.unit import Unit, quoted, real, word
from featviz.types import Tensor


def _rows(activation: Tensor, axis: int) -> Tensor:
    """Return (B, units, positions); without positions there is one."""
    if activation.ndim == 2:
        return activation[..., None]
    return activation.movedim(axis, 1).flatten(2)


def gram(activation: Tensor, axis: int) -> Tensor:
    """Return the Gram matrices (B, C, C) over positions, divided by their number."""
    rows = _rows(activation, axis)
    return rows @ rows.transpose(1, 2) / rows.shape[2]


def _one(source: str, layer: str, target: Target) -> Tensor:
    found = reference.activation(source, layer, target)
    if len(found) != 1:
        raise UnitError(f"expected one image, not {len(found)}, in {source!r}")
    return found


@dataclasses.dataclass(frozen=True, repr=False)
class FeatureMatch(Unit):
    """See :func:`feature_match`."""

    kind = "feature_match"
    layer: str = word()
    picture: str = quoted()

    def bind(self, target: Target) -> Score:
        target.layer(self.layer)
        wanted = _one(self.picture, self.layer, target)
        energy = wanted.square().sum().clamp_min(EPSILON)

        def score(scene: Scene) -> Tensor:
            return -(scene[self.layer] - wanted).flatten(1).square().sum(1) / energy

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class Caricature(Unit):
    """See :func:`caricature`."""

    kind = "caricature"
    layer: str = word()
    picture: str = quoted()
    cosine_power: float = real(1.0)

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        wanted = _one(self.picture, self.layer, target).movedim(info.axis, 1)

        def score(scene: Scene) -> Tensor:
            units = scene[self.layer].movedim(info.axis, 1)
            dot = (units * wanted).sum(1)
            sizes = (units.square().sum(1) + EPSILON) * (wanted.square().sum(1) + EPSILON)
            value = dot * (dot / sizes.sqrt()).clamp_min(LEAST_COSINE) ** self.cosine_power
            return value.reshape(len(value), -1).mean(1)

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class StyleMatch(Unit):
    """See :func:`style_match`."""

    kind = "style_match"
    layer: str = word()
    picture: str = quoted()

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        wanted = gram(_one(self.picture, self.layer, target), info.axis)
        energy = wanted.square().sum().clamp_min(EPSILON)

        def score(scene: Scene) -> Tensor:
            return (
                -(gram(scene[self.layer], info.axis) - wanted).flatten(1).square().sum(1) / energy
            )

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class SortMatch(Unit):
    """See :func:`sort_match`."""

    kind = "sort_match"
    layer: str = word()
    pictures: str = quoted()

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        found = _rows(reference.activation(self.pictures, self.layer, target), info.axis)
        wanted = found.sort(dim=2).values.mean(0)

        def score(scene: Scene) -> Tensor:
            rows = _rows(scene[self.layer], info.axis).sort(dim=2).values
            return -(rows - wanted).square().mean((1, 2))

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class InputDifference(Unit):
    """See :func:`input_difference`."""

    kind = "input_difference"
    picture: str = quoted()
    layer: str = word(IMAGE)

    def bind(self, target: Target) -> Score:
        wanted = _one(self.picture, IMAGE, target)
        if target.layer(self.layer).shape != tuple(wanted.shape[1:]):
            raise UnitError(f"input_difference compares images, not layer {self.layer!r}")

        def score(scene: Scene) -> Tensor:
            return ((scene[self.layer] - wanted).flatten(1).square().mean(1) + EPSILON).sqrt()

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class BatchnormMatch(Unit):
    """See :func:`batchnorm_match`."""

    kind = "batchnorm_match"
    layer: str = word("")
    over: str = word("sample")

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer or "output",)

    @property
    def relational(self) -> bool:
        return self.over == "batch"

    def _norms(self, target: Target) -> dict[str, nn.modules.batchnorm._BatchNorm]:
        """The batch-norm layers with running statistics that run up to ``layer``, by address."""
        modules = dict(target.model.net.named_modules())
        last = target.layer(self.layer).name if self.layer else ""
        found = {}
        for info in target.model.layers(target.size):
            module = modules.get(re.split(r"[#\[]", info.name)[0])
            tracks = isinstance(module, nn.modules.batchnorm._BatchNorm)
            # One sample has statistics only over positions.
            tracks = tracks and (self.over == "batch" or bool(info.positions))
            if tracks and module.running_var is not None and info.calls == 1:  # type: ignore[union-attr]
                found[info.name] = module
            if info.name == last:
                break
        # A module that runs once has one address; of one that runs often, each call counts.
        found = {n: m for n, m in found.items() if n.count("#") or f"{n}#0" not in found}
        if not found:
            where = f" up to {self.layer!r}" if self.layer else ""
            raise UnitError(f"no batch-norm layer with running statistics{where}")
        return found  # type: ignore[return-value]

    def needs(self, target: Target) -> tuple[str, ...]:
        return tuple(self._norms(target))

    def bind(self, target: Target) -> Score:
        if self.over not in ("sample", "batch"):
            raise UnitError(f"batchnorm_match over {self.over!r}: it is sample or batch")
        layers = []
        for name, module in self._norms(target).items():
            axis = target.layer(name).axis
            ones = torch.ones(module.num_features, device=target.device)
            scale = ones if module.weight is None else module.weight.detach().float()
            shift = ones * 0 if module.bias is None else module.bias.detach().float()
            # A dead channel's output says nothing of its input.
            alive = scale.abs() > 1e-4 * scale.abs().max()
            layers.append((name, axis, scale[alive], shift[alive], alive))

        def score(scene: Scene) -> Tensor:
            total = scene.images.new_zeros(())
            for name, axis, scale, shift, alive in layers:
                rows = _rows(scene[name], axis)[:, alive]
                over = (0, 2) if self.over == "batch" else (2,)
                middle = rows.mean(over, keepdim=True)
                deviation = ((rows - middle).square().mean(over) + EPSILON).sqrt()
                offset = (middle.squeeze(2) - shift) / scale
                error = offset.square() + (deviation / scale.abs() - 1).square()
                total = total - error.mean(-1)
            return (total / len(layers)).expand(len(scene.images))

        return score


def feature_match(layer: str, picture: Picture) -> Objective:
    """Return the negative squared distance to an image's activation, relative to its energy.

    Zero is a perfect match. From noise this inverts the layer. [Mahendran2015]_

    ``picture`` is a file, or floats (C, *size) in [0, 1]; it is resized to what the network
    sees. So it is for all the objectives here.
    """
    return FeatureMatch(str(layer), reference.keep(picture, "picture"))


def caricature(layer: str, picture: Picture, *, cosine_power: float = 1) -> Objective:
    """Return the mean over positions of the dot product with an image's activation, times cos^n.

    The cosine (at least 0.1) keeps the direction, the dot product exaggerates. [Olah2018]_
    """
    return Caricature(str(layer), reference.keep(picture, "picture"), float(cosine_power))


def style_match(layer: str, picture: Picture) -> Objective:
    """Return the negative squared distance of the Gram matrices, relative to the wanted one's.

    [Gatys2016]_
    """
    return StyleMatch(str(layer), reference.keep(picture, "picture"))


def sort_match(layer: str, pictures: Picture) -> Objective:
    """Return the negative mean squared distance of each channel's sorted activations to real ones'.

    ``pictures`` (N, C, *size) are real images; their sorted activations are averaged, and the
    image's distribution is drawn to them channel by channel, wherever the values lie.
    [Gorgun2025]_, VITAL's sort matching.
    """
    return SortMatch(str(layer), reference.keep(pictures, "pictures"))


def input_difference(picture: Picture, *, layer: str = IMAGE) -> Objective:
    """Return the root mean squared difference from an image, to be subtracted or added."""
    return InputDifference(reference.keep(picture, "picture"), str(layer))


def batchnorm_match(*, layer: str = "", over: str = "sample") -> Objective:
    """Return how well the activations fit the network's own batch-norm statistics; 0 is best.

    For every batch-norm layer (up to ``layer``, and the pass goes no further), the squared
    distance of the channels' mean from the running mean, in running deviations, and of their
    deviation from the running one, relative to it; averaged over channels and layers, negative.
    Needs no data. Channels whose scale is nearly zero are left out, and the root has a floor:
    at a constant channel its gradient would be infinite.

    ``over="batch"`` takes the statistics of the whole batch, as published, which ties its
    images together; the default takes each image's own over its positions. [Yin2020]_
    """
    return BatchnormMatch(str(layer), over)
