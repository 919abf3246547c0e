"""Convolutions with constant weights and the ReLUs after them, as a traced pass runs them."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from featviz.networks.gradients import redirected_relu
from featviz.optim.torch_internals import fused_convolution
from featviz.types import Tensor

aten = torch.ops.aten
_INFINITE = float("inf")


@dataclasses.dataclass
class Switch:
    """Whether the ReLUs of a pass let a dead unit be reached, and which redirection does it."""

    redirect: redirected_relu | None = None


class Clipped(nn.Module):
    """A ReLU (0 to infinity) or ReLU6 (0 to 6)."""

    def __init__(self, bounds: tuple[float, float], in_place: bool, switch: Switch) -> None:
        super().__init__()
        self.bounds, self.in_place, self.switch = bounds, in_place, switch

    def forward(self, values: Tensor) -> Tensor:
        if self.switch.redirect is not None:
            made: Tensor = _Redirected.apply(values, self.bounds, self.switch.redirect)
            return values.copy_(made) if self.in_place else made
        if self.bounds[1] == _INFINITE:
            return F.relu(values, self.in_place)
        return F.hardtanh(values, *self.bounds, self.in_place)


class FusedConvolution(nn.Module):
    """A convolution with constant weights, then a ReLU or ReLU6 where there are ``bounds``."""

    weight: Tensor
    bias: Tensor | None
    back: Tensor | None
    #: Whether its result goes into one other such layer, whose gradient it then may overwrite.
    owns = False

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        settings: tuple[list[int], list[int], list[int], int],
        bounds: tuple[float, float] | None,
        switch: Switch,
    ) -> None:
        super().__init__()
        self.one_kernel = _one_kernel(weight)
        if self.one_kernel:
            weight = weight.contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.settings, self.bounds, self.switch = settings, bounds, switch
        self.convolve = (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3]
        self.register_buffer("back", _adjoint(weight, settings) if self.one_kernel else None)

    def forward(self, images: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(images.device.type):
            return _Fused.apply(images, self)
        made: Tensor = self.convolve(images, self.weight, self.bias, *self.settings)
        if self.bounds is None:
            return made
        if self.switch.redirect is not None:
            return _Redirected.apply(made, self.bounds, self.switch.redirect)
        return made.clamp(*self.bounds)


def _adjoint(
    weight: Tensor, settings: tuple[list[int], list[int], list[int], int]
) -> Tensor | None:
    """Return the weights of the convolution that is the gradient, where it is a plain one.

    oneDNN's own backward pass is as fast, but torch does not use it for a single small image,
    and then an image would depend, in its last bits, on whether it was made alone.
    """
    stride, padding, dilation, groups = settings
    plain = set(stride) == {1} and groups in (1, len(weight))
    reach = [d * (k - 1) for k, d in zip(weight.shape[2:], dilation, strict=True)]
    if not plain or any(p > r for p, r in zip(padding, reach, strict=True)):
        return None
    turned = weight.flip(2, 3)
    turned = turned.transpose(0, 1) if groups == 1 else turned
    return turned.contiguous(memory_format=torch.channels_last)


def rowwise_linear(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Do what ``linear`` does; with features (B, C) row by row, which rounds alike for every B."""
    if features.ndim != 2 or len(features) == 1:
        return F.linear(features, weight, bias)
    return torch.cat([F.linear(row, weight, bias) for row in features.split(1)])


class _Redirected(torch.autograd.Function):
    """Clip, with the redirected gradient."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, bounds: tuple[float, float], redirect: redirected_relu
    ) -> Tensor:
        made = values.clamp(*bounds)
        ctx.save_for_backward(made)
        ctx.bounds, ctx.redirect = bounds, redirect
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (made,) = ctx.saved_tensors
        return _passed(gradient, made, ctx.bounds, ctx.redirect), None, None


def _passed(
    gradient: Tensor,
    made: Tensor,
    bounds: tuple[float, float],
    redirect: redirected_relu | None,
    owned: bool = False,
) -> Tensor:
    """Return the gradient of what was clipped to ``made``, in the place of one that is owned."""
    low, high = bounds
    if redirect is not None and made.device.type != "cpu":  # asking would wait for the device
        return redirect.rule(gradient, made <= low, made >= high)
    if redirect is None:
        if owned:
            return aten.hardtanh_backward.grad_input(gradient, made, low, high, grad_input=gradient)
        return aten.hardtanh_backward(gradient, made, low, high)
    passed = aten.hardtanh_backward(gradient, made, low, high)
    rows = len(made)
    each = rows // redirect.batch if redirect.batch and rows % redirect.batch == 0 else 1
    # Dead samples are rare: all are asked before anything is compared for them.
    if all(bool(part.any()) for part in passed.split(each)):
        return passed
    return redirect.rule(gradient, made <= low, made >= high)


class _Fused(torch.autograd.Function):
    """Both at once; all that the gradient needs is the result, which says where it was clipped."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, layer: FusedConvolution) -> Tensor:
        bounds = layer.bounds
        if layer.one_kernel:
            made = _convolve(images, layer.weight, layer.bias, layer.settings, bounds)
        else:
            made = layer.convolve(images, layer.weight, layer.bias, *layer.settings)
            made = made if bounds is None else made.clamp_(*bounds)
        if bounds is not None:
            ctx.save_for_backward(made)
        ctx.shape, ctx.layer, ctx.redirect = images.shape, layer, layer.switch.redirect
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        layer: FusedConvolution = ctx.layer
        if layer.bounds is not None:
            (made,) = ctx.saved_tensors
            gradient = _passed(gradient, made, layer.bounds, ctx.redirect, layer.owns)
        stride, padding, dilation, groups = layer.settings
        weight = layer.weight
        if layer.back is not None:
            reach = [d * (k - 1) for k, d in zip(weight.shape[2:], dilation, strict=True)]
            around = [r - p for r, p in zip(reach, padding, strict=True)]
            settings = stride, around, dilation, groups
            return _convolve(gradient, layer.back, None, settings, None), None
        # The weights need no gradient, so that of the images only the shape is read.
        flat = torch.channels_last if layer.one_kernel else torch.contiguous_format
        images = torch.empty(
            ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=flat
        )
        (by_images, _, _) = aten.convolution_backward(
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
        return by_images, None


def _one_kernel(weight: Tensor) -> bool:
    """Tell whether oneDNN computes convolution and ReLU in one pass over memory."""
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
        after: tuple[str, list[float], str] = ("none", [], "")
    elif bounds[1] == _INFINITE:
        after = ("relu", [], "")
    else:
        after = ("hardtanh", list(bounds), "")
    kernel = fused_convolution()
    assert kernel is not None
    made: Tensor = kernel(images, weight, bias, padding, stride, dilation, groups, *after)
    return made
