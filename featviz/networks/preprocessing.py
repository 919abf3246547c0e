"""Checks of what a model declares: its numbers and the layer of its logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from featviz.errors import ModelError, did_you_mean, shorten
from featviz.networks import layers


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


def check_logits(net: nn.Module, logits: str) -> None:
    """Raise :class:`ModelError` unless ``logits`` names the output or a module of the network."""
    if not isinstance(logits, str):
        raise ModelError(f"logits must be the name of a layer, not {shorten(repr(logits))}")
    module = layers.split_address(logits)[0]
    names = layers.module_names(net)
    if module != layers.OUTPUT and module not in names:
        hint = did_you_mean(module, names)
        raise ModelError(f"logits: no layer {shorten(repr(module))}{hint}")


def is_sequence(value: float | Sequence[float] | None) -> bool:
    """Return whether a value is one number for each channel."""
    return value is not None and not isinstance(value, (int, float))


def as_numbers(value: float | Sequence[float] | None, default: float) -> tuple[float, ...]:
    """Return a value, or its default, as a tuple of numbers."""
    if value is None:
        return (default,)
    if isinstance(value, torch.Tensor):
        value = value.flatten().tolist()
    return (float(value),) if isinstance(value, (int, float)) else tuple(map(float, value))
