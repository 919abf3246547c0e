"""Modified gradients of ReLUs and max-pooling, inside a ``with`` block.

The overrides intercept the *functions* that a network calls (``F.relu``, ``torch.relu_``,
``F.max_pool2d``, …) with ``torch.overrides.TorchFunctionMode``, so that they also apply to
functional ReLUs inside any module, and leave the network and its modules untouched.

The gradients are those of a score that is maximized, as everywhere in featviz: a positive gradient
means that a larger value raises the score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from featviz.types import Tensor

#: Keeps smooth max-pooling from dividing by zero, as in lucid.
_POOL_FLOOR = 1e-2


class _Clip(torch.autograd.Function):
    """Clamp to [low, high] with a custom gradient.

    ``rule(gradient, below, above)`` gets the gradient of the output, and the masks of inputs below
    and above the linear part.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, low: float, high: float, rule: Callable[..., Tensor]
    ) -> Tensor:
        ctx.save_for_backward(values <= low, values >= high)
        ctx.rule = rule
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        below, above = ctx.saved_tensors
        return ctx.rule(gradient, below, above), None, None, None


def _bounds(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return (low, high, in place) if ``function`` is a ReLU or ReLU6 under any of its names."""
    name = getattr(function, "__name__", "").partition(".")[0]  # exported: "relu.default"
    in_place = bool(kwargs.get("inplace", False))
    if name in ("relu", "relu_"):
        return 0.0, float("inf"), in_place or name == "relu_" or args[1:2] == (True,)
    if name in ("relu6", "relu6_"):
        return 0.0, 6.0, in_place or name == "relu6_" or args[1:2] == (True,)
    if name in ("hardtanh", "hardtanh_"):
        names = ("min_val", "max_val", "inplace")
        arguments = {**dict(zip(names, args[1:], strict=False)), **kwargs}
        if float(arguments.get("min_val", -1.0)) == 0.0:
            in_place = bool(arguments.get("inplace", False)) or name == "hardtanh_"
            return 0.0, float(arguments.get("max_val", 1.0)), in_place
    return None  # clamp has many other uses, and networks do not use it as a ReLU


class Override(TorchFunctionMode):
    """Replace the gradient of ReLUs within the context; subclasses define the rule.

    This includes ReLU6 and ``hardtanh`` from 0, whose upper bound is treated like the lower one.
    """

    def rule(self, gradient: Tensor, below: Tensor, above: Tensor) -> Tensor:
        """Return the gradient of the input, given that of the output."""
        raise NotImplementedError

    #: Number of ReLUs that the context has replaced.
    count = 0

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        bounds = _bounds(function, args, kwargs)
        if bounds is None:
            return function(*args, **kwargs)
        self.count += 1
        low, high, in_place = bounds
        values = args[0] if args else kwargs["input"]
        clipped = _Clip.apply(values, low, high, self.rule)
        return values.copy_(clipped) if in_place else clipped


class guided_relu(Override):  # noqa: N801
    """Guided backpropagation: pass positive gradients where the input was positive.

    [Springenberg2015]_
    """

    def rule(self, gradient: Tensor, below: Tensor, above: Tensor) -> Tensor:
        return gradient.clamp_min(0).masked_fill(below | above, 0)


class deconvnet_relu(Override):  # noqa: N801
    """Deconvolution: pass positive gradients, whatever the input was. [Zeiler2014]_."""

    def rule(self, gradient: Tensor, below: Tensor, above: Tensor) -> Tensor:
        return gradient.clamp_min(0)


class linear_relu(Override):  # noqa: N801
    """Pass all gradients, as if ReLUs were linear."""

    def rule(self, gradient: Tensor, below: Tensor, above: Tensor) -> Tensor:
        return gradient


class redirected_relu(Override):  # noqa: N801
    """Pass gradients through inactive ReLUs, so that dead units can be activated.

    If the true gradient of a *sample* is zero in a whole ReLU, the gradient of its inactive units
    passes wherever it would activate them. Samples with a true gradient keep it, so that no image
    depends on the rest of the batch. [Olah2017]_, lucid's ``redirected_relu_grad``.

    ``batch`` is the number of samples, if a network merges the batch with other axes.
    ``take(batch)`` returns for which samples gradients were redirected since its last call.
    """

    def __init__(self, batch: int | None = None) -> None:
        super().__init__()
        self.batch = batch
        self._redirected: Tensor | None = None

    def rule(self, gradient: Tensor, below: Tensor, above: Tensor) -> Tensor:
        true = gradient.masked_fill(below | above, 0)
        if not gradient.ndim:
            return true
        closing = (below & (gradient < 0)) | (above & (gradient > 0))
        redirected = gradient.masked_fill(closing, 0)
        rows = len(gradient)
        # Tokens or windows may be merged with the batch: (B * N, C).
        batch = self.batch if self.batch and rows % self.batch == 0 else rows
        dead = ~true.reshape(batch, -1).any(1) & redirected.reshape(batch, -1).any(1)
        if self._redirected is None or len(self._redirected) != batch:
            self._redirected = torch.zeros_like(dead)
        self._redirected |= dead
        by_row = dead.repeat_interleave(rows // batch)
        return torch.where(by_row.view(-1, *(1,) * (gradient.ndim - 1)), redirected, true)

    def take(self, batch: int) -> Tensor | None:
        """Return for each sample whether its gradient was redirected, (B,); None if unknown."""
        redirected, self._redirected = self._redirected, None
        return redirected if redirected is not None and len(redirected) == batch else None


class smooth_max_pool(TorchFunctionMode):  # noqa: N801
    """Max-pooling in one and two dimensions with a gradient that spreads over the window.

    The value is the maximum; the gradient is that of mean(x^2) / (0.01 + mean(|x|)) over the
    window, which avoids the checkerboard patterns of the true one. [Olah2017]_, lucid's
    ``make_smoothed_maxpool_grad``.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        pooled = function(*args, **kwargs)
        name = getattr(function, "__name__", "").lstrip("_")
        pool = {"max_pool1d": F.avg_pool1d, "max_pool2d": F.avg_pool2d}.get(name)
        if pool is None or not isinstance(pooled, torch.Tensor):
            return pooled
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        if _numbers(arguments.get("dilation", 1)) != {1}:
            return pooled
        stride = arguments.get("stride")
        window = (
            arguments["kernel_size"],
            stride if stride not in (None, []) else arguments["kernel_size"],
            arguments.get("padding", 0),
            arguments.get("ceil_mode", False),
        )
        values = arguments["input"]
        smooth = pool(values.square(), *window) / (_POOL_FLOOR + pool(values.abs(), *window))
        return pooled.detach() + (smooth - smooth.detach())  # exactly the maximum


def _numbers(value: Any) -> set[int]:
    return set(value) if isinstance(value, (tuple, list)) else {value}


__all__ = [
    "Override",
    "deconvnet_relu",
    "guided_relu",
    "linear_relu",
    "redirected_relu",
    "smooth_max_pool",
]
