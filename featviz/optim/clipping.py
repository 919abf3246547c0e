"""ReLU and ReLU6 in traced passes, with gradients that can be redirected."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from featviz.networks.gradients import redirected_relu
from featviz.networks.noise import NetworkNoise
from featviz.types import Tensor

aten = torch.ops.aten
INFINITE = float("inf")


@dataclasses.dataclass
class Switch:
    """What varies between calls of a traced pass.

    ``redirect`` redirects the gradients of its ReLUs; ``noise`` holds the factors of its channels.
    """

    redirect: redirected_relu | None = None
    noise: NetworkNoise | None = None


class Clipped(nn.Module):
    """A ReLU (0 to infinity) or ReLU6 (0 to 6)."""

    def __init__(self, bounds: tuple[float, float], in_place: bool, switch: Switch) -> None:
        super().__init__()
        self.bounds, self.in_place, self.switch = bounds, in_place, switch

    def forward(self, values: Tensor) -> Tensor:
        if self.switch.redirect is not None:
            output: Tensor = RedirectedClip.apply(values, self.bounds, self.switch.redirect)
            return values.copy_(output) if self.in_place else output
        if self.bounds[1] == INFINITE:
            return F.relu(values, self.in_place)
        return F.hardtanh(values, *self.bounds, self.in_place)


class RedirectedClip(torch.autograd.Function):
    """Clip, with a redirected gradient."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, bounds: tuple[float, float], redirect: redirected_relu
    ) -> Tensor:
        output = values.clamp(*bounds)
        ctx.save_for_backward(output)
        ctx.bounds, ctx.redirect = bounds, redirect
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (output,) = ctx.saved_tensors
        return clip_gradient(gradient, output, ctx.bounds, ctx.redirect), None, None


def clip_gradient(
    gradient: Tensor,
    output: Tensor,
    bounds: tuple[float, float],
    redirect: redirected_relu | None,
    owned: bool = False,
) -> Tensor:
    """Return the gradient of clipping to ``output``, in place of ``gradient`` if that is owned."""
    low, high = bounds
    if redirect is not None and output.device.type != "cpu":  # checking would synchronize
        return redirect.rule(gradient, output <= low, output >= high)
    if redirect is None:
        if owned:
            return aten.hardtanh_backward.grad_input(
                gradient, output, low, high, grad_input=gradient
            )
        return aten.hardtanh_backward(gradient, output, low, high)
    input_gradient = aten.hardtanh_backward(gradient, output, low, high)
    rows = len(output)
    per_sample = rows // redirect.batch if redirect.batch and rows % redirect.batch == 0 else 1
    # Dead samples are rare: check for one before computing any masks.
    if all(bool(part.any()) for part in input_gradient.split(per_sample)):
        return input_gradient
    return redirect.rule(gradient, output <= low, output >= high)
