"""Score finished images of a size that the network does not take, as they were optimized: in views.

A network with a fixed input size (a vision transformer, a flattened head) never sees a larger image
as a whole, only the crops that the transforms of the run make of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.networks.model import Model
from featviz.optim.gradient_evaluator import GradientEvaluator
from featviz.transforms import Backdrop, Background, Transform, output_size, prepare
from featviz.types import Tensor

#: How many views of a finished image are scored; the score is their mean.
VIEWS = 8
#: Offset from the images' own seeds to those of the views.
_SEED_OFFSET = 2**41


def seen_in_views(model: Model, size: tuple[int, ...], transforms: Sequence[Transform]) -> bool:
    """Return whether a network takes what ``transforms`` make of images of ``size``, not these."""
    return output_size(transforms, size) != size and not model.takes(size)


class Views:
    """Scores images (B, C, *size) in :data:`VIEWS` draws of the transforms of their run.

    Parameters
    ----------
    evaluator
        Evaluates what the transforms return.
    transforms
        Those of the run; backgrounds are left out, since finished images have one.
    seeds
        The seeds of the images; the views are drawn from others that follow from them.
    """

    def __init__(
        self,
        evaluator: GradientEvaluator,
        transforms: Sequence[Transform],
        seeds: Sequence[int],
        size: tuple[int, ...],
        device: torch.device,
    ) -> None:
        kept = [t for t in transforms if not isinstance(t, (Background, Backdrop))]
        drawn = [seed + _SEED_OFFSET for seed in seeds]
        self.evaluator = evaluator
        self._transform = prepare(kept, drawn, VIEWS, size, device)

    def values(self, images: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and ``until`` (B,), means over the views of ``seen``."""
        rows = [self.evaluator.values(images, self._transform(seen, v)) for v in range(VIEWS)]
        scores, until = zip(*rows, strict=True)
        return torch.stack(scores).mean(0), torch.stack(until).mean(0)
