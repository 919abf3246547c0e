"""Remove and debias: pixels are removed so that what is left does not show where they were."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from featviz.attribution.result import Attribution
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.optim.evaluator import Evaluator
from featviz.seeds import generator
from featviz.types import Tensor

#: Weight of the diagonal neighbours of a pixel, half that of the direct ones, as in the paper.
_DIAGONAL = 1 / 12
#: Standard deviation of the noise on imputed pixels, and the residual at which the solution stops.
_NOISE, _TOLERANCE, _MOST = 0.01, 1e-4, 2000


@dataclasses.dataclass(frozen=True)
class Road:
    """The objective's value while imputed pixels replace those of an image. [Rong2022]_.

    Attributes
    ----------
    fractions
        (n,): the removed fractions.
    hottest, coldest
        (B, n): the value with the hottest, and with the coldest pixels removed.
    gap
        (B,): the mean of ``coldest - hottest``; a faithful map has a large one, a random map 0.
    """

    fractions: Tensor
    hottest: Tensor
    coldest: Tensor

    @property
    def gap(self) -> Tensor:
        return (self.coldest - self.hottest).mean(1)


def road(
    result: Attribution, model: Model, *, fractions: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9)
) -> Road:
    """Return the objective's values while the hottest and the coldest pixels are imputed.

    A removed pixel is the weighted mean of its neighbours, all removed ones at once, plus a little
    noise; unlike a black or blurred patch it hardly shows where it was, so that a network cannot
    read the class from the shape of the mask. Equally hot pixels go in an order from the seed.

    Raises
    ------
    FeatvizError
        For inputs that are no images (C, H, W), or a fraction that is not between 0 and 1.
    """
    if result.images.ndim != 4:
        raise FeatvizError("road imputes images (C, H, W): signals and volumes have no rule")
    for fraction in fractions:
        if not 0 < fraction < 1:
            raise FeatvizError(f"fractions must be between 0 and 1, not {fraction}")
    curves = []
    size = tuple(result.images.shape[2:])
    pixels = size[0] * size[1]
    with model.session():
        for image, heat, goal, seed in zip(
            result.images, result.pixels, result.goals, result.seeds, strict=True
        ):
            rng = generator(seed, "road")
            shuffled = torch.randperm(pixels, generator=rng)
            order = shuffled[heat.flatten()[shuffled].argsort(descending=True, stable=True)]
            masks = torch.zeros(2, len(fractions), pixels, dtype=torch.bool)
            for k, fraction in enumerate(fractions):
                count = round(fraction * pixels)
                masks[0, k, order[:count]] = True
                masks[1, k, order[pixels - count :]] = True
            shown = torch.stack([impute(image, m, rng) for m in masks.view(-1, *size)])
            evaluator = Evaluator(model, goal, size)
            curves.append(evaluator.scores(shown.to(model.device)).view(2, -1))
    table = torch.stack(curves).double()
    return Road(torch.tensor(fractions, dtype=torch.float64), table[:, 0], table[:, 1])


def impute(image: Tensor, removed: Tensor, rng: torch.Generator, noise: float = _NOISE) -> Tensor:
    """Return ``image`` (C, H, W) with the pixels in ``removed`` (H, W) imputed, within [0, 1].

    Each is the mean of its up to eight neighbours, direct ones with twice the weight of diagonal
    ones, removed neighbours included: a linear system, solved by conjugate gradients. Without any
    pixel left, it is the mean of the image.
    """
    values = image.detach().cpu().float()
    if bool(removed.all()):
        filled = values.mean((1, 2), keepdim=True).expand_as(values).clone()
    else:
        filled = _solved(values, removed.float())
    wobble = torch.randn(values.shape, generator=rng) * noise
    filled = torch.where(removed, (filled + wobble).clamp(0, 1), values)
    return filled.to(image.dtype)


def _solved(values: Tensor, removed: Tensor) -> Tensor:
    """Return the values (C, H, W) with the removed ones at the means of their neighbours."""

    def neighbours(field: Tensor) -> Tensor:
        # [1, 2, 1] along both axes without the centre: direct neighbours 2, diagonal ones 1.
        padded = F.pad(field, (1, 1, 1, 1))
        rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
        both = rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
        return _DIAGONAL * (both - 4 * field)

    degree = neighbours(torch.ones_like(values[:1]))
    known = values * (1 - removed)
    solution = removed * values.mean((1, 2), keepdim=True)

    def laplacian(field: Tensor) -> Tensor:
        return removed * (degree * field - neighbours(field))

    residual = removed * neighbours(known) - laplacian(solution)
    scaled = residual / degree  # the diagonal as preconditioner
    direction, power = scaled, (residual * scaled).sum((1, 2), keepdim=True)
    for _ in range(_MOST):
        if float(residual.abs().max()) < _TOLERANCE * float(degree.max()):
            break
        image = laplacian(direction)
        step = power / (direction * image).sum((1, 2), keepdim=True).clamp_min(1e-300)
        solution = solution + step * direction
        residual = residual - step * image
        scaled = residual / degree
        following = (residual * scaled).sum((1, 2), keepdim=True)
        direction = scaled + following / power.clamp_min(1e-300) * direction
        power = following
    return known + solution
