"""Match a reference: features, statistics and style of an image, or the network's own statistics.

Higher is a better match: each objective is a negative distance or a similarity.
"""

from __future__ import annotations

import dataclasses
import re

import torch
from torch import nn

from featviz.errors import UnitError
from featviz.objectives import reference
from featviz.objectives.base import Objective
from featviz.objectives.directions import MIN_COSINE
from featviz.objectives.reduction import EPSILON
from featviz.objectives.reference import Picture
from featviz.objectives.scene import IMAGE, Scene, Score, Target
from featviz.objectives.unit import Unit, quoted, real, word
from featviz.types import Tensor


def _rows(activation: Tensor, axis: int) -> Tensor:
    """Return the activation as (B, units, positions), with one position if it has none."""
    if activation.ndim == 2:
        return activation[..., None]
    return activation.movedim(axis, 1).flatten(2)


def gram(activation: Tensor, axis: int) -> Tensor:
    """Return the Gram matrices (B, C, C) over positions, divided by the number of positions."""
    rows = _rows(activation, axis)
    return rows @ rows.transpose(1, 2) / rows.shape[2]


def _single_activation(source: str, layer: str, target: Target) -> Tensor:
    activation = reference.activation(source, layer, target)
    if len(activation) != 1:
        raise UnitError(f"expected one image, not {len(activation)}, in {source!r}")
    return activation


@dataclasses.dataclass(frozen=True, repr=False)
class FeatureMatch(Unit):
    """See :func:`feature_match`."""

    kind = "feature_match"
    layer: str = word()
    picture: str = quoted()

    def bind(self, target: Target) -> Score:
        target.layer(self.layer)
        features = _single_activation(self.picture, self.layer, target)
        energy = features.square().sum().clamp_min(EPSILON)

        def score(scene: Scene) -> Tensor:
            return -(scene[self.layer] - features).flatten(1).square().sum(1) / energy

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
        features = _single_activation(self.picture, self.layer, target).movedim(info.axis, 1)

        def score(scene: Scene) -> Tensor:
            units = scene[self.layer].movedim(info.axis, 1)
            dot = (units * features).sum(1)
            squared_norms = (units.square().sum(1) + EPSILON) * (features.square().sum(1) + EPSILON)
            value = dot * (dot / squared_norms.sqrt()).clamp_min(MIN_COSINE) ** self.cosine_power
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
        style = gram(_single_activation(self.picture, self.layer, target), info.axis)
        energy = style.square().sum().clamp_min(EPSILON)

        def score(scene: Scene) -> Tensor:
            return -(gram(scene[self.layer], info.axis) - style).flatten(1).square().sum(1) / energy

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class SortMatch(Unit):
    """See :func:`sort_match`."""

    kind = "sort_match"
    layer: str = word()
    pictures: str = quoted()

    def bind(self, target: Target) -> Score:
        info = target.layer(self.layer)
        activations = _rows(reference.activation(self.pictures, self.layer, target), info.axis)
        sorted_mean = activations.sort(dim=2).values.mean(0)

        def score(scene: Scene) -> Tensor:
            rows = _rows(scene[self.layer], info.axis).sort(dim=2).values
            return -(rows - sorted_mean).square().mean((1, 2))

        return score


