"""Gradients other than the true ones, for whatever runs inside a ``with`` block.

The overrides catch the *functions* that a network calls (``F.relu``, ``torch.relu_``,
``F.max_pool2d``, …) through ``torch.overrides.TorchFunctionMode``, so that they reach functional
ReLUs inside any module, and neither the network nor its modules are touched.

The gradients are those of a score that is to be raised, as everywhere in featviz: a positive
gradient wants more.
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
    """Clamp to [low, high] with a gradient of our own making.

    ``rule(gradient, below, above)`` gets the gradient of the output and where the input was
    below or above the linear part.
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
    """Return (low, high, in place) if ``function`` is a ReLU or ReLU6 in some spelling."""
    name = getattr(function, "__name__", "").partition(".")[0]  # exported: "relu.default"
    in_place = bool(kwargs.get("inplace", False))
    if name in ("relu", "relu_"):
        return 0.0, float("inf"), in_place or name == "relu_" or args[1:2] == (True,)
    if name in ("relu6", "relu6_"):
        return 0.0, 6.0, in_place or name == "relu6_" or args[1:2] == (True,)
    if name in ("hardtanh", "hardtanh_"):
        names = ("min_val", "max_val", "inplace")
        given = {**dict(zip(names, args[1:], strict=False)), **kwargs}
        if float(given.get("min_val", -1.0)) == 0.0:
            in_place = bool(given.get("inplace", False)) or name == "hardtanh_"
            return 0.0, float(given.get("max_val", 1.0)), in_place
    return None  # clamp is used for much else; a network's ReLU is not spelled so


class Override(TorchFunctionMode):
    """A context in which ReLUs have another gradient; subclasses give the rule.

    Also ReLU6 and ``hardtanh`` from 0, whose upper end is treated alike.
    """

    def rule(self, gradient: Tensor, below: Tensor, above: Tensor) -> Tensor:
        """Return the gradient of the input from that of the output."""
        raise NotImplementedError

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        found = _bounds(function, args, kwargs)
        if found is None:
            return function(*args, **kwargs)
        low, high, in_place = found
        values = args[0] if args else kwargs["input"]
        made = _Clip.apply(values, low, high, self.rule)
        return values.copy_(made) if in_place else made


class guided_relu(Override):  # noqa: N801
    """Guided backpropagation: only positive gradients pass, where the input was positive.

    [Springenberg2015]_
    """

    def rule(self, gradient: Tensor, below: Tensor, above: Tensor) -> Tensor:
        return gradient.clamp_min(0).masked_fill(below | above, 0)


class deconvnet_relu(Override):  # noqa: N801
    """Deconvolution: only positive gradients pass, whatever the input was. [Zeiler2014]_."""

    def rule(self, gradient: Tensor, below: Tensor, above: Tensor) -> Tensor:
        return gradient.clamp_min(0)


class linear_relu(Override):  # noqa: N801
    """ReLUs that let every gradient through, as if they were linear."""

    def rule(self, gradient: Tensor, below: Tensor, above: Tensor) -> Tensor:
        return gradient


class redirected_relu(Override):  # noqa: N801
    """ReLUs that a dead unit can be reached through.

    Where the true gradient of a *sample* is zero throughout a ReLU, that of the closed units
    passes wherever it would open them. Samples with a true gradient keep it, so that no image
    depends on its neighbours. [Olah2017]_, lucid's ``redirected_relu_grad``.

    ``batch`` is the number of samples, where a network merges them with other axes.
    ``take(batch)`` tells for which samples it was used since it was last asked.
    """

    def __init__(self, batch: int | None = None) -> None:
        super().__init__()
        self.batch = batch
        self._acted: Tensor | None = None

    def rule(self, gradient: Tensor, below: Tensor, above: Tensor) -> Tensor:
        true = gradient.masked_fill(below | above, 0)
        if not gradient.ndim:
            return true
        away = (below & (gradient < 0)) | (above & (gradient > 0))
        redirected = gradient.masked_fill(away, 0)
        rows = len(gradient)
        # Tokens and windows of a sample may stand in a row: (B * N, C).
        batch = self.batch if self.batch and rows % self.batch == 0 else rows
        dead = ~true.reshape(batch, -1).any(1) & redirected.reshape(batch, -1).any(1)
        if self._acted is None or len(self._acted) != batch:
            self._acted = torch.zeros_like(dead)
        self._acted |= dead
        each = dead.repeat_interleave(rows // batch)
        return torch.where(each.view(-1, *(1,) * (gradient.ndim - 1)), redirected, true)

    def take(self, batch: int) -> Tensor | None:
        """Return for each sample whether its gradient was redirected, (B,); None if not known."""
        acted, self._acted = self._acted, None
        return acted if acted is not None and len(acted) == batch else None


class smooth_max_pool(TorchFunctionMode):  # noqa: N801
    """Max-pooling in one and two dimensions whose gradient spreads over the window.

    The value is the maximum; the gradient is that of mean(x^2) / (0.01 + mean(|x|)) over the
    window, which avoids the checkerboards of the true one. [Olah2017]_, lucid's
    ``make_smoothed_maxpool_grad``.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        made = function(*args, **kwargs)
        name = getattr(function, "__name__", "").lstrip("_")
        pool = {"max_pool1d": F.avg_pool1d, "max_pool2d": F.avg_pool2d}.get(name)
        if pool is None or not isinstance(made, torch.Tensor):
            return made
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if _numbers(given.get("dilation", 1)) != {1}:
            return made
        stride = given.get("stride")
        window = (
            given["kernel_size"],
            stride if stride not in (None, []) else given["kernel_size"],
            given.get("padding", 0),
            given.get("ceil_mode", False),
        )
        values = given["input"]
        smooth = pool(values.square(), *window) / (_POOL_FLOOR + pool(values.abs(), *window))
        return made.detach() + (smooth - smooth.detach())  # exactly the maximum


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
