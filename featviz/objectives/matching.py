"""Match a reference: the features, statistics or style of an image.

Higher is a better match: each objective is a negative distance or a similarity.
"""

from __future__ import annotations

import dataclasses

from featviz.errors import UnitError
from featviz.objectives import reference
from featviz.objectives.base import Objective
from featviz.objectives.directions import MIN_COSINE
from featviz.objectives.reduction import EPSILON
from featviz.objectives.reference import Picture
from featviz.objectives.scene import IMAGE, Scene, Score, Target
from featviz.objectives.unit import Unit, quoted, real, word
from featviz.types import Tensor


def rows(activation: Tensor, axis: int) -> Tensor:
    """Return the activation as (B, units, positions), with one position if it has none."""
    if activation.ndim == 2:
        return activation[..., None]
    return activation.movedim(axis, 1).flatten(2)


def gram(activation: Tensor, axis: int) -> Tensor:
    """Return the Gram matrices (B, C, C) over positions, divided by the number of positions."""
    units = rows(activation, axis)
    return units @ units.transpose(1, 2) / units.shape[2]


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
        activations = rows(reference.activation(self.pictures, self.layer, target), info.axis)
        sorted_mean = activations.sort(dim=2).values.mean(0)

        def score(scene: Scene) -> Tensor:
            found = rows(scene[self.layer], info.axis).sort(dim=2).values
            return -(found - sorted_mean).square().mean((1, 2))

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


def sort_match(
    layer: str, pictures: Picture, *, of: Objective | str | int | None = None
) -> Objective:
    """Return the negative mean squared distance of sorted activations from those of real images.

    ``pictures`` (N, C, *size) are real images; their sorted activations are averaged, and the
    distribution of the image's activations is drawn towards them, channel by channel, regardless of
    where the values are. [Gorgun2025]_, VITAL's sort matching.

    With ``of``, an objective on a later layer, VITAL's relevant information flow: activations are
    multiplied by their relevance for it before they are sorted, those of the pictures and those of
    the image, and each channel counts by its largest relevance in the pictures. Relevance is the
    activation times the objective's gradient, which in a network of ReLUs without biases is
    layer-wise relevance propagation [Ancona2018]_, where it is positive, divided by the largest of
    its channel; it is taken as given, not differentiated. In the language,
    ``relevant(sort_match:LAYER:PICTURES, channel:LATER:5)``.

    Raises
    ------
    FeatvizError
        Where it is used, if ``of`` does not depend on the layer.
    """
    from featviz.objectives.relevant_match import relevant
    from featviz.objectives.text import objective

    match = SortMatch(str(layer), reference.register(pictures, "pictures"))
    return match if of is None else relevant(match, objective(of))


def input_difference(picture: Picture, *, layer: str = IMAGE) -> Objective:
    """Return the root mean squared difference from an image, to be subtracted or added."""
    return InputDifference(reference.register(picture, "picture"), str(layer))
