"""The method ``auto``: which method to use where none is named."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

from featviz.attribution.result import Attribution
from featviz.attribution.settings import AttributionSettings
from featviz.errors import FeatvizError
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives.scene import Target
from featviz.optim.evaluator import Evaluator
from featviz.types import MethodName, Tensor

#: The method of an option that only one of the recommended methods takes.
_BY_OPTION: dict[str, MethodName] = {
    "layer": "grad_cam",
    "area": "extremal_perturbation",
    "kind": "extremal_perturbation",
    "infill": "fido",
    "rule": "lrp",
    "through": "lrp",
    "channel_noise": "fusion_grad",
    "baseline": "kernel_shap",
    "steps": "kernel_shap",
    "cells": "kernel_shap",
    "segments": "kernel_shap",
}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A method that ``auto`` may choose.

    ``passes`` is what it takes for an image, as that many forward passes of one image: measured
    with Lite0 on a CPU. ``late_maps`` is whether it needs maps in the later half of the layers.
    """

    method: MethodName
    passes: int
    late_maps: bool = False


#: From the best to the worst by insertion minus deletion in the table of docs/attribution.md.
CANDIDATES = (
    Candidate("lime", 512),
    Candidate("lrp", 40),
    Candidate("grad_cam", 8, late_maps=True),
)


@dataclasses.dataclass(frozen=True)
class Choice:
    """Methods in the order in which they are tried, and why they were chosen."""

    methods: tuple[MethodName, ...]
    reason: str


def choose_methods(
    settings: AttributionSettings,
    model: Model,
    goals: Sequence[Objective],
    images: Tensor,
    copies: int,
) -> Choice:
    """Return the methods that ``auto`` stands for; later ones are for networks that refuse others.

    An option that only some methods take decides first. Otherwise, with ``seconds``, it is the best
    of the table whose estimated time for an image is within it: the time of a forward pass, as
    measured here, times the passes of the method. Without, ``grad_cam``, the best of a single pass,
    where every objective depends on maps (C, *positions) in the later half of the layers that run
    for it; else ``kernel_shap``, which asks nothing of the network.

    Raises
    ------
    FeatvizError
        If ``seconds`` are given with an option that decides, or are less than any method takes.
    """
    size = tuple(images.shape[2:])
    for option, method in _BY_OPTION.items():
        if getattr(settings, option) is not None:
            if settings.seconds is not None:
                raise FeatvizError(
                    f"seconds choose a method, and so does {option} ({method}): give one of them"
                )
            return Choice((method,), f"the method that takes {option}")
    maps = all(_has_late_maps(model, goal, size) for goal in goals)
    if settings.seconds is None:
        if maps:
            return Choice(("grad_cam",), "the best of a single pass, on maps of a late layer")
        return Choice(("kernel_shap",), "the objective depends on no maps of a late layer")
    pass_seconds = _seconds_of_a_pass(Evaluator(model, goals[0], size, batch_size=copies), images)
    usable = [c for c in CANDIDATES if maps or not c.late_maps]
    fitting = [c for c in usable if c.passes * pass_seconds <= settings.seconds]
    if not fitting:
        least = min(usable, key=lambda c: c.passes)
        raise FeatvizError(
            f"no method of auto takes {settings.seconds:g} seconds or less: {least.method} takes "
            f"about {least.passes * pass_seconds:.1g}; allow more, or name a method"
        )
    reason = f"the best that takes about {settings.seconds:g} seconds or less"
    return Choice(tuple(c.method for c in fitting), reason)


def first_that_works(choice: Choice, explain: Callable[[MethodName], Attribution]) -> Attribution:
    """Return the explanation by the first method that does not refuse; record the choice.

    ``result.settings["choice"]`` says why it was chosen, and which methods refused and why.
    """
    refusals: list[str] = []
    for method in choice.methods:
        try:
            result = explain(method)
        except FeatvizError as error:
            if method == choice.methods[-1]:
                raise
            refusals.append(f"{method} refuses: {error}")
        else:
            result.settings["choice"] = "; ".join([choice.reason, *refusals])
            return result
    raise AssertionError("a choice has at least one method")


def _seconds_of_a_pass(evaluator: Evaluator, images: Tensor) -> float:
    """Return the time of a forward pass of one image, where several go together."""
    device = evaluator.model.device
    copies = images[:1].to(device).expand(evaluator.batch_size, *images.shape[1:])
    times = []
    with evaluator.model.session():
        for _ in range(3):  # the first allocates
            begun = time.perf_counter()
            evaluator.scores(copies).cpu()
            times.append(time.perf_counter() - begun)
    return min(times) / len(copies)


def _has_late_maps(model: Model, goal: Objective, size: tuple[int, ...]) -> bool:
    table = model.layers(size)
    needs = [table.find(name) for name in goal.needs(Target(model, size, 1))]
    last = max(map(table.index, needs), default=0)
    return any(
        info.axis == 1 and len(info.positions) == len(size) and math.prod(info.positions) > 1
        for info in table[last // 2 + 1 : last + 1]
    )
