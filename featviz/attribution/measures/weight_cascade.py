"""Whether maps depend on what the network has learned: layers lose it. [Adebayo2018]_."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from featviz.attribution.api import attribute
from featviz.attribution.measures.heat_statistics import rank_correlation, ssim
from featviz.attribution.result import PERCENTILE, Attribution, normalized
from featviz.errors import FeatvizError, FeatvizWarning
from featviz.networks.layers import module_names
from featviz.networks.model import Model
from featviz.objectives import Objective
from featviz.seeds import generator
from featviz.types import Seed, Tensor
from featviz.validation import positive_int


@dataclasses.dataclass(frozen=True)
class Cascade:
    """Similarity of the maps of a randomized network with those of the trained one.

    Attributes
    ----------
    layers
        The last layer randomized at each depth, from the output on; the first entry, "", is the
        trained network.
    fractions
        (D,): the fraction of the layers with weights that are randomized.
    rank_correlation, absolute_rank_correlation, ssim
        (D, B): Spearman's rank correlation of the maps and of their absolute values, and the
        structural similarity of the normalized maps. A map that has become constant is NaN in the
        correlations.
    """

    layers: list[str]
    fractions: Tensor
    rank_correlation: Tensor
    absolute_rank_correlation: Tensor
    ssim: Tensor


def cascade(
    model: Model,
    images: Tensor,
    objective: Objective | str | Sequence[Objective | str],
    *,
    depths: int = 5,
    kind: Literal["cascading", "independent"] = "cascading",
    seed: Seed = 0,
    **options: Any,
) -> Cascade:
    """Return how similar maps of ``images`` (B, C, *size) stay while layers lose their weights.

    ``cascading`` randomizes the layers from the output down, at ``depths`` depths that are evenly
    spaced to the first layer; ``independent`` randomizes only the layer at each depth. ``options``
    are those of :func:`featviz.attribute`. The model is not changed: a copy is.

    Raises
    ------
    FeatvizError
        If the network has no layers with weights, or as :func:`featviz.attribute`.
    """
    layers = weighted_layers(model)
    depths = min(positive_int("depths", depths), len(layers))
    if kind not in ("cascading", "independent"):
        raise FeatvizError(f"kind must be cascading or independent, not {kind!r}")
    counts = [round(d * len(layers) / depths) for d in range(1, depths + 1)]
    trained = attribute(model, images, objective, seed=seed, **options)
    found = [trained]
    for count in counts:
        chosen = layers[:count] if kind == "cascading" else layers[count - 1 : count]
        changed = randomized(model, chosen, images, seed=0)
        with warnings.catch_warnings():  # a map of zeros is an answer here
            warnings.filterwarnings("ignore", ".*has no evidence", FeatvizWarning)
            found.append(attribute(changed, images, objective, seed=seed, **options))
    return Cascade(
        ["", *(layers[count - 1] for count in counts)],
        torch.tensor([0, *counts], dtype=torch.float64) / len(layers),
        torch.stack([rank_correlation(trained.pixels, f.pixels) for f in found]),
        torch.stack([rank_correlation(trained.pixels.abs(), f.pixels.abs()) for f in found]),
        torch.stack([ssim(_drawn(trained), _drawn(f)) for f in found]),
    )


def _drawn(result: Attribution) -> Tensor:
    return normalized(result.pixels, PERCENTILE, signed=bool(result.settings["signed"]))


def weighted_layers(model: Model) -> list[str]:
    """Return the modules that have weights of their own, from the output to the first that runs.

    Raises
    ------
    FeatvizError
        If there are none.
    """
    modules = module_names(model.net)
    ordered = [info.name for info in model.layers() if info.name in modules]
    names = [n for n in ordered if _own(modules[n])]
    if not names:
        raise FeatvizError("no layer with weights runs in the network: nothing can be randomized")
    return list(dict.fromkeys(reversed(names)))


def randomized(
    model: Model, layers: Sequence[str], images: Tensor | None = None, *, seed: int = 0
) -> Model:
    """Return a copy of ``model`` in which ``layers`` have lost what they learned.

    The values of each of their parameters are shuffled, which keeps their distribution, so that the
    network stays as alive as it was. With ``images``, batch-norm layers get the mean and variance
    that these have at the layer then; those of the trained network would not fit its inputs.

    Raises
    ------
    FeatvizError
        If a layer does not exist.
    """
    copied = model.copy()
    modules = module_names(copied.net)
    unknown = [name for name in layers if name not in modules]
    if unknown:
        raise FeatvizError(f"no layer {unknown[0]!r} in the network: see featviz layers")
    with torch.no_grad():
        for name in layers:
            rng = generator(seed, f"randomized:{name}")
            for parameter in _own(modules[name]):
                order = torch.randperm(parameter.numel(), generator=rng).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    norms = [m for m in copied.net.modules() if isinstance(m, _BatchNorm)]
    norms = [m for m in norms if m.track_running_stats]
    if images is not None and norms:
        _calibrate(copied, norms, images)
    return copied


def _own(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module._parameters.values() if p is not None]


def _calibrate(model: Model, norms: list[_BatchNorm], images: Tensor) -> None:
    """Set the running statistics of batch-norm layers to those of ``images``."""
    momenta = [(m, m.momentum) for m in norms]
    with model.session(), torch.no_grad():
        for norm, _ in momenta:
            norm.training, norm.momentum = True, 1.0
        try:
            model.net(model.normalize(images.to(model.device)))
        finally:
            for norm, momentum in momenta:
                norm.training, norm.momentum = False, momentum
