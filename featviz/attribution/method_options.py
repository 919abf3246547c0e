"""The options of attribution methods: which are given, and whether their values make sense."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import torch

from featviz.attribution.masks import KINDS
from featviz.attribution.propagation.composites import parse_composite
from featviz.attribution.propagation.concepts import chosen_units
from featviz.attribution.settings import AttributionSettings
from featviz.errors import FeatvizError
from featviz.objectives import objective as as_objective


def _is_positive_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_finite_number(value: Any) -> bool:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _are_integers(value: Any) -> bool:
    try:
        labels = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return not labels.is_floating_point() and not labels.is_complex()


def _areas(value: Any) -> tuple[float, ...]:
    """Return the fractions that a number, several or a text give; none if any is invalid."""
    try:
        listed: list[Any] = (
            [value]
            if _is_finite_number(value)
            else list(value.split(",") if isinstance(value, str) else value)
        )
        areas = tuple(float(v) for v in listed if not isinstance(v, bool))
    except (TypeError, ValueError):
        return ()
    return areas if len(areas) == len(listed) and all(0 < a < 1 for a in areas) else ()


#: For each option, the test of its value, and its words for an error message.
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "steps": (_is_positive_integer, "a positive whole number"),
    "cells": (_is_positive_integer, "a positive whole number"),
    "sd": (lambda value: _is_finite_number(value) and value >= 0, "a number of at least 0"),
    "tolerance": (lambda value: _is_finite_number(value) and value > 0, "a number above 0"),
    "channel_noise": (
        lambda value: _is_finite_number(value) and value >= 0,
        "a number of at least 0",
    ),
    "area": (lambda value: bool(_areas(value)), "between 0 and 1, or several such fractions"),
    "layer": (lambda value: isinstance(value, str), "the name of a layer"),
    "segments": (_are_integers, "whole numbers, as a tensor"),
    "rule": (
        lambda value: isinstance(value, str) and bool(parse_composite(value)),
        "a rule or composite, as a text",
    ),
    "through": (lambda value: bool(chosen_units(as_objective(value))), "channels or neurons"),
    "data": (lambda value: not isinstance(value, numbers.Number), "a folder or images"),
    "kind": (lambda value: value in KINDS, " or ".join(KINDS)),
    "infill": (callable, "a function of images and their visibility that returns images"),
}


def given_options(settings: AttributionSettings) -> dict[str, Any]:
    """Return the options of methods that the settings have a value for."""
    options = {key: getattr(settings, key) for key in _CHECKS}
    return {key: value for key, value in options.items() if value is not None}


def checked(key: str, value: Any) -> Any:
    """Return the value of an option as methods take it.

    Raises
    ------
    FeatvizError
        If it is invalid.
    """
    is_valid, expected = _CHECKS[key]
    if not is_valid(value):
        shown = " ".join(repr(value).split())[:60]
        raise FeatvizError(f"{key} must be {expected}, not {shown}")
    if key == "area":
        return _areas(value)
    if key in ("sd", "channel_noise", "tolerance"):
        return float(value)  # JSON records cannot hold NumPy scalars
    return value
