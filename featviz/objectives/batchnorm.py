"""Match the network's own statistics: a prior on activations that needs no data."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from featviz.errors import UnitError
from featviz.objectives.base import Objective
from featviz.objectives.reduction import EPSILON
from featviz.objectives.scene import Scene, Score, Target
from featviz.objectives.unit import Unit, real, word
from featviz.types import LayerInfo, Tensor


class _Moments(torch.autograd.Function):
    """The mean and the variance over the second axis of (B, N, C).

    In one pass backwards, where the derivatives of the separate operations take five.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        mean = rows.mean(1)
        deviations = rows - mean[:, None]
        ctx.save_for_backward(rows, mean)
        return mean, deviations.square_().mean(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_mean: Tensor, by_variance: Tensor) -> Tensor:
        rows, mean = ctx.saved_tensors
        slope = by_variance * (2 / rows.shape[1])
        offset = by_mean / rows.shape[1] - slope * mean
        return torch.addcmul(offset[:, None], rows, slope[:, None])


@dataclasses.dataclass(frozen=True, repr=False)
class BatchnormMatch(Unit):
    """See :func:`batchnorm_match`."""

    kind = "batchnorm_match"
    scalable = True
    layer: str = word("")
    over: str = word("sample")
    share: float = real(1.0)

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer or "output",)

    @property
    def relational(self) -> bool:
        return self.over == "batch"

    def _batch_norms(self, target: Target) -> dict[str, nn.modules.batchnorm._BatchNorm]:
        """Return the batch-norm layers with running statistics that are read, by layer name."""
        modules = dict(target.model.net.named_modules())
        last = target.layer(self.layer).name if self.layer else ""
        norms, infos = {}, []
        for info in target.model.layers(target.size):
            module = modules.get(re.split(r"[#\[]", info.name)[0])
            eligible = isinstance(module, nn.modules.batchnorm._BatchNorm)
            # A single sample has statistics over positions only.
            eligible = eligible and (self.over == "batch" or bool(info.positions))
            if eligible and module.running_var is not None and info.calls == 1:  # type: ignore[union-attr]
                norms[info.name] = module
                infos.append(info)
            if info.name == last:
                break
        # A module that runs once has one name; one that runs repeatedly has one per call.
        infos = [i for i in infos if "#" in i.name or f"{i.name}#0" not in norms]
        if not infos:
            scope = f" up to {self.layer!r}" if self.layer else ""
            raise UnitError(f"no batch-norm layer with running statistics{scope}")
        return {i.name: norms[i.name] for i in smallest(infos, self.share)}  # type: ignore[misc]

    def needs(self, target: Target) -> tuple[str, ...]:
        return tuple(self._batch_norms(target))

    def bind(self, target: Target) -> Score:
        if self.over not in ("sample", "batch"):
            raise UnitError(f"batchnorm_match: over must be sample or batch, not {self.over!r}")
        if not 0 < self.share <= 1:
            raise UnitError(f"batchnorm_match: share must be above 0 and at most 1: {self.share:g}")
        norms = self._batch_norms(target)
        axes = {name: target.layer(name).axis for name in norms}
        scale, shift, weights = map(
            torch.cat, zip(*(_statistics(m, target.device) for m in norms.values()), strict=True)
        )

        def score(scene: Scene) -> Tensor:
            moments = []
            for name, axis in axes.items():
                values = scene[name].movedim(axis, -1)
                batch = 1 if self.over == "batch" else len(values)
                moments.append(_Moments.apply(values.reshape(batch, -1, values.shape[-1])))
            mean, variance = (torch.cat(parts, 1) for parts in zip(*moments, strict=True))
            deviation = (variance + EPSILON).sqrt()
            error = ((mean - shift) / scale).square() + (deviation / scale.abs() - 1).square()
            return -(error * weights).sum(1).div(len(axes)).expand(len(scene.images))

        return score


def _statistics(
    module: nn.modules.batchnorm._BatchNorm, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scale and the shift of the channels, (C,) each, and their weights in the mean."""
    ones = torch.ones(module.num_features, device=device)
    scale = ones if module.weight is None else module.weight.detach().float()
    shift = ones * 0 if module.bias is None else module.bias.detach().float()
    # The output of a dead channel says nothing about its input.
    alive = scale.abs() > 1e-4 * scale.abs().max()
    return torch.where(alive, scale, 1), shift, alive.float() / alive.sum()


def smallest(layers: list[LayerInfo], share: float) -> list[LayerInfo]:
    """Return at least one layer: those with the fewest values, up to a share of all values."""
    sizes = [math.prod(info.shape) for info in layers]
    order = sorted(range(len(layers)), key=lambda k: (sizes[k], k))
    kept, total = {order[0]}, 0
    for k in order:
        total += sizes[k]
        if total > share * sum(sizes):
            break
        kept.add(k)
    return [layers[k] for k in sorted(kept)]


def batchnorm_match(*, layer: str = "", over: str = "sample", share: float = 1) -> Objective:
    """Return how well the activations match the network's running batch-norm statistics; 0 is best.

    For every batch-norm layer (up to ``layer``, where the forward pass then ends): the squared
    distance of the channel means from the running means, in running standard deviations, plus that
    of the standard deviations from the running ones, relative to these; averaged over channels and
    layers, and negated. Needs no data. Channels whose scale is nearly zero are excluded, and the
    square root has a floor: at a constant channel its gradient would be infinite.

    ``share`` (above 0, at most 1) reads only the layers with the fewest values, up to that share of
    the values of all layers: 0.1 skips the large early layers, which cost most of the time.

    ``over="batch"`` uses the statistics of the whole batch, as published, which couples its images;
    the default uses each image's own statistics over its positions. [Yin2020]_
    """
    return BatchnormMatch(str(layer), over, float(share))
