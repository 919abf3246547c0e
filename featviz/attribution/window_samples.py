"""Prediction difference analysis: windows take the content of other windows."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from featviz.attribution.case import Case
from featviz.errors import FeatvizError
from featviz.param.mask import cell_counts
from featviz.seeds import generator
from featviz.types import Tensor


def prediction_difference(case: Case) -> Tensor:
    """Return how much the value drops, on average, if a window shows something else.

    [Zintgraf2017]_

    A window of two cells, of ``cells`` along the longer side, moves by one cell. In each place it
    gets the content of ``steps`` windows at random other places of the image, and the mean drop is
    averaged over the windows that cover a pixel. Nothing has to stand for "nothing", as a baseline
    does. The paper draws the content from other images, or from a Gaussian fitted to the
    surroundings; this is its marginal sampling with the image as the data. It also takes log-odds:
    explain a log-probability for that.

    Raises
    ------
    FeatvizError
        If the image has only one window, or the objective is not finite for a sample.
    """
    size = tuple(case.image.shape[2:])
    counts = cell_counts(size, case.options["cells"])
    steps = [max(1, side // n) for side, n in zip(size, counts, strict=True)]
    window = [min(2 * step, side) for step, side in zip(steps, size, strict=True)]
    spans = [
        sorted({min(k, side - w) for k in range(0, side, step)})
        for side, w, step in zip(size, window, steps, strict=True)
    ]
    places = list(itertools.product(*spans))
    if len(places) < 2:
        raise FeatvizError("prediction_difference needs more than one window: use more cells")
    rng = generator(case.seed, "prediction_difference")
    samples = case.options["steps"]
    value = float(case.evaluator.scores(case.image))
    drops = torch.zeros(size, dtype=torch.float64)
    covers = torch.zeros(size, dtype=torch.float64)
    for place in places:
        target = tuple(slice(p, p + w) for p, w in zip(place, window, strict=True))
        changed = case.image.repeat(samples, *(1 for _ in case.image.shape[1:]))
        for row in changed:
            source = tuple(
                slice(start, start + w)
                for start, w in zip(_elsewhere(size, window, place, rng), window, strict=True)
            )
            row[_at(target)] = case.image[0][_at(source)]
        values = case.evaluator.scores(changed).double()
        if not values.isfinite().all():
            raise FeatvizError(
                f"prediction_difference: {case.evaluator.objective} is not finite with a window "
                "replaced"
            )
        drops[target] += value - float(values.mean())
        covers[target] += 1
    return (drops / covers)[None, None].to(case.image)


def _at(window: tuple[slice, ...]) -> Any:
    """Return the index of a window in all channels of an image (C, *size)."""
    return (slice(None), *window)


def _elsewhere(
    size: tuple[int, ...], window: list[int], place: tuple[int, ...], rng: torch.Generator
) -> tuple[int, ...]:
    """Return the corner of another window, at random."""
    while True:
        corner = tuple(
            int(torch.randint(0, side - w + 1, (), generator=rng))
            for side, w in zip(size, window, strict=True)
        )
        if corner != place:
            return corner
