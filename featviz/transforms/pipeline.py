"""From a list of transforms to one map: tapes drawn, neighbouring geometry fused."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.seeds import generator
from featviz.transforms.base import Apply, Geometric, Intensity, Transform
from featviz.transforms.geometric import fusible, warp
from featviz.types import Tensor


def output_size(transforms: Sequence[Transform], size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size of what the network sees of images of ``size``."""
    for transform in transforms:
        size = transform.output_size(size)
    return size


def draw_tape(
    transform: Transform, place: int, seeds: Sequence[int], steps: int, size: tuple[int, ...]
) -> Tensor:
    """Return what the transform at ``place`` of a list draws, (steps, B, k), from the seeds."""
    draws = [transform.draw(generator(s, f"transform {place}"), steps, size) for s in seeds]
    return torch.stack(draws, dim=1)


def prepare(
    transforms: Sequence[Transform],
    seeds: Sequence[int],
    steps: int,
    size: tuple[int, ...],
    device: torch.device,
) -> Apply:
    """Draw the tapes of all samples and return the map of images (B, C, *size) at step t."""
    stages: list[Apply] = []
    group: list[tuple[Geometric, Tensor]] = []
    start = size  # what goes into the group

    def close() -> None:
        if group:
            stages.append(warp(list(group), start, device))
            group.clear()

    for place, transform in enumerate(transforms):
        tape = draw_tape(transform, place, seeds, steps, size)
        if isinstance(transform, Geometric):
            if not fusible([t for t, _ in group], transform):
                close()
            if not group:
                start = size
            group.append((transform, tape))
        elif isinstance(transform, Intensity):
            close()
            stages.append(transform.prepare(tape))
        else:
            raise FeatvizError(f"{transform!r} is neither geometric nor a transform of intensity")
        size = transform.output_size(size)
    close()

    def apply(images: Tensor, step: int) -> Tensor:
        for stage in stages:
            images = stage(images, step)
        return images

    return apply
