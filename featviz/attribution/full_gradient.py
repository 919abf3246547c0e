"""FullGrad: the gradients by the input and by the biases of every layer."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from featviz.attribution.case import Case
from featviz.errors import FeatvizWarning
from featviz.networks.model import Model
from featviz.resample import resize
from featviz.types import Tensor

_WEIGHTED = ("conv1d", "conv2d", "conv3d", "linear")
#: Activation functions of one argument, element by element.
_ACTIVATIONS = {
    *("relu", "relu6", "hardtanh", "sigmoid", "silu", "gelu", "tanh", "elu", "leaky_relu"),
    *("hardswish", "hardsigmoid", "softplus", "mish", "selu", "celu", "clamp", "relu_"),
}
#: How much of the objective may be missing before a warning says so.
_TOLERANCE = 0.02


def full_grad(case: Case) -> Tensor:
    """Return the sum over layers of |bias · ∂o/∂output|, and of |x · ∂o/∂x|. [Srinivas2019]_.

    Biases are those of convolutions, linear layers and batch-norm, and what an activation function
    f adds to its linear part, f(z) - z f'(z): the 6 of a saturated ReLU6. x is the normalized
    image. Each layer's map is rescaled to [0, 1], as in the paper, resized, and summed over its
    channels. For networks of such layers the terms themselves add up to o, biases without positions
    included (``settings["full_gradient"]`` is their sum); if they do not, a warning says by how
    much.
    """
    recorder = _Biases()
    image = case.leaf()
    with torch.enable_grad(), recorder:
        value = case.evaluator(image).sum()
    score = float(value.detach())
    outputs = [bias.output for bias in recorder.found]
    with torch.enable_grad():
        slopes = torch.autograd.grad(value, [image, *outputs], allow_unused=True)
    # Gradients with respect to a layer are scaled, like all inside the network.
    scale = case.evaluator.gradient_scale
    own = slopes[0] * (case.image - _zero_point(case.evaluator.model, case.image))
    heat, total = _rescaled(own).sum(1, keepdim=True), float(own.double().sum())
    for bias, slope in zip(recorder.found, slopes[1:], strict=True):
        if slope is None:
            continue
        term = (bias.value * slope.detach()).float() / scale
        total += float(term.double().sum())
        if term.ndim == case.image.ndim and term[0, 0].numel() > 1:
            layer = _rescaled(term).sum(1, keepdim=True)
            heat = heat + resize(layer, tuple(case.image.shape[2:]))
    case.notes["full_gradient"] = total
    if abs(score - total) > _TOLERANCE * abs(score):
        warnings.warn(
            f"full_grad: the gradients by input and biases add up to {total:.4g} and not to "
            f"{score:.4g}: the network or the objective has other nonlinear operations, "
            "whose share is missing",
            FeatvizWarning,
            stacklevel=2,
        )
    return heat.detach()


def _rescaled(values: Tensor) -> Tensor:
    """Return |values| of a layer (1, C, *positions), from 0 at the least to 1 at the largest."""
    magnitude = values.abs()
    magnitude = magnitude - magnitude.amin()
    largest = magnitude.amax()
    return magnitude / largest if largest > 0 else magnitude


def _zero_point(model: Model, image: Tensor) -> Tensor:
    """Return the pixel that the network sees as zero, (1, C, 1, …)."""
    low, high = model.range
    mean = torch.tensor(model.mean, dtype=image.dtype, device=image.device)
    return ((mean - low) / (high - low)).view(1, -1, *(1 for _ in image.shape[2:]))


@dataclasses.dataclass(frozen=True)
class _Bias:
    """A bias that broadcasts to an output, or has its shape."""

    value: Tensor
    output: Tensor


class _Biases(TorchFunctionMode):
    """Records the biases that a network adds, and where."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[_Bias] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(getattr(function, "__name__", "")).partition(".")[0]
        before = None
        if name in _ACTIVATIONS and isinstance(args[0], torch.Tensor) and args[0].requires_grad:
            before = args[0].detach().clone()  # the function may work in place
        output = function(*args, **kwargs)
        if not (isinstance(output, torch.Tensor) and output.requires_grad):
            return output
        if name in _WEIGHTED:
            value = args[2] if len(args) > 2 else kwargs.get("bias")
            axis = -1 if name == "linear" else 1
        elif name == "batch_norm":
            value, axis = _shift(*args, **kwargs), 1
        elif before is not None:
            value, axis = _implicit(function, before, args[1:], kwargs), 0
        else:
            return output
        if value is None:
            return output
        if value.ndim == 1 and axis:
            value = value.view(-1, *(1 for _ in output.shape[2:])) if axis == 1 else value
        self.found.append(_Bias(value.detach(), output))
        return output.clone()  # so that the recorded one is not changed in place


def _shift(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Return what batch-norm adds to its scaled input, (C,)."""
    if running_mean is None or running_var is None:
        return bias
    scale = torch.rsqrt(running_var + eps) * (1 if weight is None else weight)
    return (0 if bias is None else bias) - running_mean * scale


def _implicit(function: Callable[..., Tensor], before: Tensor, args: Any, kwargs: Any) -> Tensor:
    """Return f(z) - z f'(z)."""
    with torch.enable_grad():
        leaf = before.requires_grad_()
        after = function(leaf.clone(), *args, **kwargs)
        (slope,) = torch.autograd.grad(after.sum(), leaf)
    return after.detach() - before.detach() * slope
