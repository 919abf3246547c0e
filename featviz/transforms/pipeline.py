"""Combine a list of transforms into one map: draw the tapes, fuse adjacent geometric ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from featviz.errors import FeatvizError
from featviz.seeds import generator
from featviz.transforms.base import Apply, Geometric, Intensity, Transform
from featviz.transforms.geometric import fusible, warp
from featviz.transforms.network import NetworkTransform
from featviz.types import Tensor


def output_size(transforms: Sequence[Transform], size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size of the network's input for images of ``size``."""
    for transform in transforms:
        size = transform.output_size(size)
    return size


def draw_tape(
    transform: Transform, place: int, seeds: Sequence[int], steps: int, size: tuple[int, ...]
) -> Tensor:
    """Return the tape (steps, B, k) of the transform at index ``place`` of a list."""
    draws = [transform.draw(generator(s, f"transform {place}"), steps, size) for s in seeds]
    return torch.stack(draws, dim=1)


def prepare(
    transforms: Sequence[Transform],
    seeds: Sequence[int],
    steps: int,
    size: tuple[int, ...],
    device: torch.device,
) -> Apply:
    """Draw the tapes of all samples and return the map of images (B, C, *size) at step t.

    Network transforms do not change the images and are skipped.
    """
    stages: list[Apply] = []
    group: list[tuple[Geometric, Tensor]] = []
    group_size = size  # the input size of the group

    def flush() -> None:
        if group:
            stages.append(warp(list(group), group_size, device))
            group.clear()

    for place, transform in enumerate(transforms):
        if isinstance(transform, NetworkTransform):
            continue  # applied within the forward pass
        tape = draw_tape(transform, place, seeds, steps, size)
        if isinstance(transform, Geometric):
            if not fusible([t for t, _ in group], transform):
                flush()
            if not group:
                group_size = size
            group.append((transform, tape))
        elif isinstance(transform, Intensity):
            flush()
            stages.append(transform.prepare(tape))
        else:
            raise FeatvizError(f"{transform!r} is neither a Geometric nor an Intensity transform")
        size = transform.output_size(size)
    flush()

    def apply(images: Tensor, step: int) -> Tensor:
        for stage in stages:
            images = stage(images, step)
        return images

    return apply
