"""The scores of finished images: as they are, and in views that no step has seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.optim.evaluator import scores
from featviz.transforms import parse, prepare
from featviz.types import Tensor

#: Under what an image has to keep its score, in how many draws that no step has seen.
HELD_OUT = "jitter:0.05,rotate:10,scale:0.9:1.1"
HELD_OUT_FLAT = "jitter,noise"  # for what is no image (H, W)
VIEWS = 8
#: Held-out draws are those of seeds so far beyond the images' own.
APART = 2**40


def held_out(model: Model, goal: Objective, pictures: Tensor, seeds: Sequence[int]) -> Tensor:
    """Return the mean score (B,) under small shifts, turns and scales that no step has seen.

    ``seeds``, one for each image, have to be others than those that it was made with.
    """
    size = tuple(pictures.shape[2:])
    changes = parse(HELD_OUT if len(size) == 2 else HELD_OUT_FLAT)
    transform = prepare(changes, seeds, VIEWS, size, model.device)
    images = pictures.to(model.device)
    views = torch.stack([transform(images, view) for view in range(VIEWS)])
    return torch.stack([scores(model, goal, view) for view in views]).mean(0)
