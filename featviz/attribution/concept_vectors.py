"""Concepts that examples define: their direction in a layer, and what depends on it. TCAV."""

from __future__ import annotations

import dataclasses

import torch

from featviz.attribution.cam_layers import layer_maps, maps_in_batches
from featviz.attribution.case import Case
from featviz.attribution.labelled_images import checked_images
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives import Objective, direction
from featviz.objectives import objective as as_objective
from featviz.optim.evaluator import Evaluator
from featviz.process_state import shielded
from featviz.seeds import generator
from featviz.types import Tensor
from featviz.validation import positive_int

#: Weight of the squared norm in the logistic regression, relative to the mean loss.
_SHRINKAGE = 1e-2
_ITERATIONS = 30
#: The fraction of the examples that is held out to measure the accuracy.
_HELD_OUT = 1 / 3
#: Permutations of the test against random concepts.
_PERMUTATIONS = 9999


@dataclasses.dataclass(frozen=True)
class Concept:
    """A concept activation vector. [Kim2018]_.

    Attributes
    ----------
    layer
        The layer whose units it is made of.
    vector
        (C,), of norm 1: towards the examples, and away from the others.
    accuracy
        How many of the examples that were held out it tells apart, from 0 to 1; 0.5 is chance, and
        then the vector means nothing.
    """

    layer: str
    vector: Tensor
    accuracy: float

    @property
    def objective(self) -> Objective:
        """The concept as an objective, to be rendered or explained like any other."""
        return direction(self.layer, self.vector)


@dataclasses.dataclass(frozen=True)
class ConceptTest:
    """How often an objective rises towards a concept.

    Attributes
    ----------
    derivatives
        (runs, B): the directional derivative of the objective of each image.
    scores, random_scores
        (runs,): the fraction of the images whose derivative is positive; for the concept, and for
        directions between random halves of the other images.
    p_value
        The probability of so large a difference between the means of the two if they were alike,
        by a permutation test.
    accuracies
        (runs,): the accuracy of each concept vector.
    """

    derivatives: Tensor
    scores: Tensor
    random_scores: Tensor
    p_value: float
    accuracies: Tensor


@shielded
def concept_vector(
    model: Model, layer: str, examples: Tensor, others: Tensor, *, seed: int = 0
) -> Concept:
    """Return the direction of ``layer`` that tells examples of a concept from other images.

    Activations are averaged over the positions (of a transformer, the patches); the direction is
    that of a logistic regression with a small penalty. Images are (B, C, *size).

    Raises
    ------
    FeatvizError
        If there are fewer than 3 images of a kind, or the layer has no maps.
    """
    examples = checked_images(model, examples, "examples", least=3)
    others = checked_images(model, others, "other images", least=3)
    rows = _means(model, layer, examples), _means(model, layer, others)
    return _fitted(layer, *rows, seed)


@shielded
def tcav(
    model: Model,
    layer: str,
    objective: Objective | str,
    images: Tensor,
    examples: Tensor,
    others: Tensor,
    *,
    runs: int = 10,
    seed: int = 0,
) -> ConceptTest:
    """Test whether an objective depends on a concept: TCAV. [Kim2018]_.

    In each run the concept vector separates ``examples`` from a random half of ``others``, and a
    random direction separates that half from the other one. An objective depends on the concept if
    its score differs from those of random directions; a score far from 0.5 alone shows nothing.

    Raises
    ------
    FeatvizError
        For fewer than 6 other images or 2 runs; as :func:`concept_vector`; or if the objective has
        no gradient with respect to the layer.
    """
    if positive_int("runs", runs) < 2:
        raise FeatvizError("a test needs at least 2 runs")
    others = checked_images(model, others, "other images", least=6)
    examples = checked_images(model, examples, "examples", least=3)
    images = checked_images(model, images)
    goal = as_objective(objective)
    size = tuple(images.shape[2:])
    slopes = []
    with model.session():
        evaluator = Evaluator(model, goal, size)
        for image in images.split(1):
            case = Case(evaluator, image.to(model.device), None, 0, {"layer": layer})
            slopes.append(layer_maps(case).slopes.flatten(2).sum(2).cpu().double())
    gradients = torch.cat(slopes)
    positive, negative = (_means(model, layer, i) for i in (examples, others))
    rng = generator(seed, "tcav")
    derivatives, random_scores, accuracies = [], [], []
    for run in range(runs):
        halves = torch.randperm(len(negative), generator=rng).chunk(2)
        one, two = (negative[half] for half in halves)
        concept = _fitted(layer, positive, one, seed + run)
        accuracies.append(concept.accuracy)
        derivatives.append(gradients @ concept.vector.double())
        chance = _fitted(layer, two, one, seed + run)
        random_scores.append((gradients @ chance.vector.double() > 0).double().mean())
    table = torch.stack(derivatives)
    scores, by_chance = (table > 0).double().mean(1), torch.stack(random_scores)
    p_value = _permutation_test(scores, by_chance, rng)
    return ConceptTest(table, scores, by_chance, p_value, torch.tensor(accuracies))


