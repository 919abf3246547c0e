"""The effective receptive field of a position of a layer, measured with gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from featviz.errors import FeatvizError, LayerError, UnitError
from featviz.networks.model import Model
from featviz.objectives.reduction import token_grid
from featviz.objectives.scene import Target
from featviz.types import LayerInfo, Tensor

#: Noise images per forward pass.
_CHUNK = 4


def grid(info: LayerInfo, target: Target) -> tuple[int, tuple[int, ...]] | None:
    """Return how many tokens precede those of the image, and the grid of positions.

    None if the layer has no positions on the image.
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

    ``prefix`` and ``grid`` give the layout of the layer's positions, counted row by row, on the
    image; ``start`` and ``stop`` are the window of the central position, ``centre``.
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
        """Return the coordinates on the grid of the layer's positions (…), as (…, axes).

        -1 along every axis for those outside it, such as a class token, or -1 itself.
        """
        flat = places - self.prefix
        coordinates = []
        for side in reversed(self.grid):
            coordinates.append(flat % side)
            flat = flat // side
        grid_positions = torch.stack(coordinates[::-1], -1)
        return grid_positions.masked_fill((places < self.prefix)[..., None], -1)

    def boxes(self, positions: Tensor) -> Tensor:
        """Return the windows of positions (…, axes), clipped to the image, as (…, 2 x axes).

        (y0, x0, y1, x1) of an image, with y1 and x1 excluded. Each is the central window, moved by
        the image size over the grid size for each position; for -1 it is the whole image.
        """
        size = torch.tensor(self.size)
        steps = positions - torch.tensor(self.centre)
        shift = (steps * (size.double() / torch.tensor(self.grid)) + 0.5).floor().long()
        first = (torch.tensor(self.start) + shift).clamp_min(0).minimum(size - 1)
        last = (torch.tensor(self.stop) + shift).minimum(size).maximum(first + 1)
        missing = positions < 0
        stop = last.masked_fill(missing, 0) + size * missing
        return torch.cat([first.masked_fill(missing, 0), stop], -1)


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

    The gradients of the position with respect to the pixels are squared and summed over channels
    and over ``images`` images of uniform noise [Luo2016]_. Starting from the whole image, the row
    or column at a border that holds the least is removed repeatedly, as long as ``fraction`` of the
    sum remains. ``fraction=1`` gives the theoretical field, as far as gradients reach.

    Each image uses the gradient of one random combination of the layer's units, whose expected
    square is the sum of the units' squares. If no gradient arrives, the field is the whole image.

    Raises
    ------
    LayerError
        If the layer has no positions on the image.
    FeatvizError
        If ``fraction`` is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise FeatvizError(f"fraction must be above 0 and at most 1, not {fraction}")
    target = Target(model, model.size, 1)
    info = target.layer(layer)
    layout = grid(info, target)
    if layout is None:
        raise LayerError(f"layer {layer!r} has no positions on the image: no receptive field")
    prefix, sides = layout
    centre = tuple(side // 2 for side in sides)
    energy = _energy(model, info, _place(centre, prefix, sides, info), images, seed)
    start, stop = _peel(energy, fraction)
    return ReceptiveField(model.size, prefix, sides, centre, start, stop)


def _place(
    centre: tuple[int, ...], prefix: int, sides: tuple[int, ...], info: LayerInfo
) -> tuple[int, ...]:
    """Return the index of a grid position in the layer's own axes."""
    if len(info.positions) == len(sides):
        return centre
    flat = 0
    for coordinate, side in zip(centre, sides, strict=True):
        flat = flat * side + coordinate
    return (prefix + flat,)


def _energy(
    model: Model, info: LayerInfo, place: tuple[int, ...], images: int, seed: int
) -> Tensor:
    """Return the squared gradient of a position with respect to each pixel, summed over images."""
    generator = torch.Generator().manual_seed(seed)
    table = model.layers()
    total = torch.zeros(model.size, dtype=torch.float64)
    with model.session(), torch.enable_grad():
        for first in range(0, images, _CHUNK):
            count = min(_CHUNK, images - first)
            noise = torch.rand((count, model.channels, *model.size), generator=generator)
            weights = torch.randn((count, info.units), generator=generator)
            inputs = noise.to(model.device).requires_grad_()
            activation = model.capture(inputs, [info.name], table)[info.name]
            index: Any = (slice(None), slice(None), *place)
            units = activation.movedim(info.axis, 1)[index]
            if not units.requires_grad:
                continue
            weighted_sum = (units.float() * weights.to(units.device)).sum()
            (gradient,) = torch.autograd.grad(weighted_sum, inputs, allow_unused=True)
            if gradient is not None:
                total += gradient.double().square().sum((0, 1)).cpu()
    return total


def _peel(energy: Tensor, fraction: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the start and stop of a window that holds ``fraction`` of the energy."""
    axes = range(energy.ndim)
    start, stop = [0] * energy.ndim, list(energy.shape)
    budget = float(energy.sum()) * (1 - fraction)
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
        if not edges or min(edges)[0] > budget:
            return tuple(start), tuple(stop)
        least, axis, end = min(edges)
        budget -= least
        if end:
            stop[axis] -= 1
        else:
            start[axis] += 1
