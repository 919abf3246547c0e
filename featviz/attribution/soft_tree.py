"""A soft decision tree that imitates a network: each of its decisions is a picture."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from featviz.attribution.labelled_images import checked_images
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.optim.collecting import collect, logits_layer
from featviz.process_state import shielded
from featviz.seeds import generator
from featviz.types import Tensor
from featviz.validation import positive_int

#: Weight of the penalty of nodes that send all images the same way; it halves at each level.
_BALANCE = 0.1
_RATE = 0.02


class SoftTree(nn.Module):
    """A binary tree whose nodes send an image right with probability σ(filter · image + offset).

    Nodes are numbered from the root, 0; the children of node i are 2i + 1 (left) and 2i + 2. The
    leaves, from the left, are distributions over the classes. [Frosst2017]_

    Attributes
    ----------
    filters, offsets
        (nodes, C, *size), (nodes,)
    leaves
        (leaves, classes): logits.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, depth: int) -> None:
        super().__init__()
        nodes = 2**depth - 1
        self.depth = depth
        self.filters = nn.Parameter(torch.zeros(nodes, *shape))
        self.offsets = nn.Parameter(torch.zeros(nodes))
        self.leaves = nn.Parameter(torch.zeros(nodes + 1, classes))

    def decisions(self, images: Tensor) -> Tensor:
        """Return with what probability each node sends images (B, C, *size) right, (B, nodes)."""
        values = (images - 0.5).flatten(1) @ self.filters.flatten(1).T + self.offsets
        return values.sigmoid()

    def arrivals(self, images: Tensor) -> Tensor:
        """Return with what probability images arrive at each node and leaf, (B, 2 nodes + 1)."""
        right = self.decisions(images)
        levels = [torch.ones_like(right[:, :1])]
        for level in range(self.depth):
            first = 2**level - 1
            going = right[:, first : 2 * first + 1]
            split = torch.stack([levels[-1] * (1 - going), levels[-1] * going], 2)
            levels.append(split.flatten(1))
        return torch.cat(levels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities (B, classes) of the leaf that each image most likely reaches."""
        reached = self.arrivals(images)[:, len(self.filters) :].argmax(1)
        return self.leaves.softmax(1)[reached]

    def path(self, image: Tensor) -> list[tuple[int, float]]:
        """Return the nodes from the root that an image (C, *size) most likely goes through.

        With each comes the probability of going right there: above one half it does. The pictures
        of the decisions are ``filters`` of these nodes.
        """
        leaf = len(self.filters) + int(self.arrivals(image[None])[0, len(self.filters) :].argmax())
        nodes = []
        while leaf:
            leaf = (leaf - 1) // 2
            nodes.append(leaf)
        right = self.decisions(image[None])[0]
        return [(node, float(right[node].detach())) for node in reversed(nodes)]


@dataclasses.dataclass(frozen=True)
class FittedTree:
    """A soft decision tree, and on what share of the images that were held out it agrees."""

    tree: SoftTree
    agreement: float


@shielded
def fit_soft_tree(
    model: Model,
    images: Tensor,
    *,
    depth: int = 4,
    steps: int = 500,
    batch_size: int = 64,
    held_out: float = 0.2,
    seed: int = 0,
) -> FittedTree:
    """Distil the class probabilities of ``model`` into a soft decision tree. [Frosst2017]_.

    The loss is that of the paper: the cross-entropy of each leaf with the network's probabilities,
    weighted by the probability to arrive there, and a penalty of nodes that do not split evenly
    what arrives at them. A tree of few filters on pixels imitates simple networks only:
    ``agreement`` says how well, on images that it was not fitted to.

    Parameters
    ----------
    model, images
        The network, and images (N, C, *size) in [0, 1] of its kind.
    depth
        Decisions on a path; there are ``2**depth - 1`` filters.
    steps, batch_size
        Of Adam.
    held_out
        The share of the images to measure the agreement on.

    Raises
    ------
    FeatvizError
        If the network has no class logits, there are fewer than ten images, or numbers do not fit.
    """
    images = checked_images(model, images)
    for name, value in (("depth", depth), ("steps", steps), ("batch_size", batch_size)):
        positive_int(name, value)
    if len(images) < 10 or not 0 < held_out < 1:
        raise FeatvizError("a tree needs at least 10 images, and a share of them held out")
    if depth > 10:
        raise FeatvizError(f"a tree of depth {depth} has {2**depth - 1} filters: at most 10")
    layer = logits_layer(model, tuple(images.shape[2:]))
    if layer is None:
        raise FeatvizError("a tree imitates class probabilities, and the network has no logits")
    targets = collect(model, images, [layer])[layer].float().softmax(1)
    rng = generator(seed, "soft tree")
    order = torch.randperm(len(images), generator=rng)
    count = min(len(images) - 1, max(1, round(held_out * len(images))))
    test, train = order[:count], order[count:]
    tree = SoftTree(tuple(images.shape[1:]), targets.shape[1], depth)
    with torch.no_grad():
        sd = images[0].numel() ** -0.5
        tree.filters.copy_(sd * torch.randn(tree.filters.shape, generator=rng))
    optimizer = torch.optim.Adam(tree.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = train[torch.randint(len(train), (batch_size,), generator=rng)]
        loss = _loss(tree, images[rows].float(), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    tree.requires_grad_(False)
    same = tree(images[test].float()).argmax(1) == targets[test].argmax(1)
    return FittedTree(tree, float(same.float().mean()))


def _loss(tree: SoftTree, images: Tensor, targets: Tensor) -> Tensor:
    arrivals = tree.arrivals(images)
    nodes = len(tree.filters)
    crosses = -targets @ tree.leaves.log_softmax(1).T
    fit = (arrivals[:, nodes:] * crosses).sum(1).mean()
    before = arrivals[:, :nodes]
    shares = (before * tree.decisions(images)).sum(0) / before.sum(0).clamp_min(1e-6)
    shares = shares.clamp(1e-4, 1 - 1e-4)
    uneven = -0.5 * (shares.log() + (1 - shares).log())
    levels = torch.arange(1, nodes + 1).log2().floor().to(uneven)
    return fit + _BALANCE * (uneven * 0.5**levels).sum()
