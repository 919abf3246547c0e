"""Checks of what a model declares: its numbers and the layer of its logits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from featviz.errors import FeatvizError, ModelError, did_you_mean, shorten
from featviz.networks import layers
from featviz.validation import LARGEST, positive_int, real, sides


def check_range(
    mean: Sequence[float], std: Sequence[float], values: Sequence[float]
) -> tuple[float, float]:
    """Return the values of black and white; raise :class:`ModelError` if they are no range."""
    try:
        low, high = map(float, values)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (low < high and all(map(math.isfinite, (*mean, *std, low, high)))):
        raise ModelError(
            "mean and std must be finite, and range two rising numbers, not "
            f"{shorten(repr(values))}"
        )
    return low, high


def check_crop(crop: float) -> float:
    """Return the fraction of a picture that is kept; raise :class:`ModelError` if it is none."""
    if isinstance(crop, bool) or not isinstance(crop, (int, float)) or not 0 < crop <= 1:
        raise ModelError(f"crop must be a fraction of each side, 0 < crop <= 1, not {crop!r}")
    return float(crop)


def check_logits(net: nn.Module, logits: str) -> None:
    """Raise :class:`ModelError` unless ``logits`` names the output or a module of the network."""
    if not isinstance(logits, str):
        raise ModelError(f"logits must be the name of a layer, not {shorten(repr(logits))}")
    module = layers.split_address(logits)[0]
    names = layers.module_names(net)
    if module != layers.OUTPUT and module not in names:
        hint = did_you_mean(module, names)
        raise ModelError(f"logits: no layer {shorten(repr(module))}{hint}")


def check_differentiable(net: nn.Module) -> None:
    """Raise :class:`ModelError` if weights were made in inference mode: no gradient passes them."""
    if any(tensor.is_inference() for tensor in (*net.parameters(), *net.buffers())):
        raise ModelError(
            "the network's weights were made in torch.inference_mode(), so that no gradients pass "
            "them: build it outside, or give its copy.deepcopy()"
        )


def is_sequence(value: float | Sequence[float] | None) -> bool:
    """Return whether a value is one number for each channel."""
    return value is not None and not isinstance(value, (int, float))


def check_sides(size: Any) -> tuple[int, ...]:
    """Return the sides of the images; raise :class:`ModelError` for other values."""
    try:
        return sides("size", size)
    except FeatvizError as error:
        raise ModelError(str(error)) from None


def as_numbers(name: str, value: Any, default: float) -> tuple[float, ...]:
    """Return a value, or its default, as a tuple of numbers."""
    if value is None:
        return (default,)
    if isinstance(value, (torch.Tensor, np.ndarray)):
        value = value.reshape(-1).tolist()
    if isinstance(value, (tuple, list)) and value:
        return tuple(real(name, number, -LARGEST, LARGEST) for number in value)
    return (real(name, value, -LARGEST, LARGEST),)


def per_channel(
    mean: Any, std: Any, channels: Any, default: int
) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Return the number of channels, and the mean and deviation of each.

    Raises
    ------
    ModelError
        If they are no numbers, or inconsistent.
    """
    try:
        if channels is not None:
            positive_int("channels", channels)
        means, stds = as_numbers("mean", mean, 0.0), as_numbers("std", std, 1.0)
    except FeatvizError as error:
        raise ModelError(str(error)) from None
    lengths = {len(n) for n, v in ((means, mean), (stds, std)) if is_sequence(v)}
    count = channels or max(lengths, default=default)
    if lengths - {count}:
        raise ModelError(f"mean and std have {sorted(lengths)} numbers for {count} channels")
    means, stds = (n * count if len(n) == 1 else n for n in (means, stds))
    if min(stds) <= 0:
        raise ModelError(f"std must be positive, not {std}")
    return count, means, stds


def crop_hint(size: tuple[int, ...], own: tuple[int, ...]) -> str:
    """Return what to do about images that are larger than the network's own size."""
    if len(size) != len(own) or not all(s > o for s, o in zip(size, own, strict=True)):
        return ""
    crop = f"jitter:{(size[0] - own[0]) // 2},crop:{own[0]}"
    return f"; a larger picture is optimized in crops: transforms={crop!r}"


def check_names(classes: Any) -> tuple[str, ...] | None:
    """Return the names of the classes; raise :class:`ModelError` if they are no list of texts."""
    if classes is None:
        return None
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise ModelError(f"classes must be a list of names, not {shorten(repr(classes))}")
    if not all(isinstance(name, str) for name in classes):
        raise ModelError("classes must be a list of names, each a text")
    return tuple(classes)


def check_axes(axes: Any) -> dict[str, int]:
    """Return the declared unit axes; raise :class:`ModelError` if they are no ints by layer."""
    if axes is None:
        return {}
    valid = isinstance(axes, Mapping) and all(
        isinstance(k, str) and isinstance(v, int) and not isinstance(v, bool)
        for k, v in axes.items()
    )
    if not valid:
        raise ModelError(f"axes must be like {{'layer': 1}}, not {shorten(repr(axes))}")
    return dict(axes)


def check_order(order: Any, channels: int) -> tuple[int, ...] | None:
    """Return the order of the channels; raise :class:`ModelError` if it has not each once."""
    if order is None:
        return None
    if not isinstance(order, Sequence) or set(order) != set(range(channels)):
        raise ModelError(
            f"order must have each of the {channels} channels once, not {shorten(repr(order))}"
        )
    if len(order) != channels:
        raise ModelError(f"order must have each of the {channels} channels once")
    return tuple(order)
