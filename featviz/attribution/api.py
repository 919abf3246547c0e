"""Attribution: which pixels of a picture carry an objective."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from featviz._version import __version__
from featviz.attribution import Method, find
from featviz.attribution.baselines import baseline as make_baseline
from featviz.attribution.case import Case
from featviz.attribution.forward import Forward
from featviz.attribution.masks import Masks
from featviz.attribution.result import Attribution, normalized
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.io.inputs import ImageLike, read_fitted
from featviz.networks import devices
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.objectives import objective as as_objective
from featviz.objectives.group import PerSample
from featviz.optim.callbacks import Callback, Progress, Step
from featviz.seeds import expand
from featviz.types import Precision, Seed, Size, Tensor
from featviz.validation import positive_int

#: The percentile of the absolute values that is the strongest colour.
PERCENTILE = 99.0


def attribute(
    model: Model,
    image: ImageLike | Sequence[ImageLike],
    objective: Objective | str | Sequence[Objective | str],
    *,
    method: str = "integrated_gradients",
    baseline: str | float | Tensor | None = None,
    steps: int | None = None,
    cells: int | None = None,
    layer: str | None = None,
    sd: float | None = None,
    segments: Tensor | None = None,
    area: float | None = None,
    kind: Literal["preserve", "delete"] | None = None,
    size: Size | None = None,
    batch_size: int | None = None,
    seed: Seed = 0,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    callbacks: Sequence[Callback | Callable[[Step], Any]] = (),
    progress: bool = False,
) -> Attribution:
    """Return which pixels of ``image`` carry ``objective``.

    Parameters
    ----------
    model
        From :func:`featviz.load` or :class:`featviz.Model`.
    image
        A file, a Pillow picture, floats (C, *size) or (B, C, *size) in [0, 1], or a list of these.
        Files and Pillow pictures are cropped about the centre to the aspect of ``size`` and
        resized to it; tensors are taken as they are, in any size that the network takes.
    objective
        What is explained, or its text: one for all images, or one for each. With one image and
        several objectives the image is explained by each.
    method
        A name of :data:`featviz.attribution.METHODS`; docs/attribution.md says what each is.
    baseline
        What stands for nothing: ``blur``, ``black``, ``mean``, a number, or images; by default the
        method's own.
    steps
        Points of integrated gradients, noisy copies, coalitions, or updates of a mask.
    cells
        Cells along the longer side, for methods that take regions away and for masks.
    layer
        The layer of Grad-CAM.
    sd
        Deviation of SmoothGrad's noise, as a share of the range of the image's values.
    segments
        Regions of your own (*size): whole numbers, one for each region.
    area
        The share of the picture that an extremal perturbation keeps or deletes.
    kind
        Whether a mask is to ``preserve`` the objective with little of the picture, or to ``delete``
        it by taking away little.
    size
        To which the images are resized; the model's own for files.
    batch_size
        Copies of an image that go through the network together: 4 on a CPU, 32 elsewhere. For
        masks, images: 32, and on a CPU one, or 4 where that changes no bit. Images do not depend on
        one another.
    seed
        An int: image i uses ``seed + i``; or one int for each.
    device, precision, callbacks, progress
        As in :func:`featviz.render`; callbacks see the steps of masks.

    A mask that cannot be found, as of an image that is not above its baseline, is zero, and
    ``failures`` and a warning say why. Ctrl-C ends the run and returns what there is, with
    ``interrupted`` set.

    Raises
    ------
    FeatvizError
        For input that cannot work, or where no mask can be found; if captum is not installed, for
        methods that are captum's.
    """
    if not isinstance(model, Model):
        raise FeatvizError("attribute takes a featviz.Model: wrap the network, fv.Model(net, …)")
    given: dict[str, Any] = {"steps": steps, "cells": cells, "layer": layer, "sd": sd}
    given |= {"segments": segments, "area": area, "kind": kind}
    chosen, options = find(method, given)
    if chosen.gradients and torch.is_inference_mode_enabled():
        raise FeatvizError("gradients are off in torch.inference_mode(): leave it first")
    if baseline is not None and chosen.baseline is None:
        raise FeatvizError(f"method {method} takes no baseline")
    wanted = (size,) * len(model.size) if isinstance(size, int) else size
    images = read_fitted(image, model.channels, model.size, wanted, "image")
    goals = _goals(objective, len(images))
    if len(images) == 1:
        images = images.expand(len(goals), *images.shape[1:])
    seeds = expand(seed, len(images))
    home = model.on(devices.resolve(device, model.device))
    devices.half(precision)
    copies = together(home, batch_size)
    ground = chosen.baseline if baseline is None else baseline
    grounds = None if ground is None else make_baseline(ground, images)
    whole = tuple(images.shape[2:])
    forwards = [Forward(home, goal, whole, precision) for goal in goals]
    settings = {
        "version": __version__,
        "verb": "attribute",
        "model": model.name,
        "method": method,
        "size": list(whole),
        "baseline": "given" if isinstance(ground, torch.Tensor) else ground,
        **{key: value for key, value in options.items() if key != "segments"},
        "segments": options.get("segments") is not None,
        "over": chosen.over,
        "signed": chosen.signed,
        "percentile": PERCENTILE,
        "precision": precision,
    }
    watchers = [*callbacks, Progress()] if progress else list(callbacks)
    failures: dict[int, str] = {}
    try:
        with home.session():
            scores = _values(forwards, images, home.device)
            lowest = None if grounds is None else _values(forwards, grounds, home.device)
            if chosen.mask is None:
                cases = [
                    Case(
                        forwards[i],
                        images[i : i + 1].to(home.device),
                        None if grounds is None else grounds[i : i + 1].to(home.device),
                        seeds[i],
                        copies,
                        options,
                    )
                    for i in range(len(images))
                ]
                found, interrupted = _each(chosen, cases, progress)
            else:
                assert grounds is not None
                assert lowest is not None
                # On a CPU the loop finds out how many at a time change no bit.
                micro = None if batch_size is None and home.device.type == "cpu" else copies
                masks = Masks(
                    home, images, grounds, goals, scores, lowest, seeds, options,
                    precision, micro, watchers,
                )  # fmt: skip
                with torch.enable_grad():
                    for forward, one in zip(forwards, images.split(1), strict=True):
                        # Without a gradient the loop would follow the mask's costs alone.
                        forward(one.detach().to(home.device, copy=True).requires_grad_())
                    found, failures, interrupted = chosen.mask(masks)
    except torch.OutOfMemoryError as error:
        raise FeatvizError(
            f"out of memory with {copies} images of {'x'.join(map(str, whole))} at a time: take "
            "a smaller batch_size, a smaller size, or precision bf16"
        ) from error
    if failures:
        warnings.warn("; ".join(failures.values()), FeatvizWarning, stacklevel=2)
    done = len(found)
    result = Attribution(
        images=images[:done].clone(),
        attributions=found,
        heat=found[:, 0],
        scores=scores[:done],
        objectives=[str(goal) for goal in goals[:done]],
        seeds=seeds[:done],
        baseline_scores=None if lowest is None else lowest[:done],
        settings=settings,
        failures=failures,
        interrupted=interrupted,
        goals=goals[:done],
    )
    result.heat = normalized(result.pixels, PERCENTILE, signed=chosen.signed)
    if chosen.complete and result.baseline_scores is not None:
        total = found.double().flatten(1).sum(1)
        result.delta = (total - (result.scores - result.baseline_scores).double()).float()
    return result


def together(model: Model, batch_size: int | None) -> int:
    """Return how many copies of a picture go through the network at a time."""
    return positive_int("batch_size", devices.together(model.device, batch_size))


def _goals(objective: Objective | str | Sequence[Objective | str], images: int) -> list[Objective]:
    """Return one objective for each image."""
    goal = as_objective(objective)
    several = list(goal.parts) if isinstance(goal, PerSample) else [goal] * images
    if images not in (1, len(several)):
        raise FeatvizError(f"{len(several)} objectives for {images} images")
    return several


def _values(forwards: list[Forward], images: Tensor, device: torch.device) -> Tensor:
    """Return each image's score (B,), one at a time, so that it does not depend on the others."""
    pairs = zip(forwards, images.split(1), strict=True)
    return torch.cat([forward.values(image.to(device), 1) for forward, image in pairs]).cpu()


def _each(method: Method, cases: list[Case], progress: bool) -> tuple[Tensor, bool]:
    """Explain one picture after the other; return what is done, also where Ctrl-C ends it."""
    from tqdm.auto import tqdm

    assert method.each is not None
    found: list[Tensor] = []
    try:
        for case in tqdm(cases, unit="image", leave=False, disable=None if progress else True):
            found.append(method.each(case).detach().float().cpu())
    except KeyboardInterrupt:
        if not found:
            raise
        return torch.cat(found), True
    return torch.cat(found), False
