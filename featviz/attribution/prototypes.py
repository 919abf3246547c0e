"""Prototypes: classes told apart by how much patches look like patches of known images."""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import functional as F

from featviz.attribution.cam_layers import maps_in_batches
from featviz.attribution.labelled_images import checked_images, checked_labels
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.process_state import shielded
from featviz.resample import resize
from featviz.seeds import generator
from featviz.types import Tensor
from featviz.validation import positive_int

#: Of the loss, as in the paper: weights of the distance to the nearest prototype of the own class,
#: of that of other classes, and of the magnitudes of weights between classes.
_CLUSTER, _SEPARATION, _SPARSE = 0.8, 0.08, 1e-4
#: The similarity at a squared distance d is log((d + 1) / (d + _CLOSE)).
_CLOSE = 1e-4
_RATE = 0.02
#: Patches of a class among which its first prototypes are searched for.
_SAMPLED = 4096


@dataclasses.dataclass(frozen=True)
class Prototypes:
    """A classifier by likeness to patches of known images, on the features of a layer. [Chen2019]_.

    Attributes
    ----------
    layer
        The layer whose features are compared.
    vectors
        (P, C): the features of the prototypes, divided by ``scale``.
    labels
        (P,): the class of each.
    images, positions
        (P,), (P, axes): the image that it is a patch of, and where on the layer's grid.
    weights
        (classes, P): what its similarity adds to each logit.
    agreement
        The share of the fitted images whose label it gives.
    """

    model: Model
    layer: str
    scale: float
    vectors: Tensor
    labels: Tensor
    images: Tensor
    positions: Tensor
    weights: Tensor
    agreement: float

    def similarities(self, images: Tensor) -> Tensor:
        """Return how alike places of images (B, C, *size) are to the prototypes, (B, P, *grid)."""
        return _similarity(
            _distances(_features(self.model, self.layer, images, self.scale), self.vectors)
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits (B, classes) of images (B, C, *size) in [0, 1]."""
        return self.similarities(images).flatten(2).amax(2) @ self.weights.T

    def evidence(self, image: Tensor, label: int) -> list[tuple[int, float]]:
        """Return what each prototype adds to a logit for an image (C, *size), most first."""
        most = self.similarities(image[None])[0].flatten(1).amax(1)
        terms = self.weights[label] * most
        order = terms.argsort(descending=True).tolist()
        return [(k, float(terms[k])) for k in order]

    def where(self, image: Tensor, prototype: int) -> Tensor:
        """Return the similarity with a prototype at each pixel (*size) of an image (C, *size)."""
        maps = self.similarities(image[None])[:, prototype : prototype + 1]
        return resize(maps, tuple(image.shape[1:]))[0, 0]


@shielded
def fit_prototypes(
    model: Model,
    layer: str,
    images: Tensor,
    labels: Tensor,
    *,
    per_class: int = 2,
    steps: int = 200,
    seed: int = 0,
) -> Prototypes:
    """Find patches of ``images`` whose likeness tells the classes apart. [Chen2019]_.

    The three stages of the paper, on features that stay as they are (the paper trains them, too):
    the prototypes by cross-entropy, cluster and separation cost; then each becomes the nearest
    patch of an image of its class; then the weights of the similarities, sparse between classes.
    They start at patches that are least like those of other classes, and not at random, where most
    would be background.
    All features of the layer are held in memory.

    Parameters
    ----------
    model, layer
        The network, and a layer with maps, or of a transformer with patch tokens.
    images, labels
        (N, C, *size) in [0, 1] and (N,): the classes to tell apart, those of the network or others.
    per_class
        Prototypes of each class.
    steps
        Of Adam, for each stage.

    Raises
    ------
    FeatvizError
        If there are fewer than two classes, labels do not fit, a class has no image, or the layer
        has no maps.
    """
    positive_int("per_class", per_class)
    positive_int("steps", steps)
    images = checked_images(model, images)
    labels = checked_labels(labels, len(images), None)
    classes = int(labels.max()) + 1
    missing = set(range(classes)) - set(labels.tolist())
    if classes < 2 or missing:
        raise FeatvizError("prototypes need images of at least two classes, numbered without gaps")
    raw = _features(model, layer, images, 1.0)
    scale = float(raw.square().mean().sqrt()) * raw.shape[1] ** 0.5 or 1.0
    features = raw / scale
    owners = torch.arange(classes).repeat_interleave(per_class)
    rng = generator(seed, "prototypes")
    vectors = _distinctive_patches(features, labels, owners, rng).requires_grad_()
    own = F.one_hot(owners, classes).T.float()
    weights = own - 0.5 * (1 - own)
    mine = owners[None] == labels[:, None]
    optimizer = torch.optim.Adam([vectors], _RATE)
    for _ in range(steps):
        nearest = _distances(features, vectors).flatten(2).amin(2)
        cluster = nearest.masked_fill(~mine, torch.inf).amin(1).mean()
        separation = nearest.masked_fill(mine, torch.inf).amin(1).clamp_max(1).mean()
        fit = F.cross_entropy(_similarity(nearest) @ weights.T, labels)
        _step(optimizer, fit + _CLUSTER * cluster - _SEPARATION * separation)
    sources, places = _pushed_(vectors.detach(), features, labels, owners)
    vectors = vectors.detach()
    most = _similarity(_distances(features, vectors)).flatten(2).amax(2)
    weights = weights.clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], _RATE)
    for _ in range(steps):
        between = (weights * (1 - own)).abs().sum()
        _step(optimizer, F.cross_entropy(most @ weights.T, labels) + _SPARSE * between)
    weights = weights.detach()
    agreement = float(((most @ weights.T).argmax(1) == labels).float().mean())
    return Prototypes(model, layer, scale, vectors, owners, sources, places, weights, agreement)


def _features(model: Model, layer: str, images: Tensor, scale: float) -> Tensor:
    """Return the activations (B, C, *grid) of a layer, divided by a scale."""
    maps = maps_in_batches(model, layer, images)
    return torch.cat([some.float().cpu() for some in maps]) / scale


def _distances(features: Tensor, vectors: Tensor) -> Tensor:
    """Return the squared distance of each place from each vector, (B, P, *grid)."""
    flat = features.flatten(2)
    cross = torch.einsum("bcn,pc->bpn", flat, vectors)
    squares = flat.square().sum(1)[:, None] - 2 * cross + vectors.square().sum(1)[None, :, None]
    return squares.clamp_min(0).unflatten(2, features.shape[2:])


def _similarity(distances: Tensor) -> Tensor:
    return ((distances + 1) / (distances + _CLOSE)).log()


def _distinctive_patches(
    features: Tensor, labels: Tensor, owners: Tensor, rng: torch.Generator
) -> Tensor:
    """Return (P, C): patches of each class that are least like those of the others, and differ."""
    rows: list[Tensor] = []
    for owner in owners.unique().tolist():
        own, rest = (
            _sampled(features[labels == owner], rng),
            _sampled(features[labels != owner], rng),
        )
        apart = torch.cdist(own, rest).amin(1)
        for _ in range(int((owners == owner).sum())):
            rows.append(own[apart.argmax()])
            apart = torch.minimum(apart, (own - rows[-1]).norm(dim=1))
    return torch.stack(rows)


def _sampled(features: Tensor, rng: torch.Generator) -> Tensor:
    """Return up to ``_SAMPLED`` patches (N, C) of features (B, C, *grid)."""
    patches = features.flatten(2).movedim(1, 2).flatten(0, 1)
    return patches[torch.randperm(len(patches), generator=rng)[:_SAMPLED]]


def _pushed_(
    vectors: Tensor, features: Tensor, labels: Tensor, owners: Tensor
) -> tuple[Tensor, Tensor]:
    """Replace each vector by the nearest patch of its class; return its image and position."""
    grid = features.shape[2:]
    distances = _distances(features, vectors).flatten(2)
    sources, places = [], []
    for k, owner in enumerate(owners.tolist()):
        allowed = distances[:, k].masked_fill((labels != owner)[:, None], torch.inf)
        image, place = divmod(int(allowed.argmin()), allowed.shape[1])
        vectors[k] = features.flatten(2)[image, :, place]
        sources.append(image)
        places.append([int(i) for i in torch.unravel_index(torch.tensor(place), grid)])
    return torch.tensor(sources), torch.tensor(places)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