def _means(model: Model, layer: str, images: Tensor) -> Tensor:
    """Return the activations of a layer averaged over the positions, (B, C)."""
    maps = maps_in_batches(model, layer, images)
    return torch.cat([some.flatten(2).mean(2).cpu().double() for some in maps])


def _fitted(layer: str, positive: Tensor, negative: Tensor, seed: int) -> Concept:
    """Return the concept that separates rows of activations, and its accuracy on held-out rows."""
    rng = generator(seed, "concept")
    kept, held = [], []
    for rows in (positive, negative):
        rows = rows[torch.randperm(len(rows), generator=rng)]
        count = max(1, round(_HELD_OUT * len(rows)))
        held.append(rows[:count])
        kept.append(rows[count:])
    weights, offset = _logistic_regression(*kept)
    right = [(held[0] @ weights + offset > 0).double(), (held[1] @ weights + offset < 0).double()]
    weights, _ = _logistic_regression(positive, negative)
    accuracy = float(sum(part.mean() for part in right)) / 2
    return Concept(layer, (weights / weights.norm()).float(), accuracy)


def _logistic_regression(positive: Tensor, negative: Tensor) -> tuple[Tensor, float]:
    """Return weights (C,) and an offset: penalized logistic regression by Newton's method.

    Both kinds count the same. Features are divided by their common standard deviation, so that the
    penalty does not depend on the layer's scale.

    Raises
    ------
    FeatvizError
        If all rows are equal.
    """
    rows = torch.cat([positive, negative])
    centre = rows.mean(0)
    scale = (rows - centre).square().mean().sqrt()
    if not scale > 0:
        raise FeatvizError("the layer responds to all images alike: there is no concept in it")
    features = torch.cat([(rows - centre) / scale, torch.ones(len(rows), 1).double()], 1)
    labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))]).double()
    shares = torch.cat(
        [torch.full((len(part),), 0.5 / len(part)).double() for part in (positive, negative)]
    )
    penalty = torch.full((features.shape[1],), _SHRINKAGE, dtype=torch.float64)
    penalty[-1] = 1e-9
    weights = torch.zeros(features.shape[1], dtype=torch.float64)
    for _ in range(_ITERATIONS):
        chances = (features @ weights).sigmoid()
        slope = features.T @ (shares * (chances - labels)) + penalty * weights
        curvature = (features.T * (shares * chances * (1 - chances))) @ features
        step = torch.linalg.solve(curvature + torch.diag(penalty), slope)
        weights = weights - step / max(1.0, float(step.norm()))
        if float(step.norm()) < 1e-9:
            break
    direction = weights[:-1] / scale
    return direction, float(weights[-1] - direction @ centre)


def _permutation_test(first: Tensor, second: Tensor, rng: torch.Generator) -> float:
    """Return the two-sided probability of the difference of two means under exchange."""
    values = torch.cat([first, second])
    observed = float((first.mean() - second.mean()).abs())
    orders = torch.rand(_PERMUTATIONS, len(values), generator=rng).argsort(1)
    shuffled = values[orders]
    means = shuffled[:, : len(first)].mean(1) - shuffled[:, len(first) :].mean(1)
    as_large = int((means.abs() >= observed - 1e-12).sum())
    return (1 + as_large) / (1 + _PERMUTATIONS)
