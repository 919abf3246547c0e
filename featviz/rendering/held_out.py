"""Scores of finished images under held-out transforms, which were not used to optimize them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.optim.evaluator import scores
from featviz.transforms import parse, prepare
from featviz.types import Tensor

#: Held-out transforms under which an image should keep its score, and the number of their draws.
HELD_OUT = "jitter:0.05,rotate:10,scale:0.9:1.1"
HELD_OUT_FLAT = "jitter,noise"  # for inputs other than images (H, W)
VIEWS = 8
#: Offset from the images' own seeds to those of the held-out draws.
SEED_OFFSET = 2**40


def held_out(model: Model, objective: Objective, images: Tensor, seeds: Sequence[int]) -> Tensor:
    """Return the mean score (B,) under held-out small shifts, rotations and scalings.

    Of images that are larger than the network takes, it is that of the centre.

    ``seeds``, one for each image, must differ from those that the images were made with.
    """
    size = tuple(images.shape[2:])
    transforms = parse(HELD_OUT if len(size) == 2 else HELD_OUT_FLAT)
    transform = prepare(transforms, seeds, VIEWS, size, model.device)
    images = images.to(model.device)
    window: tuple[Any, ...] = (...,)
    if not model.takes(size) and all(a >= b for a, b in zip(size, model.size, strict=True)):
        starts = [(a - b) // 2 for a, b in zip(size, model.size, strict=True)]
        window = (..., *(slice(s, s + b) for s, b in zip(starts, model.size, strict=True)))
    views = torch.stack([transform(images, view)[window] for view in range(VIEWS)])
    return torch.stack([scores(model, objective, view) for view in views]).mean(0)
