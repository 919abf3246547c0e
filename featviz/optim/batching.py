"""Batch sizes, and smaller batches when memory runs out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from featviz.errors import FeatvizError, FeatvizWarning
from featviz.types import Tensor
from featviz.validation import positive_int

T = TypeVar("T")

#: Images per forward pass without gradients: on a CPU, Lite0 is twice as fast per image with 4 as
#: with 16; a GPU needs more to be busy.
EVALUATED_CPU, EVALUATED = 4, 32
#: Images that are optimized together. A GPU starts with many; if it runs out of memory, they go
#: through the network in smaller batches.
OPTIMIZED_CPU, OPTIMIZED = 16, 128


def evaluated_together(device: torch.device, batch_size: int | None = None) -> int:
    """Return how many images to evaluate together: ``batch_size``, or 4 on a CPU, else 32.

    Raises
    ------
    FeatvizError
        If ``batch_size`` is not a positive integer.
    """
    if batch_size is not None:
        return positive_int("batch_size", batch_size)
    return EVALUATED_CPU if device.type == "cpu" else EVALUATED


def optimized_together(device: torch.device, batch_size: int | None = None) -> int:
    """Return how many images to optimize together: ``batch_size``, or 16 on a CPU, else 128.

    Raises
    ------
    FeatvizError
        If ``batch_size`` is not a positive integer.
    """
    if batch_size is not None:
        return positive_int("batch_size", batch_size)
    return OPTIMIZED_CPU if device.type == "cpu" else OPTIMIZED


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error was raised by a memory allocator."""
    # The CPU allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def out_of_memory(images: int, size: tuple[int, ...], *, dependent: bool = False) -> FeatvizError:
    """Return the error for a batch of ``images`` that cannot be split further."""
    sides = "x".join(map(str, size))
    batch = "one image"
    if images > 1:
        batch = f"{images} images" + (" that depend on each other" if dependent else "")
    return FeatvizError(
        f"out of memory with {batch} of {sides}: use a smaller size, an earlier layer, or "
        "precision bf16"
    )


def warn_smaller(images: int, size: tuple[int, ...], fewer: int) -> None:
    """Warn that only ``fewer`` images go through the network together from now on."""
    sides = "x".join(map(str, size))
    warnings.warn(
        f"out of memory with {images} images of {sides} at a time: continuing with {fewer}",
        FeatvizWarning,
        stacklevel=3,
    )


def in_batches(
    count: int, batch_size: int, size: tuple[int, ...], run: Callable[[slice], T]
) -> Iterator[T]:
    """Yield ``run(rows)`` for slices of ``count`` images, halving the batch when memory runs out.

    Raises
    ------
    FeatvizError
        If there is not enough memory for a single image.
    """
    start = 0
    while start < count:
        rows = slice(start, min(start + batch_size, count))
        try:
            result = run(rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failed = rows.stop - rows.start
        else:
            yield result
            start = rows.stop
            continue
        # Outside the handler, whose traceback keeps the memory alive.
        if failed == 1:
            raise out_of_memory(1, size)
        batch_size = failed // 2
        warn_smaller(failed, size, batch_size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def cut(images: Tensor, rows: slice, device: torch.device) -> Tensor:
    """Return a slice of the images on a device."""
    return images[rows].to(device)
