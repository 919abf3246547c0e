"""How many images go through a network together, and what happens where memory does not suffice."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from featviz.errors import FeatvizError, FeatvizWarning
from featviz.types import Tensor
from featviz.validation import positive_int

T = TypeVar("T")

#: Images that are evaluated together: on a CPU, Lite0 takes half as long for four as for sixteen,
#: each; a GPU wants more.
EVALUATED_CPU, EVALUATED = 4, 32
#: Images that are optimized together. A GPU starts with many: where its memory does not suffice,
#: they go through the network in halves.
OPTIMIZED_CPU, OPTIMIZED = 16, 128


def evaluated_together(device: torch.device, batch_size: int | None = None) -> int:
    """Return how many images to evaluate together: ``batch_size``, or 4 on a CPU, else 32.

    Raises
    ------
    FeatvizError
        If ``batch_size`` is no positive whole number.
    """
    if batch_size is not None:
        return positive_int("batch_size", batch_size)
    return EVALUATED_CPU if device.type == "cpu" else EVALUATED


def optimized_together(device: torch.device, batch_size: int | None = None) -> int:
    """Return how many images to optimize together: ``batch_size``, or 16 on a CPU, else 128.

    Raises
    ------
    FeatvizError
        If ``batch_size`` is no positive whole number.
    """
    if batch_size is not None:
        return positive_int("batch_size", batch_size)
    return OPTIMIZED_CPU if device.type == "cpu" else OPTIMIZED


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether an error is an allocator's."""
    # What the allocator of the CPU raises has no type of its own.
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def out_of_memory(images: int, size: tuple[int, ...], *, dependent: bool = False) -> FeatvizError:
    """Return the error for a batch of ``images`` that cannot be made smaller."""
    sides = "x".join(map(str, size))
    several = "one image"
    if images > 1:
        several = f"{images} images" + (" that depend on one another" if dependent else "")
    return FeatvizError(
        f"out of memory with {several} of {sides}: use a smaller size, an earlier layer, or "
        "precision bf16"
    )


def warn_smaller(images: int, size: tuple[int, ...], fewer: int) -> None:
    """Warn that ``fewer`` images go through the network together from now on."""
    sides = "x".join(map(str, size))
    warnings.warn(
        f"out of memory with {images} images of {sides} at a time: {fewer} now",
        FeatvizWarning,
        stacklevel=3,
    )


def in_batches(
    count: int, batch_size: int, size: tuple[int, ...], run: Callable[[slice], T]
) -> Iterator[T]:
    """Yield ``run`` of slices of ``count`` images, halved from where memory does not suffice.

    Raises
    ------
    FeatvizError
        If memory does not suffice for a single image.
    """
    start = 0
    while start < count:
        here = slice(start, min(start + batch_size, count))
        try:
            result = run(here)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            together = here.stop - here.start
        else:
            yield result
            start = here.stop
            continue
        # Outside of the handler, whose traceback holds on to the memory.
        if together == 1:
            raise out_of_memory(1, size)
        batch_size = together // 2
        warn_smaller(together, size, batch_size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def cut(images: Tensor, here: slice, device: torch.device) -> Tensor:
    """Return some of the images on a device."""
    return images[here].to(device)
