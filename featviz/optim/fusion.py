"""Fused convolutions with constant weights, as used by traced passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from featviz.optim.clipping import INFINITE, RedirectedClip, Switch, clip_gradient
from featviz.optim.torch_internals import fused_convolution
from featviz.types import Tensor

aten = torch.ops.aten


class Weights(NamedTuple):
    """The weights of a convolution at one draw of the network noise.

    ``adjoint`` are those of the convolution that computes the gradient; ``factors`` (C, 1, …)
    multiply the output, if that is cheaper than to multiply the weights.
    """

    weight: Tensor
    bias: Tensor | None
    adjoint: Tensor | None
    factors: Tensor | None = None


class FusedConvolution(nn.Module):
    """A convolution with constant weights, followed by a ReLU or ReLU6 if ``bounds`` is given.

    ``factors`` are network noise: tensors that multiply its output channels before the ReLU, and
    that ``switch.noise`` overwrites.
    """

    weight: Tensor
    bias: Tensor | None
    back: Tensor | None
    #: Whether only other fused layers use its output, so that it may overwrite their gradient.
    owns = False

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        settings: tuple[list[int], list[int], list[int], int],
        bounds: tuple[float, float] | None,
        switch: Switch,
        factors: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        self.factors = tuple(factors)
        self._weights: tuple[int, Weights] | None = None
        self.one_kernel = _one_kernel(weight)
        if self.one_kernel:
            weight = weight.contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.settings, self.bounds, self.switch = settings, bounds, switch
        self.convolve = (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3]
        self.register_buffer("back", _adjoint(weight, settings) if self.one_kernel else None)

    def weights(self, images: Tensor) -> Weights:
        """Return the weights at the current draw of the network noise."""
        noise = self.switch.noise
        if not self.factors or noise is None:
            return Weights(self.weight, self.bias, self.back)
        if torch.compiler.is_compiling():  # computed in the graph, from the current factors
            return self._noisy(images)
        if self._weights is None or self._weights[0] != noise.version:
            self._weights = noise.version, self._noisy(images)
        return self._weights[1]

    @torch.no_grad()
    def _noisy(self, images: Tensor) -> Weights:
        factors = self.factors[0]
        for factor in self.factors[1:]:
            factors = factors * factor
        axes = self.weight.ndim - 2
        factors = factors.expand(len(self.weight), *(1,) * axes)
        # Decided by one sample, so that its bits do not depend on the batch.
        if self.weight.numel() > 2 * len(self.weight) * images[0, 0].numel():
            return Weights(self.weight, self.bias, self.back, factors)
        bias = None if self.bias is None else self.bias * factors.flatten()
        adjoint = self.back
        if adjoint is not None:
            by_output = factors[:, None] if self.settings[3] > 1 else factors
            adjoint = adjoint * by_output
        return Weights(self.weight * factors[:, None], bias, adjoint)

    def forward(self, images: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(images.device.type):
            return _Fused.apply(images, self)
        weights = self.weights(images)
        output: Tensor = self.convolve(images, weights.weight, weights.bias, *self.settings)
        if weights.factors is not None:
            output = output * weights.factors.to(output.dtype)
        if self.bounds is None:
            return output
        if self.switch.redirect is not None:
            return RedirectedClip.apply(output, self.bounds, self.switch.redirect)
        return output.clamp(*self.bounds)


def _adjoint(
    weight: Tensor, settings: tuple[list[int], list[int], list[int], int]
) -> Tensor | None:
    """Return the weights of the convolution that computes the gradient, or None if none does.

    oneDNN's own backward pass is as fast, but torch does not use it for a single small image, and
    the last bits of an image would depend on whether it was optimized alone.
    """
    stride, padding, dilation, groups = settings
    plain = set(stride) == {1} and groups in (1, len(weight))
    extent = [d * (k - 1) for k, d in zip(weight.shape[2:], dilation, strict=True)]
    if not plain or any(p > r for p, r in zip(padding, extent, strict=True)):
        return None
    flipped = weight.flip(2, 3)
    flipped = flipped.transpose(0, 1) if groups == 1 else flipped
    return flipped.contiguous(memory_format=torch.channels_last)


def rowwise_linear(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply ``linear`` row by row to features (B, C), so that rounding does not depend on B."""
    if features.ndim != 2 or len(features) == 1:
        return F.linear(features, weight, bias)
    return torch.cat([F.linear(row, weight, bias) for row in features.split(1)])


class _Fused(torch.autograd.Function):
    """Convolution and clipping in one; the gradient needs only the output."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, layer: FusedConvolution) -> Tensor:
        bounds, weights = layer.bounds, layer.weights(images)
        fused = layer.one_kernel and weights.factors is None
        if layer.one_kernel:
            clip = bounds if fused else None
            output = _convolve(images, weights.weight, weights.bias, layer.settings, clip)
        else:
            output = layer.convolve(images, weights.weight, weights.bias, *layer.settings)
        if weights.factors is not None:
            output.mul_(weights.factors)
        if bounds is not None and not fused:
            output.clamp_(*bounds)
        if bounds is not None:
            ctx.save_for_backward(output)
        ctx.weights = weights
        ctx.shape, ctx.layer, ctx.redirect = images.shape, layer, layer.switch.redirect
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        layer: FusedConvolution = ctx.layer
        if layer.bounds is not None:
            (output,) = ctx.saved_tensors
            gradient = clip_gradient(gradient, output, layer.bounds, ctx.redirect, layer.owns)
        stride, padding, dilation, groups = layer.settings
        weight, _, adjoint, factors = ctx.weights
        if factors is not None:
            gradient = gradient * factors
        if adjoint is not None:
            extent = [d * (k - 1) for k, d in zip(weight.shape[2:], dilation, strict=True)]
            gradient_padding = [r - p for r, p in zip(extent, padding, strict=True)]
            settings = stride, gradient_padding, dilation, groups
            return _convolve(gradient, adjoint, None, settings, None), None
        # Only the shape of the images is read, since the weights need no gradient.
        memory_format = torch.channels_last if layer.one_kernel else torch.contiguous_format
        images = torch.empty(
            ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=memory_format
        )
        (image_gradient, _, _) = aten.convolution_backward(
            gradient,
            images,
            weight,
            None,
            stride,
            padding,
            dilation,
            False,
            [0] * len(stride),
            groups,
            [True, False, False],
        )
        return image_gradient, None


def _one_kernel(weight: Tensor) -> bool:
    """Return whether oneDNN computes convolution and ReLU in one kernel."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.ndim == 4
        and fused_convolution() is not None
    )


def _convolve(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    settings: tuple[list[int], list[int], list[int], int],
    bounds: tuple[float, float] | None,
) -> Tensor:
    stride, padding, dilation, groups = settings
    if bounds is None:
        activation: tuple[str, list[float], str] = ("none", [], "")
    elif bounds[1] == INFINITE:
        activation = ("relu", [], "")
    else:
        activation = ("hardtanh", list(bounds), "")
    kernel = fused_convolution()
    assert kernel is not None
    output: Tensor = kernel(images, weight, bias, padding, stride, dilation, groups, *activation)
    return output
