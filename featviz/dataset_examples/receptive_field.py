"""What part of the image a position of a layer looks at, measured with gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from featviz.errors import FeatvizError, LayerError, UnitError
from featviz.networks.model import Model
from featviz.objectives.reduction import token_grid
from featviz.objectives.scene import Target
from featviz.types import LayerInfo, Tensor

#: Noise images that go through the network together.
_TOGETHER = 4


def grid(info: LayerInfo, target: Target) -> tuple[int, tuple[int, ...]] | None:
    """Return how many tokens come before those on the image, and the grid of positions.

    None where the layer has no positions that lie on the picture.
    """
    if info.positions and len(info.positions) == len(target.size):
        return 0, info.positions
    try:
        return token_grid(info, target)
    except UnitError:
        return None


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of the positions of a layer, in pixels of images of ``size``.

    ``prefix`` and ``grid`` say how the layer's positions, counted row by row, lie on the image;
    ``start`` and ``stop`` are those of the window of the position in the centre, ``centre``.
    """

    size: tuple[int, ...]
    prefix: int
    grid: tuple[int, ...]
    centre: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def sides(self) -> tuple[int, ...]:
        """The side lengths of the window."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    def positions(self, places: Tensor) -> Tensor:
        """Return where on the grid the layer's positions (…) lie, (…, axes).

        -1 along every axis for one that does not, as a class token, or -1 itself.
        """
        left = places - self.prefix
        found = []
        for side in reversed(self.grid):
            found.append(left % side)
            left = left // side
        where = torch.stack(found[::-1], -1)
        return where.masked_fill((places < self.prefix)[..., None], -1)

    def boxes(self, positions: Tensor) -> Tensor:
        """Return the windows of positions (…, axes), cut off at the borders, (…, 2 x axes).

        (y0, x0, y1, x1) of an image, ends excluded. Each is that of the centre, moved by the
        size of the image over that of the grid for each position; of -1 the whole picture.
        """
        size = torch.tensor(self.size)
        steps = positions - torch.tensor(self.centre)
        shift = (steps * (size.double() / torch.tensor(self.grid)) + 0.5).floor().long()
        first = (torch.tensor(self.start) + shift).clamp_min(0).minimum(size - 1)
        last = (torch.tensor(self.stop) + shift).minimum(size).maximum(first + 1)
        nowhere = positions < 0
        whole = last.masked_fill(nowhere, 0) + size * nowhere
        return torch.cat([first.masked_fill(nowhere, 0), whole], -1)


def receptive_field(
    model: Model, layer: str, fraction: float = 0.95, *, images: int = 8, seed: int = 0
) -> tuple[int, ...]:
    """Return the side lengths of a layer's effective receptive field, in pixels.

    See :func:`measure`.
    """
    return measure(model, layer, fraction, images=images, seed=seed).sides


def measure(
    model: Model, layer: str, fraction: float = 0.95, *, images: int = 8, seed: int = 0
) -> ReceptiveField:
    """Measure the effective receptive field of the central position of a layer.

    The gradients of the position by the pixels are squared and added up over channels and over
    ``images`` images of uniform noise [Luo2016]_. Of the whole image that row or column at a
    border which holds the least is then taken away, again and again, as long as ``fraction``
    remains.
    ``fraction=1`` leaves the theoretical field, as far as gradients come through.

    Each image takes the gradient of one random combination of the layer's units: the expected
    square is the sum of the units' squares. Where no gradient arrives, it is the whole picture.

    Raises
    ------
    LayerError
        If the layer has no positions on the picture.
    FeatvizError
        If ``fraction`` is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise FeatvizError(f"fraction must be above 0 and at most 1, not {fraction}")
    target = Target(model, model.size, 1)
    info = target.layer(layer)
    found = grid(info, target)
    if found is None:
        raise LayerError(f"layer {layer!r} has no positions on the image: no receptive field")
    prefix, sides = found
    centre = tuple(side // 2 for side in sides)
    energy = _energy(model, info, _place(centre, prefix, sides, info), images, seed)
    start, stop = _peel(energy, fraction)
    return ReceptiveField(model.size, prefix, sides, centre, start, stop)


def _place(
    centre: tuple[int, ...], prefix: int, sides: tuple[int, ...], info: LayerInfo
) -> tuple[int, ...]:
    """Return the index of a position of the grid in the layer's own axes."""
    if len(info.positions) == len(sides):
        return centre
    flat = 0
    for here, side in zip(centre, sides, strict=True):
        flat = flat * side + here
    return (prefix + flat,)


def _energy(
    model: Model, info: LayerInfo, place: tuple[int, ...], images: int, seed: int
) -> Tensor:
    """Return the squared gradient of a position by each pixel, summed over noise images."""
    generator = torch.Generator().manual_seed(seed)
    table = model.layers()
    total = torch.zeros(model.size, dtype=torch.float64)
    with model.session(), torch.enable_grad():
        for first in range(0, images, _TOGETHER):
            count = min(_TOGETHER, images - first)
            noise = torch.rand((count, model.channels, *model.size), generator=generator)
            mix = torch.randn((count, info.units), generator=generator)
            seen = noise.to(model.device).requires_grad_()
            activation = model.capture(seen, [info.name], table)[info.name]
            where: Any = (slice(None), slice(None), *place)
            units = activation.movedim(info.axis, 1)[where]
            if not units.requires_grad:
                continue
            mixed = (units.float() * mix.to(units.device)).sum()
            (gradient,) = torch.autograd.grad(mixed, seen, allow_unused=True)
            if gradient is not None:
                total += gradient.double().square().sum((0, 1)).cpu()
    return total


def _peel(energy: Tensor, fraction: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return where a window begins and ends that holds ``fraction`` of the energy."""
    axes = range(energy.ndim)
    start, stop = [0] * energy.ndim, list(energy.shape)
    spare = float(energy.sum()) * (1 - fraction)
    if not (energy.isfinite().all() and energy.any()):
        return tuple(start), tuple(stop)
    while True:
        window = energy[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
        edges = [
            (float(window.select(axis, end).sum()), axis, end)
            for axis in axes
            for end in (0, -1)
            if window.shape[axis] > 1
        ]
        if not edges or min(edges)[0] > spare:
            return tuple(start), tuple(stop)
        least, axis, end = min(edges)
        spare -= least
        if end:
            stop[axis] -= 1
        else:
            start[axis] += 1