@dataclasses.dataclass(frozen=True, repr=False)
class InputDifference(Unit):
    """See :func:`input_difference`."""

    kind = "input_difference"
    picture: str = quoted()
    layer: str = word(IMAGE)

    def bind(self, target: Target) -> Score:
        image = _single_activation(self.picture, IMAGE, target)
        if target.layer(self.layer).shape != tuple(image.shape[1:]):
            raise UnitError(f"input_difference compares images, not layer {self.layer!r}")

        def score(scene: Scene) -> Tensor:
            return ((scene[self.layer] - image).flatten(1).square().mean(1) + EPSILON).sqrt()

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

    def _batch_norms(self, target: Target) -> dict[str, nn.modules.batchnorm._BatchNorm]:
        """Return the batch-norm layers with running statistics up to ``layer``, by layer name."""
        modules = dict(target.model.net.named_modules())
        last = target.layer(self.layer).name if self.layer else ""
        norms = {}
        for info in target.model.layers(target.size):
            module = modules.get(re.split(r"[#\[]", info.name)[0])
            eligible = isinstance(module, nn.modules.batchnorm._BatchNorm)
            # A single sample has statistics over positions only.
            eligible = eligible and (self.over == "batch" or bool(info.positions))
            if eligible and module.running_var is not None and info.calls == 1:  # type: ignore[union-attr]
                norms[info.name] = module
            if info.name == last:
                break
        # A module that runs once has one name; one that runs repeatedly has one per call.
        norms = {n: m for n, m in norms.items() if n.count("#") or f"{n}#0" not in norms}
        if not norms:
            scope = f" up to {self.layer!r}" if self.layer else ""
            raise UnitError(f"no batch-norm layer with running statistics{scope}")
        return norms  # type: ignore[return-value]

    def needs(self, target: Target) -> tuple[str, ...]:
        return tuple(self._batch_norms(target))

    def bind(self, target: Target) -> Score:
        if self.over not in ("sample", "batch"):
            raise UnitError(f"batchnorm_match: over must be sample or batch, not {self.over!r}")
        layers = []
        for name, module in self._batch_norms(target).items():
            axis = target.layer(name).axis
            ones = torch.ones(module.num_features, device=target.device)
            scale = ones if module.weight is None else module.weight.detach().float()
            shift = ones * 0 if module.bias is None else module.bias.detach().float()
            # The output of a dead channel says nothing about its input.
            alive = scale.abs() > 1e-4 * scale.abs().max()
            layers.append((name, axis, scale[alive], shift[alive], alive))

        def score(scene: Scene) -> Tensor:
            total = scene.images.new_zeros(())
            for name, axis, scale, shift, alive in layers:
                rows = _rows(scene[name], axis)[:, alive]
                axes = (0, 2) if self.over == "batch" else (2,)
                mean = rows.mean(axes, keepdim=True)
                deviation = ((rows - mean).square().mean(axes) + EPSILON).sqrt()
                offset = (mean.squeeze(2) - shift) / scale
                error = offset.square() + (deviation / scale.abs() - 1).square()
                total = total - error.mean(-1)
            return (total / len(layers)).expand(len(scene.images))

        return score


def feature_match(layer: str, picture: Picture) -> Objective:
    """Return the negative squared distance to an image's activation, relative to its energy.

    Zero is a perfect match. Starting from noise, this inverts the layer. [Mahendran2015]_

    ``picture`` is a file, or floats (C, *size) in [0, 1]; it is resized to the network's input
    size. The same holds for all objectives in this module.
    """
    return FeatureMatch(str(layer), reference.register(picture, "picture"))


def caricature(layer: str, picture: Picture, *, cosine_power: float = 1) -> Objective:
    """Return the mean over positions of the dot product with an image's activation, times cos^n.

    The cosine (at least 0.1) preserves the direction, the dot product exaggerates. [Olah2018]_
    """
    return Caricature(str(layer), reference.register(picture, "picture"), float(cosine_power))


def style_match(layer: str, picture: Picture) -> Objective:
    """Return the negative squared distance of Gram matrices, relative to the reference's energy.

    [Gatys2016]_
    """
    return StyleMatch(str(layer), reference.register(picture, "picture"))


def sort_match(layer: str, pictures: Picture) -> Objective:
    """Return the negative mean squared distance of sorted activations from those of real images.

    ``pictures`` (N, C, *size) are real images; their sorted activations are averaged, and the
    distribution of the image's activations is drawn towards them, channel by channel, regardless of
    where the values are. [Gorgun2025]_, VITAL's sort matching.
    """
    return SortMatch(str(layer), reference.register(pictures, "pictures"))


def input_difference(picture: Picture, *, layer: str = IMAGE) -> Objective:
    """Return the root mean squared difference from an image, to be subtracted or added."""
    return InputDifference(reference.register(picture, "picture"), str(layer))


def batchnorm_match(*, layer: str = "", over: str = "sample") -> Objective:
    """Return how well the activations match the network's running batch-norm statistics; 0 is best.

    For every batch-norm layer (up to ``layer``, where the forward pass then ends): the squared
    distance of the channel means from the running means, in running standard deviations, plus that
    of the standard deviations from the running ones, relative to these; averaged over channels and
    layers, and negated. Needs no data. Channels whose scale is nearly zero are excluded, and the
    square root has a floor: at a constant channel its gradient would be infinite.

    ``over="batch"`` uses the statistics of the whole batch, as published, which couples its images;
    the default uses each image's own statistics over its positions. [Yin2020]_
    """
    return BatchnormMatch(str(layer), over)
