"""Which training images an answer rests on: TracIn and influence functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from featviz.attribution.labelled_images import checked_images, checked_labels
from featviz.attribution.measures.weight_cascade import weighted_layers
from featviz.errors import FeatvizError
from featviz.networks.layers import module_names
from featviz.networks.model import Model
from featviz.optim.batching import evaluated_together
from featviz.optim.collecting import logits_layer
from featviz.process_state import shielded
from featviz.types import Tensor

#: Relative residual at which the conjugate gradients end.
_RESIDUAL = 1e-6


@shielded
def tracin(
    model: Model,
    checkpoints: Sequence[Mapping[str, Any]],
    images: Tensor,
    labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    *,
    rates: float | Sequence[float] = 1.0,
    layers: Sequence[str] | None = None,
) -> Tensor:
    """Return how much training on each image has lowered the loss of each query. [Pruthi2020]_.

    TracInCP: the sum over checkpoints of rate · ∇ℓ(image) · ∇ℓ(query), with the cross-entropy ℓ of
    the logits of the network in eval mode. Images with positive values are proponents of the
    query's label, those with negative ones opponents. One gradient is taken per image and
    checkpoint.

    Parameters
    ----------
    model
        The network; a copy gets the checkpoints' weights.
    checkpoints
        State dictionaries from the training, each before or at the end of an epoch.
    images, labels
        Training images (N, C, *size) in [0, 1] and their classes (N,).
    queries, query_labels
        The images (Q, C, *size) to explain, and the classes (Q,) whose loss is followed: the right
        one, or the one that was predicted.
    rates
        The learning rate at each checkpoint.
    layers
        Layers whose weights are differentiated by: by default the last one with weights, as the
        paper does for large networks.

    Returns
    -------
    Tensor
        (Q, N), in double precision.

    Raises
    ------
    FeatvizError
        If there is no checkpoint or one does not fit the network, numbers do not match, a label is
        no class, or a layer has no weights.
    """
    if not checkpoints:
        raise FeatvizError("tracin needs at least one checkpoint, such as net.state_dict()")
    steps = [float(rates)] * len(checkpoints) if isinstance(rates, (int, float)) else list(rates)
    if len(steps) != len(checkpoints):
        raise FeatvizError(f"{len(steps)} rates for {len(checkpoints)} checkpoints")
    losses = _Losses(model, layers)
    images, labels = losses.checked(images, labels, "images")
    queries, query_labels = losses.checked(queries, query_labels, "queries")
    total = torch.zeros(len(queries), len(images), dtype=torch.float64)
    for state, rate in zip(checkpoints, steps, strict=True):
        losses.load(state)
        asked = torch.stack(list(losses.gradients(queries, query_labels)))
        for i, gradient in enumerate(losses.gradients(images, labels)):
            total[:, i] += rate * (asked @ gradient)
    return total


@shielded
def influence(
    model: Model,
    images: Tensor,
    labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    *,
    layers: Sequence[str] | None = None,
    damping: float = 1e-2,
    iterations: int = 100,
) -> Tensor:
    """Return how much the loss of each query rises if a training image is left out. [Koh2017]_.

    ∇ℓ(query) · (H + damping)⁻¹ ∇ℓ(image) / N, with the Hessian H of the mean loss of all training
    images by the weights of ``layers``; its inverse by conjugate gradients, each of which takes two
    passes over the images. As for :func:`tracin`, positive values are of images that help. It holds
    where the weights minimize the loss; a weight decay of the training belongs to ``damping``.

    Returns
    -------
    Tensor
        (Q, N), in double precision.

    Raises
    ------
    FeatvizError
        As :func:`tracin`; if the Hessian and damping are not positive definite, or if conjugate
        gradients do not converge in ``iterations``.
    """
    losses = _Losses(model, layers)
    images, labels = losses.checked(images, labels, "images")
    queries, query_labels = losses.checked(queries, query_labels, "queries")

    def curved(vector: Tensor) -> Tensor:
        return losses.hessian_times(vector, images, labels) + damping * vector

    solved = [_solve(curved, g, iterations) for g in losses.gradients(queries, query_labels)]
    inverse = torch.stack(solved)
    columns = [inverse @ gradient for gradient in losses.gradients(images, labels)]
    return torch.stack(columns, 1) / len(images)


class _Losses:
    """The cross-entropy of a copy of a network, and its derivatives by the weights of layers."""

    def __init__(self, model: Model, layers: Sequence[str] | None) -> None:
        names = [weighted_layers(model)[0]] if layers is None else list(layers)
        self.model = model.copy()
        modules = module_names(self.model.net)
        weights: dict[int, nn.Parameter] = {}
        for name in names:
            if name not in modules or not any(True for _ in modules[name].parameters()):
                raise FeatvizError(f"no layer {name!r} with weights in the network")
            weights |= {id(p): p for p in modules[name].parameters()}
        self.weights = list(weights.values())

    def checked(self, images: Tensor, labels: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Return images and, for each, a class of the network."""
        images = checked_images(self.model, images, name)
        layer = logits_layer(self.model, tuple(images.shape[2:]))
        if layer is None:
            raise FeatvizError("the network has no class logits, whose loss could be followed")
        classes = self.model.layer(layer, tuple(images.shape[2:])).units
        return images, checked_labels(labels, len(images), classes, f"labels of {name}")

    def load(self, state: Mapping[str, Any]) -> None:
        """Give the copy the weights of a checkpoint."""
        try:
            self.model.net.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:150]
            raise FeatvizError(f"the checkpoint does not fit the network: {reason}") from error

    def gradients(self, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """Yield the gradient (P,) of each image's loss, in double precision, on the CPU."""
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            yield self._derivative(image, label).detach().double().cpu()

    def hessian_times(self, vector: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Return the Hessian of the mean loss times a vector (P,), likewise."""
        total = torch.zeros_like(vector)
        size = evaluated_together(self.model.device, None)
        for part, classes in zip(images.split(size), labels.split(size), strict=True):
            gradient = self._derivative(part, classes, twice=True)
            with torch.enable_grad():
                along = (gradient * vector.to(gradient)).sum()
            found = torch.autograd.grad(along, self.weights, materialize_grads=True)
            total += len(part) * torch.cat([g.flatten() for g in found]).double().cpu()
        return total / len(images)

    def _derivative(self, images: Tensor, labels: Tensor, *, twice: bool = False) -> Tensor:
        with self.model.session(), torch.enable_grad():
            for weight in self.weights:  # the session froze them
                weight.requires_grad_()
            layer, device = self.model.logits, self.model.device
            table = self.model.layers(tuple(images.shape[2:]))
            logits = self.model.capture(images.to(device), [layer], table)[layer]
            loss = F.cross_entropy(logits, labels.to(device))
            found = torch.autograd.grad(
                loss, self.weights, create_graph=twice, materialize_grads=True
            )
        return torch.cat([g.flatten() for g in found])


def _solve(curved: Any, target: Tensor, iterations: int) -> Tensor:
    """Return v with curved(v) = target by conjugate gradients."""
    found, residual = torch.zeros_like(target), target.clone()
    direction, size = residual.clone(), residual @ residual
    enough = _RESIDUAL**2 * size
    for _ in range(iterations):
        if size <= enough:
            return found
        image = curved(direction)
        curvature = direction @ image
        if not curvature > 0:
            raise FeatvizError(
                "the loss has no minimum at these weights: use a larger damping, or tracin"
            )
        step = size / curvature
        found, residual = found + step * direction, residual - step * image
        size, before = residual @ residual, size
        direction = residual + size / before * direction
    if size <= enough:
        return found
    raise FeatvizError(
        f"conjugate gradients did not converge in {iterations} iterations: use more, or a larger "
        "damping"
    )
